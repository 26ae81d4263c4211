"""The node's leases against a model of resources, and by example."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from freehold.core import messages as m
from freehold.core.machine import NEVER, Peer
from freehold.core.node import Node
from freehold.core.workers import END_GRACE, SPAWN_TRIES, SUSPECT_GRACE

CPUS = 3.0


class Lent:
    """A lease as its holder sees it."""

    def __init__(self, number: int, proc: bytes, cpus: float, actor: bool) -> None:
        self.number = number
        self.proc = proc
        self.cpus = cpus
        self.actor = actor
        self.blocked = False


class LeaseModel(RuleBasedStateMachine):
    """Two holders lease, return, lose and block workers; spawns take their time and fail.

    The model knows what every holder was granted and which worker waits; what is granted and not
    waiting must fit into the node, unless a worker that had lent its CPUs took them back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.node = Node(b"node....", cpus=CPUS, arena_bytes=1 << 20, prestart=1, idle_seconds=1.0)
        self.holders = [self.connect(b"holder%d." % number, "driver", 0) for number in (0, 1)]
        self.wanted: dict[tuple[int, int], tuple[float, bool]] = {}
        self.lent: list[tuple[int, Lent]] = []
        self.starting: list[int] = []
        self.living: dict[bytes, int] = {}  # worker -> slot
        self.ending: list[bytes] = []
        self.requests = 0
        self.over = 0.0  # CPUs that returning workers have taken beyond the node's
        self.node.start(0.0)
        self.read()

    def connect(self, id: bytes, kind: str, slot: int) -> Peer:
        peer = self.node.peer(id, id.decode())
        peer.kind = kind
        self.node.on_up(peer, self.now, {"slot": slot})
        return peer

    def frames(self, peer: Peer) -> list[Any]:
        frames, peer.outbox = peer.outbox, []
        return frames

    def read(self) -> None:
        """Everybody reads what the node has written."""
        self.node.dirty.clear()
        for op, *fields in self.frames(self.node.spawner):
            if op == m.SPAWN:
                self.starting.append(fields[0])
            elif op == m.SIGNAL:
                self.ending += [proc for proc, slot in self.living.items() if slot == fields[0]]
        for index, holder in enumerate(self.holders):
            for op, *fields in self.frames(holder):
                if op == m.GRANT:
                    request, number, proc, _ = fields
                    cpus, actor = self.wanted.pop((index, request))
                    assert proc in self.living, "a dead worker was granted"
                    assert all(lease.proc != proc for _, lease in self.lent), "granted twice"
                    self.lent.append((index, Lent(number, proc, cpus, actor)))
                elif op == m.DENIED:
                    del self.wanted[index, fields[0]]
        for proc in self.living:
            for op, *_ in self.frames(self.node.peers[proc]):
                if op == m.EXIT:
                    self.ending.append(proc)

    def used(self) -> float:
        return sum(lease.cpus for _, lease in self.lent if not lease.blocked)

    @rule(who=st.integers(0, 1), cpus=st.sampled_from([0.0, 0.5, 1.0, 3.0]), actor=st.booleans())
    def lease(self, who: int, cpus: float, actor: bool) -> None:
        self.requests += 1
        self.wanted[who, self.requests] = (cpus, actor)
        self.node.workers.on_lease(self.holders[who], self.now, self.requests, cpus, actor, {})
        self.read()

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        who, request = data.draw(st.sampled_from(sorted(self.wanted)))
        del self.wanted[who, request]
        self.node.workers.on_cancel(self.holders[who], self.now, request)
        self.read()

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), reuse=st.booleans())
    def give_back(self, data: st.DataObject, reuse: bool) -> None:
        index = data.draw(st.integers(0, len(self.lent) - 1))
        who, lease = self.lent.pop(index)
        self.node.workers.on_return(self.holders[who], self.now, lease.number, reuse)
        self.read()

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def block(self, data: st.DataObject) -> None:
        _, lease = self.lent[data.draw(st.integers(0, len(self.lent) - 1))]
        lease.blocked = not lease.blocked
        self.node.workers.on_blocked(self.node.peers[lease.proc], self.now, lease.blocked)
        if not lease.blocked:
            self.over = max(self.over, self.used() - CPUS)
        self.read()

    @precondition(lambda self: self.starting)
    @rule(fails=st.booleans())
    def spawned(self, fails: bool) -> None:
        slot = self.starting.pop(0)
        if fails:
            self.node.workers.on_spawn_failed(self.node.spawner, self.now, slot, "no")
        else:
            self.node.workers.on_spawned(self.node.spawner, self.now, slot, 100 + slot)
            proc = b"w%07d" % slot
            self.living[proc] = slot
            self.connect(proc, "worker", slot)
        self.read()

    @precondition(lambda self: self.living)
    @rule(data=st.data(), told=st.booleans())
    def dies(self, data: st.DataObject, told: bool) -> None:
        procs = [proc for proc in self.ending if proc in self.living] if told else []
        proc = data.draw(st.sampled_from(procs or sorted(self.living)))
        slot = self.living.pop(proc)
        self.lent = [(who, lease) for who, lease in self.lent if lease.proc != proc]
        peer = self.node.peers[proc]
        self.node.on_exited(self.node.spawner, self.now, slot, -9, "", b"")
        self.node.on_down(peer, self.now)
        self.read()

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.node.deadline() <= self.now:
            self.node.on_timer(self.now)
        self.read()

    @invariant()
    def adds_up(self) -> None:
        self.node.check()
        assert abs(self.node.workers.free["CPU"] - (CPUS - self.used())) < 1e-6
        assert self.used() <= CPUS + max(self.over, 0.0) + 1e-6
        if self.used() <= CPUS:
            self.over = 0.0

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        workers = self.node.workers
        idle = any(worker.phase == 1 for worker in workers.workers.values())
        first = workers.queue[0] if workers.queue else None
        if first is not None and first.cpus <= workers.free["CPU"]:
            assert not idle, "a worker idles while a request could have it"

    def teardown(self) -> None:
        """No fault any more: every request is granted as soon as all leases are returned."""
        for _ in range(200):
            if not self.wanted and not self.lent:
                return
            while self.lent:
                who, lease = self.lent.pop()
                self.node.workers.on_return(self.holders[who], self.now, lease.number, True)
                self.read()
            while self.starting:
                self.start_one()
            for proc in [proc for proc in dict.fromkeys(self.ending) if proc in self.living]:
                slot = self.living.pop(proc)
                peer = self.node.peers[proc]
                self.node.on_exited(self.node.spawner, self.now, slot, 0, "", b"")
                self.node.on_down(peer, self.now)
                self.read()
            self.now += 1.0
            self.node.on_timer(self.now)
            self.read()
        raise AssertionError(f"requests wait for ever: {self.wanted}")

    def start_one(self) -> None:
        slot = self.starting.pop(0)
        self.node.workers.on_spawned(self.node.spawner, self.now, slot, 100 + slot)
        proc = b"w%07d" % slot
        self.living[proc] = slot
        self.connect(proc, "worker", slot)
        self.read()


