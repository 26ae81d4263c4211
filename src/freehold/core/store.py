"""The node's table of shared objects: what lies where in the arena, whose it is, when it may go.

Owners free their objects; the process in whose extent an object lies gets its memory back.  Deaths:

* The *holder* of an extent dies: its extents come back when the last sealed object in them is
  freed; what it had not sealed is garbage.
* The *owner* dies: every process says once what it still holds of the dead one's objects
  (``HELD``); those the node adopts and owns from then on, with tickets as any owner; the rest is
  freed.

What another node is reading keeps its memory until that is over (``lent``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED, SHARED
from freehold.core.room import Room

Key = tuple[bytes, bytes, bytes]  # RefId, holder, owner: re-runs may make the same id again


class Stored:
    """One object in the arena."""

    __slots__ = ("holder", "id", "offset", "owner", "readers", "size")

    def __init__(self, id: bytes, holder: bytes, owner: bytes, offset: int, size: int) -> None:
        self.id = id
        self.holder = holder
        self.owner = owner
        self.offset = offset
        self.size = size
        self.readers = 0  # nodes that it is being sent to


class Store(Room):
    """Objects, orphans and extents of one node."""

    def __init__(self, machine: Machine, arena_bytes: int) -> None:
        super().__init__(machine, arena_bytes)
        self.objects: dict[Key, Stored] = {}
        self.by_holder: dict[bytes, dict[Key, Stored]] = {}
        self.by_owner: dict[bytes, dict[Key, Stored]] = {}
        self.by_offset: dict[int, Stored] = {}
        self.lent: dict[int, Stored] = {}  # freed, but still being read; by offset
        self.free_copy: Callable[[bytes, bytes], None] = lambda owner, id: None
        self.early: set[Key] = set()  # freed before they were sealed
        self.adopted: dict[bytes, tuple[Stored, dict[bytes, bytes]]] = {}  # id -> object, tickets
        self.early_tickets: dict[bytes, bytes] = {}  # released before registered -> adopted object
        self.elsewhere: dict[bytes, list[Peer]] = {}  # nodes with copies of adopted objects
        self.asked: dict[bytes, set[bytes]] = {}  # dead owner -> processes that have not answered
        self.gone: set[bytes] = set()  # dead processes
        self.bytes = 0
        self.peak = 0
        machine.on(
            {
                m.SEAL: self.on_seal,
                m.FREE: self.on_free,
                m.HELD: self.on_held,
                m.REGISTER: self.on_register,
                m.RELEASE: self.on_release,
                m.PULL: self.on_pull,
                m.COPIED: self.on_copied,
                m.UNCOPIED: self.on_uncopied,
            }
        )

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
        self, peer: Peer, now: float, id: bytes, owner: bytes, offset: int, size: int
    ) -> None:
        stored = Stored(id, peer.id, owner, offset, size)
        key = (id, peer.id, owner)
        assert key not in self.objects, f"{id.hex()} is sealed twice by {peer!r}"
        self.objects[key] = stored
        self.by_holder.setdefault(peer.id, {})[key] = stored
        self.by_owner.setdefault(owner, {})[key] = stored
        self.by_offset[offset] = stored
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        if key in self.early:
            self.early.remove(key)
            self._free(stored)
        elif owner in self.gone:  # its owner died before it was made
            self._free(stored)

    def on_free(self, peer: Peer, now: float, objects: list[list[bytes]]) -> None:
        for id, holder in objects:
            if holder == self.machine.id:
                self.free_copy(peer.id, id)
                continue
            key = (id, holder, peer.id)
            stored = self.objects.get(key)
            if stored is not None:
                self._free(stored, peer)
            elif holder == peer.id:  # it takes back what it has made for another
                for stored in [own for own in self._held_by(holder) if own.id == id][-1:]:
                    self._free(stored, peer)
            elif holder not in self.gone:
                self.early.add(key)

    def _held_by(self, holder: bytes) -> list[Stored]:
        return list(self.by_holder.get(holder, {}).values())

    def _free(self, stored: Stored, by: Peer | None = None) -> None:
        key = (stored.id, stored.holder, stored.owner)
        del self.objects[key]
        _discard(self.by_holder, stored.holder, key)
        _discard(self.by_owner, stored.owner, key)
        if self.by_offset.get(stored.offset) is stored:
            del self.by_offset[stored.offset]
        self.bytes -= stored.size
        if by is not None and by.id == stored.holder:
            return  # it knows, and has taken the memory back
        if stored.readers:
            self.lent[stored.offset] = stored
        else:
            self._give_back(stored)

    def _give_back(self, stored: Stored) -> None:
        """The memory of a freed object is its holder's again."""
        holder = self.machine.peers.get(stored.holder)
        if stored.holder in self.gone:
            self._reclaim(stored.holder)
        elif holder is not None:
            self.machine.send(holder, m.FREED, [stored.offset])

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
    def on_death(self, dead: bytes, living: Iterable[Peer]) -> bool:
        """A process died; returns whether the living must say what they hold of its objects."""
        self.gone.add(dead)
        self.early = {key for key in self.early if key[1] != dead}
        self.forget(dead)
        self._reclaim(dead)
        for owner in list(self.asked):
            self._answered(owner, dead)
        for id in list(self.adopted):
            tickets = self.adopted[id][1]
            for ticket in [ticket for ticket, who in tickets.items() if who == dead]:
                del tickets[ticket]
            self._settle(id)
        if not self.by_owner.get(dead):
            return False
        self.asked[dead] = {peer.id for peer in living}
        self._answered(dead, b"")
        return True

    def on_held(self, peer: Peer, now: float, owner: bytes, refs: list[list[bytes]]) -> None:
        for id, ticket in refs:
            for stored in self.by_owner.get(owner, {}).values():
                if stored.id == id:
                    entry = self.adopted.setdefault(id, (stored, {}))
                    entry[1][ticket] = peer.id
        self._answered(owner, peer.id)

    def _answered(self, owner: bytes, proc: bytes) -> None:
        waiting = self.asked.get(owner)
        if waiting is None:
            return
        waiting.discard(proc)
        if waiting:
            return
        del self.asked[owner]
        for stored in list(self.by_owner.get(owner, {}).values()):
            if self.adopted.get(stored.id, (None,))[0] is stored:
                self._settle(stored.id)  # its holder may have gone meanwhile
            else:
                self._free(stored)

    # -- as the owner of what it has adopted ------------------------------------------------------
    def adopted_from(self) -> list[bytes]:
        """The dead processes whose objects the node owns now."""
        return sorted({stored.owner for stored, _ in self.adopted.values()})

    def on_register(
        self, peer: Peer, now: float, id: bytes, borrower: bytes, ticket: bytes
    ) -> None:
        entry = self.adopted.get(id)
        if ticket in self.early_tickets:
            del self.early_tickets[ticket]
        elif entry is not None and borrower not in self.gone:
            entry[1][ticket] = borrower
        self.machine.send(peer, m.REGISTERED, ticket)

    def on_release(self, peer: Peer, now: float, tickets: list[list[bytes]]) -> None:
        for id, ticket in tickets:
            entry = self.adopted.get(id)
            if entry is None:
                continue
            if entry[1].pop(ticket, None) is None:
                self.early_tickets[ticket] = id
            self._settle(id)

    def _settle(self, id: bytes) -> None:
        stored, tickets = self.adopted[id]
        if not tickets and stored.owner not in self.asked:
            del self.adopted[id]
            for ticket in [ticket for ticket, of in self.early_tickets.items() if of == id]:
                del self.early_tickets[ticket]
            for node in self.elsewhere.pop(id, ()):
                self.machine.send(node, m.FREE, [[id, node.id]])
            self._free(stored)

    def on_copied(self, peer: Peer, now: float, id: bytes, place: list[Any]) -> None:
        if id in self.adopted:
            self.elsewhere.setdefault(id, []).append(peer)
        else:  # it was freed meanwhile
            self.machine.send(peer, m.FREE, [[id, peer.id]])

    def on_uncopied(self, peer: Peer, now: float, id: bytes, place: list[Any]) -> None:
        nodes = self.elsewhere.get(id, [])
        if peer in nodes:
            nodes.remove(peer)
        if not nodes:
            self.elsewhere.pop(id, None)

    def on_pull(self, peer: Peer, now: float, ids: list[bytes]) -> None:
        for id in ids:
            entry = self.adopted.get(id)
            if entry is None:
                text = f"object {id.hex()}: its owner died, and its value was with it"
                self.machine.send(peer, m.VALUE, id, FAILED, ["OwnerDied", text], [])
            else:
                stored = entry[0]
                place = [stored.holder, stored.offset, stored.size]
                self.machine.send(peer, m.VALUE, id, SHARED, place, [])

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
