"""The hosts of the small world: one machine each, made so that it can be frozen and thawed.

A host here does what ``sim.hosts`` does, but is told everything and keeps no clock, no chance and
no other host: between two events it is nothing but bytes (``freeze``).  So what one event does to
one host has to be found out only once, however many ways of the world lead there
(``sim.smallworld``).

What comes out of a host (``out``) is a list of tuples that begin with ``send`` (a frame to an
address), ``knock`` (a first contact with a node, which speaks first), ``hear`` (to another node's
mover), ``spawn``, ``signal``, ``probe``, ``seek`` (a node has no head) or ``exit``; also ``run``
and ``met``, for the checkers.
Near things that always answer at once (the store, the arena's pages) are part of their host.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from hashlib import blake2b
from operator import attrgetter
from types import CellType, FunctionType, MethodType
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.head.head import Head
from freehold.core.ids import PROC_ID_BYTES
from freehold.core.machine import Handler, Machine, Peer
from freehold.core.node.node import Node
from freehold.errors import ProtocolError
from freehold.sim.values import Memory, PoisonExtents
from freehold.wire.codec import Reader, encode

HEAD_ADDRESS = "|head.sock|head:1"
Entries = tuple[tuple[bytes, bytes, int], ...]  # of the head's store: key, value, revision
ARENA = 64 * 1024 * 1024
GARBAGE = b"\xc1"  # what is read where nobody should read: no value


def proc_id(name: str) -> bytes:
    """The process id of the host of that name."""
    return blake2b(name.encode(), digest_size=PROC_ID_BYTES).digest()


class Untouched(Exception):
    """The event touches the node's memory, which was not given along."""


class Window(Memory):
    """The memory of the node whose host is awake; frozen hosts keep no copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved = 1 << 40
        self.open = False
        self._live: dict[int, tuple[int, bytes]] = {}

    @property
    def live(self) -> dict[int, tuple[int, bytes]]:
        """What is in memory now."""
        if not self.open:
            raise Untouched
        return self._live

    @live.setter
    def live(self, value: dict[int, tuple[int, bytes]]) -> None:
        self._live = value

    def __reduce__(self) -> str:
        return "WINDOW"


WINDOW = Window()


# -- frozen hosts ---------------------------------------------------------------------------------

_codes: list[FunctionType] = []
_numbers: dict[Any, int] = {}


def _revive(number: int, contents: tuple[Any, ...]) -> FunctionType:
    """A function that was defined inside another, with what it had captured."""
    made = _codes[number]
    cells = tuple(CellType(content) for content in contents)
    return FunctionType(
        made.__code__, made.__globals__, made.__name__, made.__defaults__, cells or None
    )


class _Freezer(pickle.Pickler):
    """Pickles a host, closures and all."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not FunctionType or "<" not in obj.__qualname__:
            return NotImplemented
        number = _numbers.get(obj.__code__)
        if number is None:
            number = _numbers[obj.__code__] = len(_codes)
            _codes.append(obj)
        cells = tuple(cell.cell_contents for cell in obj.__closure__ or ())
        return _revive, (number, cells)


_wirings: dict[type, list[tuple[str, str]]] = {}  # opcode -> the part that takes it, the method
_spare: list[Handler] = Machine(b"", m.OPCODES)._table  # of opcodes that nobody takes


def _wire(machine: Machine) -> list[tuple[str, str]]:
    """Which part of a machine takes which opcode: the same in all machines of a type."""
    paths: dict[int, str] = {id(machine): ""}
    ahead: list[tuple[Any, str]] = [(machine, "")]
    for whole, path in ahead:
        for name, part in sorted(getattr(whole, "__dict__", {}).items()):
            if type(part).__module__.startswith("freehold.core") and id(part) not in paths:
                paths[id(part)] = path + name + "."
                ahead.append((part, path + name + "."))
    return [
        (paths[id(handler.__self__)], handler.__name__) if isinstance(handler, MethodType) else
        ("", "") for handler in machine.handlers
    ]  # fmt: skip


