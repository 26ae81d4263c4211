"""The node's workers and leases against a plain account of resources and a queue.

Clients ask, cancel, return and die; workers come late, block, die, or cannot be started.  The model
knows who asked for what, and which grants it has seen.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from freehold.core import messages as m
from freehold.core.machine import NEVER, Peer
from freehold.core.node.node import Node
from freehold.core.node.workers import SPAWN_TRIES
from freehold.wire import schema
from freehold.wire.codec import Reader, encode
from stateful import effort

TOTAL = {"CPU": 3.0, "gpu": 1.0}
CLIENTS = (b"client-a", b"client-b", b"client-c")


class Asked:
    """A request, and the lease that came of it."""

    def __init__(self, client: Peer, request: int, cpus: float, gpu: float, actor: bool) -> None:
        self.client, self.request = client, request
        self.cpus, self.gpu, self.actor = cpus, gpu, actor
        self.lease = 0
        self.worker = b""
        self.lent = False
        self.reclaimed = False

    @property
    def key(self) -> tuple[bytes, int]:
        return self.client.id, self.request


class Grants(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.node = Node(b"the-node", cpus=TOTAL["CPU"], arena_bytes=1, resources={"gpu": 1.0},
                         prestart=1, idle_seconds=1.0)  # fmt: skip
        self.clients = [self.connect(Peer(id, "", "driver")) for id in CLIENTS]
        self.workers: dict[int, Peer] = {}  # connected, by slot
        self.starting: list[int] = []
        self.dying: list[int] = []  # signalled
        self.asked_to_end: list[int] = []
        self.waiting: list[Asked] = []  # in the order of asking
        self.granted: dict[int, Asked] = {}
        self.requests = 0
        self.failures = 0  # spawns in a row

    def connect(self, peer: Peer, **info: Any) -> Peer:
        self.node.peers[peer.id] = peer
        self.node.on_up(peer, self.now, info)
        return peer

    @initialize()
    def begin(self) -> None:
        self.node.start(0.0)
        self.hear()

    # -- frames -----------------------------------------------------------------------------------
    def say(self, peer: Peer, *frame: Any) -> None:
        (message,) = Reader().feed(memoryview(encode([frame])))
        schema.check(message)
        self.node.now = self.now
        self.node.handlers[message[0]](peer, self.now, *message[1:])
        self.hear()

    def hear(self) -> None:
        """Check what the node says, in the order in which it says it to each."""
        self.node.settle(self.now)
        dirty, self.node.dirty = self.node.dirty, []
        heard = []
        for peer in dirty:
            box, peer.outbox = peer.outbox, []
            heard += [(peer, frame) for frame in Reader().feed(memoryview(encode(box)))]
        grants = sorted((f for f in heard if f[1][0] == m.GRANT), key=lambda f: f[1][2])
        for peer, (op, *fields) in grants + [f for f in heard if f[1][0] != m.GRANT]:
            schema.check([op, *fields])
            self.heard(peer, op, fields)

    def heard(self, peer: Peer, op: int, fields: list[Any]) -> None:
        if op == m.GRANT:
            self.on_grant(peer, *fields)
        elif op == m.DENIED:
            asked = next(each for each in self.waiting if each.key == (peer.id, fields[0]))
            hopeless = asked.cpus > TOTAL["CPU"] or asked.gpu > TOTAL["gpu"]
            assert hopeless or self.failures >= SPAWN_TRIES, "denied what could be granted"
            self.waiting.remove(asked)
        elif op == m.DELAYED:
            assert any(each.key == (peer.id, fields[0]) for each in self.waiting)
        elif op == m.RECLAIM:
            lease = self.granted[fields[0]]
            assert lease.client is peer
            assert not lease.reclaimed, "reclaimed twice"
            assert not lease.actor
            assert self.waiting
            lease.reclaimed = True
        elif op == m.SPAWN:
            self.starting.append(fields[0])
        elif op == m.SIGNAL:
            self.dying.append(fields[0])
        elif op == m.EXIT:
            slot = next(slot for slot, worker in self.workers.items() if worker is peer)
            self.asked_to_end.append(slot)
        else:
            assert op == m.PROC_DOWN, m.NAMES[op]

    def on_grant(self, peer: Peer, request: int, lease: int, proc: bytes, address: str) -> None:
        asked = next(each for each in self.waiting if each.key == (peer.id, request))
        assert asked in self.ready(), "it overtook one that waits for what both need"
        self.waiting.remove(asked)
        assert proc not in [other.worker for other in self.granted.values()], "leased twice"
        assert proc in [worker.id for worker in self.workers.values()], "no such worker lives"
        asked.lease, asked.worker = lease, proc
        self.granted[lease] = asked
        assert self.free("CPU") >= -1e-9 or not asked.cpus
        assert self.free("gpu") >= 0

    def leases_like(self, asked: Asked) -> int:
        """How many leases of that shape its client uses; an actor's count as none."""
        if asked.actor:
            return 0
        return sum(
            (each.client, each.cpus, each.gpu, each.actor)
            == (asked.client, asked.cpus, asked.gpu, False)
            for each in self.granted.values()
            if not each.lent
        )

    def free(self, name: str) -> float:
        used = sum(
            (0.0 if lease.lent else lease.cpus) if name == "CPU" else lease.gpu
            for lease in self.granted.values()
        )
        return TOTAL[name] - used

    # -- clients ----------------------------------------------------------------------------------
    @rule(
        who=st.sampled_from(range(len(CLIENTS))),
        cpus=st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, 3.0, 4.0]),
        gpu=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0]),
        actor=st.booleans(),
    )
    def ask(self, who: int, cpus: float, gpu: float, actor: bool) -> None:
        self.requests += 1
        asked = Asked(self.clients[who], self.requests, cpus, gpu, actor)
        self.waiting.append(asked)
        resources = {"gpu": gpu} if gpu else {}
        kind = b"an actor" if actor else b""
        self.say(asked.client, m.LEASE, self.requests, cpus, kind, resources, [], 0, [])
        hopeless = cpus > TOTAL["CPU"] or gpu > TOTAL["gpu"]
        assert not (hopeless and asked in self.waiting), "what can never be had is not denied"

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        asked = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(asked)
        self.say(asked.client, m.LEASE_CANCEL, asked.request)

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), reuse=st.booleans())
    def give_back(self, data: st.DataObject, reuse: bool) -> None:
        self.end_lease(data.draw(st.sampled_from(sorted(self.granted))), reuse)

    def end_lease(self, number: int, reuse: bool) -> None:
        lease = self.granted.pop(number)
        self.say(lease.client, m.LEASE_RETURN, number, reuse)
        if lease.actor or not reuse:
            slots = [slot for slot, peer in self.workers.items() if peer.id == lease.worker]
            assert set(slots) <= {*self.asked_to_end, *self.dying}, "its worker lives on"

    @rule(who=st.sampled_from(range(len(CLIENTS))))
    def client_dies(self, who: int) -> None:
        """Its workers are killed; another client takes its place, under another name."""
        old = self.clients[who]
        mine = [number for number, lease in self.granted.items() if lease.client is old]
        killed = {self.granted.pop(number).worker for number in mine}
        self.waiting = [asked for asked in self.waiting if asked.client is not old]
        self.node.on_down(old, self.now)
        self.hear()
        slots = {slot for slot, peer in self.workers.items() if peer.id in killed}
        assert slots <= {*self.dying, *self.asked_to_end}
        self.requests += 1
        new = Peer(b"%08d" % self.requests, "", "driver")
        self.clients[who] = self.connect(new)

    # -- workers ----------------------------------------------------------------------------------
    @precondition(lambda self: self.starting)
    @rule()
    def worker_comes(self) -> None:
        slot = self.starting.pop(0)
        self.failures = 0
        self.say(self.node.spawner, m.SPAWNED, slot, slot + 100)
        peer = Peer(b"worker%02d" % (slot % 100), f"w{slot}", "worker")
        self.workers[slot] = peer
        self.connect(peer, slot=slot)
        self.hear()

    @precondition(lambda self: self.starting)
    @rule()
    def spawn_fails(self) -> None:
        self.failures += 1
        self.say(self.node.spawner, m.SPAWN_FAILED, self.starting.pop(0), "no more processes")
        if self.failures >= SPAWN_TRIES:
            assert not self.waiting, "nobody is told that no worker can be started"
            self.failures = 0

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def block_or_run_on(self, data: st.DataObject) -> None:
        lease = self.granted[data.draw(st.sampled_from(sorted(self.granted)))]
        lease.lent = not lease.lent
        peer = next(peer for peer in self.workers.values() if peer.id == lease.worker)
        self.say(peer, m.BLOCKED, lease.lent)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        self.exit(data.draw(st.sampled_from(sorted(self.workers))), -11)

    def exit(self, slot: int, code: int) -> None:
        peer = self.workers.pop(slot)
        self.dying = [each for each in self.dying if each != slot]
        self.asked_to_end = [each for each in self.asked_to_end if each != slot]
        self.granted = {n: each for n, each in self.granted.items() if each.worker != peer.id}
        self.node.on_down(peer, self.now)
        self.say(self.node.spawner, m.EXITED, slot, code, "", b"")

    @precondition(lambda self: self.asked_to_end)
    @rule()
    def worker_ends(self) -> None:
        self.exit(self.asked_to_end[0], 0)

    @precondition(lambda self: self.dying)
    @rule()
    def signal_lands(self) -> None:
        slot = self.dying.pop(0)
        if slot in self.workers:
            self.exit(slot, -9)

    @rule(seconds=st.sampled_from([0.02, 0.3, 1.1]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        if self.node.deadline() <= self.now:
            self.node.on_timer(self.now)
        self.hear()

    # -- what must hold ---------------------------------------------------------------------------
    @invariant()
    def resources_add_up(self) -> None:
        self.node.check()
        for name in TOTAL:
            assert abs(self.node.workers.free[name] - self.free(name)) < 1e-9
        assert set(self.node.workers.leases) == set(self.granted)
        assert [(g.holder.id, g.request) for g in self.node.workers.queue] == [
            asked.key for asked in self.waiting
        ]

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        if self.idle():
            assert not self.ready(), "it fits, a worker is idle, and it was not granted"

    def ready(self) -> list[Asked]:
        """Those of which there is enough, and who need nothing that one before them lacks.

        Whoever has fewer leases of that shape comes first.
        """
        lacking: set[str] = set()
        found = []
        for asked in sorted(self.waiting, key=self.leases_like):
            needs = {"CPU": asked.cpus, "gpu": asked.gpu}
            lacks = {name for name, amount in needs.items() if amount > self.free(name) + 1e-9}
            lacks = {name for name in lacks if needs[name]}
            lacking |= lacks
            if not lacks and not any(needs[name] for name in lacking):
                found.append(asked)
        return found

    def idle(self) -> list[int]:
        busy = {lease.worker for lease in self.granted.values()}
        ending = {*self.dying, *self.asked_to_end}
        return [s for s, peer in self.workers.items() if peer.id not in busy and s not in ending]

    def teardown(self) -> None:
        """Everybody who holds a lease returns it, and workers start: every request is granted."""
        for _ in range(300):
            for number in list(self.granted):
                if number in self.granted:
                    self.end_lease(number, True)
            while self.starting:
                self.worker_comes()
            while self.asked_to_end or self.dying:
                self.exit((self.asked_to_end + self.dying)[0], 0)
            if not self.waiting and not self.granted:
                break
            if self.node.deadline() < NEVER:
                self.tick(max(self.node.deadline() - self.now, 0.01))
        assert not self.waiting, "somebody waits for ever"
        assert self.node.workers.free == TOTAL


TestGrants = Grants.TestCase
TestGrants.settings = effort(200, 40)
