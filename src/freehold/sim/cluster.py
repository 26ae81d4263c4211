"""What a cluster has beside its nodes: the head and its store, the probers, and the movers.

The store outlives the head, as a disk does.  A mover brings bytes from the memory of one node into
that of another by the rules of ``io.mover``: it asks the source's machine first, follows an object
that is itself still arriving there, and may break at any byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from freehold.core import messages as m
from freehold.core.head.head import Head
from freehold.core.machine import Peer
from freehold.core.node.node import Node
from freehold.sim.hosts import Host, Near
from freehold.sim.links import End
from freehold.sim.values import Memory
from freehold.sim.world import World

HEAD_ADDRESS = "|head.sock|head:1"
BANDWIDTH = 1e9  # bytes a second
GARBAGE = b"\xc1"  # what is read where nobody should read: no value


class Site(Protocol):
    """What a mover needs of a node's host."""

    node: Node
    memory: Memory


class Disk:
    """The entries of a ControlStore: they outlive every head."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[bytes, int]] = {}
        self.revision = 0

    def write(self, checks: list[Any], entries: list[Any]) -> int:
        """All or none; the new revision, or 0."""
        for key, revision in checks:
            if self.entries.get(key, (b"", 0))[1] != revision:
                return 0
        self.revision += 1
        for key, value in entries:
            if value:
                self.entries[key] = (value, self.revision)
            else:
                self.entries.pop(key, None)
        return self.revision


class HeadHost(Host):
    """One head, until it crashes."""

    def __init__(self, world: World, disk: Disk) -> None:
        entries = [(key, *entry) for key, entry in sorted(disk.entries.items())]
        head = self.head = Head(world.rng.randbytes(8), entries=entries, cluster="sim")
        super().__init__(world, head, "head", "head", HEAD_ADDRESS)
        self.info = head.info
        self.store = StorePeer(self, head.store, disk)
        self.prober = Prober(self, head.prober)

    def start(self) -> None:
        """Take the store."""
        self.head.start(self.world.now)
        self.finish()

    def _on_hello(self, end: End, hello: list[Any]) -> None:
        old = self.machine.peers.get(hello[1])
        if old is not None and old.port not in (None, end):  # see ``proc.head``
            old.port.shut()
        super()._on_hello(end, hello)


class StorePeer(Near):
    """The head's disk."""

    def __init__(self, host: Host, peer: Peer, disk: Disk) -> None:
        super().__init__(host, peer)
        self.disk = disk

    def on_message(self, op: int, fields: list[Any]) -> None:
        request, checks, entries = fields
        if self.host.alive:  # a head that has crashed writes no more
            self.answer(m.STORED, request, self.disk.write(checks, entries))


class Prober(Near):
    """Dials a node, and says what came of it."""

    def on_message(self, op: int, fields: list[Any]) -> None:
        node, address = fields
        target = self.world.listeners.get(address)
        if target is None or not target.alive or target.machine.id != node:
            self.answer(m.PROBED, node, "refused")
        elif self.world.parted(self.host, target) or target.spot in self.world.paused:
            self.answer(m.PROBED, node, "silent")
        else:
            self.answer(m.PROBED, node, "alive")


class Incoming:
    """One transfer, seen from where the bytes arrive."""

    __slots__ = ("halted", "have", "offset", "size", "source", "theirs", "transfer")

    def __init__(self, transfer: int, offset: int, size: int, have: int) -> None:
        self.transfer = transfer
        self.offset = offset
        self.size = size
        self.have = have
        self.source: Mover | None = None
        self.theirs = 0  # its number there
        self.halted = False


