"""What a node holds in trust: the references that a detached actor's constructor may need again.

The process in which the actor lives holds its arguments itself; but when that dies, somebody else
must have held them, or they would be freed before the next one comes.  That is the node of who made
the actor, and each node on which it has lived.  A trust ends with the actor (ENDED).

Towards the owners a node is a borrower like any process: it has a ticket of its own for each
reference, says that it holds it when the owner dies (``node.estates``), and releases it.  It
answers claims (``process.claims``), too, since a process may die after it has made a ticket in the
node's name, and before it could tell the node; but it waits until it knows what it has inherited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node.estate import ANSWER_MAX, HELD_MAX
from freehold.core.node.estates import Estates
from freehold.core.node.neighbours import Neighbours
from freehold.core.node.store import Store
from freehold.core.tickets import Tickets

CLAIM_MAX = HELD_MAX + ANSWER_MAX  # seconds for an estate of which something may be held


class Held:
    """One reference."""

    __slots__ = ("address", "id", "owner", "ticket")

    def __init__(self, id: bytes, owner: bytes, address: str, ticket: bytes) -> None:
        self.id = id
        self.owner = owner
        self.address = address
        self.ticket = ticket

    def is_of(self, dead: bytes) -> bool:
        """Whether its owner is that process, or lives on that node."""
        return dead in (self.owner, node_of(self.address))


class Trusts:
    """Those of one node."""

    def __init__(
        self, machine: Machine, store: Store, estates: Estates, neighbours: Neighbours
    ) -> None:
        self.machine = machine
        self.store = store
        self.estates = estates
        self.held: dict[bytes, list[Held]] = {}  # actor -> its arguments
        self.confirm: Callable[[bytes], None]  # find out whether that actor has ended already
        self.neighbours = neighbours
        self.claims: list[tuple[float, bytes, str, Tickets]] = []  # until when, owner, what
        neighbours.late_news = self.on_late_news
        neighbours.claimed = self.on_claim
        estates.trusted = self.inherited
        machine.on(
            {m.TRUST: self.on_trust, m.REGISTERED: self.on_registered, m.VALUE: self.on_value}
        )

    def on_trust(self, peer: Peer, now: float, actor: bytes, refs: list[list[Any]]) -> None:
        for fields in refs:
            held = Held(*fields)
            if actor not in self.held:
                self.held[actor] = []
                self.confirm(actor)
            self.held[actor].append(held)
            home = node_of(held.address)
            self.estates.watch(home)
            if held.owner == self.machine.id:
                self._register(held, None)
            elif home in self.store.gone:
                self._register(held, self.neighbours.heir_of(home))
            elif held.owner in self.store.gone:
                here = home in (b"", self.machine.id)
                heir = None if here else self.machine.peer(home, "")
                self._register(held, heir)

    def _register(self, held: Held, owner: Peer | None) -> None:
        """Have the reference's new owner (None: this node) record this node as a borrower."""
        me = self.machine.id
        self._pass(held, owner)
        if owner is not None:
            self.machine.send(owner, m.REGISTER, held.id, me, held.ticket, me)
        elif held.id in self.estates.adopted:
            self.estates.adopted[held.id].tickets[held.ticket] = me

    def _pass(self, held: Held, owner: Peer | None) -> None:
        mine = owner is None
        held.owner = self.machine.id if owner is None else owner.id
        held.address = self.estates.address if mine or owner is None else owner.address

    def inherited(self, dead: bytes, heir: Peer | None) -> list[list[Any]]:
        """What is held here of the dead, as in ESTATE_HELD; from now on it is the heir's."""
        found = [held for each in self.held.values() for held in each if held.is_of(dead)]
        for held in found:
            self._pass(held, heir)
        return [[held.id, held.ticket, self.machine.id, False, True] for held in found]

    def on_late_news(self, dead: bytes, heir: Peer | None) -> None:
        """It had died before this node heard of it: its estate is settled already."""
        for each in self.held.values():
            for held in [held for held in each if held.is_of(dead)]:
                self._register(held, heir)

    def end(self, actor: bytes, now: float) -> None:
        """The actor is no more: hold nothing for it."""
        for held in self.held.pop(actor, ()):
            pair = [[held.id, held.ticket]]
            if held.owner == self.machine.id:
                self.estates.on_release(Peer(self.machine.id), now, pair)
            else:
                self.machine.send(self.machine.peer(held.owner, held.address), m.RELEASE, pair)

    def on_registered(self, peer: Peer, now: float, ticket: bytes) -> None:
        """The answer to a REGISTER of this node's: the link keeps the order anyway."""

    def on_value(
        self, peer: Peer, now: float, id: bytes, state: int, data: Any, contains: list[Any]
    ) -> None:
        """The owner has it no longer: the next constructor will be told."""

    # -- claims -----------------------------------------------------------------------------------
    def on_claim(self, giver: bytes, owner: bytes, address: str, tickets: Tickets) -> None:
        """The giver is dead: release, in time, what it has not told this node of."""
        self.claims.append((self.machine.now + CLAIM_MAX, owner, address, tickets))

    def deadline(self) -> float:
        """When the first claim is to be answered."""
        return self.claims[0][0] if self.claims else NEVER

    def on_timer(self, now: float) -> None:
        """Answer claims, unless there is an estate that may bring what they name."""
        while self.claims and now >= self.claims[0][0]:
            _, owner, address, tickets = self.claims.pop(0)
            if self.estates.open:
                self.claims.append((now + CLAIM_MAX, owner, address, tickets))
                continue
            known = {held.ticket for each in self.held.values() for held in each}
            for loan in self.estates.loans.by_id.values():
                known.update(loan.tickets)
            unheard = [[id, ticket] for id, ticket in tickets if ticket not in known]
            if owner == self.machine.id:
                self.estates.on_release(Peer(owner), now, unheard)
            elif unheard and not {owner, node_of(address)} & self.store.gone:
                self.machine.send(self.machine.peer(owner, address), m.RELEASE, unheard)