def freeze(site: Site) -> bytes:
    """The host as bytes; the machine's dispatch table, which never changes, is left out."""
    machine = site.machine
    if type(machine) not in _wirings:
        _wirings[type(machine)] = _wire(machine)
    table = machine.handlers, machine._table
    machine.handlers, machine._table = (), []
    buffer = io.BytesIO()
    _Freezer(buffer, protocol=5).dump(site)
    machine.handlers, machine._table = table
    return buffer.getvalue()


def thaw(data: bytes) -> Site:
    """The host as it was."""
    site: Site = pickle.loads(data)
    machine = site.machine
    parts: dict[str, Any] = {"": machine}
    table = []
    for spare, (path, name) in zip(_spare, _wirings[type(machine)], strict=True):
        part = parts.get(path)
        if part is None:
            part = parts[path] = attrgetter(path[:-1])(machine)
        table.append(getattr(part, name) if name else spare)
    machine.handlers, machine._table = tuple(table), table
    return site


# -- hosts ----------------------------------------------------------------------------------------


class Site:
    """One host; see the file's first paragraph."""

    kind = ""

    def __init__(self, machine: Machine, name: str, address: str, home: bytes) -> None:
        self.machine = machine
        self.name = name
        self.address = address
        self.home = home  # its node's id; empty for the head
        self.spot = node_of(address)
        self.links: dict[str, Peer] = {}  # address -> whom this host is connected to
        self.unheard: dict[str, list[Any]] = {}  # nodes that have not said hello: what waits
        self.out: list[tuple[Any, ...]] = []
        self.now = 0.0
        self.replied = False  # a near thing has answered: settle again

    def __repr__(self) -> str:
        return self.name

    def info(self) -> dict[str, Any]:
        """What this host's HELLO says."""
        return {}

    def begin(self) -> None:
        """Start."""

    # -- events -----------------------------------------------------------------------------------
    def on_frame(self, source: str, data: bytes) -> None:
        """A frame from that address."""
        messages = Reader().feed(memoryview(data))
        peer = self.links.get(source)
        if messages and messages[0][0] == m.HELLO:
            peer = self._on_hello(source, peer, messages.pop(0))
        if peer is not None:  # else the link is gone
            for message in self.machine.in_bulk(peer, self.now, messages):
                self.machine.handlers[message[0]](peer, self.now, *message[1:])
        self.finish()

    def on_knock(self, source: str) -> None:
        """A process calls this node, and waits for its HELLO."""
        self.out.append(("send", source, self._hello(b"")))

    def _hello(self, to: bytes) -> bytes:
        info = {**self.info(), "node": self.home}
        if to:
            info["to"] = to
        return bytes(encode([(m.HELLO, self.machine.id, self.kind, 1, self.address, info)]))

    def _on_hello(self, source: str, known: Peer | None, hello: list[Any]) -> Peer | None:
        try:
            peer = self.machine.meet(known, hello)
        except ProtocolError:
            return None
        waiting = self.unheard.pop(source, None)
        if known is None and self.kind != "node":
            self.out.append(("send", source, self._hello(b"")))
        self.links[source] = peer
        peer.port = source
        self.machine.on_up(peer, self.now, hello[-1])
        if waiting is not None:
            self.out.append(("send", source, self._hello(peer.id)))
            if waiting:
                self.out.append(("send", source, bytes(encode(waiting))))
        return peer

    def on_end(self, source: str) -> None:
        """The connection is gone, or was refused."""
        self.unheard.pop(source, None)
        peer = self.links.pop(source, None)
        if peer is not None:
            peer.port = None
            spots = {node_of(source), self.spot}
            lasting = len(spots) == 2 and b"" not in spots
            if not lasting or peer.kind in ("node", "head"):
                self.machine.on_down(peer, self.now)
        self.finish()

    def on_near(self, kind: str, data: bytes) -> None:
        """A near thing says something."""
        for message in Reader().feed(memoryview(data)):
            self.machine.handlers[message[0]](self.near()[kind], self.now, *message[1:])
        self.finish()

    def on_tick(self) -> None:
        """A deadline may have come."""
        if self.now >= self.machine.deadline():
            self.machine.on_timer(self.now)
        self.finish()

    # -- frames out -------------------------------------------------------------------------------
    def finish(self) -> None:
        """Everything that has arrived is handled: settle, send, go on."""
        self.replied = True
        while self.replied:
            self.replied = False
            self.drain()
            self.machine.settle(self.now)
            self.flush()
        self.after()

    def drain(self) -> None:
        """Process what user code has dropped."""

    def after(self) -> None:
        """Go on with what waited for this."""

    def near(self) -> dict[str, Peer]:
        """The near peers by kind."""
        return {}

    def flush(self) -> None:
        """Send what the machine has written."""
        machine = self.machine
        while machine.dirty:
            dirty, machine.dirty = machine.dirty, []
            for peer in dirty:
                box, peer.outbox = peer.outbox, []
                if peer.kind in self.near():
                    for op, *fields in Reader().feed(memoryview(encode(box))):
                        self.ask(peer, op, fields)
                elif box and not peer.down and peer.address:
                    self._send(peer, box)

    def _send(self, peer: Peer, box: list[Any]) -> None:
        where = peer.address
        if where in self.unheard:
            self.unheard[where] += box
            return
        if peer.port is not None:
            self.out.append(("send", where, bytes(encode(box))))
            return
        self.dial(peer, box)

    def dial(self, peer: Peer, box: list[Any]) -> None:
        """Connect to the peer, and send that when it has said hello, or at once."""
        where = peer.address
        self.links[where] = peer
        peer.port = where
        if peer.kind == "node":
            self.unheard[where] = box
            self.out.append(("knock", where))
        else:
            self.out.append(("send", where, self._hello(peer.id)))
            if box:
                self.out.append(("send", where, bytes(encode(box))))

    def ask(self, peer: Peer, op: int, fields: list[Any]) -> None:
        """A frame for a near peer."""

    def reply(self, peer: Peer, *frame: Any) -> None:
        """A near peer's answer, at once."""
        self.machine.handlers[frame[0]](peer, self.now, *frame[1:])
        self.replied = True

    def check(self) -> None:
        """Assert the machine's invariants."""
        self.machine.check()


