"""The executors of the standard library and of loky: the same probes for both."""

import importlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from .plan import IN_FLIGHT, Plan, Probe, doze, nap, noop, size

BURST = 100
NAPS = 400
THREADS = 10
LARGE_IN_FLIGHT = 50
Pool = Callable[[], Executor]


def warm(pool: Executor) -> None:
    """Use every worker, and the pipes, once."""
    for future in [pool.submit(doze) for _ in range(4)]:
        future.result()
    for future in [pool.submit(noop) for _ in range(BURST)]:
        future.result()


def _all(pool: Executor, number: int, function: Callable[..., object], *args: object) -> None:
    for future in [pool.submit(function, *args) for _ in range(number)]:
        future.result()


def task_sync(pool: Executor, plan: Plan) -> float:
    """No-op tasks, one at a time."""

    def op() -> None:
        for _ in range(BURST):
            pool.submit(noop).result()

    return plan.rate(op, BURST)


def task_1000(pool: Executor, plan: Plan) -> float:
    """No-op tasks, 1,000 in flight."""
    return plan.rate(lambda: _all(pool, IN_FLIGHT, noop), IN_FLIGHT)


def sleep_1ms(pool: Executor, plan: Plan) -> float:
    """1 ms sleeps on the two workers."""
    return plan.rate(lambda: _all(pool, NAPS, nap), NAPS)


def arg_value(pool: Executor, plan: Plan) -> float:
    """Calls per second with a 1 MB array as argument, 50 in flight."""
    numpy: Any = importlib.import_module("numpy")

    array = numpy.ones(1_000_000, dtype=numpy.uint8)
    return plan.rate(lambda: _all(pool, LARGE_IN_FLIGHT, size, array), LARGE_IN_FLIGHT)


def threads_10(pool: Executor, plan: Plan) -> float:
    """Tasks per second when ten threads submit and wait."""

    def op() -> None:
        threads = [threading.Thread(target=_all, args=(pool, BURST, noop)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return plan.rate(op, THREADS * BURST)


POOL_PROBES: dict[str, Callable[[Executor, Plan], float]] = {
    "task_sync": task_sync,
    "task_1000": task_1000,
    "sleep_1ms": sleep_1ms,
    "arg_value": arg_value,
    "threads_10": threads_10,
}


def probes(pool: Pool) -> dict[str, Probe]:
    """Every probe, bound to the executor that `pool` gives once it has been started."""

    def bind(probe: Any) -> Probe:
        return lambda plan: probe(pool(), plan)

    return {name: bind(probe) for name, probe in POOL_PROBES.items()}
