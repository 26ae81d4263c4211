"""The node's table of shared objects: what lies where in the arena, whose it is, when it may go.

Owners free their objects; the process in whose extent an object lies gets its memory back.  Deaths:

* The *holder* of an extent dies: its extents come back when the last sealed object in them is
  freed; what it had not sealed is garbage.
* The *owner* dies: see ``core.estates``.
"""

from __future__ import annotations

from freehold.core import messages as m
from freehold.core.arena import Extents
from freehold.core.machine import Machine, Peer

Key = tuple[bytes, bytes, bytes]  # RefId, holder, owner: re-runs may make the same id again


class Stored:
    """One object in the arena."""

    __slots__ = ("holder", "home", "id", "offset", "owner", "place", "size")

    def __init__(
        self, id: bytes, owner: bytes, home: bytes, place: tuple[bytes, int, int, bytes]
    ) -> None:
        self.id = id
        self.owner = owner
        self.home = home  # the owner's node
        self.place = list(place)
        self.holder, self.offset, self.size, _ = place


class Store:
    """Objects, orphans and extents of one node."""

    def __init__(self, machine: Machine, arena_bytes: int) -> None:
        self.machine = machine
        self.extents = Extents(arena_bytes)
        self.objects: dict[Key, Stored] = {}
        self.by_holder: dict[bytes, dict[Key, Stored]] = {}
        self.by_owner: dict[bytes, dict[Key, Stored]] = {}
        self.early: set[Key] = set()  # freed before they were sealed
        self.gone: set[bytes] = set()  # dead processes, and nodes
        self.arena = Peer(b"", "", "arena")
        self.reserved = 0  # bytes from the arena's start whose pages are allocated
        self.allocating: list[tuple[Peer, int, int, bool]] = []  # grants that wait for pages
        self.bytes = 0
        self.peak = 0
        machine.on(
            {
                m.EXTENT: self.on_extent,
                m.EXTENT_BACK: self.on_extent_back,
                m.SEAL: self.on_seal,
                m.RESERVED: self.on_reserved,
            }
        )
        self.trimmed: list[tuple[Peer, int, int]] = []  # requests that wait for a trim
        self.trim_until = 0.0

    # -- extents ----------------------------------------------------------------------------------
    def on_extent(self, peer: Peer, now: float, request: int, size: int) -> None:
        if self._grant(peer, request, size):
            return
        if size > self.extents.size:
            self._refuse(peer, request, size)
        else:  # others may have empty extents in reserve
            for holder in dict.fromkeys(self.extents.holders.values()):
                if holder in self.machine.peers:
                    self.machine.send(self.machine.peers[holder], m.TRIM)
            self.trimmed.append((peer, request, size))
            self.trim_until = now + 0.05

    def _grant(self, peer: Peer, request: int, size: int) -> bool:
        """Grant an extent, as soon as its pages are allocated; False when there is no room."""
        granted = self.extents.grant(peer.id, size)
        if granted is None:
            return False
        offset, warm = granted
        end = offset + self.extents.sizes[offset]
        if end <= self.reserved:
            self._send_grant(peer, request, offset, warm)
        else:
            self.allocating.append((peer, request, offset, warm))
            self.machine.send(self.arena, m.RESERVE, end)
        return True

    def _send_grant(self, peer: Peer, request: int, offset: int, warm: bool) -> None:
        size = self.extents.sizes[offset]
        self.machine.send(peer, m.EXTENT_GRANT, request, offset, size, warm, "")

    def on_reserved(self, peer: Peer, now: float, end: int, reason: str) -> None:
        if not reason:
            self.reserved = max(self.reserved, end)
        waiting, self.allocating = self.allocating, []
        for asker, request, offset, warm in waiting:
            top = offset + self.extents.sizes[offset]
            if top <= self.reserved:
                self._send_grant(asker, request, offset, warm)
            elif top == end:
                size = self.extents.sizes[offset]
                self.extents.back(offset)
                self._refuse(asker, request, size, reason)
            else:
                self.allocating.append((asker, request, offset, warm))

    def on_extent_back(self, peer: Peer, now: float, offset: int) -> None:
        if self.extents.holders.get(offset) == peer.id:
            self.extents.back(offset)
            self._retry_trimmed(False, now)

    def _retry_trimmed(self, last: bool, now: float) -> None:
        waiting, self.trimmed = self.trimmed, []
        for peer, request, size in waiting:
            if self._grant(peer, request, size):
                continue
            if last:
                self._refuse(peer, request, size)
            else:
                self.trimmed.append((peer, request, size))

    def on_timer(self, now: float) -> None:
        """Refuse what trimming could not make room for."""
        if self.trimmed and now >= self.trim_until:
            self._retry_trimmed(True, now)

    def _refuse(self, peer: Peer, request: int, size: int, why: str = "") -> None:
        text = f"{why}; " if why else ""
        text += (
            f"no room for {size:,} bytes in the arena of {self.extents.size:,} bytes: "
            f"{len(self.objects)} objects hold {self.bytes:,} bytes"
        )
        largest = sorted(self.by_owner.items(), key=lambda item: -_bytes_of(item[1]))[:3]
        owners = [f"process {owner.hex()[:8]} owns {_bytes_of(own):,}" for owner, own in largest]
        if owners:
            text += " (" + ", ".join(owners) + ")"
        text += ".  Drop references, or raise arena_bytes_max."
        self.machine.send(peer, m.EXTENT_GRANT, request, 0, 0, False, text)

    # -- objects ----------------------------------------------------------------------------------
    def on_seal(
        self, peer: Peer, now: float, id: bytes, owner: bytes, home: bytes, offset: int, size: int
    ) -> None:
        me = self.machine.id
        stored = Stored(id, owner, home or me, (peer.id, offset, size, me))
        key = (id, peer.id, owner)
        assert key not in self.objects, f"{id.hex()} is sealed twice by {peer!r}"
        self.objects[key] = stored
        self.by_holder.setdefault(peer.id, {})[key] = stored
        self.by_owner.setdefault(owner, {})[key] = stored
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        if key in self.early:
            self.early.remove(key)
            self._free(stored)
        elif owner in self.gone or home in self.gone:  # its owner died before it was made
            self._free(stored)

    def on_free(self, peer: Peer, now: float, objects: list[list[bytes]]) -> None:
        for id, holder in objects:
            key = (id, holder, peer.id)
            stored = self.objects.get(key)
            if stored is not None:
                self._free(stored, peer)
            elif holder == peer.id:  # it takes back what it has made for another
                for stored in [own for own in self._held_by(holder) if own.id == id][-1:]:
                    self._free(stored, peer)
            elif holder not in self.gone:
                self.early.add(key)

    def free_for(self, owner: bytes, objects: list[list[bytes]]) -> None:
        """An owner elsewhere has no use for these any more."""
        for id, holder in objects:
            stored = self.objects.get((id, holder, owner))
            if stored is not None:
                self._free(stored)
            elif holder not in self.gone:
                self.early.add((id, holder, owner))

    def _held_by(self, holder: bytes) -> list[Stored]:
        return list(self.by_holder.get(holder, {}).values())

    def _free(self, stored: Stored, by: Peer | None = None) -> None:
        key = (stored.id, stored.holder, stored.owner)
        del self.objects[key]
        _discard(self.by_holder, stored.holder, key)
        _discard(self.by_owner, stored.owner, key)
        self.bytes -= stored.size
        holder = self.machine.peers.get(stored.holder)
        if stored.holder in self.gone:
            self._reclaim(stored.holder)
        elif holder is not None and holder is not by:
            self.machine.send(holder, m.FREED, [stored.offset])

    def _reclaim(self, dead: bytes) -> None:
        """Take back the extents of a dead process in which no object is left."""
        offsets = [stored.offset for stored in self.by_holder.get(dead, {}).values()]
        for start in self.extents.of(dead):
            end = start + self.extents.sizes[start]
            if not any(start <= offset < end for offset in offsets):
                self.extents.back(start)

    # -- deaths -----------------------------------------------------------------------------------
    def on_death(self, dead: bytes) -> None:
        """A process died."""
        self.gone.add(dead)
        self.early = {key for key in self.early if key[1] != dead}
        self.trimmed = [entry for entry in self.trimmed if entry[0].id != dead]
        self.allocating = [entry for entry in self.allocating if entry[0].id != dead]
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
        """Free one object, if it is (still) here."""
        stored = self.objects.get((id, holder, owner))
        if stored is not None:
            self._free(stored)

    def check(self) -> None:
        """Every object lies in an extent of its holder, and counts agree."""
        self.extents.check()
        assert self.bytes == sum(stored.size for stored in self.objects.values())
        for stored in self.objects.values():
            inside = any(
                start <= stored.offset < start + self.extents.sizes[start]
                for start in self.extents.of(stored.holder)
            )
            assert inside, f"object {stored.id.hex()} lies outside its holder's extents"


def _bytes_of(objects: dict[Key, Stored]) -> int:
    return sum(stored.size for stored in objects.values())


def _discard(index: dict[bytes, dict[Key, Stored]], name: bytes, key: Key) -> None:
    entries = index[name]
    del entries[key]
    if not entries:
        del index[name]