TestLeases = LeaseModel.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- by example -----------------------------------------------------------------------------------


def node_with(cpus: float = 1.0, workers: int = 1, **limits: Any) -> tuple[Node, Peer, list[Peer]]:
    """A node with a driver and that many workers."""
    limits = {"prestart": workers, "idle_seconds": 1.0, **limits}
    node = Node(b"node....", cpus=cpus, arena_bytes=1 << 20, **limits)
    node.start(0.0)
    peers = []
    driver = node.peer(b"driver..", "d")
    driver.kind = "driver"
    for slot in range(1, workers + 1):
        peer = node.peer(b"worker%02d" % slot, f"w{slot}")
        peer.kind = "worker"
        node.on_up(peer, 0.0, {"slot": slot})
        peers.append(peer)
    return node, driver, peers


def opcodes(peer: Peer) -> list[int]:
    found = [frame[0] for frame in peer.outbox]
    peer.outbox.clear()
    return found


def test_more_than_the_node_has_is_denied_at_once() -> None:
    node, driver, _ = node_with()
    node.workers.on_lease(driver, 0.0, 1, 5.0, False, {"gpu": 1.0})
    ((op, request, reason),) = driver.outbox
    assert (op, request) == (m.DENIED, 1)
    assert "5 CPU (the node has 1) and 1 gpu (the node has 0)" in reason


def test_a_large_request_is_not_starved() -> None:
    node, driver, _ = node_with(cpus=2.0, workers=4)
    node.workers.on_lease(driver, 0.0, 1, 1.0, False, {})
    node.workers.on_lease(driver, 0.0, 2, 2.0, False, {})
    node.workers.on_lease(driver, 0.0, 3, 1.0, False, {})
    node.workers.on_lease(driver, 0.0, 4, 0.0, False, {})
    granted = [frame[1] for frame in driver.outbox if frame[0] == m.GRANT]
    assert granted == [1, 4], "the third waits behind the second; the fourth needs no CPU"


def test_spawns_that_fail_are_tried_again_then_denied() -> None:
    node, driver, _ = node_with(workers=0)
    node.workers.on_lease(driver, 0.0, 1, 1.0, False, {})
    now = 0.0
    for _ in range(SPAWN_TRIES):
        ((op, slot),) = node.spawner.outbox
        assert op == m.SPAWN
        node.spawner.outbox.clear()
        node.workers.on_spawn_failed(node.spawner, now, slot, "no memory")
        now = node.deadline()
        if now == NEVER:
            break
        node.on_timer(now)
    assert m.DENIED in opcodes(driver)


