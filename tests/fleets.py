"""The bench of ``wires`` with several nodes: their processes, their near peers, and no real head.

The head's part is played by the test: ``join`` and ``lose`` say who is a member, ``gossip`` passes
on what the nodes have reported.  Near peers are named after their node (``mover@n1``).  A mover
asks the source's machine and then has all bytes at once; how they move is for other tests.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from freehold.core import messages as m
from freehold.core.address import make
from freehold.core.ids import ref_id
from freehold.core.machine import Machine, Peer
from freehold.core.node.node import Node
from freehold.core.process.leases import Limits
from freehold.core.process.process import Process
from freehold.core.process.rows import Row, Spec
from freehold.sim.bench import Desk, function
from freehold.wire.codec import encode
from wires import Wires

HEAD = b"head...."


class Fleet(Wires):
    """Nodes that are members of one cluster; processes are added by name."""

    def __init__(
        self,
        *nodes: str,
        cpus: float = 1.0,
        arena_bytes: int = 1 << 26,
        limits: Limits | None = None,
    ) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.names = {HEAD: "head"}
        self.limits = limits or Limits()
        self.nested: dict[bytes, list[tuple[bytes, bytes, str]]] = {}
        self.desks: dict[str, Desk] = {}
        self.wires: dict[tuple[str, str], deque[bytes | None]] = {}
        self.slot_of: dict[str, int] = {}
        self.cold: set[tuple[str, str]] = set()
        self.homes: dict[str, str] = {}  # process -> its node
        self.met: set[tuple[str, str]] = set()
        self.reports: dict[str, tuple[dict[str, float], int]] = {}
        self.transfers: dict[int, tuple[str, int, int, int]] = {}  # reader, its number, size, have
        self.arena_bytes = arena_bytes
        self.epoch = self.serves = 0
        for name in nodes:
            self.join(name, cpus)
        self.deliver()

    # -- nodes ------------------------------------------------------------------------------------
    def node_at(self, name: str) -> Node:
        """The machine of that node."""
        machine = self.desks[name].machine
        assert isinstance(machine, Node)
        return machine

    def nodes(self) -> list[str]:
        """Those that live."""
        return [
            name
            for name, desk in self.desks.items()
            if desk.alive and isinstance(desk.machine, Node)
        ]

    def join(
        self, name: str, cpus: float = 1.0, labels: dict[str, str] | None = None, **more: float
    ) -> Node:
        """A node becomes a member; the others hear of it as frames arrive."""
        id = self.id(name)
        node = Node(
            id, cpus=cpus, arena_bytes=self.arena_bytes, resources=more, prestart=0,
            idle_seconds=60.0, address=make(id, "", name, 1), labels=labels, standing=True,
        )  # fmt: skip
        self.desks[name] = Desk(name, node)
        node.start(self.now)
        head = node.peer(HEAD, "head")
        head.kind = "head"
        node.on_up(head, self.now, {"cluster": "fleet"})
        self.epoch += 1
        rows = [self._row(self.node_at(other)) for other in self.nodes()]
        self._say(name, m.JOINED, self.epoch, rows)
        for other in self.nodes():
            if other != name:
                self._say(other, m.NODE_UP, self.epoch, *rows[-1][:4])
        self.settle()
        return node

    @staticmethod
    def _row(node: Node) -> list[Any]:
        me = node.members.me
        return [me.id, me.address, dict(me.total), me.labels, dict(me.free), 0, False]

    def _say(self, name: str, *frame: Any) -> None:
        self.wire("head", name).append(bytes(encode([frame])))

    def chill(self, target: str) -> None:
        """What other nodes have to say to that one does not arrive, until ``warm``."""
        self.cold |= {(name, target) for name in self.nodes() if name != target}

    def warm(self) -> None:
        """The links between the nodes are up, and everything arrives."""
        self.cold.clear()
        self.deliver()

    def gossip(self) -> None:
        """Everybody hears what the others have reported."""
        rows = [
            [self.desks[name].machine.id, free, waiting, False, {}]
            for name, (free, waiting) in self.reports.items()
        ]
        for name in self.nodes():
            self._say(name, m.GOSSIP, rows)

    def crash(self, name: str) -> None:
        """A machine loses power; nobody has been told."""
        gone = {name, *(process for process, home in self.homes.items() if home == name)}
        for each in gone:
            self.desks[each].alive = False
        for (source, target), frames in self.wires.items():
            if target in gone:
                frames.clear()
            elif source in gone:
                frames.append(None)
        self.settle()

    def bury(self, name: str) -> None:
        """The head says that the node is dead."""
        self.epoch += 1
        for other in self.nodes():
            self._say(other, m.NODE_DOWN, self.epoch, self.desks[name].machine.id, "it crashed")

    def lose(self, name: str) -> None:
        """A node dies, the head says so, and everything that follows happens."""
        self.crash(name)
        self.bury(name)
        self.deliver()

    # -- processes --------------------------------------------------------------------------------
    def home(self, name: str) -> str:
        return self.homes[name]

    def near(self, kind: str, node: str) -> str:
        return f"{kind}@{node}"

    def address(self, name: str) -> str:
        """Where that node or process is dialled."""
        machine = self.desks[name].machine
        if isinstance(machine, Node):
            return machine.members.me.address
        return make(self.desks[self.homes[name]].machine.id, name, "", 0)

    def driver(self, name: str, home: str) -> Desk:
        """A driver that has said hello to its node."""
        return self._enter(name, home, 0)

    def worker(self, name: str, home: str = "") -> Desk:
        """The worker that a node (if it is not named: the only one) has asked for first."""
        wanting = [each for each in self.nodes() if self._unborn(each)]
        home = home or wanting[0]
        node, slot = self.node_at(home), self._unborn(home)[0]
        node.handlers[m.SPAWNED](node.spawner, self.now, slot, 100 + slot)
        return self._enter(name, home, slot)

    def _unborn(self, node: str) -> list[int]:
        workers = self.node_at(node).workers.workers
        return sorted(slot for slot, worker in workers.items() if worker.peer is None)

    def starting(self) -> bool:
        return any(self._unborn(name) for name in self.nodes())

    def _enter(self, name: str, home: str, slot: int) -> Desk:
        self.slot_of[name], self.homes[name] = slot, home
        machine = self.node_at(home)
        process = Process(self.id(name), make(machine.id, name, "", 0), limits=self.limits)
        desk = self.desks[name] = Desk(name, process)
        node = process.peer(machine.id, self.address(home))
        node.kind = "node"
        process.on_up(node, self.now, machine.info)
        peer = machine.peer(process.id, process.owner.address)
        peer.kind = "worker" if slot else "driver"
        machine.on_up(peer, self.now, {"slot": slot, "node": machine.id})
        self.met |= {(name, home), (home, name)}
        self.settle()
        return desk

    def start_workers(self) -> list[str]:
        """Everything arrives, and every worker that was asked for comes; their names."""
        made = []
        self.deliver()
        while self.starting():
            made.append(f"w{1 + sum(slot > 0 for slot in self.slot_of.values())}")
            self.worker(made[-1])
            self.deliver()
        return made

    # -- frames -----------------------------------------------------------------------------------
    def _post(self, desk: Desk, peer: Peer, frames: list[Any]) -> None:
        if peer.id != HEAD:
            super()._post(desk, peer, frames)
            return
        for op, *fields in frames:
            if op == m.REPORT:
                self.reports[desk.name] = (dict(fields[0]), fields[1])

    def sender(self, source: str, machine: Machine) -> Peer:
        kind, _, home = source.partition("@")
        if home:
            node = self.node_at(home)
            nears = {
                "spawner": node.spawner, "arena": node.store.arena, "mover": node.pulls.mover,
                "prober": node.members.suspects.prober,
            }  # fmt: skip
            return nears[kind]
        if source == "head":
            return machine.peers[HEAD]
        speaker = self.desks[source].machine
        peer = machine.peer(speaker.id, self.address(source))
        target = self.names[machine.id]
        if (source, target) not in self.met:
            self.met.add((source, target))
            info: dict[str, Any] = {}
            if isinstance(speaker, Node):
                peer.kind, info = "node", speaker.info
            else:
                peer.kind = "worker" if self.slot_of[source] else "driver"
                info = {"node": self.desks[self.homes[source]].machine.id}
            machine.on_up(peer, self.now, info)
        return peer

    def _at(self, node: str, kind: str, op: int, fields: list[Any]) -> None:
        if kind == "mover":
            self.note(node, kind, op, fields)
            self._move(node, op, fields)
        elif kind == "prober":
            alive = self.desks[self.names[fields[0]]].alive
            self._answer(kind, node, m.PROBED, fields[0], "alive" if alive else "refused")
        else:
            super()._at(node, kind, op, fields)

    def _move(self, node: str, op: int, fields: list[Any]) -> None:
        if op == m.MOVE:
            transfer, source, id, place, skip, _, direct = fields
            there = [name for name in self.nodes() if self.address(name) == source]
            if not there:
                self._answer("mover", node, m.MOVED, transfer, skip, "refused", "")
                return
            self.serves += 1
            self.transfers[self.serves] = (node, transfer, place[2], skip)
            reader = self.desks[node].machine.id, self.address(node)
            self._answer("mover", there[0], m.SERVE, self.serves, id, place, *reader, direct)
        elif op == m.SERVING:
            number, offset, size, have, other = fields
            reader_name, transfer, wanted, skip = self.transfers.pop(number)
            done = offset >= 0 and have == size == wanted
            reason = "" if done or other else "gone"
            moved = (transfer, size if done else skip, reason, other)
            self._answer("mover", node, m.SERVED, number, done)
            if self.desks[reader_name].alive:
                self._answer("mover", reader_name, m.MOVED, *moved)

    # -- user code --------------------------------------------------------------------------------
    def fetch(self, where: str, name: str) -> list[Any] | None:
        """User code wants to read a shared value: its place on this node, if it is there."""
        desk = self.desks[where]
        place = desk.process.fetches.here(desk.refs[name])
        self.settle()
        return place

    def node_of(self, where: str, name: str) -> str:
        """The node on which a reference's value lies, as that process knows."""
        return self.names[self.row(where, name).data[3]]

    def do(self, name: str, value: str = "1") -> str:
        """The worker runs its next task, which returns that value."""
        said = self.run(name)
        if said != "nothing to run":
            self.finish(name, value)
        self.deliver()
        return said

    def finish_each(self, where: str, *values: str) -> None:
        """The run of several outputs returns these values."""
        desk = self.desks[where]
        run, desk.run = desk.run, None
        assert run is not None
        outputs = []
        for index, value in enumerate(values):
            placed = self._place(desk, ref_id(run.id, index), run.peer.id, value)
            outputs.append((*placed, list[Row]()))
        desk.process.executor.finish(run, outputs)
        self.settle()
        self.deliver()

    def check(self) -> None:
        """The invariants of every machine that lives."""
        for desk in self.desks.values():
            if desk.alive:
                desk.machine.check()


