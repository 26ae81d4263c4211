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
4. From then on the adopter is an owner like any other, as far as values in shared memory go:
   REGISTER, RELEASE, PULL.  What it is asked for and does not have ends in ``OwnerDied``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.ids import CONTEXT_BYTES, pack_index
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.messages import FAILED, SHARED
from freehold.core.store import Store

Place = list[Any]
Told = tuple[Peer, list[Any], list[Any], list[Any]]  # a node's ESTATE_HELD
REBORN_MAX = 100_000  # orphans whose new owners are remembered
ANSWER_MAX = 4.0  # seconds for the others to answer: who is silent for less may yet be alive
PATIENCE = 0.5  # seconds: the news of a death may reach the asker before it reaches the adopter


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
        self.held: list[list[Any]] = []  # [id, ticket, holder, whether it can revive it]
        self.contexts: list[list[bytes]] = []  # [context, process]
        self.stored: list[list[Any]] = []  # [id, owner, place]


class Adopted:
    """An object that this node owns in the stead of a dead process."""

    __slots__ = ("contains", "copies", "data", "holds", "owner", "place", "state", "tickets")

    def __init__(self, owner: bytes, place: Place, state: int = SHARED, data: Any = None) -> None:
        self.owner = owner
        self.place = place  # in shared memory; [] if it was lost there
        self.state = state
        self.data = data  # of a value that is not in shared memory
        self.contains: list[bytes] = []  # what the value refers to
        self.holds = 0  # adopted values that refer to this one
        self.copies: list[Place] = []  # on other nodes, made since
        self.tickets: dict[bytes, bytes] = {}  # ticket -> holder


