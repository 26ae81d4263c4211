"""Tickets that a dead process made for somebody who may never have heard of them.

Whoever hands a reference on tells the owner and the receiver, and may die between the two.  If the
receiver was not told, the ticket in its name would keep the value as long as it lives.  So an owner
that hears of the giver's death asks the receiver, by way of its node (CLAIM); and the receiver
releases what it has never heard of.  It waits for a moment before (``GRACE``), for what the dead
one has sent may still be on its way; and a ticket that comes later still is worth nothing: the
receiver registers itself.  A node in whose name a ticket was made does likewise (``node.trusts``).

If an *owner* dies, givers whose hand-overs it has not confirmed register them with its heir, and
ask the receivers likewise (``Owner.on_death``): one that has released its ticket has told only the
dead.  It must know of that death before it answers, since until then it would do so again.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Row
from freehold.core.tickets import Tickets, by_borrower

GRACE = 1.0  # seconds for what a dead process has sent to arrive


class Claims:
    """The claims of one process: those that it has to answer; it asks with ``Owner.claim``."""

    def __init__(self, machine: Machine, owner: Owner) -> None:
        self.machine = machine
        self.owner = owner
        self.waiting: list[tuple[float, tuple[Any, ...]]] = []  # until when, the claim
        owner.claim = self.ask
        machine.on({m.CLAIM: self.on_claim})

    # -- as the owner -----------------------------------------------------------------------------
    def giver_died(self, giver: bytes) -> None:
        """Ask those for whom it has made tickets whether they have heard of them."""
        tables = {
            row.id: row.more.tickets
            for row in self.owner.rows.values()
            if row.more is not None and row.more.tickets
        }
        for borrower, tickets in by_borrower(tables, giver).items():
            self.ask(giver, borrower, tickets)

    def ask(self, giver: bytes, borrower: bytes, tickets: Tickets) -> None:
        """Ask one of them."""
        owner, node = self.owner, self.owner.node
        if node is None or borrower == self.machine.id:
            return
        peer = self.machine.peers.get(borrower)
        home = owner.homes.get(borrower) or owner.home_of(peer)
        me = (self.machine.id, owner.address)
        self.machine.send(node, m.CLAIM, borrower, home, giver, *me, tickets)

    # -- as the borrower --------------------------------------------------------------------------
    def on_claim(
        self, peer: Peer, now: float, borrower: bytes, home: bytes, giver: bytes, owner: bytes,
        address: str, tickets: Tickets,
    ) -> None:  # fmt: skip
        self.waiting.append((now + GRACE, (giver, owner, address, tickets)))

    def deadline(self) -> float:
        """When the first claim is to be answered."""
        return self.waiting[0][0] if self.waiting else NEVER

    def on_timer(self, now: float) -> None:
        """Answer: release what this process has never heard of."""
        while self.waiting and now >= self.waiting[0][0]:
            claim = giver, owner, address, tickets = self.waiting.pop(0)[1]
            if giver in self.machine.peers and giver not in self.owner.dead:
                self.waiting.append((now + GRACE, claim))  # its node has not told of it yet
                continue
            self.owner.void[giver] = None
            unheard = [[id, ticket] for id, ticket in tickets if not self._has(id, ticket)]
            if unheard and owner not in self.owner.dead:
                self.machine.send(self.machine.peer(owner, address), m.RELEASE, unheard)

    def _has(self, id: bytes, ticket: bytes) -> bool:
        row: Row | None = self.owner.twins.borrowed(id)
        return row is not None and row.more is not None and ticket in row.more.mine
