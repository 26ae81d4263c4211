"""Copies of a value on several nodes, from the user to the owner (``core.process.keeping``)."""

from __future__ import annotations

from freehold.core.messages import SHARED
from freehold.core.process.rows import Row
from freehold.errors import Unschedulable
from freehold.proc.runtime import Runtime


def keep_copies(here: Runtime, row: Row, copies: int) -> None:
    """Have copies of an own value on that many nodes.

    Raises:
        Unschedulable: there are not so many nodes with room for it.
    """
    keeping = here.process.keeping
    with here.lock:
        entry = keeping.want(row, copies)
        here.flush()

    def over() -> bool:
        lost = row.state != SHARED or bool(here.client.lost) or here.closed
        return lost or keeping.is_met(entry) or bool(entry.why and not entry.tried)

    here.wait_until(over)
    here.check_alive()
    if not keeping.is_met(entry) and row.state == SHARED:
        raise Unschedulable(f"{copies} copies on different nodes cannot be made: {entry.why}")