class HeadSite(Site):
    """The head, with its disk, which it may have from an earlier one."""

    kind = "head"

    def __init__(self, life: int = 0, entries: Entries = ()) -> None:
        self.life = life
        self.disk = {key: (value, revision) for key, value, revision in entries}
        id = proc_id(f"head {life}")
        self.head = Head(id, entries=list(entries), cluster="small")
        super().__init__(self.head, "head", HEAD_ADDRESS, b"")
        self.revision = max((revision for _, _, revision in entries), default=0)

    def entries(self) -> Entries:
        """What is on the disk."""
        return tuple((key, *self.disk[key]) for key in sorted(self.disk))

    def info(self) -> dict[str, Any]:
        return self.head.info

    def near(self) -> dict[str, Peer]:
        return {"store": self.head.store, "prober": self.head.prober}

    def begin(self) -> None:
        self.head.start(self.now)
        self.finish()

    def ask(self, peer: Peer, op: int, fields: list[Any]) -> None:
        if peer.kind == "prober":
            self.out.append(("probe", *fields))
            return
        request, checks, entries = fields
        if any(self.disk.get(key, (b"", 0))[1] != revision for key, revision in checks):
            self.reply(peer, m.STORED, request, 0)
            return
        self.revision += 1
        for key, value in entries:
            self.disk.pop(key, None)
            if value:
                self.disk[key] = (value, self.revision)
        self.reply(peer, m.STORED, request, self.revision)


