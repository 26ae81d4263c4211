"""Calls that are due at a time: the host's own limits, beside its machine's deadline."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from freehold.core.machine import NEVER


class Alarm:
    """One call to come; ``cancel`` it when it is needed no longer."""

    __slots__ = ("call", "number", "when")

    def __init__(self, when: float, number: int, call: Callable[[float], None]) -> None:
        self.when = when
        self.number = number
        self.call: Callable[[float], None] | None = call

    def __lt__(self, other: Alarm) -> bool:
        return (self.when, self.number) < (other.when, other.number)

    def cancel(self) -> None:
        """Nothing is called."""
        self.call = None


class Alarms:
    """The alarms of one host.  Cancelled ones stay in the heap, empty, until they are due."""

    __slots__ = ("_count", "heap")

    def __init__(self) -> None:
        self.heap: list[Alarm] = []
        self._count = itertools.count()

    def set(self, when: float, call: Callable[[float], None]) -> Alarm:
        """Call ``call(now)`` then."""
        alarm = Alarm(when, next(self._count), call)
        heapq.heappush(self.heap, alarm)
        return alarm

    def deadline(self) -> float:
        """When the next one is due; ``NEVER`` if there is none."""
        heap = self.heap
        while heap and heap[0].call is None:
            heapq.heappop(heap)
        return heap[0].when if heap else NEVER

    def run(self, now: float) -> None:
        """Call those that are due; one that is set meanwhile waits for the next time."""
        due = []
        while self.deadline() <= now:
            due.append(heapq.heappop(self.heap))
        for alarm in due:
            if alarm.call is not None:  # unless one before has cancelled it
                alarm.call(now)