class Mover(Near):
    """The data plane of one node."""

    def __init__(self, site: Site, peer: Peer, host: Host) -> None:
        super().__init__(host, peer)
        self.site = site
        self.incoming: dict[int, Incoming] = {}
        self.serving: dict[int, Callable[[list[Any]], None]] = {}
        self.readers: dict[int, Callable[[], None]] = {}  # what to do when one is halted
        self._numbers = 0

    # -- frames of this node's machine ------------------------------------------------------------
    def on_message(self, op: int, fields: list[Any]) -> None:
        if op == m.MOVE:
            self._move(*fields)
        elif op == m.SERVING:
            self.serving.pop(fields[0])(fields)
        elif op == m.HALT:
            incoming, transfer = fields
            if not incoming and transfer in self.readers:
                self.readers.pop(transfer)()
            elif incoming and transfer in self.incoming:
                self.incoming[transfer].halted = True
                self._over(self.incoming[transfer], "halted")

    def _move(
        self, transfer: int, source: str, id: bytes, place: list[Any], skip: int, offset: int,
        direct: bool,
    ) -> None:  # fmt: skip
        item = self.incoming[transfer] = Incoming(transfer, offset, place[2], skip)
        target: Any = self.world.listeners.get(source)
        if target is None or not target.alive or self.world.parted(self.host, target):
            self._over(item, "refused")
            return
        mover: Mover = target.mover
        mover.ask(self, item, id, place, direct)

    # -- the other side ---------------------------------------------------------------------------
    def ask(self, reader: Mover, item: Incoming, id: bytes, place: list[Any], direct: bool) -> None:
        """Another node's mover wants an object: ask this node's machine."""
        self._numbers += 1
        item.source, item.theirs = self, self._numbers
        asker = reader.host
        frame = (
            m.SERVE, item.theirs, id, place, asker.machine.id, asker.address, direct,
        )  # fmt: skip
        self.serving[item.theirs] = lambda fields: self._serve(reader, item, *fields[1:])
        self.answer(*frame)

    def _serve(
        self, reader: Mover, item: Incoming, offset: int, size: int, have: int, other: str
    ) -> None:
        if offset < 0:
            self.answer(m.SERVED, item.theirs, False)
            reader.over(item, "gone" if offset == -1 else "", other)
            return
        self.readers[item.theirs] = lambda: self._broken(reader, item)
        self._send(reader, item, offset, size, have < size)

    def _send(self, reader: Mover, item: Incoming, offset: int, size: int, coming: bool) -> None:
        if item.theirs not in self.readers:
            return
        broken = not self.host.alive or self.world.parted(self.host, reader.host)
        if broken or not reader.host.alive or item.halted:
            self._broken(reader, item)
        elif coming and offset not in self.site.memory.live:  # here too it is still arriving
            self.world.after(1e-3, self._send, reader, item, offset, size, coming)
        elif self.world.chance(self.world.setup.transfer_breaks):
            self.world.fault("broken transfer")
            item.have += self.world.rng.randrange(max(1, size - item.have))
            self._broken(reader, item)
        else:
            took = self.world.latency() + (size - item.have) / BANDWIDTH
            self.world.after(took, self._arrived, reader, item, offset, size)

    def _arrived(self, reader: Mover, item: Incoming, offset: int, size: int) -> None:
        if item.theirs not in self.readers:
            return
        if not self.host.alive or self.world.parted(self.host, reader.host):
            self._broken(reader, item)
            return
        del self.readers[item.theirs]
        self.answer(m.SERVED, item.theirs, True)
        if reader.host.alive and not item.halted:
            data = self.site.memory.live.get(offset, (size, GARBAGE))[1]  # freed meanwhile
            reader.site.memory.write(item.offset, size, data)
            item.have = size
        reader.over(item, "" if not item.halted else "halted")

    def _broken(self, reader: Mover, item: Incoming) -> None:
        self.readers.pop(item.theirs, None)
        self.answer(m.SERVED, item.theirs, False)
        reader.over(item, "the connection broke")

    # -- the end of a transfer --------------------------------------------------------------------
    def over(self, item: Incoming, reason: str, other: str = "") -> None:
        """The source has no more to say."""
        if self.incoming.get(item.transfer) is item:
            self._over(item, reason, other)

    def _over(self, item: Incoming, reason: str, other: str = "") -> None:
        del self.incoming[item.transfer]
        self.answer(m.MOVED, item.transfer, item.have, reason, other)

    def host_died(self) -> None:
        """This node is dead: nobody gets anything from it any more."""
        for stop in list(self.readers.values()):
            self.world.after(self.world.latency(), stop)
        self.readers.clear()
