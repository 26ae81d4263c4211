"""A bench: the same machines on strings, one step at a time, for transcripts and unit tests.

Nothing happens by itself.  Frames wait on their links, as bytes, until ``deliver``; time stands
still until ``tick``; a worker takes a run when it is told to, and finishes it with the value it is
given.  Each delivered frame is noted in ``lines``, with names in place of ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from freehold.core import messages as m
from freehold.core.ids import Context, Contexts
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED, INLINE, PENDING, STATES
from freehold.core.node.node import Node
from freehold.core.process.executor import Run
from freehold.core.process.leases import Limits
from freehold.core.process.process import Process
from freehold.core.process.rows import CONSTRUCTOR, METHOD, Row, Spec
from freehold.wire.codec import Reader, encode

Flight = tuple[str, str, Peer, bytes]  # from, to, the sender as the receiver knows it, frame


class Desk:
    """One process on the bench."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.run: Run | None = None
        self.context = Context(name.encode().ljust(12, b"-"))
        self.contexts = Contexts()
        self.refs: dict[str, Row] = {}  # what user code holds, by name
        self.alive = True

    @property
    def process(self) -> Process:
        """The machine of a driver or a worker."""
        assert isinstance(self.machine, Process)
        return self.machine


class Bench:
    """A node, a driver and as many workers as are asked for."""

    def __init__(self, cpus: float = 1.0, limits: Limits | None = None) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.names: dict[bytes, str] = {}
        self.flights: list[Flight] = []
        self.limits = limits or Limits()
        self.nested: dict[bytes, list[tuple[bytes, bytes, str]]] = {}  # task -> refs in arguments
        node = Node(self.id("node"), cpus=cpus, arena_bytes=1 << 26, prestart=0, idle_seconds=60.0)
        self.desks: dict[str, Desk] = {"node": Desk("node", node)}
        self.node = node
        self.slots = 0
        self.add("driver")
        node.start(0.0)

    def id(self, name: str) -> bytes:
        """A process id that shows its name."""
        made = name.encode().ljust(8, b".")
        self.names[made] = name
        return made

    # -- processes --------------------------------------------------------------------------------
    def add(self, name: str, slot: int = 0) -> Desk:
        """A process that has just said hello to the node."""
        process = Process(self.id(name), name, limits=self.limits)
        desk = self.desks[name] = Desk(name, process)
        kind = "worker" if slot else "driver"
        peer = self.node.peer(process.id, name)
        peer.kind = kind
        node = process.peer(self.node.id, "node")
        node.kind = "node"
        process.on_up(node, self.now, self.node.info)
        self.node.on_up(peer, self.now, {"slot": slot})
        self.settle()
        return desk

    def worker(self, name: str) -> Desk:
        """The spawner has started the worker that the node has asked for first."""
        slots = sorted(slot for slot, w in self.node.workers.workers.items() if w.peer is None)
        spawner = self.node.spawner
        self.node.handlers[m.SPAWNED](spawner, self.now, slots[0], 100 + slots[0])
        return self.add(name, slots[0])

    def kill(self, name: str) -> None:
        """The process dies: what it had not sent is lost, the spawner reports its exit."""
        desk = self.desks[name]
        desk.alive = False
        process = desk.process
        for other in self.desks.values():
            peer = other.machine.peers.get(process.id)
            if other.alive and peer is not None:
                other.machine.on_down(peer, self.now)
        worker = self.node.workers.by_proc.get(process.id)
        if worker is not None:
            started = process.executor.started
            spawner = self.node.spawner
            self.node.handlers[m.EXITED](spawner, self.now, worker.slot, -9, "", started)
        self.settle()

    # -- frames -----------------------------------------------------------------------------------
    def settle(self) -> None:
        """Every machine finishes its batch; what it has written goes on its way."""
        for desk in self.desks.values():
            if not desk.alive:
                continue
            machine = desk.machine
            machine.settle(self.now)
            while machine.dirty:
                dirty, machine.dirty = machine.dirty, []
                for peer in dirty:
                    frames, peer.outbox = peer.outbox, []
                    self._post(desk, peer, frames)

    def _post(self, desk: Desk, peer: Peer, frames: list[Any]) -> None:
        if not frames:
            return
        if peer.kind in ("spawner", "arena"):
            for op, *fields in frames:
                self._near(peer, op, fields)
            return
        target = self.names[peer.id]
        if self.desks[target].alive:
            sender = self.desks[target].machine.peer(desk.machine.id, desk.name)
            self.flights.append((desk.name, target, sender, bytes(encode(frames))))

    def _near(self, peer: Peer, op: int, fields: list[Any]) -> None:
        self.lines.append(f"node > {peer.kind}: {m.NAMES[op]} {self.show(fields)}".rstrip())
        if op == m.RESERVE:
            self.node.handlers[m.RESERVED](peer, self.now, fields[0], "")

    def deliver(self, *only: str) -> None:
        """Deliver what is under way, and what follows from it, until all is quiet.

        With names, only what is addressed to those processes, and only what is under way now.
        """
        flights, self.flights = self.flights, []
        for flight in flights:
            source, target, sender, data = flight
            if only and target not in only:
                self.flights.append(flight)
                continue
            if not self.desks[target].alive:
                continue
            machine = self.desks[target].machine
            machine.now = self.now
            for op, *fields in Reader().feed(memoryview(data)):
                self.lines.append(
                    f"{source} > {target}: {m.NAMES[op]} {self.show(fields)}".rstrip()
                )
                machine.handlers[op](sender, self.now, *fields)
            self.settle()
        if not only and self.flights:
            self.deliver()

    def tick(self, seconds: float) -> None:
        """Time passes; machines whose deadline comes are told."""
        self.now += seconds
        for desk in self.desks.values():
            if desk.alive and desk.machine.deadline() <= self.now:
                desk.machine.on_timer(self.now)
        self.settle()

    # -- user code --------------------------------------------------------------------------------
    def submit(
        self, where: str, names: Sequence[str], spec: Spec, deps: Iterable[str] = (),
        nested: Iterable[str] = (), actor: str = "",
    ) -> None:  # fmt: skip
        """User code calls a function, or an actor's method; it holds the results by those names."""
        desk = self.desks[where]
        process = desk.process
        id = desk.context.next_id()
        inner = [desk.refs[name] for name in nested]
        tops = [(at, desk.refs[name]) for at, name in enumerate(deps)]
        line = process.client.actors.line(desk.refs[actor]) if actor else None
        self.nested[id] = [(row.id, *self._whose(desk, row)) for row in inner]
        rows = process.client.submit_full(
            spec, id, b"()", self.now, deps=tops, nested=inner, line=line
        )
        for name, row in zip(names, rows, strict=False):
            desk.refs[name] = row
            self.names[row.id] = name
        self.settle()

    @staticmethod
    def _whose(desk: Desk, row: Row) -> tuple[bytes, str]:
        if row.owner is None:
            return desk.machine.id, desk.name
        return row.owner.id, row.owner.address

    def put(self, where: str, name: str, value: str, inside: Iterable[str] = ()) -> None:
        """User code puts a value, small or (``value`` begins with ``big``) in the arena."""
        desk = self.desks[where]
        id = desk.context.next_id()
        self.names[id] = name
        rows = [desk.refs[each] for each in inside]
        state, data = self._place(desk, id, desk.machine.id, value, rows)
        row = desk.process.owner.put(id, state, data, rows)
        row.handles += 1
        desk.refs[name] = row
        self.settle()

    def _place(
        self, desk: Desk, id: bytes, owner: bytes, value: str, inside: Sequence[Row] = ()
    ) -> tuple[int, Any]:
        if not value.startswith("big"):
            return INLINE, value.encode()
        process = desk.process
        offset = process.heap.place(1000)
        if offset is None:
            process.request_extent(1000)
            self.settle()
            self.deliver("node")
            self.deliver(desk.name)
            offset = process.heap.place(1000)
            assert offset is not None
        return m.SHARED, process.seal(id, owner, offset, 1000, inside)

    def drop(self, where: str, name: str) -> None:
        """User code lets a reference go."""
        desk = self.desks[where]
        desk.process.owner.drop(desk.refs.pop(name))
        self.settle()

    def get(self, where: str, name: str) -> str:
        """User code looks at a reference: its state and data, asked for if it is borrowed."""
        desk = self.desks[where]
        row = desk.refs[name]
        desk.process.owner.want(row)
        self.settle()
        if row.state == PENDING:
            return "pending"
        return f"{STATES[row.state]} {self.show([row.data])}"

    def open(self, where: str, name: str) -> None:
        """User code loads a value: it holds the references inside, by their own names."""
        desk = self.desks[where]
        row = desk.refs[name]
        for inner in row.more.contains if row.more is not None else ():
            owner, address = self._whose(desk, inner)
            self._hold(desk, inner.id, owner, address)

    def _hold(self, desk: Desk, id: bytes, owner: bytes, address: str) -> Row:
        row = desk.process.owner.hold(id, owner, address)
        name = self.names[id]
        assert name not in desk.refs, f"{desk.name} holds {name} already"
        desk.refs[name] = row
        return row

    def run(self, where: str) -> str:
        """The worker starts its next run; it holds the references in the arguments."""
        desk = self.desks[where]
        run = desk.run = desk.process.executor.next()
        if run is None:
            return "nothing to run"
        desk.context = Context(desk.contexts.base(run.id), run.id)
        run.refs = [self._hold(desk, *fields) for fields in self.nested.get(run.id, [])]
        return f"runs {self.names.get(run.id, '?')}"

    def finish(
        self, where: str, value: str, inside: Iterable[str] = (), keep: Iterable[str] = ()
    ) -> None:
        """The run returns; its references go, but for those kept.  ``!text`` is an error."""
        desk = self.desks[where]
        run = desk.run
        assert run is not None
        rows: list[Row] = []
        state, data = FAILED, value[1:].encode()
        if not value.startswith("!"):
            rows = [desk.refs[name] for name in inside]
            state, data = self._place(desk, run.id, run.peer.id, value, rows)
        for row in rows:
            row.handles += 1
        for name in [name for name in desk.refs if name not in tuple(keep)]:
            desk.process.owner.drop(desk.refs.pop(name))
        desk.process.executor.finish(run, [(state, data, rows)])
        for row in rows:
            desk.process.owner.drop(row)
        desk.run = None
        self.settle()

    # -- text -------------------------------------------------------------------------------------
    def show(self, fields: Sequence[Any]) -> str:
        """Fields with names in place of ids."""
        return " ".join(self._show(field) for field in fields)

    def _show(self, value: Any) -> str:
        if isinstance(value, bytes):
            if value in self.names:
                return self.names[value]
            if len(value) == 12 and value[:8] in self.names:  # a ticket
                return f"{self.names[value[:8]]}#{int.from_bytes(value[8:], 'big')}"
            text = value.decode("ascii", "replace")
            return (text if text.isprintable() else value.hex()) or "-"
        if isinstance(value, list):
            return f"[{self.show(value)}]"
        if isinstance(value, dict):
            return "{" + " ".join(f"{key}={self._show(part)}" for key, part in value.items()) + "}"
        if isinstance(value, str):
            return repr(value)
        return str(value)

    def table(self, where: str) -> list[str]:
        """The references that a process knows, one a line."""
        desk = self.desks[where]
        lines = []
        for row in desk.process.owner.rows.values():
            whose = "own" if row.owner is None else f"of {self.names[row.owner.id]}"
            more = row.more
            tickets = [self._show(ticket) for ticket in more.tickets] if more is not None else []
            mine = [self._show(ticket) for ticket in more.mine] if more is not None else []
            line = f"{self.names.get(row.id, '?')} ({whose}, {STATES[row.state]}): "
            line += f"{row.handles} handles, {row.holds} holds"
            line += f", lent as {' '.join(tickets)}" if tickets else ""
            lines.append(line + (f", borrowed as {' '.join(mine)}" if mine else ""))
        return lines or ["nothing"]


def function(name: str, retries: int = 0, cpus: float = 1.0, outputs: int = 1) -> Spec:
    """A function to submit."""
    digest = name.encode()
    return Spec(digest, name, b"code", cpus=cpus, retries=retries, outputs=outputs)


def actor_class(name: str) -> Spec:
    """An actor's class to submit."""
    options = {"constructor": True}
    return Spec(name.encode(), name, b"code", kind=CONSTRUCTOR, cpus=0.0, options=options)


def method(name: str) -> Spec:
    """A method to call."""
    return Spec(name.encode(), name, kind=METHOD)
