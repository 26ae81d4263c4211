"""Where a task is sent for the sake of its arguments: tasks are small, and values may be large.

* Most bytes lie on another node: it goes there, if it can run there at all.
* Most lie on this process's own node: it goes wherever a worker is free, except where bringing them
  would take longer than it runs.  That is judged by what comes for this task alone, since what many
  tasks read is brought to a node once, and by how long its like have taken; of a function that has
  never run nothing is known, so it goes anywhere.
"""

from __future__ import annotations

from freehold.core.machine import Peer
from freehold.core.messages import SHARED
from freehold.core.process.rows import Task

BRING = 2e-3  # seconds that it takes at least to bring an object from another node,
BRING_BYTE = 1e-9  # and for each of its bytes; a fast network, and a processor that encrypts


def near(task: Task, home: Peer | None) -> bytes:
    """The node that a ready task should run on; empty if any will do."""
    links = task.links
    if links is None:
        return b""
    held: dict[bytes, int] = {}
    alone = 0  # bytes that no other task waits for
    rows = [row for _, row in links.deps]
    if links.args_row is not None:
        rows.append(links.args_row)
    for row in rows:
        if row.state == SHARED:
            _, _, size, node = row.data
            held[node] = held.get(node, 0) + size
            if row.holds == 1:
                alone += size
    best = max(held, key=lambda node: held[node], default=b"")
    if home is None or best != home.id:
        return best
    pace = task.spec.pace
    stays = alone and pace is not None and pace < BRING + alone * BRING_BYTE
    return best if stays else b""
