"""What a process says to heirs: it asks them for what the dead owed it, and leaves them its own."""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import COLLECTED, PENDING
from freehold.core.owner import Owner


def ask_heir(owner: Owner, heir: Peer) -> None:
    """Ask whoever owns now for what had been asked of the dead."""
    for row in owner.rows.values():
        more = row.more
        if row.owner is heir and row.state == PENDING and more is not None and more.pulled:
            owner.machine.send(heir, m.PULL, [row.id])


def bequest(owner: Owner) -> list[list[Any]]:
    """What others hold of this process's own, and what that refers to: as in BEQUEST.

    Values that refer to what others own are left out: nobody would hold that for them.
    """
    ahead = [
        row
        for row in owner.rows.values()
        if row.owner is None and row.more is not None and row.more.tickets
    ]
    found: dict[bytes, list[Any]] = {}
    while ahead:
        row = ahead.pop()
        more = row.extend()
        if row.id in found or row.state in (PENDING, COLLECTED) or more.actor:
            continue
        if any(inner.owner is not None for inner in more.contains):
            continue
        inside = [inner.id for inner in more.contains]
        found[row.id] = [row.id, row.state, row.data, inside]
        ahead += more.contains
    return list(found.values())