def test_a_broken_connection_is_forgiven_if_the_exit_is_reported() -> None:
    node, driver, (worker,) = node_with()
    node.on_down(worker, 0.0)
    assert node.deadline() == pytest.approx(SUSPECT_GRACE)
    node.on_exited(node.spawner, 0.01, 1, 3, "its last words", b"")
    (frame,) = [frame for frame in driver.outbox if frame[0] == m.PROC_DOWN]
    assert "exited with code 3" in frame[2]
    assert "its last words" in frame[2]
    assert m.SIGNAL not in opcodes(node.spawner)


def test_a_suspect_that_does_not_exit_is_killed() -> None:
    node, driver, (worker,) = node_with()
    node.on_kill(driver, 0.0, worker.id, "its connection was lost", True)
    node.on_timer(SUSPECT_GRACE)
    assert m.SIGNAL in opcodes(node.spawner)


def test_what_a_worker_sent_before_its_exit_is_heard_first() -> None:
    """EXITED and the worker's own frames come by different sockets, in any order."""
    node, driver, (worker,) = node_with()
    node.on_exited(node.spawner, 0.0, 1, -9, "", b"")
    assert m.PROC_DOWN not in opcodes(driver)
    node.store.on_extent(worker, 0.0, 1, 1000)
    node.store.on_seal(worker, 0.0, b"x" * 16, driver.id, 0, 1000)
    node.on_down(worker, 0.0)
    assert m.PROC_DOWN in opcodes(driver)
    node.check()
    assert len(node.store.objects) == 1
    node.store.on_free(driver, 0.0, [[b"x" * 16, worker.id]])
    assert node.store.extents.granted == 0


def test_an_exit_whose_connection_stays_open_is_believed_after_a_moment() -> None:
    node, driver, _ = node_with()
    node.on_exited(node.spawner, 0.0, 1, -9, "", b"")
    node.on_timer(SUSPECT_GRACE)
    assert m.PROC_DOWN in opcodes(driver)


def test_an_idle_worker_may_stay_and_remains_suspect() -> None:
    node, driver, (worker,) = node_with()
    node.workers.prestart = 0
    node.on_timer(1.0)
    assert m.EXIT in opcodes(worker)
    node.on_kill(driver, 1.0, worker.id, "its connection was lost", True)
    node.workers.on_stay(worker, 1.01)
    assert node.workers.workers[1].why == ""
    node.on_timer(1.0 + SUSPECT_GRACE)
    assert m.SIGNAL in opcodes(node.spawner)


def test_a_worker_that_does_not_exit_when_told_is_killed() -> None:
    node, driver, (worker,) = node_with()
    node.workers.on_lease(driver, 0.0, 1, 1.0, True, {})
    node.workers.on_return(driver, 0.0, 1, False)
    assert opcodes(worker) == [m.EXIT]
    node.on_timer(END_GRACE)
    assert m.SIGNAL in opcodes(node.spawner)


def test_the_leases_of_a_dead_holder_end_with_their_workers() -> None:
    node, _, workers = node_with(cpus=2.0, workers=2)
    node.workers.on_lease(workers[0], 0.0, 1, 1.0, False, {})
    assert opcodes(workers[0]) == [m.GRANT]
    slot = next(s for s, w in node.workers.workers.items() if w.peer is workers[0])
    node.on_exited(node.spawner, 0.0, slot, -9, "", b"")
    node.on_down(workers[0], 0.0)
    assert m.SIGNAL in opcodes(node.spawner)
    node.check()


def test_a_late_hello_of_a_dead_worker_is_ignored() -> None:
    node, _, _ = node_with()
    peer = node.peer(b"late....", "late")
    peer.kind = "worker"
    node.on_up(peer, 0.0, {"slot": 77})
    assert peer not in node.processes()
    assert peer.down


def test_the_node_is_finished_when_its_driver_is_gone() -> None:
    node, driver, _ = node_with()
    node.on_up(driver, 0.0, {})
    node.on_down(driver, 0.0)
    assert node.finished


def test_status_waits_for_answers_but_not_for_ever() -> None:
    node, driver, (worker,) = node_with()
    node.handlers[m.STATUS](driver, 0.0, 7)
    assert m.STATUS in opcodes(worker)
    assert m.STATUS_REPLY not in opcodes(driver)
    node.handlers[m.STATUS_REPLY](driver, 0.0, 0, {"owned": 3})
    assert not driver.outbox
    node.on_timer(node.deadline())
    ((op, request, status),) = driver.outbox
    assert (op, request) == (m.STATUS_REPLY, 7)
    assert status["references"] == 3
