"""What the dead have owned, and who owns it now.

When a process dies, its node becomes the owner of what others still hold of it; when a node dies,
one of the living, which all of them choose alike (``adopter_of``), becomes that for all its
processes.  The rules:

1. Everyone who might hold something says once what it holds: processes to their node (HELD), each
   node to the adopter (ESTATE_HELD), together with what it stores of the dead.  Whoever dies before
   it has answered is not waited for.
2. When all have answered, the adopter owns what is both held and stored, with one ticket for each
   holder, and what is inside of that; every node frees the rest of what it stores of the dead
   (ESTATE).
3. A process that ends in good order leaves its small values, too (BEQUEST).
4. From then on the adopter is an owner like any other, as far as these values go
   (``core.adoptions``).  What it is asked for and does not have is made again if somebody can
   (``core.revivals``), and else ends in ``OwnerDied``.
5. What the dead held of others is not lost at once either: its owners make the heir the holder when
   they answer (``lent``).  The heir keeps what it needs (``core.loans``), registers those to whom
   the dead had handed references before it could say so (``given``), and then releases the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.adoptions import Adopted, Adoptions, is_copy
from freehold.core.copies import Copies
from freehold.core.machine import Machine, Peer
from freehold.core.store import Store

Place = list[Any]
Told = tuple[Peer, tuple[list[Any], ...]]  # a node's ESTATE_HELD: what it adds to ``Estate.lists``
Found = dict[bytes, tuple[bytes, Place, list[Any]]]  # what is stored: owner, where, inside
ANSWER_MAX = 4.0  # seconds for the others to answer: who is silent for less may yet be alive


def adopter_of(node: bytes, living: Iterable[bytes]) -> bytes:
    """Which of the living adopts what the processes of a dead node owned."""
    return max(living, key=lambda other: blake2b(other + node, digest_size=8).digest())


class Estate:
    """What is being collected about one dead process, or all of one dead node."""

    __slots__ = (
        "adopter", "asked", "contexts", "dead", "given", "held", "key", "lent", "nodes", "stored",
        "until",
    )  # fmt: skip

    def __init__(self, key: bytes, asked: set[bytes], adopter: Peer | None, until: float) -> None:
        self.key = key
        self.dead = [key]  # with the processes of a node
        self.until = until  # when those nodes are given up that have not answered
        self.asked = asked  # processes of this node that have not answered
        self.adopter = adopter  # to be told; None: this node
        self.nodes: set[bytes] = set()  # that have not answered, if this node is the adopter
        self.held: list[list[Any]] = []  # [id, ticket, holder, whether it can revive it]
        self.contexts: list[list[bytes]] = []  # [context, process]
        self.stored: list[list[Any]] = []  # [id, owner, place, inside]
        self.lent: list[list[Any]] = []  # [id, owner, address, ticket] of the dead one's tickets
        self.given: list[list[Any]] = []  # [id, owner, address, ticket, holder] to be registered

    @property
    def lists(self) -> tuple[list[Any], ...]:
        """All that is collected, in the order of ESTATE_HELD."""
        return self.held, self.contexts, self.stored, self.lent, self.given


class Estates(Adoptions):
    """The estates of one node."""

    def __init__(self, machine: Machine, store: Store) -> None:
        super().__init__(machine, store)
        self.copies: Copies  # of this node; set by it
        self.open: dict[bytes, Estate] = {}
        self.heirs: dict[bytes, bytes] = {}  # dead, of whom something is stored here -> the adopter
        self.settled_with: dict[bytes, list[bytes]] = {}  # an open estate -> whose it settles too
        self.ahead: dict[bytes, list[Told]] = {}  # before ``begin``
        self.carried: dict[bytes, list[bytes]] = {}  # adopter that has died -> whose it did not get
        machine.on(
            {
                m.HELD: self.on_held,
                m.ESTATE_HELD: self.on_estate_held,
                m.ESTATE: self.on_estate,
            }
        )

    # -- collecting -------------------------------------------------------------------------------
    def begin(
        self,
        key: bytes,
        asked: set[bytes],
        nodes: set[bytes],
        adopter: Peer | None = None,
        procs: Iterable[bytes] = (),
    ) -> None:
        """A process, or a node with its processes, is dead; ``asked`` are to answer with HELD."""
        until = self.machine.now + ANSWER_MAX
        estate = self.open[key] = Estate(key, asked, adopter, until)
        estate.nodes = nodes
        estate.dead += [*procs, *self.carried.pop(key, [])]
        for peer, lists in self.ahead.pop(key, ()):
            self._told(estate, peer, lists)
        self._advance(estate)

    def on_held(
        self,
        peer: Peer,
        now: float,
        dead: bytes,
        refs: list[list[Any]],
        contexts: list[bytes],
        lent: list[list[Any]],
        given: list[list[Any]],
    ) -> None:
        estate = self.open.get(dead)
        if estate is None:
            return
        if peer.id in estate.asked:
            estate.asked.discard(peer.id)
            estate.held += [[id, ticket, peer.id, again] for id, ticket, again in refs]
            estate.contexts += [[context, peer.id] for context in contexts]
            estate.lent += lent
            estate.given += [[*fields, peer.id] for fields in given]
        self._advance(estate)

    def on_estate_held(
        self, peer: Peer, now: float, dead: bytes, held: list[Any], contexts: list[Any],
        stored: list[Any], lent: list[Any], given: list[Any],
    ) -> None:  # fmt: skip
        estate, lists = self.open.get(dead), (held, contexts, stored, lent, given)
        if estate is None and dead in self.store.gone:  # too late
            self.machine.send(peer, m.ESTATE, dead, list(self.adopted))
            return
        if estate is None:
            self.ahead.setdefault(dead, []).append((peer, lists))
            return
        self._told(estate, peer, lists)
        self._advance(estate)

    def _told(self, estate: Estate, peer: Peer, lists: tuple[list[Any], ...]) -> None:
        estate.nodes.discard(peer.id)
        for known, told in zip(estate.lists, lists, strict=True):
            known += told
        held, contexts, _, _, given = lists
        holders = [entry[2] for entry in held] + [entry[1] for entry in contexts]
        holders += [entry[4] for entry in given]
        for holder in holders:
            self.revivals.homes[holder] = peer.id
        if holders:
            self.watch(peer.id)

    def _advance(self, estate: Estate) -> None:
        """Go on when everyone who is asked here has answered."""
        if estate.asked or self.open.get(estate.key) is not estate:
            return
        heir = estate.adopter
        if heir is not None:
            estate.held += self.loans.move(estate.key, heir)
            estate.lent += self._lend(estate.dead, heir)
            estate.stored += self._mine(estate)
            self.machine.send(heir, m.ESTATE_HELD, estate.key, *estate.lists)
            self._close(estate)
        elif not estate.nodes:
            estate.stored += self._mine(estate)
            self._adopt(estate)

    def _lend(self, dead: list[bytes], heir: Peer) -> list[list[Any]]:
        """Make the heir the holder of what the dead held of this node's own."""
        lent = []
        for id, entry in self.adopted.items():
            for ticket in [ticket for ticket, who in entry.tickets.items() if who in dead]:
                entry.tickets[ticket] = heir.id
                lent.append([id, self.machine.id, self.address, ticket])
        if lent:
            self.revivals.homes[heir.id] = heir.id  # until it dies itself
        return lent

    def _stored(self, estate: Estate) -> list[list[Any]]:
        """What is stored here of the dead one, and of those whose adopter it was."""
        heirs = self.heirs
        keys = [estate.key, *(dead for dead, heir in heirs.items() if heir == estate.key)]
        self.settled_with[estate.key] = keys
        found = []
        for key in keys:
            objects = self.store.owned_by(key)
            heirs.pop(key, None)
            if objects and estate.adopter is not None:
                heirs[key] = estate.adopter.id
            found += [[own.id, own.owner, own.place, own.inside] for own in objects]
        return found

    def _mine(self, estate: Estate) -> list[list[Any]]:
        """The same, with the copies that are kept here."""
        found = self._stored(estate)
        for key in self.settled_with[estate.key]:
            for copy in self.copies.kept_of(key):
                found.append([copy.id, copy.owner, self.copies.place(copy), []])
        return found

    def _close(self, estate: Estate) -> None:
        """Everything has been said; after the last one, do what had to wait for that."""
        del self.open[estate.key]
        for dead in estate.dead:
            self.left.discard(dead)
            self.forget_holder(dead)
        if not self.open:
            for id, entry in list(self.adopted.items()):
                self._settle(id, entry)
            self._answer_all()

    def _adopt(self, estate: Estate) -> None:
        """Everyone has answered: own what is held and stored, and what is inside of it."""
        copies = [entry for entry in estate.stored if is_copy(entry[2])]
        found: Found = {id: (owner, place, inside) for id, owner, place, inside in copies}
        for id, owner, place, inside in estate.stored:
            if not is_copy(place):
                found[id] = (owner, place, inside)
        for context, holder in estate.contexts:
            self.revivals.revivers[context] = holder
        for id, ticket, holder, again in estate.held:
            if id not in found and id not in self.adopted:
                if again:
                    self.revivals.revivers[id] = holder
            elif ticket in self.early:
                del self.early[ticket]
            elif holder not in self.store.gone:
                self._enter(id, found).tickets[ticket] = holder
        for ticket, (id, borrower) in list(self.registers.items()):
            if id in found and borrower not in self.store.gone:
                del self.registers[ticket]
                self._enter(id, found).tickets[ticket] = borrower
        self._inherit(estate, found)
        kept = [id for id in found if id in self.adopted]
        for id, (_, place, _) in found.items():
            if id in self.adopted and not self.adopted[id].place:
                self.adopted[id].place = place
        for id, _, place, _ in copies:
            entry = self.adopted.get(id)
            if entry is not None and place not in (entry.place, *entry.copies):
                entry.copies.append(place)
        told = {place[3] for _, _, place, _ in estate.stored} - {self.machine.id}
        for node in sorted(told):
            if node in self.machine.peers:
                self.machine.send(self.machine.peers[node], m.ESTATE, estate.key, kept)
        self.free_others(estate.key, kept, self.machine.id, "")
        self._close(estate)

    def _enter(self, id: bytes, found: Found) -> Adopted:
        """The entry of an object that is stored or adopted, made if it is new."""
        entry = self.adopted.get(id)
        if entry is None:
            owner, place, inside = found[id]
            entry = self.adopted[id] = Adopted(owner, place)
            entry.inside = inside
            loan = self.loans.by_id.pop(id, None)
            if loan is not None:
                entry.holds += loan.uses
                self._release(loan.owner, loan.address, id, loan.tickets)
        return entry

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
        for id in self.loans.of(estate.key):
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

    def _release(self, owner: bytes, address: str, id: bytes, tickets: list[bytes]) -> None:
        if not {owner, node_of(address)} & self.store.gone:
            self.loans.release(owner, address, [[id, ticket] for ticket in tickets])

    def forget(self, dead: bytes, procs: Iterable[bytes] = ()) -> None:
        """It died before this node had to do with it: the adopter has never heard of this one."""
        self.free_others(dead, [], b"", "")
        for proc in (dead, *procs):
            self.forget_holder(proc)

    def free_others(self, dead: bytes, kept: list[bytes], heir: bytes, address: str) -> None:
        """Free what is here of the dead, but for what the heir has adopted."""
        for key in self.settled_with.pop(dead, [dead]):
            self.store.free_others(key, set(kept))
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
        """A process died: it answers nothing; what it held goes with its estate."""
        self.revivals.on_death(dead)
        for estate in list(self.open.values()):
            estate.asked.discard(dead)
            self._advance(estate)

    def on_node_death(self, node: bytes) -> None:
        """A node died, with what lay there."""
        for proc in self.revivals.living_on(node):
            self.on_death(proc)
        for estate in list(self.open.values()):
            estate.nodes.discard(node)
            estate.stored = [entry for entry in estate.stored if entry[2][3] != node]
            if estate.adopter is not None and estate.adopter.id == node:
                del self.open[estate.key]  # it becomes part of the adopter's own estate
                self.heirs[estate.key] = node
                self.carried.setdefault(node, []).extend(estate.dead)
            else:
                self._advance(estate)
        self.forget_places(node)
