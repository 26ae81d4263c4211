"""Dask distributed: a local cluster of two single-threaded worker processes."""

import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from .actors import Counter
from .plan import CPUS, IN_FLIGHT, Plan, Probe, System, doze, increment, nap, noop, size
from .raylike import die_once

BURST = 20  # a scheduler round trip takes milliseconds
NAPS = 100
LINKS = 100
LARGE_IN_FLIGHT = 50
SMALL = b"x" * 100
OPTIONS = (
    f"n_workers={CPUS}, threads_per_worker=1, processes=True, dashboard_address=None, "
    "silence_logs=50"
)
COLD = f"""
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster({OPTIONS}) as cluster, Client(cluster) as client:
        print(client.submit(int, 1).result(), flush=True)
"""


def submit_many(number: int) -> int:
    """A task that itself submits `number` tasks and waits for them."""
    distributed: Any = importlib.import_module("distributed")
    with distributed.worker_client() as client:
        return len(client.gather([client.submit(noop, pure=False) for _ in range(number)]))


class _Cluster:
    """The cluster and its client."""

    def __init__(self) -> None:
        self.distributed: Any = importlib.import_module("distributed")
        self.cluster: Any = self.distributed.LocalCluster(
            n_workers=CPUS,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        )
        self.client: Any = self.distributed.Client(self.cluster)

    def many(self, number: int, function: Callable[..., object], *args: object) -> None:
        """`number` calls in flight."""
        submit = self.client.submit
        self.client.gather([submit(function, *args, pure=False) for _ in range(number)])

    def warm(self) -> None:
        """Use both workers once."""
        self.many(4, doze)
        self.many(100, noop)

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.cluster.close()


def task_sync(c: _Cluster, plan: Plan) -> float:
    """No-op tasks, one at a time."""

    def op() -> None:
        for _ in range(BURST):
            c.client.submit(noop, pure=False).result()

    return plan.rate(op, BURST)


def task_1000(c: _Cluster, plan: Plan) -> float:
    """No-op tasks, 1,000 in flight."""
    return plan.rate(lambda: c.many(IN_FLIGHT, noop), IN_FLIGHT)


def actor_sync(c: _Cluster, plan: Plan) -> float:
    """Actor calls, one at a time."""
    actor = c.client.submit(Counter, actor=True).result()

    def op() -> None:
        for _ in range(BURST):
            actor.add(1).result()

    return plan.rate(op, BURST)


def actor_create(c: _Cluster, plan: Plan) -> float:
    """Milliseconds to create an actor and have its first answer."""

    def op() -> None:
        c.client.submit(Counter, actor=True, pure=False).result().add(1).result()

    return plan.milliseconds(op)


def chain_1000(c: _Cluster, plan: Plan) -> float:
    """A rate like the others', of a shorter chain because this one is slow."""

    def op() -> None:
        future = c.client.submit(increment, 0, pure=False)
        for _ in range(LINKS - 1):
            future = c.client.submit(increment, future, pure=False)
        if future.result() != LINKS:
            raise AssertionError("the chain gave a wrong number")

    return plan.rate(op, LINKS)


def sleep_1ms(c: _Cluster, plan: Plan) -> float:
    """1 ms sleeps on the two workers."""
    return plan.rate(lambda: c.many(NAPS, nap), NAPS)


def put_small(c: _Cluster, plan: Plan) -> float:
    """Scatters of 100 bytes."""

    def op() -> None:
        for _ in range(BURST):
            c.client.scatter(SMALL, hash=False)

    return plan.rate(op, BURST)


def get_small(c: _Cluster, plan: Plan) -> float:
    """Gathers of 100 bytes."""
    futures = [c.client.scatter(SMALL, hash=False) for _ in range(BURST)]

    def op() -> None:
        for future in futures:
            future.result()

    return plan.rate(op, BURST)


def arg_value(c: _Cluster, plan: Plan) -> float:
    """Calls per second with a 1 MB array as argument, 50 in flight."""
    numpy: Any = importlib.import_module("numpy")

    array = numpy.ones(1_000_000, dtype=numpy.uint8)
    return plan.rate(lambda: c.many(LARGE_IN_FLIGHT, size, array), LARGE_IN_FLIGHT)


def arg_ref(c: _Cluster, plan: Plan) -> float:
    """Calls per second with a 1 MB array that both workers can have, 50 in flight."""
    numpy: Any = importlib.import_module("numpy")

    array = numpy.ones(1_000_000, dtype=numpy.uint8)
    future = c.client.scatter(array, broadcast=True)
    return plan.rate(lambda: c.many(LARGE_IN_FLIGHT, size, future), LARGE_IN_FLIGHT)


def nested_100(c: _Cluster, plan: Plan) -> float:
    """Tasks per second when a task submits 100."""
    return plan.rate(lambda: c.client.submit(submit_many, 100, pure=False).result(), 101)


def kill(c: _Cluster, plan: Plan) -> float:
    """Seconds between the SIGKILL of a task's worker and the task's result."""
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        for turn in range(1 if plan.quick else 2):
            marker = os.path.join(place, str(turn))
            c.client.submit(die_once, marker, pure=False).result()
            end = time.monotonic()
            with open(marker, encoding="ascii") as file:
                taken.append(end - float(file.read()))
            c.client.wait_for_workers(CPUS)
            c.warm()
    return statistics.median(taken)


DASK_PROBES: tuple[Callable[[_Cluster, Plan], float], ...] = (
    task_sync,
    task_1000,
    actor_sync,
    actor_create,
    chain_1000,
    sleep_1ms,
    put_small,
    get_small,
    arg_value,
    arg_ref,
    nested_100,
    kill,
)


def system() -> System:
    """Dask distributed as a system."""
    distributed: Any = importlib.import_module("distributed")
    made: list[_Cluster] = []

    def warm() -> None:
        made[0].warm()

    def stop() -> None:
        while made:
            made.pop().close()

    def bind(probe: Callable[[_Cluster, Plan], float]) -> Probe:
        return lambda plan: probe(made[0], plan)

    return System(
        version=distributed.__version__,
        cold=COLD,
        start=lambda: made.append(_Cluster()),
        stop=stop,
        warm=warm,
        probes={probe.__name__: bind(probe) for probe in DASK_PROBES},
    )
