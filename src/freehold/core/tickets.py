"""Tickets: what whoever hands a reference on makes for whoever gets it (decision 003).

A ticket begins with the id of the process that has made it.
"""

from __future__ import annotations

from freehold.core.ids import PROC_ID_BYTES

Tickets = list[list[bytes]]  # [id, ticket]


def by_borrower(owned: dict[bytes, dict[bytes, bytes]], giver: bytes) -> dict[bytes, Tickets]:
    """Of tables of tickets, by RefId: those that the giver has made for others, by borrower."""
    found: dict[bytes, Tickets] = {}
    for id, tickets in owned.items():
        for ticket, borrower in tickets.items():
            if ticket[:PROC_ID_BYTES] == giver != borrower:
                found.setdefault(borrower, []).append([id, ticket])
    return found
