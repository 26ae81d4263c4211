"""Copies of other nodes' objects in this node's arena: who uses them, and which goes first.

A copy lies in an extent that the node itself holds.  It has a name for its bytes, the place from
which it was first asked for (a ``Key``): a re-run may make the same id again with other bytes.

* A *pin* is a process that was told where the copy is.  It ends with UNPIN or with the process.
* A *reader* is another node that the bytes are being sent to.
* A copy that is *doomed* (freed by its owner, or its owner is dead, or it will never be complete)
  is found by nobody any more, and goes when its last pin and reader do.
* A complete copy without pins and readers is *idle*: it is kept for the next who asks, and goes
  when room is short, the least recently used first.  The owner is told.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine
from freehold.core.node.store import Store

KEEPER = b"keeper"  # a pin in this name ends when the owner frees the object (``node.departing``)
Key = tuple[bytes, bytes, int, bytes]  # RefId; holder, offset and node of the place asked for


class Copy:
    """One copy, or what has come of it so far (``have`` < ``size``)."""

    __slots__ = (
        "address", "coming", "doomed", "have", "id", "key", "offset", "owner", "pins", "readers",
        "size",
    )  # fmt: skip

    def __init__(self, key: Key, owner: bytes, address: str, offset: int, size: int) -> None:
        self.key = key
        self.id = key[0]
        self.owner = owner
        self.address = address  # of the owner
        self.offset = offset
        self.size = size
        self.have = 0
        self.coming = True  # more bytes may come
        self.pins: dict[bytes, None] = {}  # processes
        self.readers = 0
        self.doomed = False

    @property
    def used(self) -> bool:
        """Whether it must stay where it is."""
        return bool(self.pins) or self.readers > 0 or (self.coming and not self.doomed)


class Copies:
    """All copies on one node; the memory is the store's."""

    def __init__(self, machine: Machine, store: Store) -> None:
        self.machine = machine
        self.store = store
        self.by_offset: dict[int, Copy] = {}  # all, the doomed ones too
        self.by_key: dict[Key, Copy] = {}  # those that can be found
        self.by_id: dict[bytes, list[Copy]] = {}  # the same
        self.idle: dict[Key, Copy] = {}  # those of them that nobody uses, the last used last
        self.pinned: dict[bytes, list[Copy]] = {}  # process -> what it pins, the oldest first
        self.idle_bytes = 0  # of idle copies' extents
        self.evicted = 0
        self.changes = 0  # of what is idle
        store.free_copy = self.free
        store.evict = self.evict

    # -- life -------------------------------------------------------------------------------------
    def add(self, copy: Copy) -> None:
        """Its space has been granted; the bytes are still to come."""
        self.by_offset[copy.offset] = copy

    def complete(self, copy: Copy, cached: bool) -> None:
        """All bytes are here; if it is to be cached, it can be found (and is kept) from now on."""
        assert copy.have == copy.size
        copy.coming = False
        if cached:
            self.by_key[copy.key] = copy
            self.by_id.setdefault(copy.id, []).append(copy)
            self._tell(copy, m.COPIED)
            self._settle(copy, True)
        else:
            self.doom(copy)

    def doom(self, copy: Copy) -> None:
        """Nobody is to find it any more; its memory is free as soon as nobody uses it."""
        if KEEPER in copy.pins:
            self._unpin(KEEPER, copy)
        if self.by_key.pop(copy.key, None) is not None:
            same = self.by_id[copy.id]
            same.remove(copy)
            if not same:
                del self.by_id[copy.id]
        if self.idle.pop(copy.key, None) is not None:
            self.idle_bytes -= self._bytes(copy)
        copy.doomed = True
        if not copy.used:
            self._release(copy)

    def find(self, key: Key, size: int) -> Copy | None:
        """The complete copy of those bytes."""
        copy = self.by_key.get(key)
        if copy is not None and copy.size != size:  # made again, and it is another value now
            self._drop(copy)
            return None
        return copy

    def place(self, copy: Copy) -> list[Any]:
        """Where it is, as owners and processes know it."""
        return [self.machine.id, copy.offset, copy.size, self.machine.id]

    # -- users ------------------------------------------------------------------------------------
    def pin(self, copy: Copy, process: bytes) -> None:
        """The process may read it until it says otherwise."""
        if process not in copy.pins:
            was = copy.used
            copy.pins[process] = None
            self.pinned.setdefault(process, []).append(copy)
            self._settle(copy, was)

    def unpin(self, process: bytes, offset: int) -> None:
        """The process's pin of that copy ends."""
        copy = self.by_offset.get(offset)
        if copy is not None and process in copy.pins:
            self._unpin(process, copy)

    def _unpin(self, process: bytes, copy: Copy) -> None:
        held = self.pinned[process]
        held.remove(copy)
        if not held:
            del self.pinned[process]
        del copy.pins[process]
        self._settle(copy, True)

    def read(self, copy: Copy) -> None:
        """Another node begins to read it."""
        was = copy.used
        copy.readers += 1
        self._settle(copy, was)

    def done(self, copy: Copy) -> None:
        """One reader less."""
        copy.readers -= 1
        self._settle(copy, True)

    def _settle(self, copy: Copy, was: bool) -> None:
        """What follows from a change of ``used``."""
        if copy.used == was:
            return
        self.changes += 1
        if copy.doomed:
            self._release(copy)
        elif was:
            self.idle[copy.key] = copy
            self.idle_bytes += self._bytes(copy)
        else:
            del self.idle[copy.key]
            self.idle_bytes -= self._bytes(copy)

    # -- ends -------------------------------------------------------------------------------------
    def free(self, owner: bytes, id: bytes) -> None:
        """The owner needs no copies of that object."""
        for copy in [own for own in self.by_id.get(id, ()) if own.owner == owner]:
            self.doom(copy)

    def evict(self, size: int) -> bool:
        """Let the least recently used idle copy go, if that leads to ``size`` bytes of room."""
        if not self.idle or self.store.extents.ranges.free_bytes + self.idle_bytes < size:
            return False
        self.evicted += 1
        self._drop(next(iter(self.idle.values())))
        return True

    def _drop(self, copy: Copy) -> None:
        self._tell(copy, m.UNCOPIED)
        self.doom(copy)

    def on_death(self, process: bytes) -> None:
        """The process pins nothing any more, and nobody will free what it owned."""
        for copy in list(self.pinned.get(process, ())):
            self._unpin(process, copy)
        for copy in [own for own in self.by_key.values() if own.owner == process]:
            if KEEPER not in copy.pins:  # those may be adopted (``inherit``)
                self.doom(copy)

    def on_node_down(self, node: bytes) -> None:
        """The same for all processes of that node."""
        prefix = node.hex() + "|"
        for copy in [own for own in self.by_key.values() if own.address.startswith(prefix)]:
            if KEEPER not in copy.pins:
                self.doom(copy)

    def kept_of(self, key: bytes) -> list[Copy]:
        """The copies that are kept here for that process, or for any on that node."""
        prefix = key.hex() + "|"
        kept = self.pinned.get(KEEPER, ())
        return [copy for copy in kept if copy.owner == key or copy.address.startswith(prefix)]

    def inherit(self, key: bytes, ids: Container[bytes], heir: bytes, address: str) -> None:
        """Those of a dead process or node have an heir; what it does not take goes."""
        for copy in self.kept_of(key):
            if copy.id in ids:
                copy.owner, copy.address = heir, address
            else:
                self.doom(copy)

    def _release(self, copy: Copy) -> None:
        del self.by_offset[copy.offset]
        self.store.back(copy.offset)

    def _tell(self, copy: Copy, op: int) -> None:
        """Tell the owner, which is this node itself if it has adopted the object."""
        owner = self.machine.peer(copy.owner, copy.address)
        if copy.owner == self.machine.id:
            self.machine.handlers[op](owner, self.machine.now, copy.id, self.place(copy))
        else:
            self.machine.send(owner, op, copy.id, self.place(copy))

    def _bytes(self, copy: Copy) -> int:
        return self.store.extents.sizes[copy.offset]

    # -- people -----------------------------------------------------------------------------------
    def holders(self) -> str:
        """Which processes pin how much, the largest first."""
        sums = {
            process: sum(copy.size for copy in copies) for process, copies in self.pinned.items()
        }
        largest = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:3]
        texts = [f"process {process.hex()[:8]} uses {size:,}" for process, size in largest]
        return "; of copies, " + ", ".join(texts) if texts else ""

    def check(self) -> None:
        """Pins agree in both directions, and each copy has an extent of the node's."""
        pairs = sorted((who, copy.offset) for copy in self.by_offset.values() for who in copy.pins)
        assert pairs == sorted((who, c.offset) for who, held in self.pinned.items() for c in held)
        idle = [copy for copy in self.by_key.values() if not copy.used]
        assert self.idle == {copy.key: copy for copy in idle}
        assert self.idle_bytes == sum(self._bytes(copy) for copy in idle)
        assert sum(map(len, self.by_id.values())) == len(self.by_key)
        for offset, copy in self.by_offset.items():
            assert self.store.extents.holders[offset] == self.machine.id
            assert copy.size <= self._bytes(copy)
            assert copy.used or not copy.doomed, f"copy of {copy.id.hex()} is kept for nobody"
        for key, copy in self.by_key.items():
            assert key == copy.key
            assert copy.have == copy.size
            assert not copy.coming
            assert self.by_offset[copy.offset] is copy
