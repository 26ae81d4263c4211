"""What an adopter makes of an estate: which objects it owns from now on, and what it holds.

It owns what is both held and stored, with one ticket for each holder, and what is inside of that.
What is inside and owned by others it holds, by the tickets of the dead (``node.loans``), and lets
all else go that the dead one held of others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of, pack_address
from freehold.core.messages import INLINE
from freehold.core.node.abandoned import is_actor
from freehold.core.node.adoptions import Adopted, Adoptions
from freehold.core.node.estate import Estate
from freehold.core.places import Place, is_copy

Found = dict[bytes, tuple[bytes, Place, list[Any]]]  # what is stored: owner, where, inside


class Succession(Adoptions):
    """The part of a node that takes estates over."""

    settled_by: Callable[[bytes], list[bytes]]

    def take_over(self, estate: Estate, before: list[bytes]) -> list[bytes]:
        """Own what is held and stored, and what is inside of it; its RefIds.

        ``before`` are those who were silent until now.
        """
        copies = [entry for entry in estate.stored if is_copy(entry[2])]
        found: Found = {id: (owner, place, inside) for id, owner, place, inside in copies}
        for id, owner, place, inside in estate.stored:
            if not is_copy(place):
                found[id] = (owner, place, inside)
        for context, holder in estate.contexts:
            self.revivals.revivers[context] = holder
        for id, ticket, holder, again, other in estate.held:
            if id not in found and id not in self.adopted:
                if again:
                    self.revivals.revivers[id] = holder
            elif ticket in self.early:
                del self.early[ticket]
            elif holder not in self.store.gone and (other or not self._is_actor(id, found)):
                self._enter(id, found).tickets[ticket] = holder
        for ticket, (id, borrower) in list(self.registers.items()):
            if id in found and borrower not in self.store.gone:
                del self.registers[ticket]
                self.enroll(id, self._enter(id, found), ticket, borrower)
        self._suspend(estate, found, before)
        self._inherit(estate, found)
        kept = [id for id in found if id in self.adopted]
        for id, (_, place, _) in found.items():
            if id in self.adopted and not self.adopted[id].place:
                self.adopted[id].place = place
        for id, owner, place, _ in estate.stored:
            if id in self.adopted:
                self.adopted[id].add(owner, place)
        return kept

    def _suspend(self, estate: Estate, found: Found, before: list[bytes]) -> None:
        """Who is silent holds all that is stored; who has spoken, only what it said."""
        estate.silent = [who for who in estate.silent if who not in self.store.gone]
        for who in estate.silent:
            for id in found:
                self._enter(id, found).tickets[who + estate.key] = who
        done = [who + estate.key for who in before if who not in estate.silent]
        for entry in self.adopted.values() if done else ():
            for ticket in done:
                entry.tickets.pop(ticket, None)  # ``_close`` settles it

    def _enter(self, id: bytes, found: Found) -> Adopted:
        """The entry of an object that is stored or adopted, made if it is new."""
        entry = self.adopted.get(id)
        if entry is None:
            owner, place, inside = found[id]
            entry = self.adopted[id] = Adopted(owner, place)
            entry.inside = inside
            if is_actor(place):
                entry.state, entry.data = INLINE, pack_address(place[0], place[1])
                self.watch(place[3])  # to hear of its end
            self.absorb(id, entry)
        return entry

    def _is_actor(self, id: bytes, found: Found) -> bool:
        """Whether that is an actor; its own program's processes do not keep it alive."""
        entry = self.adopted.get(id)
        return is_actor(found[id][1] if id in found else entry.place if entry is not None else [])

    def _inherit(self, estate: Estate, found: Found) -> None:
        """Hold what is inside of what is adopted; let go of all else that the dead one held."""
        lent: dict[bytes, tuple[bytes, str, list[bytes]]] = {}
        for id, owner, address, ticket in estate.lent:
            if lent.setdefault(id, (owner, address, []))[0] == owner:
                lent[id][2].append(ticket)
            else:
                self._release(owner, address, id, [ticket])
        for id, owner, address, ticket, holder in estate.given:
            self._register(id, owner, address, ticket, holder)
        for id in self.loans.of(self.settled_by(estate.key)):
            if id in found:
                self._enter(id, found)
            else:
                self._disown(id)
        ahead = [entry for entry in self.adopted.values() if entry.inside]
        while ahead:
            entry = ahead.pop()
            names, entry.inside = entry.inside, []
            for id in [id for _, _, ids in names for id in ids]:
                if id in self.adopted or id in found:
                    inner = self._enter(id, found)
                    inner.holds += 1
                    ahead += [inner] if inner.inside else []
                elif not self.loans.take(id, *lent.pop(id, (b"", "", []))):
                    continue  # it was with its owner: it is lost
                entry.contains.append(id)
        for id, (owner, address, tickets) in lent.items():
            self._release(owner, address, id, tickets)

    def _disown(self, id: bytes) -> None:
        """What adopted values contain has died with its owner."""
        del self.loans.by_id[id]
        for entry in self.adopted.values():
            if id in entry.contains:
                entry.contains = [inner for inner in entry.contains if inner != id]

    def _register(
        self, id: bytes, owner: bytes, address: str, ticket: bytes, holder: bytes
    ) -> None:
        """What the dead one was to tell: to whom it has handed a reference."""
        home = self.revivals.homes.get(holder, self.machine.id)
        if {owner, node_of(address)} & self.store.gone or holder in self.store.gone:
            return
        if owner != self.machine.id:
            there = self.machine.peer(owner, address)
            self.machine.send(there, m.REGISTER, id, holder, ticket, home)
        elif id in self.adopted and ticket not in self.early:
            self.adopted[id].tickets[ticket] = holder
