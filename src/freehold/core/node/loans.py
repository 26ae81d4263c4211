"""What a node holds of others: the references inside the values that it has adopted.

The dead one held them, by tickets of their owners.  When a process dies, those owners make its
tickets the heir's, and say so with HELD; the heir keeps what is inside of what it adopts, and
releases the rest.  So nothing inside an adopted value is freed at any moment.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.ids import pack_index
from freehold.core.machine import Machine, Peer


class Loan:
    """One reference that another owns, and adopted values contain."""

    __slots__ = ("address", "owner", "tickets", "uses")

    def __init__(self, owner: bytes, address: str, tickets: list[bytes]) -> None:
        self.owner = owner
        self.address = address
        self.tickets = tickets
        self.uses = 0  # how often adopted values contain it


class Loans:
    """All loans of one node."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.by_id: dict[bytes, Loan] = {}
        self._tickets = 0

    def ticket(self) -> bytes:
        """A name for one hand-over, unique because it begins with this node's id."""
        self._tickets += 1
        return self.machine.id + pack_index(self._tickets)

    def take(self, id: bytes, owner: bytes, address: str, tickets: list[bytes]) -> bool:
        """One more adopted value contains it; False if this node cannot hold it."""
        loan = self.by_id.get(id)
        if loan is None and not tickets:
            return False
        if loan is None:
            loan = self.by_id[id] = Loan(owner, address, tickets)
        elif loan.owner == owner:
            loan.tickets += tickets
        else:  # the id has been made again: this node holds the other one
            self.release(owner, address, [[id, ticket] for ticket in tickets])
        loan.uses += 1
        return True

    def drop(self, id: bytes) -> None:
        """One adopted value less contains it."""
        loan = self.by_id.get(id)
        if loan is None:
            return
        loan.uses -= 1
        if not loan.uses:
            del self.by_id[id]
            self.release(loan.owner, loan.address, [[id, ticket] for ticket in loan.tickets])

    def release(self, owner: bytes, address: str, tickets: list[list[bytes]]) -> None:
        """Tell the owner that these are needed no longer."""
        if tickets:
            self.machine.send(self.machine.peer(owner, address), m.RELEASE, tickets)

    def hand_over(self, id: bytes, receiver: Peer, home: bytes) -> list[Any]:
        """Hand it to somebody who has asked for a value that contains it."""
        loan, ticket = self.by_id[id], self.ticket()
        if loan.owner != receiver.id:
            owner = self.machine.peer(loan.owner, loan.address)
            self.machine.send(owner, m.REGISTER, id, receiver.id, ticket, home)
        return [id, loan.owner, loan.address, ticket]

    # -- deaths of their owners -------------------------------------------------------------------
    def of(self, keys: list[bytes]) -> list[bytes]:
        """Those whose owner is one of those processes, or lives on one of those nodes."""
        return [
            id
            for id, loan in self.by_id.items()
            if loan.owner in keys or node_of(loan.address) in keys
        ]

    def move(self, keys: list[bytes], heir: Peer) -> list[list[Any]]:
        """Another node adopts what the owners have left: as in ESTATE_HELD's ``held``."""
        held = []
        for id in self.of(keys):
            loan = self.by_id[id]
            loan.owner, loan.address = heir.id, heir.address
            held.append([id, loan.tickets[0], self.machine.id, False, True])
            del loan.tickets[1:]
        return held
