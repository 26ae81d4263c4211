"""What a node owns in the stead of the dead: how it came to it is ``node.estates``' affair.

It is an owner like any other as far as values go that are there: REGISTER, RELEASE, PULL, COPIED.
While an estate is open nothing is freed and no question about something unknown is answered, since
everything may be part of it; and news of a death may reach others before it comes here, so who asks
from another node is given a moment in any case (``PATIENCE``).

What an adopted value refers to is kept as long as the value: it is adopted, too, or (if its owner
lives) this node holds it in the dead one's stead (``node.loans``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.ids import PROC_ID_BYTES, is_detached
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.messages import FAILED, SHARED
from freehold.core.node.abandoned import Abandoned, is_actor
from freehold.core.node.loans import Loans
from freehold.core.node.revivals import Revivals
from freehold.core.node.store import Store, Stored
from freehold.core.node.workers import Workers
from freehold.core.places import Place, is_copy
from freehold.core.tickets import Tickets, by_borrower

PATIENCE = 0.5  # seconds: the news of a death may reach the asker before it reaches the adopter


class Adopted:
    """An object that this node owns in the stead of a dead process."""

    __slots__ = (
        "contains", "copies", "data", "holds", "inside", "owner", "place", "state", "tickets",
        "twins",
    )  # fmt: skip

    def __init__(self, owner: bytes, place: Place, state: int = SHARED, data: Any = None) -> None:
        self.owner = owner
        self.place = place  # in shared memory; [] if it was lost there
        self.state = state
        self.data = data  # of a value that is not in shared memory
        self.inside: list[list[Any]] = []  # what the value refers to, as in SEAL; then
        self.contains: list[bytes] = []  # those that are adopted or held here
        self.holds = 0  # adopted values that refer to this one
        self.copies: list[Place] = []  # on other nodes, made since
        self.tickets: dict[bytes, bytes] = {}  # ticket -> holder
        self.twins: list[tuple[bytes, Place]] = []  # made again by others (who have died), there

    def add(self, owner: bytes, place: Place) -> None:
        """It has been left in that place, too; whoever reads it there may go on."""
        if is_copy(place):
            if place not in (self.place, *self.copies):
                self.copies.append(place)
        elif not is_actor(place) and (owner, place) not in [(self.owner, self.place), *self.twins]:
            self.twins.append((owner, place))

    def leave(self, owner: bytes, state: int, data: Any, inside: list[list[Any]]) -> None:
        """One more process that has made it leaves it: one value will do for all who hold it."""
        if self.state == SHARED and not self.place:  # it was lost
            self.owner, self.state, self.data, self.inside = owner, state, data, inside
            self.place = data if state == SHARED else []
        elif state == SHARED:
            self.add(owner, data)

    def owner_of(self, place: Place) -> bytes:
        """In whose name it is stored there."""
        return next((owner for owner, made in self.twins if made == place), self.owner)

    def others(self) -> list[Place]:
        """Where it is besides ``place``."""
        places = [*self.copies, *(place for _, place in self.twins)]
        return [place for place in places if place != self.place]


class Adoptions:
    """What one node has adopted."""

    open: Mapping[bytes, object]  # the estates that are being collected

    def __init__(self, machine: Machine, store: Store, workers: Workers) -> None:
        self.machine = machine
        self.store = store
        store.is_expected = self.is_expected
        self.abandoned = Abandoned(workers)
        self.revivals = Revivals(machine, store)
        self.loans = Loans(machine)
        self.address = ""  # of this node, for what it owns
        self.watch: Callable[[bytes], bool] = bool  # hear of deaths on that node
        self.locate: Callable[[Peer, bytes], None]  # say where a detached actor lives
        self.claim: Callable[..., None]  # whether a borrower has heard of its tickets
        self.tell: Callable[..., None]  # another node, now or when it is known
        self.adopted: dict[bytes, Adopted] = {}
        self.early: dict[bytes, bytes] = {}  # released before registered: ticket -> id
        self.registers: dict[bytes, tuple[bytes, bytes]] = {}  # early: ticket -> id, borrower
        self.pulls: list[tuple[Peer, bytes]] = []  # asked for while an estate is open
        self.patience = NEVER  # until then, what is asked for may be of an estate yet unheard of
        machine.on(
            {
                m.BEQUEST: self.on_bequest,
                m.REGISTER: self.on_register,
                m.RELEASE: self.on_release,
                m.PULL: self.on_pull,
                m.LOST: self.on_lost,
                m.COPIED: self.on_copied,
                m.UNCOPIED: self.on_uncopied,
            }
        )

    def is_expected(self, stored: Stored) -> bool:
        """Whether an object that is sealed after its owner's death is adopted, or may yet be.

        Its owner may have heard of it, and have left it, before its node did.
        """
        entry = self.adopted.get(stored.id)
        if entry is not None and entry.place == stored.place:
            return True
        return stored.owner in self.open or stored.home in self.open

    def on_register(
        self, peer: Peer, now: float, id: bytes, borrower: bytes, ticket: bytes, home: bytes
    ) -> None:
        entry = self.adopted.get(id)
        if ticket in self.early:
            del self.early[ticket]
        elif not {borrower, home} & self.store.gone:
            if home not in (b"", self.machine.id):
                self.revivals.homes[borrower] = home
                self.watch(home)
            if entry is not None:
                self.enroll(id, entry, ticket, borrower)
            else:  # it may be of an estate that is open, or not yet
                self.registers[ticket] = (id, borrower)
                self.patience = min(self.patience, now + PATIENCE)
        self.machine.send(peer, m.REGISTERED, ticket)

    def enroll(self, id: bytes, entry: Adopted, ticket: bytes, borrower: bytes) -> None:
        """That process holds it; it may never have heard of the ticket of a dead giver."""
        entry.tickets[ticket] = borrower
        giver = ticket[:PROC_ID_BYTES]
        if giver in self.store.gone:
            self._claim(giver, borrower, [[id, ticket]])

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
        del self.adopted[id]
        for inner in entry.contains:
            other = self.adopted.get(inner)
            if other is not None:
                other.holds -= 1
                self._settle(inner, other)
            else:
                self.loans.drop(inner)
        for ticket in [ticket for ticket, of in self.early.items() if of == id]:
            del self.early[ticket]
        for place in [entry.place, *entry.others()] if entry.place else entry.others():
            owner = self.machine.id if is_copy(place) else entry.owner_of(place)
            self._free(id, owner, place)

    def _free(self, id: bytes, owner: bytes, place: Place) -> None:
        holder, _, _, node = place
        if is_actor(place) and node == self.machine.id:
            self.abandoned.end(id, owner)
        elif holder == self.machine.id:
            self.store.free_copy(owner, id)
        elif node == self.machine.id:
            self.store.free(id, holder, owner)
        else:
            self.tell(node, m.FREE_FOR, owner, [[id, holder]])

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
            entry = self.adopted.get(id)
            ready = entry is not None and not (entry.inside and self.open)
            if is_detached(id):
                self.locate(peer, id)
            elif not ready and (self.open or self._is_elsewhere(peer)):
                self.pulls.append((peer, id))
                self.patience = min(self.patience, now + PATIENCE)
            else:
                self._answer(peer, id)

    def _is_elsewhere(self, peer: Peer) -> bool:
        return node_of(peer.address) not in (b"", self.machine.id)

    def _answer(self, peer: Peer, id: bytes) -> None:
        if peer.down or peer.id in self.store.gone:
            return  # it has died while it waited: it holds nothing of what is inside
        entry = self.adopted.get(id)
        if entry is None:
            self.revivals.find(peer, id)
        elif entry.state == SHARED and not entry.place:
            text = f"object {id.hex()} was lost with its node, after its owner had died"
            self.machine.send(peer, m.VALUE, id, FAILED, ["ObjectLost", text], [])
        else:
            data = entry.place if entry.state == SHARED else entry.data
            contains = [self._hand_over(inner, peer) for inner in entry.contains]
            self.machine.send(peer, m.VALUE, id, entry.state, data, contains)

    def _hand_over(self, id: bytes, peer: Peer) -> list[Any]:
        """Hand a reference inside an adopted value to who has asked for that."""
        entry = self.adopted.get(id)
        if entry is None:
            return self.loans.hand_over(id, peer, node_of(peer.address) or self.machine.id)
        ticket = self.loans.ticket()
        entry.tickets[ticket] = peer.id
        return [id, self.machine.id, self.address, ticket]

    def on_bequest(self, peer: Peer, now: float, rows: list[list[Any]]) -> None:
        """A process of this node ends in good order, and leaves what others hold of it.

        It holds that itself until its death, which is to follow: who else does is known only then.
        """
        for id, state, data, inside in rows:
            entry = self.adopted.get(id)
            if entry is None:
                place = data if state == SHARED else []
                entry = self.adopted[id] = Adopted(peer.id, place, state, data)
                entry.inside = inside
                self.absorb(id, entry)
            else:
                entry.leave(peer.id, state, data, inside)
            entry.tickets[self.loans.ticket()] = peer.id

    def absorb(self, id: bytes, entry: Adopted) -> None:
        """What adopted values contain, and this node held of another, is its own now."""
        loan = self.loans.by_id.pop(id, None)
        if loan is not None:
            entry.holds += loan.uses
            if loan.owner != entry.owner:  # its tickets end with their owner
                self._release(loan.owner, loan.address, id, loan.tickets)

    def _release(self, owner: bytes, address: str, id: bytes, tickets: list[bytes]) -> None:
        if not {owner, node_of(address)} & self.store.gone:
            self.loans.release(owner, address, [[id, ticket] for ticket in tickets])

    def on_lost(self, peer: Peer, now: float, id: bytes, place: Place) -> None:
        entry = self.adopted.get(id)
        if entry is not None and is_actor(entry.place):
            if entry.place[0] == place[0]:
                self._died(entry)
        elif entry is not None and entry.place == place:
            entry.place = next(iter(entry.others()), [])

    def _answer_all(self) -> None:
        """Answer what has waited, unless there are estates open (again)."""
        if self.open:
            self.patience = self.machine.now + PATIENCE
            return
        self.patience = NEVER
        self.registers.clear()
        self.early = {ticket: id for ticket, id in self.early.items() if id in self.adopted}
        pulls, self.pulls = self.pulls, []
        for peer, id in pulls:
            self._answer(peer, id)

    # -- deaths -----------------------------------------------------------------------------------
    def _claim(self, giver: bytes, borrower: bytes, tickets: Tickets) -> None:
        home = self.revivals.homes.get(borrower, self.machine.id)
        self.claim(borrower, home, giver, self.machine.id, self.address, tickets)

    def forget_holder(self, dead: bytes) -> None:
        """A process died: it holds nothing, and may have named holders that do not know of it."""
        tables = {id: entry.tickets for id, entry in self.adopted.items()}
        for borrower, tickets in by_borrower(tables, dead).items():
            self._claim(dead, borrower, tickets)
        for id, entry in list(self.adopted.items()):
            for ticket in [ticket for ticket, who in entry.tickets.items() if who == dead]:
                del entry.tickets[ticket]
            self._settle(id, entry)

    def forget_actor(self, dead: bytes) -> None:
        """A process died, and with it the adopted actor that lived there, if one did."""
        for entry in self.adopted.values():
            if is_actor(entry.place) and entry.place[0] == dead:
                self._died(entry)

    def _died(self, entry: Adopted) -> None:
        """An adopted actor's process is dead: nobody knows how to make it again."""
        text = "its process died after the program that had made it, and with it what it is made of"
        entry.place, entry.state, entry.data = [], FAILED, ["ActorDied", text]

    def forget_places(self, node: bytes) -> None:
        """A node died: nothing can be read there."""
        for entry in self.adopted.values():
            entry.copies = [place for place in entry.copies if place[3] != node]
            entry.twins = [twin for twin in entry.twins if twin[1][3] != node]
            if is_actor(entry.place) and entry.place[3] == node:
                self._died(entry)
            elif entry.place and entry.place[3] == node:
                entry.place = next(iter(entry.others()), [])

    def owners(self) -> list[bytes]:
        """The dead processes whose objects this node owns now."""
        twins = {owner for entry in self.adopted.values() for owner, _ in entry.twins}
        return sorted(twins | {entry.owner for entry in self.adopted.values()})

    def check(self) -> None:
        """What is adopted is stored, unless it lies elsewhere, was lost or is yet to be sealed."""
        uses: dict[bytes, int] = {}
        for entry in self.adopted.values():
            for inner in entry.contains:
                uses[inner] = uses.get(inner, 0) + 1
        for id, loan in self.loans.by_id.items():
            assert uses.get(id, 0) == loan.uses > 0, f"{id.hex()} is held for nobody"
            assert id not in self.adopted
        for id, entry in self.adopted.items():
            assert entry.holds == uses.get(id, 0)
            here = entry.place and entry.place[3] == self.machine.id
            if here and not (is_copy(entry.place) or is_actor(entry.place)):
                owner = entry.owner_of(entry.place)
                stored = (id, entry.place[0], owner) in self.store.objects
                assert stored or entry.place[0] not in self.store.gone
