"""The bench with a wire for each direction of each connection: a test decides what overtakes what.

Frames on one wire arrive in the order in which they were sent; between wires there is none.  A
process that dies leaves what it has sent on its wires, and then their ends.  Every message is
checked against the schema, and noted in ``lines`` as it arrives, with the names of its fields.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.messages import INLINE, SHARED
from freehold.core.process.leases import Limits
from freehold.core.process.process import Process
from freehold.core.process.rows import Row, Spec
from freehold.sim.bench import Bench, Desk
from freehold.wire import schema
from freehold.wire.codec import Reader, encode

FIELDS = [[text.partition(":")[0] for text in message.fields] for message in m.MESSAGES]
BIG = 1000  # bytes in the arena of a value whose text begins with "big"
TEXT_MAX = 60  # columns of a text that a trace shows


class Wires(Bench):
    """A node, a driver, workers, and the wires between them."""

    def __init__(self, cpus: float = 1.0, limits: Limits | None = None) -> None:
        self.wires: dict[tuple[str, str], deque[bytes | None]] = {}  # None: the end of the stream
        self.slot_of: dict[str, int] = {}
        self.cold: set[tuple[str, str]] = set()  # wires on which nothing arrives yet
        super().__init__(cpus, limits)

    def home(self, name: str) -> str:
        """The node of that process."""
        return "node"

    def address(self, name: str) -> str:
        """Where that process is dialled."""
        return name

    def near(self, kind: str, node: str) -> str:
        """The name of that node's near peer."""
        return kind

    # -- processes --------------------------------------------------------------------------------
    def add(self, name: str, slot: int = 0) -> Desk:
        self.slot_of[name] = slot
        return super().add(name, slot)

    def spawn(self, *names: str) -> None:
        """Everything arrives; the node has asked for that many workers more, and they come."""
        self.deliver()
        for name in names:
            self.worker(name)

    def starting(self) -> bool:
        """Whether the node waits for a worker to come."""
        return any(worker.peer is None for worker in self.node.workers.workers.values())

    def kill(self, name: str, code: int = -9) -> None:
        desk = self.desks[name]
        if not desk.alive:
            return
        desk.alive = False
        for (source, target), frames in self.wires.items():
            if target == name:
                frames.clear()
            elif source == name:
                frames.append(None)
        home = self.home(name)
        if not self.wire(name, home):
            self.wires[name, home].append(None)
        if self.slot_of[name]:
            started = desk.process.executor.started
            self._answer("spawner", home, m.EXITED, self.slot_of[name], code, "", started)

    def cut(self, one: str, other: str) -> None:
        """The connection breaks: what is under way is lost, and both sides notice."""
        for source, target in ((one, other), (other, one)):
            self.wires.pop((source, target), None)
            receiver = self.desks[target].machine
            receiver.on_down(receiver.peers[self.desks[source].machine.id], self.now)
        self.settle()

    # -- frames out -------------------------------------------------------------------------------
    def wire(self, source: str, target: str) -> deque[bytes | None]:
        """The frames under way from one to the other."""
        return self.wires.setdefault((source, target), deque())

    def _post(self, desk: Desk, peer: Peer, frames: list[Any]) -> None:
        if not frames:
            return
        if not peer.id:
            for op, *fields in frames:
                self._at(desk.name, peer.kind, op, fields)
            return
        target = self.names[peer.id]
        if self.desks[target].alive:
            self.wire(desk.name, target).append(bytes(encode(frames)))
            self.wire(target, desk.name)
        elif (target, desk.name) not in self.wires and not peer.down:
            desk.machine.on_down(peer, self.now)  # nobody can be dialled there

    def _at(self, node: str, kind: str, op: int, fields: list[Any]) -> None:
        """A near peer of the node takes a message."""
        self.note(node, kind, op, fields)
        if op == m.RESERVE:
            self._answer("arena", node, m.RESERVED, fields[0], "")
        elif op == m.SIGNAL:
            for name, slot in list(self.slot_of.items()):
                if slot == fields[0] and self.home(name) == node:
                    self.kill(name, -fields[1])

    def _answer(self, kind: str, node: str, *frame: Any) -> None:
        """A near peer of the node sends it something."""
        self.wire(self.near(kind, node), node).append(bytes(encode([frame])))

    def settle(self) -> None:
        super().settle()
        for desk in list(self.desks.values()):
            if not isinstance(desk.machine, Process) or not desk.alive:
                continue
            if desk.process.exiting and desk.run is None:
                self.kill(desk.name, 0)

    # -- frames in --------------------------------------------------------------------------------
    def deliver(self, *only: str) -> None:
        """What is on one wire, on all wires to one process, or all there is until it is quiet."""
        if len(only) == 2:
            for _ in range(len(self.wire(*only))):
                if self.wire(*only):  # unless the receiver has died of the one before
                    self._arrive(*only, self.wire(*only).popleft())
        elif only:
            for source, target in list(self.wires):
                if target == only[0] and (source, target) not in self.cold:
                    self.deliver(source, target)
        else:
            while busy := self.busy():
                self.deliver(*busy[0])

    def busy(self) -> list[tuple[str, str]]:
        """The wires that have something on them, and are up."""
        return [ends for ends, frames in self.wires.items() if frames and ends not in self.cold]

    def step(self, source: str, target: str) -> None:
        """Deliver one frame, of perhaps several messages."""
        self._arrive(source, target, self.wire(source, target).popleft())

    def _arrive(self, source: str, target: str, data: bytes | None) -> None:
        machine = self.desks[target].machine
        machine.now = self.now
        sender = self.sender(source, machine)
        if data is None:
            self.wires.pop((source, target))
            self.wires.pop((target, source), None)
            if not sender.down:
                machine.on_down(sender, self.now)
        else:
            for message in Reader().feed(memoryview(data)):
                schema.check(message)
                op, *fields = message
                self.note(source, target, op, fields)
                machine.handlers[op](sender, self.now, *fields)
        self.settle()

    def sender(self, source: str, machine: Machine) -> Peer:
        """Who that is to the machine."""
        if source == "spawner":
            return self.node.spawner
        if source == "arena":
            return self.node.store.arena
        return machine.peer(self.desks[source].machine.id, source)

    def note(self, source: str, target: str, op: int, fields: Sequence[Any]) -> None:
        """Write the message down."""
        pairs = zip(FIELDS[op], fields, strict=True)
        text = " ".join(f"{name}={self.show([value])}" for name, value in pairs)
        self.lines.append(f"{source} -> {target}: {m.NAMES[op]} {text}".rstrip())

    def _show(self, value: Any) -> str:
        if isinstance(value, str):
            for id, name in self.names.items():
                value = value.replace(id.hex(), name)
            cut = value if len(value) <= TEXT_MAX else f"{value[: TEXT_MAX - 1]}…"
            return repr(cut)
        if isinstance(value, float):
            return f"{value:g}"
        if isinstance(value, bytes) and value not in self.names:
            if len(value) > 8 and value[:8] in self.names and len(value) != 12:  # an actor's home
                return f"{self.names[value[:8]]}@{value[8:].decode()}"
            if len(value) == 18 and value[:16] in self.names:
                return f"{self.names[value[:16]]}.{value[17]}"
        return super()._show(value)

    # -- user code --------------------------------------------------------------------------------
    def _place(
        self, desk: Desk, id: bytes, owner: bytes, value: str, inside: Sequence[Row] = ()
    ) -> tuple[int, Any]:
        if not value.startswith("big"):
            return INLINE, value.encode()
        process = desk.process
        offset = process.heap.place(BIG)
        if offset is None:
            request = process.request_extent(BIG)
            self.settle()
            while process.extents[request] is None:  # as a process waits: others speak meanwhile
                home = self.home(desk.name)
                self.deliver(desk.name, home)
                self.deliver(self.near("arena", home), home)
                self.deliver(home, desk.name)
            assert process.extents.pop(request) == ""
            offset = process.heap.place(BIG)
            assert offset is not None
        return SHARED, process.seal(id, owner, offset, BIG, inside)

    def row(self, where: str, name: str) -> Row:
        """A reference that user code holds there."""
        return self.desks[where].refs[name]

    def call(self, where: str, spec: Spec, *names: str) -> None:
        """Submit a task without arguments once for each of the names."""
        for name in names:
            self.submit(where, [name], spec)

    def begin(self, spec: Spec, name: str = "a", **more: Any) -> None:
        """The driver submits a task; worker w1 comes, and starts it."""
        self.submit("driver", [name], spec, **more)
        self.spawn("w1")
        self.deliver()
        self.run("w1")

    def end(self, where: str, value: str, **more: Any) -> None:
        """The run returns, and everything arrives."""
        self.finish(where, value, **more)
        self.deliver()

    def give(self, source: str, target: str, name: str) -> Row:
        """User code hands a reference to another process, in a way that no machine sees."""
        giver, taker = self.desks[source].process, self.desks[target]
        at_giver = giver.peer(taker.machine.id, self.address(target))
        fields = giver.owner.hand_over(self.row(source, name), at_giver)
        (row,) = taker.process.owner.receive([fields])
        row.handles += 1
        taker.refs[name] = row
        return row

    def sent(self, source: str, target: str) -> list[str]:
        """The names of the messages that are under way from one to the other."""
        frames = [data for data in self.wire(source, target) if data is not None]
        return [
            m.NAMES[message[0]] for data in frames for message in Reader().feed(memoryview(data))
        ]

    def seen(self, *names: str) -> list[str]:
        """The noted messages of these names."""
        return [line for line in self.lines if line.split(": ")[1].split(" ")[0] in names]