class NodeSite(Site):
    """A node daemon, with its arena and its mover."""

    kind = "node"

    def __init__(self, name: str, cpus: float) -> None:
        id = proc_id(name)
        address = f"{id.hex()}|{name}.sock|{name}:1"
        self.node = Node(
            id, cpus=cpus, arena_bytes=ARENA, prestart=1, idle_seconds=1.0, address=address,
            standing=True,
        )  # fmt: skip
        self.node.store.extents = PoisonExtents(WINDOW, ARENA)
        super().__init__(self.node, name, address, id)
        self.coming: dict[int, list[Any]] = {}  # transfer -> source, offset, size
        self.going: dict[int, tuple[str, int]] = {}  # number here -> asker, its transfer
        self.numbers = 0

    def info(self) -> dict[str, Any]:
        return self.node.info

    def near(self) -> dict[str, Peer]:
        node = self.node
        return {
            "spawner": node.spawner, "arena": node.store.arena, "mover": node.pulls.mover,
            "prober": node.members.suspects.prober,
        }  # fmt: skip

    def begin(self) -> None:
        self.node.start(self.now)
        self.on_seek()

    def on_seek(self) -> None:
        """There is a head: call it."""
        if HEAD_ADDRESS not in self.links:
            self.dial(Peer(b"", HEAD_ADDRESS, "head"), [])
        self.finish()

    def on_end(self, source: str) -> None:
        super().on_end(source)
        if source == HEAD_ADDRESS:
            self.out.append(("seek",))

    def ask(self, peer: Peer, op: int, fields: list[Any]) -> None:
        if peer.kind == "spawner":
            if op in (m.SPAWN, m.SIGNAL):
                self.out.append(("spawn" if op == m.SPAWN else "signal", fields[0]))
        elif peer.kind == "arena":
            self.reply(peer, m.RESERVED, fields[0], "")
        elif peer.kind == "prober":
            self.out.append(("probe", *fields))
        else:
            self._move(peer, op, fields)

    # -- the mover --------------------------------------------------------------------------------
    def _move(self, mover: Peer, op: int, fields: list[Any]) -> None:
        if op == m.MOVE:
            transfer, source, id, place, _, offset, direct = fields
            self.coming[transfer] = [source, offset, place[2]]
            asked = ("want", transfer, id, place, self.machine.id, direct)
            self._tell(source, *asked)
        elif op == m.SERVING:
            number, offset, size, have, other = fields
            asker, transfer = self.going.pop(number)
            whole = offset >= 0 and have >= size
            self.reply(mover, m.SERVED, number, whole)
            if not whole:
                reason = "gone" if offset == -1 else "" if offset < 0 else "the connection broke"
                self._tell(asker, "not", transfer, reason, other)
            else:
                data = WINDOW.live.get(offset, (size, GARBAGE))[1]
                self._tell(asker, "bytes", transfer, data)
        elif op == m.HALT and fields[0] and fields[1] in self.coming:
            del self.coming[fields[1]]
            self.reply(mover, m.MOVED, fields[1], 0, "halted", "")

    def _tell(self, other: str, *said: Any) -> None:
        """Say something to another node's mover."""
        self.out.append(("hear", other, bytes(encode([said]))))

    def on_hear(self, source: str, data: bytes) -> None:
        """Another node's mover says something."""
        mover = self.node.pulls.mover
        ((verb, transfer, *rest),) = Reader().feed(memoryview(data))
        if verb == "want":
            id, place, asker, direct = rest
            self.numbers += 1
            self.going[self.numbers] = (source, transfer)
            self.reply(mover, m.SERVE, self.numbers, id, place, asker, source, direct)
        elif transfer in self.coming:
            _, offset, size = self.coming.pop(transfer)
            if verb == "bytes":
                WINDOW.write(offset, size, rest[0])
                self.reply(mover, m.MOVED, transfer, size, "", "")
            else:
                self.reply(mover, m.MOVED, transfer, 0, *rest)
        self.finish()

    def on_silence(self, source: str) -> None:
        """That node's mover is dead."""
        for transfer, (where, *_) in list(self.coming.items()):
            if where == source:
                del self.coming[transfer]
                self.reply(self.node.pulls.mover, m.MOVED, transfer, 0, "refused", "")
        self.finish()


EVENTS: dict[str, Callable[..., None]] = {
    "frame": Site.on_frame, "knock": Site.on_knock, "end": Site.on_end, "near": Site.on_near,
    "tick": Site.on_tick, "hear": NodeSite.on_hear, "silence": NodeSite.on_silence,
    "seek": NodeSite.on_seek,
}  # fmt: skip
