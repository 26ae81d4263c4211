"""A head, its store and prober, and nodes: the real machines, joined by wires that carry bytes.

Frames on one wire arrive in order; nothing arrives until ``deliver``.  The store keeps what it is
given in a dict and answers at once, unless ``disk`` is False: then STORED waits for ``flush``.  The
prober looks whether the node runs and can be reached; ``tick`` lets time pass in small steps.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from freehold.core import messages as m
from freehold.core.head.head import Head
from freehold.core.head.placing import taking
from freehold.core.machine import Machine, Peer
from freehold.core.node.members import Members
from freehold.wire import schema
from freehold.wire.codec import Reader, encode

STEP = 0.05


class Store:
    """What a control store does, in memory."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[bytes, int]] = {}
        self.revision = 0
        self.writes = 0

    def listed(self) -> list[tuple[bytes, bytes, int]]:
        return [(key, value, rev) for key, (value, rev) in sorted(self.entries.items())]

    def txn(self, checks: list[Any], entries: list[Any]) -> int:
        if any(self.entries.get(key, (b"", 0))[1] != at for key, at in checks):
            return 0
        self.revision += 1
        self.writes += 1
        for key, value in entries:
            if value:
                self.entries[key] = value, self.revision
            else:
                self.entries.pop(key, None)
        return self.revision


class Daemon(Machine):
    """A node's machine, as far as the membership goes: members, and bundles that are set aside."""

    def __init__(self, name: str, total: dict[str, float], labels: dict[str, str]) -> None:
        super().__init__(identity(name), m.OPCODES)
        self.name = name
        self.log: list[tuple[Any, ...]] = []
        self.members = Members(
            self,
            address=name,
            total=total,
            labels=labels,
            on_node_down=[lambda id, why, now: self.log.append(("down", text(id), why))],
            on_joined=[lambda now: self.log.append(("joined",))],
            on_refused=[lambda why, now: self.log.append(("refused", why))],
            on_retire=[lambda now: self.log.append(("retire",))],
        )
        self.free = dict(total)
        self.waiting = 0
        self.bundles: dict[tuple[bytes, int], str] = {}
        self.sizes: dict[tuple[bytes, int], dict[str, float]] = {}
        self.stubborn = False  # refuse to set anything aside
        self.on({m.BUNDLE: self.on_bundle})

    def on_bundle(
        self, peer: Peer, now: float, group: bytes, index: int, step: str, wanted: dict[str, float]
    ) -> None:
        key = group, index
        done = True
        if step == "prepare" and key not in self.bundles:
            left = taking(self.free, wanted)
            done = min(left.values()) >= 0 and not self.stubborn
            if done:
                self.free, self.bundles[key], self.sizes[key] = left, "prepared", wanted
        elif step == "commit":
            done = key in self.bundles
            if done:
                self.bundles[key] = "committed"
        elif step == "drop" and key in self.bundles:
            del self.bundles[key]
            back = {name: -amount for name, amount in self.sizes.pop(key).items()}
            self.free = taking(self.free, back)
        self.send(peer, m.BUNDLED, group, index, step, done)

    @property
    def info(self) -> dict[str, Any]:
        return {**self.members.info, "bundles": [list(key) for key in self.bundles]}

    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        if peer.kind == "head":
            self.members.on_head_up(peer, now, info)

    def on_down(self, peer: Peer, now: float) -> None:
        peer.down = True
        self.peers.pop(peer.id, None)
        self.members.on_head_down(peer, now)

    def settle(self, now: float) -> None:
        self.members.report(self.free, self.waiting, now)

    def deadline(self) -> float:
        return self.members.deadline()

    def on_timer(self, now: float) -> None:
        self.members.on_timer(now)

    def check(self) -> None:
        self.members.check()


