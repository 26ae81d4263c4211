"""Tasks that rest before they run again.

A first retry is made at once: most deaths are somebody else's fault (a node that went away), and
whoever waits should not notice.  What fails again rests first, each time twice as long as before,
up to ``retry_rest_max``: work that kills whatever runs it must not keep the machine busy.
A task that rests is pending like any other, and belongs to nobody but this table.
"""

from __future__ import annotations

from heapq import heappop, heappush

from freehold.core.backoff import rest_after
from freehold.core.machine import NEVER
from freehold.core.process.rows import Task


class Rests:
    """The resting tasks of one process."""

    def __init__(self, rest: float, rest_max: float) -> None:
        self.rest = rest
        self.rest_max = rest_max
        self.tasks: dict[bytes, Task] = {}
        self._order: list[tuple[float, int, Task]] = []
        self._count = 0

    def __contains__(self, task: Task) -> bool:
        return bool(self.tasks) and self.tasks.get(task.id) is task

    def begin(self, task: Task, failures: int, now: float) -> bool:
        """The task has failed so often: whether it rests now, or is to run at once."""
        rest = rest_after(failures, self.rest, self.rest_max)
        if not rest:
            return False
        self._count += 1
        self.tasks[task.id] = task
        heappush(self._order, (now + rest, self._count, task))
        return True

    def over(self, now: float) -> list[Task]:
        """Those that have rested, and are still wanted."""
        rested = []
        while self._order and self._order[0][0] <= now:
            _, _, task = heappop(self._order)
            if task in self:
                del self.tasks[task.id]
                if any(row.task is task for row in task.rows):
                    rested.append(task)
        return rested

    def clear(self) -> None:
        """Nothing will run any more."""
        self.tasks.clear()
        self._order.clear()

    def deadline(self) -> float:
        """When the next one will have rested."""
        return self._order[0][0] if self._order else NEVER
