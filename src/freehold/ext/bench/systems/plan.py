"""What a probe is given (how long to measure) and what an adapter is."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CPUS = 2  # every system gets two workers
IN_FLIGHT = 1000
LONG = 1.5  # seconds
CHUNKS = 5  # a sample is the median of this many consecutive parts


@dataclass(frozen=True)
class Plan:
    """How much work one sample is."""

    seconds: float
    quick: bool

    def times(self, op: Callable[[], object]) -> list[float]:
        """Seconds of each call of `op`, repeated until the time is over.

        The first call warms up and does not count, unless it alone took longer than LONG.
        """
        clock = time.perf_counter
        begin = clock()
        op()
        last = clock()
        if last - begin > LONG:
            return [last - begin]
        gc.collect()
        taken: list[float] = []
        last = clock()
        end = last + self.seconds
        while last < end or not taken:
            op()
            now = clock()
            taken.append(now - last)
            last = now
        return taken

    def rate(self, op: Callable[[], object], units: int) -> float:
        """Units per second, `op` doing `units` of them: the median of CHUNKS parts."""
        taken = self.times(op)
        size = max(1, len(taken) // CHUNKS)
        parts = [taken[i : i + size] for i in range(0, len(taken), size)]
        return statistics.median(units * len(part) / sum(part) for part in parts)

    def milliseconds(self, op: Callable[[], object]) -> float:
        """Milliseconds a call, median."""
        return 1e3 * statistics.median(self.times(op))


Reading = float | dict[str, float]
Probe = Callable[[Plan], Reading]


@dataclass
class System:
    """One system: how to start and stop it, and what can be measured of it."""

    version: str
    probes: Mapping[str, Probe]
    cold: str = ""  # a program that imports, starts and prints one result
    start: Callable[[], None] = lambda: None
    stop: Callable[[], None] = lambda: None
    warm: Callable[[], object] = lambda: None  # wakes every worker once
    notes: list[str] = field(default_factory=list)


def noop() -> None:
    """The empty task."""


def increment(value: int) -> int:
    """One link of a chain."""
    return value + 1


def nap() -> None:
    """A short task: 1 ms of sleep."""
    time.sleep(0.001)


def doze() -> None:
    """Long enough that the other worker gets one as well."""
    time.sleep(0.1)


def size(value: Any) -> int:
    """The task that is handed a large argument."""
    return len(value)


def count(*values: object) -> int:
    """The task that many values fan into."""
    return len(values)


@contextmanager
def no_gc() -> Iterator[None]:
    """Hold cyclic garbage collection back."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