class Cluster:
    """The bench."""

    def __init__(self, **limits: Any) -> None:
        self.now = 0.0
        self.limits = limits
        self.store = Store()
        self.disk = True
        self.wires: dict[tuple[str, str], deque[bytes]] = {}
        self.machines: dict[str, Any] = {}
        self.paused: set[str] = set()
        self.silent: set[str] = set()  # addresses that nobody can dial now
        self.gaps: set[frozenset[str]] = set()  # pairs of nodes that cannot dial each other
        self.lines: list[str] = []
        self.answers: dict[tuple[str, int], list[tuple[list[str], dict[str, Any]]]] = {}
        self.heads = 0
        self.start_head()

    # -- processes --------------------------------------------------------------------------------
    @property
    def head(self) -> Head:
        head = self.machines["head"]
        assert isinstance(head, Head)
        return head

    def start_head(self) -> Head:
        """A head on the store as it is."""
        self.heads += 1
        head = Head(
            identity(f"head{self.heads}"), entries=self.store.listed(), cluster="c", **self.limits
        )
        self.machines["head"] = head
        head.start(self.now)
        self.flow()
        return head

    def stop_head(self) -> None:
        """The head's process is gone."""
        for name in list(self.machines):
            if name != "head":
                self.cut(name)
        del self.machines["head"]
        self.wires = {ends: box for ends, box in self.wires.items() if "head" not in ends}

    def add(
        self, name: str, cpus: float = 4.0, labels: dict[str, str] | None = None, **more: float
    ) -> Daemon:
        """A node that says hello to the head."""
        daemon = self.machines[name] = Daemon(name, {"CPU": cpus, **more}, labels or {})
        self.connect(name)
        return daemon

    def join(self, *names: str, cpus: float = 4.0) -> list[Daemon]:
        """Nodes that are members."""
        made = [self.add(name, cpus) for name in names]
        self.deliver()
        return made

    def connect(self, name: str) -> None:
        """The node and the head have said hello to each other."""
        daemon, head = self.machines[name], self.head
        at_head, at_node = head.peer(daemon.id, name), daemon.peer(head.id, "head")
        at_head.kind, at_node.kind = "node", "head"
        daemon.on_up(at_node, self.now, head.info)
        head.on_up(at_head, self.now, daemon.info)
        self.flow()

    def cut(self, name: str) -> None:
        """The connection between the node and the head closes."""
        self.wires.pop((name, "head"), None)
        self.wires.pop(("head", name), None)
        for here, there in ((name, "head"), ("head", name)):
            if here in self.machines and there in self.machines:
                machine = self.machines[here]
                peer = machine.peers.get(self.machines[there].id)
                if peer is not None:
                    machine.on_down(peer, self.now)
        self.flow()

    def kill(self, name: str) -> None:
        """The node's process is gone, and its host closes the connections."""
        daemon = self.machines.pop(name)
        self.wires.pop((name, "head"), None)
        peer = self.head.peers.get(daemon.id)
        if peer is not None:
            self.head.on_down(peer, self.now)
        self.flow()

    def part(self, one: str, other: str) -> None:
        """The two cannot reach each other any more; whoever has a link to the other notices."""
        self.gaps.add(frozenset((one, other)))
        for here, there in ((one, other), (other, one)):
            self.machines[here].members.suspects.add(identity(there), self.now)
        self.flow()

    def dialler(self, name: str) -> Peer:
        """The head, as that process knows it."""
        machine = self.machines[name]
        peer: Peer = machine.peer(self.head.id, "head")
        return peer

    # -- questions --------------------------------------------------------------------------------
    def ask(self, where: str, request: int, verb: str, /, **fields: Any) -> None:
        """A process of the node has a question; the answer goes to ``answers``."""
        daemon = self.machines[where]
        process = Peer(b"p" * 8, "", "process")
        process.port = where
        daemon.handlers[m.DIRECTORY](process, self.now, request, verb, fields)
        self.flow()

    def answer(self, node: str, request: int) -> tuple[list[str], dict[str, Any]]:
        """The one answer to a question."""
        (answer,) = self.answers[node, request]
        return answer

    def says(
        self, verb: str, where: str = "a", /, **fields: Any
    ) -> tuple[list[str], dict[str, Any]]:
        """Ask and have the answer at once."""
        number = len(self.answers) + 1000
        self.ask(where, number, verb, **fields)
        self.deliver()
        return self.answer(where, number)

    # -- frames -----------------------------------------------------------------------------------
    def flow(self) -> None:
        """What the machines have written goes on its wires."""
        for name, machine in list(self.machines.items()):
            machine.settle(self.now)
            while machine.dirty:
                dirty, machine.dirty = machine.dirty, []
                for peer in dirty:
                    frames, peer.outbox = peer.outbox, []
                    self._post(name, peer, frames)

    def _post(self, name: str, peer: Peer, frames: list[Any]) -> None:
        if peer.kind == "process":
            for _, request, error, fields in frames:
                self.answers.setdefault((peer.port, request), []).append((error, fields))
        elif peer.kind in ("store", "prober"):
            self.wires.setdefault((name, peer.kind), deque()).append(bytes(encode(frames)))
        else:
            target = next((n for n, other in self.machines.items() if other.id == peer.id), None)
            if target is not None:
                self.wires.setdefault((name, target), deque()).append(bytes(encode(frames)))

    def deliver(self) -> None:
        """Everything arrives, and what it causes."""
        while busy := [ends for ends, box in self.wires.items() if box and self._open(ends)]:
            for ends in busy:
                if self.wires.get(ends):
                    self.step(*ends)

    def _open(self, ends: tuple[str, str]) -> bool:
        return (self.disk or ends[1] != "store") and not self.paused & set(ends)

    def flush(self) -> None:
        """The disk has written what it was given so far."""
        self.disk = True
        self.deliver()

    def step(self, source: str, target: str) -> None:
        """Deliver one frame, of perhaps several messages."""
        for message in Reader().feed(memoryview(self.wires[source, target].popleft())):
            schema.check(message)
            op, *fields = message
            self.lines.append(f"{source} > {target}: {m.NAMES[op]}")
            if target == "store":
                number, checks, entries = fields
                revision = self.store.txn(checks, entries)
                self._call(source, self.machines[source].store, (m.STORED, number, revision))
            elif target == "prober":
                self._probe(source, *fields)
            elif target in self.machines:
                machine = self.machines[target]
                machine.handlers[op](machine.peer(self.machines[source].id), self.now, *fields)
        self.flow()

    def _call(self, name: str, peer: Peer, frame: tuple[Any, ...]) -> None:
        schema.check(list(frame))
        op, *fields = frame
        self.machines[name].handlers[op](peer, self.now, *fields)

    def _probe(self, name: str, node: bytes, address: str) -> None:
        there = self.machines.get(address)
        if address in self.silent | self.paused or frozenset((name, address)) in self.gaps:
            answer = "silent"
        else:
            answer = "alive" if there is not None and there.id == node else "refused"
        machine = self.machines[name]
        prober = machine.prober if name == "head" else machine.members.suspects.prober
        self._call(name, prober, (m.PROBED, node, answer))

    def seen(self, name: str) -> list[str]:
        """The noted messages of this name."""
        return [line for line in self.lines if line.split(": ")[1] == name]

    # -- time -------------------------------------------------------------------------------------
    def tick(self, seconds: float) -> None:
        """Let time pass; what is due happens, and everything arrives."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(end, self.now + STEP)
            for name, machine in list(self.machines.items()):
                if name not in self.paused and machine.deadline() <= self.now:
                    machine.on_timer(self.now)
            self.flow()
            self.deliver()
            for name, machine in self.machines.items():
                machine.check()
                late = machine.deadline() <= self.now - STEP and name not in self.paused
                assert not late, f"{name} wants to be called for ever"

    def views(self) -> list[list[str]]:
        """Whom each node believes to be a member."""
        return [
            sorted(text(id) for id in machine.members.view)
            for name, machine in self.machines.items()
            if name != "head"
        ]


def identity(name: str) -> bytes:
    """A process id that shows its name."""
    return name.encode().ljust(8, b".")


def text(id: bytes) -> str:
    """The name that is in it."""
    return id.rstrip(b".").decode()


def joined(*names: str, cpus: float = 4.0, **limits: float) -> Cluster:
    """Nodes that are members of one cluster."""
    cluster = Cluster(**limits)
    cluster.join(*names, cpus=cpus)
    return cluster


def node(cluster: Cluster, name: str) -> Daemon:
    """The node of that name."""
    daemon = cluster.machines[name]
    assert isinstance(daemon, Daemon)
    return daemon


# -- what tests of deaths ask ----------------------------------------------------------------------
def quiet(*names: str) -> Cluster:
    """Members that have said all there is to say."""
    cluster = joined(*names)
    cluster.tick(1.0)
    return cluster


def drive(cluster: Cluster, node: str) -> None:
    """A program runs there."""
    assert cluster.says("job", node, job=identity("j" + node), info={}, alive=True) == ([], {})


def alive(cluster: Cluster) -> list[str]:
    """The members by the head's word."""
    return sorted(
        name for name, machine in cluster.machines.items() if machine.id in cluster.head.nodes
    )


def until_dead(cluster: Cluster) -> float:
    """Let time pass until somebody is declared dead; how long it took."""
    start, before = cluster.now, len(cluster.head.roll.dead)
    while len(cluster.head.roll.dead) == before:
        assert cluster.now < start + 10.0, "nobody goes"
        cluster.tick(0.05)
    return cluster.now - start


def reason(cluster: Cluster, name: str) -> str:
    return cluster.head.roll.dead[identity(name)]
