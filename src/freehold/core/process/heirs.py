"""What a process says to heirs: it asks them for what the dead owed it, and leaves them its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import COLLECTED, PENDING
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Row


def ask_heir(owner: Owner, heir: Peer) -> None:
    """Ask whoever owns now for what had been asked of the dead."""
    for row in owner.rows.values():
        more = row.more
        if row.owner is heir and row.state == PENDING and more is not None and more.pulled:
            owner.machine.send(heir, m.PULL, [row.id])


def by_owner(owner: Owner, rows: Sequence[Row]) -> list[list[Any]]:
    """The references inside a value as they are named in SEAL: [owner, address, RefIds]."""
    found: dict[bytes, list[Any]] = {}
    for row in rows:
        if row.owner is None:
            whose, address = owner.machine.id, owner.address
        else:
            whose, address = row.owner.id, row.owner.address
        found.setdefault(whose, [whose, address, []])[2].append(row.id)
    return list(found.values())


def bequest(owner: Owner) -> list[list[Any]]:
    """What others hold of this process's own, and what that refers to: as in BEQUEST."""
    ahead = [
        row
        for row in owner.rows.values()
        if row.owner is None and row.more is not None and row.more.tickets
    ]
    found: dict[bytes, list[Any]] = {}
    while ahead:
        row = ahead.pop()
        more = row.extend()
        if row.id in found or row.owner is not None or row.state in (PENDING, COLLECTED):
            continue
        if more.actor:
            continue
        found[row.id] = [row.id, row.state, row.data, by_owner(owner, more.contains)]
        ahead += more.contains
    return list(found.values())
