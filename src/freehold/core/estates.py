"""What the dead have owned, and who owns it now.

When a process dies, its node becomes the owner of what others still hold of it; when a node dies,
one of the living, which all of them choose alike (``adopter_of``), becomes that for all its
processes.  The rules:

1. Everyone who might hold something says once what it holds: processes to their node (HELD), each
   node to the adopter (ESTATE_HELD), together with what it stores of the dead.  Whoever dies before
   it has answered is not waited for.
2. When all have answered, the adopter owns what is both held and stored, with one ticket for each
   holder; every node frees the rest of what it stores of the dead (ESTATE).
3. A process that ends in good order leaves its small values, too (BEQUEST).
4. From then on the adopter is an owner like any other, as far as these values go
   (``core.adoptions``).  What it is asked for and does not have is made again if somebody can
   (``core.revivals``), and else ends in ``OwnerDied``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from freehold.core import messages as m
from freehold.core.abandoned import is_actor
from freehold.core.actors import pack_address
from freehold.core.adoptions import Adopted, Adoptions, is_copy
from freehold.core.copies import Copies
from freehold.core.machine import Machine, Peer
from freehold.core.messages import INLINE
from freehold.core.store import Store
from freehold.core.workers import Workers

Place = list[Any]
Told = tuple[Peer, list[Any], list[Any], list[Any]]  # a node's ESTATE_HELD
ANSWER_MAX = 4.0  # seconds for the others to answer: who is silent for less may yet be alive


def adopter_of(node: bytes, living: Iterable[bytes]) -> bytes:
    """Which of the living adopts what the processes of a dead node owned."""
    return max(living, key=lambda other: blake2b(other + node, digest_size=8).digest())


class Estate:
    """What is being collected about one dead process, or all of one dead node."""

    __slots__ = ("adopter", "asked", "contexts", "held", "key", "nodes", "stored", "until")

    def __init__(self, key: bytes, asked: set[bytes], adopter: Peer | None, until: float) -> None:
        self.key = key
        self.until = until  # when those nodes are given up that have not answered
        self.asked = asked  # processes of this node that have not answered
        self.adopter = adopter  # to be told; None: this node
        self.nodes: set[bytes] = set()  # that have not answered, if this node is the adopter
        self.held: list[list[Any]] = []  # [id, ticket, holder, can revive it, of another program]
        self.contexts: list[list[bytes]] = []  # [context, process]
        self.stored: list[list[Any]] = []  # [id, owner, place]


class Estates(Adoptions):
    """The estates of one node."""

    def __init__(self, machine: Machine, store: Store, workers: Workers) -> None:
        super().__init__(machine, store, workers)
        self.copies: Copies  # of this node; set by it
        self.open: dict[bytes, Estate] = {}
        self.heirs: dict[bytes, bytes] = {}  # dead, of whom something is stored here -> the adopter
        self.settled_with: dict[bytes, list[bytes]] = {}  # an open estate -> whose it settles too
        self.ahead: dict[bytes, list[Told]] = {}  # before ``begin``
        self.trusted: Callable[[bytes, Peer | None], list[list[Any]]]  # held by this node itself
        machine.on(
            {
                m.HELD: self.on_held,
                m.ESTATE_HELD: self.on_estate_held,
                m.ESTATE: self.on_estate,
            }
        )

    # -- collecting -------------------------------------------------------------------------------
    def begin(
        self, key: bytes, asked: set[bytes], nodes: set[bytes], adopter: Peer | None = None
    ) -> None:
        """A process or node is dead, and ``asked`` are to answer with HELD."""
        until = self.machine.now + ANSWER_MAX
        estate = self.open[key] = Estate(key, asked, adopter, until)
        estate.nodes = nodes
        estate.held += self.trusted(key, adopter)
        for peer, held, contexts, stored in self.ahead.pop(key, ()):
            self._told(estate, peer, held, contexts, stored)
        self._advance(estate)

    def on_held(
        self, peer: Peer, now: float, dead: bytes, refs: list[list[Any]], contexts: list[bytes]
    ) -> None:
        estate = self.open.get(dead)
        if estate is None:
            return
        if peer.id in estate.asked:
            estate.asked.discard(peer.id)
            estate.held += [[id, ticket, peer.id, *flags] for id, ticket, *flags in refs]
            estate.contexts += [[context, peer.id] for context in contexts]
        self._advance(estate)

    def on_estate_held(
        self,
        peer: Peer,
        now: float,
        dead: bytes,
        held: list[Any],
        contexts: list[Any],
        stored: list[Any],
    ) -> None:
        estate = self.open.get(dead)
        if estate is None and dead in self.store.gone:  # too late
            self.machine.send(peer, m.ESTATE, dead, list(self.adopted))
            return
        if estate is None:
            self.ahead.setdefault(dead, []).append((peer, held, contexts, stored))
            return
        self._told(estate, peer, held, contexts, stored)
        self._advance(estate)

    def _told(
        self, estate: Estate, peer: Peer, held: list[Any], contexts: list[Any], stored: list[Any]
    ) -> None:
        estate.nodes.discard(peer.id)
        estate.held += held
        estate.contexts += contexts
        estate.stored += stored
        holders = [entry[2] for entry in held] + [entry[1] for entry in contexts]
        for holder in holders:
            self.revivals.homes[holder] = peer.id
        if holders:
            self.watch(peer.id)

    def _advance(self, estate: Estate) -> None:
        """Go on when everyone who is asked here has answered."""
        if estate.asked or self.open.get(estate.key) is not estate:
            return
        if estate.adopter is not None:
            words = (estate.held, estate.contexts, self._mine(estate))
            self.machine.send(estate.adopter, m.ESTATE_HELD, estate.key, *words)
            self._close(estate)
        elif not estate.nodes:
            estate.stored += self._mine(estate)
            self._adopt(estate)

    def _stored(self, estate: Estate) -> list[list[Any]]:
        """What is stored here of the dead one, and of those whose adopter it was."""
        heirs = self.heirs
        keys = [estate.key, *(dead for dead, heir in heirs.items() if heir == estate.key)]
        self.settled_with[estate.key] = keys
        found = []
        for key in keys:
            objects = self.store.owned_by(key)
            actors = self.abandoned.of(key)
            heirs.pop(key, None)
            if (objects or actors) and estate.adopter is not None:
                heirs[key] = estate.adopter.id
            found += [[actor, owner, place] for actor, owner, place in actors]
            found += [[stored.id, stored.owner, stored.place] for stored in objects]
        return found

    def _mine(self, estate: Estate) -> list[list[Any]]:
        """The same, with the copies that are kept here."""
        found = self._stored(estate)
        for copy in self.copies.kept_of(estate.key):
            found.append([copy.id, copy.owner, self.copies.place(copy)])
        return found

    def _close(self, estate: Estate) -> None:
        """Everything has been said; after the last one, do what had to wait for that."""
        del self.open[estate.key]
        self.left.discard(estate.key)
        if not self.open:
            for id, entry in list(self.adopted.items()):
                self._settle(id, entry)
            self._answer_all()

    def _adopt(self, estate: Estate) -> None:
        copies = [entry for entry in estate.stored if is_copy(entry[2])]
        places = {id: (owner, place) for id, owner, place in copies}
        places |= {id: (owner, place) for id, owner, place in estate.stored if not is_copy(place)}
        for context, holder in estate.contexts:
            self.revivals.revivers[context] = holder
        for id, ticket, holder, again, other in estate.held:
            if id not in places and id not in self.adopted:
                if again:
                    self.revivals.revivers[id] = holder
                continue
            if holder in self.store.gone or (not other and self._is_actor(id, places)):
                continue
            if ticket in self.early:
                del self.early[ticket]
                continue
            entry = self.adopted.get(id)
            if entry is None:
                entry = self.adopted[id] = self._entry(*places[id])
            entry.tickets[ticket] = holder
        for ticket, (id, borrower) in list(self.registers.items()):
            if id in places and borrower not in self.store.gone:
                del self.registers[ticket]
                entry = self.adopted.get(id)
                if entry is None:
                    entry = self.adopted[id] = self._entry(*places[id])
                entry.tickets[ticket] = borrower
        kept = [id for id in places if id in self.adopted]
        for id, (_, place) in places.items():
            if id in self.adopted and not self.adopted[id].place:
                self.adopted[id].place = place
        for id, _, place in copies:
            entry = self.adopted.get(id)
            if entry is not None and place not in (entry.place, *entry.copies):
                entry.copies.append(place)
        told = {place[3] for _, _, place in estate.stored} - {self.machine.id}
        for node in sorted(told):
            if node in self.machine.peers:
                self.machine.send(self.machine.peers[node], m.ESTATE, estate.key, kept)
        self.free_others(estate.key, kept, self.machine.id, "")
        self._close(estate)

    def _is_actor(self, id: bytes, places: dict[bytes, tuple[bytes, Place]]) -> bool:
        """Whether that is an actor; its own program's processes do not keep it alive."""
        entry = self.adopted.get(id)
        place = places[id][1] if id in places else entry.place if entry is not None else []
        return is_actor(place)

    def _entry(self, owner: bytes, place: Place) -> Adopted:
        if not is_actor(place):
            return Adopted(owner, place)
        self.watch(place[3])  # to hear of its end
        return Adopted(owner, place, INLINE, pack_address(place[0], place[1]))

    def free_others(self, dead: bytes, kept: list[bytes], heir: bytes, address: str) -> None:
        """Free what is here of the dead, but for what the heir has adopted."""
        for key in self.settled_with.pop(dead, [dead]):
            self.store.free_others(key, set(kept))
            for actor, owner, _ in self.abandoned.of(key):
                if actor not in kept:
                    self.abandoned.end(actor, owner)
            self.copies.inherit(key, set(kept), heir, address)

    def on_timer(self, now: float) -> None:
        """Answer what has waited long enough for an estate to be opened, or to be closed."""
        for estate in list(self.open.values()):
            if now >= estate.until:
                estate.nodes.clear()
                estate.asked.clear()
                self._advance(estate)
        if now >= self.patience:
            self._answer_all()

    def deadline(self) -> float:
        """When ``on_timer`` is due."""
        return min([self.patience, *(estate.until for estate in self.open.values())])

    def on_estate(self, peer: Peer, now: float, dead: bytes, kept: list[bytes]) -> None:
        """The adopter has decided: free the rest of what is stored here of the dead."""
        self.free_others(dead, kept, peer.id, peer.address)

    # -- further deaths ---------------------------------------------------------------------------
    def on_death(self, dead: bytes) -> None:
        """A process died: it holds nothing, and answers nothing."""
        self.revivals.on_death(dead)
        for estate in list(self.open.values()):
            estate.asked.discard(dead)
            self._advance(estate)
        self.forget_holder(dead)

    def on_node_death(self, node: bytes) -> None:
        """A node died, with what lay there."""
        for proc in self.revivals.living_on(node):
            self.on_death(proc)
        for estate in list(self.open.values()):
            estate.nodes.discard(node)
            estate.stored = [entry for entry in estate.stored if entry[2][3] != node]
            if estate.adopter is not None and estate.adopter.id == node:
                self._close(estate)
                self.free_others(estate.key, [], b"", "")
            else:
                self._advance(estate)
        self.forget_places(node)