def driver_apart(limits: Limits | None = None, arena_bytes: int = 1 << 26) -> Fleet:
    """Driver ``d`` on n1, which runs nothing; n2 runs its tasks."""
    made = Fleet("n1", cpus=0.0, arena_bytes=arena_bytes, limits=limits)
    made.join("n2")
    made.driver("d", "n1")
    made.deliver()
    return made


def value_apart(arena_bytes: int = 1 << 26) -> Fleet:
    """The same; the driver's value ``a`` lies on n2, where w1 has made it."""
    made = driver_apart(arena_bytes=arena_bytes)
    made.submit("d", ["a"], function("f", retries=3))
    made.start_workers()
    assert made.do("w1", "big") == "runs a"
    return made


def on(bench: Fleet, node: str, name: str = "f", retries: int = 0) -> Spec:
    """A function that runs on that node."""
    spec = function(name, retries=retries)
    spec.where = ("node", bench.desks[node].machine.id, False)
    return spec


def fleet(store: str, *more: str) -> Fleet:
    """Worker w1 on n2 owns ``x``, which was made on node ``store``; driver d on n1 holds it."""
    made = Fleet("n1", cpus=0.0)
    made.join("n2")
    made.join(store) if store != "n2" else None
    for name in more:
        made.join(name, 0.0)
    made.driver("d", "n1")
    made.deliver()
    made.submit("d", ["box"], on(made, "n2"))
    made.start_workers()
    assert made.run("w1") == "runs box"
    if store == "n2":
        made.put("w1", "x", "big")
    else:
        made.submit("w1", ["x"], on(made, store, "g"))
        made.start_workers()
        assert made.do("w2", "big") == "runs x"
    made.end("w1", "box", inside=["x"], keep=["x"])
    made.open("d", "box")
    made.drop("d", "box")
    made.deliver()
    return made
