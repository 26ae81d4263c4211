"""What must hold at every step, beside the machines' own ``check``."""

from __future__ import annotations

from typing import Any

from freehold.core.messages import COLLECTED, PENDING, SHARED
from freehold.core.process.process import Process
from freehold.core.process.rows import Row
from freehold.sim.values import Violation

QUEUE_MAX = 20_000  # frames or rows in one table; the programs make far fewer
Seen = dict[bytes, tuple[Row, int, Any]]


def watch(name: str, process: Process, seen: Seen, clustered: bool) -> Seen:
    """Values are immutable and nothing grows without bound; what to compare with next time."""
    rows = process.owner.rows
    if len(rows) > QUEUE_MAX:
        raise Violation(f"{name}: {len(rows)} rows")
    now: Seen = {}
    for key, row in rows.items():
        if row.state in (PENDING, COLLECTED):
            continue
        before = seen.get(key)
        now[key] = (row, row.state, row.data)
        if before is not None and before[0] is row and before != now[key]:
            actor = row.more is not None and row.more.actor
            remade = before[1] == SHARED and clustered  # lost, and made again elsewhere
            if not (actor or remade):  # an actor's address becomes its death, or another
                raise Violation(f"{name}: {row!r} is delivered twice: {before[1:]}, {row.data}")
    outbox = max((len(peer.outbox) for peer in process.peers.values()), default=0)
    if outbox > QUEUE_MAX:
        raise Violation(f"{name}: {outbox} frames wait for one peer")
    return now
