"""The node's table of shared objects: what lies where in the arena, whose it is, when it may go.

Owners free their objects; the process in whose extent an object lies gets its memory back.  Deaths:

* The *holder* of an extent dies: its extents come back when the last sealed object in them is
  freed; what it had not sealed is garbage.
* The *owner* dies: see ``node.estates``.

What another node is reading keeps its memory until that is over (``lent``).

A task that runs again on the same worker makes the same ids again, while its first results may
still be in use.  Then there are *twins*; FREE names the one that was made last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.node.room import Room

Key = tuple[bytes, bytes, bytes]  # RefId, holder, owner: re-runs may make the same id again
Index = dict[bytes, dict[int, "Stored"]]  # process -> offset -> object


class Stored:
    """One object in the arena."""

    __slots__ = (
        "holder", "home", "id", "inside", "offset", "owner", "place", "readers", "size", "twin",
    )  # fmt: skip

    def __init__(
        self, id: bytes, owner: bytes, home: bytes, place: tuple[bytes, int, int, bytes]
    ) -> None:
        self.id = id
        self.owner = owner
        self.home = home  # the owner's node
        self.place = list(place)
        self.holder, self.offset, self.size, _ = place
        self.inside: list[list[Any]] = []  # [owner, address, RefIds] of the references in it
        self.readers = 0  # nodes that it is being sent to
        self.twin: Stored | None = None  # made before by the same holder, under the same id


class Store(Room):
    """Objects, orphans and extents of one node."""

    def __init__(self, machine: Machine, arena_bytes: int) -> None:
        super().__init__(machine, arena_bytes)
        self.objects: dict[Key, Stored] = {}  # of twins, the one that was made last
        self.by_holder: Index = {}
        self.by_owner: Index = {}
        self.by_offset: dict[int, Stored] = {}
        self.lent: dict[int, Stored] = {}  # freed, but still being read; by offset
        self.free_copy: Callable[[bytes, bytes], None] = lambda owner, id: None
        self.is_expected: Callable[[Stored], bool] = lambda stored: False  # by who adopts
        self.early: set[Key] = set()  # freed before they were sealed
        self.gone: set[bytes] = set()  # dead processes, and nodes
        self.bytes = 0
        self.peak = 0
        machine.on({m.SEAL: self.on_seal})

    # -- extents ----------------------------------------------------------------------------------
    def full(self, size: int, why: str = "", more: str = "") -> str:
        """Why there is no room: who holds what, and what to do."""
        text = f"{why}; " if why else ""
        text += (
            f"no room for {size:,} bytes in the arena of {self.extents.size:,} bytes: "
            f"{len(self.objects)} objects hold {self.bytes:,} bytes"
        )
        largest = sorted(self.by_owner.items(), key=lambda item: -_bytes_of(item[1]))[:3]
        owners = [f"process {owner.hex()[:8]} owns {_bytes_of(own):,}" for owner, own in largest]
        if owners:
            text += " (" + ", ".join(owners) + ")"
        return text + more + ".  Drop references, or raise arena_bytes_max."

    # -- objects ----------------------------------------------------------------------------------
    def on_seal(
        self, peer: Peer, now: float, id: bytes, owner: bytes, home: bytes, offset: int, size: int,
        inside: list[list[Any]],
    ) -> None:  # fmt: skip
        me = self.machine.id
        stored = Stored(id, owner, home or me, (peer.id, offset, size, me))
        stored.inside = inside
        key = (id, peer.id, owner)
        stored.twin = self.objects.get(key)
        self.objects[key] = stored
        self.by_holder.setdefault(peer.id, {})[offset] = stored
        self.by_owner.setdefault(owner, {})[offset] = stored
        self.by_offset[offset] = stored
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        if key in self.early:
            self.early.remove(key)
            self._free(stored)
        elif (owner in self.gone or home in self.gone) and not self.is_expected(stored):
            self._free(stored)  # its owner died before it was made

    def on_free(self, peer: Peer, now: float, objects: list[list[bytes]]) -> None:
        """An owner on this node needs these no longer."""
        for id, holder in objects:
            key = (id, holder, peer.id)
            stored = self.objects.get(key)
            if holder == self.machine.id:
                self.free_copy(peer.id, id)
            elif stored is not None:
                self._free(stored, peer)
            elif holder == peer.id:  # it takes back what it has made for another
                for stored in [own for own in self._held_by(holder) if own.id == id][-1:]:
                    self._free(stored, peer)
            elif holder not in self.gone:
                self.early.add(key)

    def free_for(self, owner: bytes, objects: list[list[bytes]]) -> None:
        """An owner elsewhere needs these no longer."""
        for id, holder in objects:
            stored = self.objects.get((id, holder, owner))
            if holder == self.machine.id:
                self.free_copy(owner, id)
            elif stored is not None:
                self._free(stored)
            elif holder not in self.gone:
                self.early.add((id, holder, owner))

    def _held_by(self, holder: bytes) -> list[Stored]:
        return list(self.by_holder.get(holder, {}).values())

    def _free(self, stored: Stored, by: Peer | None = None) -> None:
        self._unlist(stored)
        if self.by_offset.get(stored.offset) is stored:
            del self.by_offset[stored.offset]
        self.bytes -= stored.size
        if by is not None and by.id == stored.holder:  # it knows, and has taken the memory back
            self.chase(by)
            return
        if stored.readers:
            self.lent[stored.offset] = stored
        else:
            self._give_back(stored)

    def _unlist(self, stored: Stored) -> None:
        """Take it out of the tables by name and process."""
        key = (stored.id, stored.holder, stored.owner)
        last = self.objects[key]
        if last is stored:
            del self.objects[key]
            if stored.twin is not None:
                self.objects[key] = stored.twin
        else:
            while last.twin is not stored:
                assert last.twin is not None
                last = last.twin
            last.twin = stored.twin
        _discard(self.by_holder, stored.holder, stored.offset)
        _discard(self.by_owner, stored.owner, stored.offset)

    def _give_back(self, stored: Stored) -> None:
        """The memory of a freed object is its holder's again."""
        holder = self.machine.peers.get(stored.holder)
        if stored.holder in self.gone:
            self._reclaim(stored.holder)
        elif holder is not None:
            self.machine.send(holder, m.FREED, [stored.offset])
            self.chase(holder)

    def read(self, stored: Stored) -> None:
        """Another node begins to read it: its memory stays until ``done``."""
        stored.readers += 1

    def done(self, stored: Stored) -> None:
        """One reader less."""
        stored.readers -= 1
        if not stored.readers and self.lent.get(stored.offset) is stored:
            del self.lent[stored.offset]
            self._give_back(stored)

    def _reclaim(self, dead: bytes) -> None:
        """Take back the extents of a dead process in which no object is left."""
        offsets = [stored.offset for stored in self.by_holder.get(dead, {}).values()]
        offsets += [stored.offset for stored in self.lent.values() if stored.holder == dead]
        for start in self.extents.of(dead):
            end = start + self.extents.sizes[start]
            if not any(start <= offset < end for offset in offsets):
                self.back(start)

    # -- deaths -----------------------------------------------------------------------------------
    def on_death(self, dead: bytes) -> None:
        """A process died."""
        self.gone.add(dead)
        self.early = {key for key in self.early if key[1] != dead}
        self.forget(dead)
        self._reclaim(dead)

    # -- for estates ------------------------------------------------------------------------------
    def owned_by(self, key: bytes) -> list[Stored]:
        """What is stored of a dead process, or of every process of a dead node."""
        found = list(self.by_owner.get(key, {}).values())
        for objects in self.by_owner.values():
            found += [stored for stored in objects.values() if stored.home == key]
        return found

    def free_others(self, key: bytes, kept: set[bytes]) -> None:
        """Free what is stored of the dead, but for these."""
        for stored in self.owned_by(key):
            if stored.id not in kept:
                self._free(stored)

    def free(self, id: bytes, holder: bytes, owner: bytes) -> None:
        """Free one object, and its twins, if it is (still) here."""
        while (stored := self.objects.get((id, holder, owner))) is not None:
            self._free(stored)

    def check(self) -> None:
        """Every object lies in an extent of its holder, and counts agree."""
        self.extents.check()
        assert self.bytes == sum(stored.size for stored in self.by_offset.values())
        assert all(self.by_offset[stored.offset] is stored for stored in self.objects.values())
        for stored in self.by_offset.values():
            inside = any(
                start <= stored.offset < start + self.extents.sizes[start]
                for start in self.extents.of(stored.holder)
            )
            assert inside, f"object {stored.id.hex()} lies outside its holder's extents"


def _bytes_of(objects: dict[int, Stored]) -> int:
    return sum(stored.size for stored in objects.values())


def _discard(index: Index, process: bytes, offset: int) -> None:
    entries = index[process]
    del entries[offset]
    if not entries:
        del index[process]