class Estates:
    """The estates of one node."""

    def __init__(self, machine: Machine, store: Store) -> None:
        self.machine = machine
        self.store = store
        self.address = ""  # of this node, for what it owns
        self.watch: Callable[[bytes], bool] = bool  # hear of deaths on that node
        self._tickets = 0
        self.open: dict[bytes, Estate] = {}
        self.heirs: dict[bytes, bytes] = {}  # dead, of whom something is stored here -> the adopter
        self.left: set[bytes] = set()  # who has left a BEQUEST, and is not gone yet
        self.adopted: dict[bytes, Adopted] = {}
        self.early: dict[bytes, bytes] = {}  # released before registered: ticket -> id
        self.registers: dict[bytes, tuple[bytes, bytes]] = {}  # early: ticket -> id, borrower
        self.pulls: list[tuple[Peer, bytes]] = []  # asked for while an estate is open
        self.settled_with: dict[bytes, list[bytes]] = {}  # an open estate -> whose it settles too
        self.ahead: dict[bytes, list[Told]] = {}  # before ``begin``
        self.revivers: dict[bytes, bytes] = {}  # orphan, or context -> who can make it again
        self.homes: dict[bytes, bytes] = {}  # of these, where they live, if not here
        self.reviving: dict[bytes, list[Peer]] = {}  # orphan -> who waits for it
        self.reborn: dict[bytes, tuple[bytes, str]] = {}  # orphan -> its new owner
        self.askers: dict[bytes, Peer] = {}  # orphan -> the adopter that waits for the answer
        self.patience = NEVER  # until then, what is asked for may be of an estate yet unheard of
        machine.on(
            {
                m.BEQUEST: self.on_bequest,
                m.HELD: self.on_held,
                m.ESTATE_HELD: self.on_estate_held,
                m.ESTATE: self.on_estate,
                m.REGISTER: self.on_register,
                m.RELEASE: self.on_release,
                m.PULL: self.on_pull,
                m.LOST: self.on_lost,
                m.COPIED: self.on_copied,
                m.UNCOPIED: self.on_uncopied,
                m.REVIVE: self.on_revive,
                m.REBORN: self.on_reborn,
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
        for told in self.ahead.pop(key, ()):
            self._told(estate, *told)
        self._advance(estate)

    def on_held(
        self, peer: Peer, now: float, dead: bytes, refs: list[list[Any]], contexts: list[bytes]
    ) -> None:
        estate = self.open.get(dead)
        if estate is None:
            return
        if peer.id in estate.asked:
            estate.asked.discard(peer.id)
            estate.held += [[id, ticket, peer.id, again] for id, ticket, again in refs]
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
        estate.nodes.discard(peer.id)
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
            self.homes[holder] = peer.id
        if holders:
            self.watch(peer.id)

    def _advance(self, estate: Estate) -> None:
        """Go on when everyone who is asked here has answered."""
        if estate.asked or self.open.get(estate.key) is not estate:
            return
        if estate.adopter is not None:
            told = (estate.held, estate.contexts, self._stored(estate))
            self.machine.send(estate.adopter, m.ESTATE_HELD, estate.key, *told)
            self._close(estate)
        elif not estate.nodes:
            estate.stored += self._stored(estate)
            self._adopt(estate)

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
            found += [[stored.id, stored.owner, stored.place] for stored in objects]
        return found

    def _free_others(self, key: bytes, kept: set[bytes]) -> None:
        """It is decided what is kept of the dead one's: free the rest."""
        for dead in self.settled_with.pop(key, [key]):
            self.store.free_others(dead, kept)

    def _close(self, estate: Estate) -> None:
        """Everything has been said; after the last one, do what had to wait for that."""
        del self.open[estate.key]
        self.left.discard(estate.key)
        if not self.open:
            for id, entry in list(self.adopted.items()):
                self._settle(id, entry)
            self._answer_all()

    def _adopt(self, estate: Estate) -> None:
        places = {id: (owner, place) for id, owner, place in estate.stored}
        for context, holder in estate.contexts:
            self.revivers[context] = holder
        for id, ticket, holder, again in estate.held:
            if id not in places and id not in self.adopted:
                if again:
                    self.revivers[id] = holder
                continue
            if holder in self.store.gone:
                continue
            if ticket in self.early:
                del self.early[ticket]
                continue
            entry = self.adopted.get(id)
            if entry is None:
                entry = self.adopted[id] = Adopted(*places[id])
            entry.tickets[ticket] = holder
        for ticket, (id, borrower) in list(self.registers.items()):
            if id in places and borrower not in self.store.gone:
                del self.registers[ticket]
                entry = self.adopted.get(id)
                if entry is None:
                    entry = self.adopted[id] = Adopted(*places[id])
                entry.tickets[ticket] = borrower
        kept = [id for id in places if id in self.adopted]
        for id, (_, place) in places.items():
            if id in self.adopted and not self.adopted[id].place:
                self.adopted[id].place = place
        told = {place[3] for _, _, place in estate.stored} - {self.machine.id}
        for node in sorted(told):
            if node in self.machine.peers:
                self.machine.send(self.machine.peers[node], m.ESTATE, estate.key, kept)
        self._free_others(estate.key, set(kept))
        self._close(estate)

    def _answer_all(self) -> None:
        if self.open:
            self.patience = self.machine.now + PATIENCE
            return
        self.patience = NEVER
        self.registers.clear()
        self.early = {ticket: id for ticket, id in self.early.items() if id in self.adopted}
        pulls, self.pulls = self.pulls, []
        for peer, id in pulls:
            self._answer(peer, id)

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
        self._free_others(dead, set(kept))

    # -- as the owner of what it has adopted ------------------------------------------------------
    def on_register(
        self, peer: Peer, now: float, id: bytes, borrower: bytes, ticket: bytes, home: bytes
    ) -> None:
        entry = self.adopted.get(id)
        if ticket in self.early:
            del self.early[ticket]
        elif not {borrower, home} & self.store.gone:
            if home not in (b"", self.machine.id):
                self.homes[borrower] = home
                self.watch(home)
            if entry is not None:
                entry.tickets[ticket] = borrower
            else:  # it may be of an estate that is open, or not yet
                self.registers[ticket] = (id, borrower)
                self.patience = min(self.patience, now + PATIENCE)
        self.machine.send(peer, m.REGISTERED, ticket)

    def on_release(self, peer: Peer, now: float, tickets: list[list[bytes]]) -> None:
        for id, ticket in tickets:
            entry = self.adopted.get(id)
            if self.registers.pop(ticket, None) is not None:
                continue
            if entry is None:
                if self.open or self._is_elsewhere(peer):
                    self.early[ticket] = id
                    self.patience = min(self.patience, now + PATIENCE)
                continue
            if entry.tickets.pop(ticket, None) is None:
                self.early[ticket] = id
            self._settle(id, entry)

    def _settle(self, id: bytes, entry: Adopted) -> None:
        if entry.tickets or entry.holds or self.open or self.adopted.get(id) is not entry:
            return
        if entry.owner in self.left:
            return
        del self.adopted[id]
        for inner in entry.contains:
            other = self.adopted.get(inner)
            if other is not None:
                other.holds -= 1
                self._settle(inner, other)
        for ticket in [ticket for ticket, of in self.early.items() if of == id]:
            del self.early[ticket]
        if entry.place:
            self._free(id, entry.owner, entry.place)
        for place in entry.copies:
            self._free(id, self.machine.id, place)

    def _free(self, id: bytes, owner: bytes, place: Place) -> None:
        holder, _, _, node = place
        if holder == self.machine.id:
            self.store.free_copy(owner, id)
        elif node == self.machine.id:
            self.store.free(id, holder, owner)
        elif node in self.machine.peers:
            self.machine.send(self.machine.peers[node], m.FREE_FOR, owner, [[id, holder]])

    def on_copied(self, peer: Peer, now: float, id: bytes, place: Place) -> None:
        entry = self.adopted.get(id)
        if entry is None:  # it was freed meanwhile
            self._free(id, self.machine.id, place)
        else:
            entry.copies.append(place)

    def on_uncopied(self, peer: Peer, now: float, id: bytes, place: Place) -> None:
        entry = self.adopted.get(id)
        if entry is not None and place in entry.copies:
            entry.copies.remove(place)

    def on_pull(self, peer: Peer, now: float, ids: list[bytes]) -> None:
        for id in ids:
            if id not in self.adopted and (self.open or self._is_elsewhere(peer)):
                self.pulls.append((peer, id))
                self.patience = min(self.patience, now + PATIENCE)
            else:
                self._answer(peer, id)

    def _is_elsewhere(self, peer: Peer) -> bool:
        return node_of(peer.address) not in (b"", self.machine.id)

    def _answer(self, peer: Peer, id: bytes) -> None:
        entry = self.adopted.get(id)
        if entry is None:
            self._revive(peer, id)
        elif entry.state != SHARED:
            contains = [self._hand_over(inner, peer) for inner in entry.contains]
            self.machine.send(peer, m.VALUE, id, entry.state, entry.data, contains)
        elif not entry.place:
            text = f"object {id.hex()} was lost with its node, after its owner had died"
            self.machine.send(peer, m.VALUE, id, FAILED, ["ObjectLost", text], [])
        else:
            self.machine.send(peer, m.VALUE, id, SHARED, entry.place, [])

    def _hand_over(self, id: bytes, peer: Peer) -> list[Any]:
        """Hand a reference inside an adopted value to who has asked for that."""
        self._tickets += 1
        ticket = self.machine.id + pack_index(self._tickets)
        entry = self.adopted.get(id)
        if entry is not None:
            entry.tickets[ticket] = peer.id
        return [id, self.machine.id, self.address, ticket]

    def on_bequest(self, peer: Peer, now: float, rows: list[list[Any]]) -> None:
        """A process of this node ends in good order, and leaves what others hold of it."""
        made = []
        self.left.add(peer.id)
        for id, state, data, inside in rows:
            place = data if state == SHARED else []
            entry = self.adopted[id] = Adopted(peer.id, place, state, data)
            made.append((entry, inside))
        for entry, inside in made:
            entry.contains = [id for id in inside if id in self.adopted]
            for id in entry.contains:
                self.adopted[id].holds += 1

    # -- orphans that can be made again -----------------------------------------------------------
    def _revive(self, peer: Peer, id: bytes) -> None:
        """Ask for the orphan where it can be made again; else it is lost."""
        if id in self.reborn:
            self.machine.send(peer, m.REBORN, id, *self.reborn[id])
            return
        who = self.revivers.get(id) or self.revivers.get(id[:CONTEXT_BYTES], b"")
        target = self.machine.peers.get(self.homes.get(who, who))
        if target is None or who in self.store.gone:
            self._lost(peer, id)
            return
        waiting = self.reviving.setdefault(id, [])
        waiting.append(peer)
        if len(waiting) == 1:
            self.machine.send(target, m.REVIVE, id, who)

    def _lost(self, peer: Peer, id: bytes) -> None:
        text = (
            f"object {id.hex()}: its owner died, and its value was with it.  Let a "
            "longer-lived process (the driver) submit the task or put the value."
        )
        self.machine.send(peer, m.VALUE, id, FAILED, ["OwnerDied", text], [])

    def on_revive(self, peer: Peer, now: float, id: bytes, proc: bytes) -> None:
        """For a process of this node; its answer goes to the adopter by way of here."""
        target = self.machine.peers.get(proc)
        if target is None:
            self.machine.send(peer, m.REBORN, id, b"", "")
        else:
            self.askers[id] = peer
            self.machine.send(target, m.REVIVE, id, proc)

    def on_reborn(self, peer: Peer, now: float, id: bytes, owner: bytes, address: str) -> None:
        asker = self.askers.pop(id, None)
        if asker is not None:
            self.machine.send(asker, m.REBORN, id, owner, address)
            return
        for waiting in self.reviving.pop(id, ()):
            if owner:
                self.machine.send(waiting, m.REBORN, id, owner, address)
            else:
                self._lost(waiting, id)
        if owner:
            self.reborn[id] = (owner, address)
            if len(self.reborn) > REBORN_MAX:
                del self.reborn[next(iter(self.reborn))]
        else:
            self.revivers.pop(id, None)

    def on_lost(self, peer: Peer, now: float, id: bytes, place: Place) -> None:
        entry = self.adopted.get(id)
        if entry is not None and entry.place == place:
            entry.place = next((copy for copy in entry.copies if copy != place), [])

    # -- further deaths ---------------------------------------------------------------------------
    def on_death(self, dead: bytes) -> None:
        """A process died: it holds nothing, and answers nothing."""
        for key in [key for key, who in self.revivers.items() if who == dead]:
            del self.revivers[key]
            for id in [id for id in self.reviving if key in (id, id[:CONTEXT_BYTES])]:
                for waiting in self.reviving.pop(id):
                    self._lost(waiting, id)
        self.homes.pop(dead, None)
        self.reborn = {id: to for id, to in self.reborn.items() if to[0] != dead}
        for estate in list(self.open.values()):
            estate.asked.discard(dead)
            self._advance(estate)
        for id, entry in list(self.adopted.items()):
            for ticket in [ticket for ticket, who in entry.tickets.items() if who == dead]:
                del entry.tickets[ticket]
            self._settle(id, entry)

    def on_node_death(self, node: bytes) -> None:
        """A node died, with what lay there."""
        for proc in [proc for proc, home in self.homes.items() if home == node]:
            self.on_death(proc)
        for estate in list(self.open.values()):
            estate.nodes.discard(node)
            estate.stored = [entry for entry in estate.stored if entry[2][3] != node]
            if estate.adopter is not None and estate.adopter.id == node:
                self._close(estate)
                self._free_others(estate.key, set())
            else:
                self._advance(estate)
        for entry in self.adopted.values():
            entry.copies = [place for place in entry.copies if place[3] != node]
            if entry.place and entry.place[3] == node:
                entry.place = entry.copies[0] if entry.copies else []

    def owners(self) -> list[bytes]:
        """The dead processes whose objects this node owns now."""
        return sorted({entry.owner for entry in self.adopted.values()})

    def check(self) -> None:
        """What is adopted is stored, unless it lies elsewhere or was lost."""
        for id, entry in self.adopted.items():
            assert entry.holds >= 0
            if entry.place and entry.place[3] == self.machine.id:
                assert (id, entry.place[0], entry.owner) in self.store.objects
