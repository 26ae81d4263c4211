"""Calls, against any API shaped like Ray's: freehold and Ray run exactly this code."""

import importlib
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from .actors import Counter, Sleeper
from .plan import IN_FLIGHT, Plan, Reading, doze, increment, nap, noop
from .processes import settle

BURST = 100
NAPS = 400
THREADS = 10


@cache
def remote_noop(name: str) -> Any:
    """The remote no-op of the API `name`, one per process."""
    return importlib.import_module(name).remote(noop)


def submit_many(name: str, number: int) -> int:
    """A task that itself submits `number` tasks and waits for them."""
    api: Any = importlib.import_module(name)
    submit = remote_noop(name).remote
    return len(api.get([submit() for _ in range(number)]))


def die_once(marker: str) -> bool:
    """Note the time and kill this process, unless it has been done before."""
    if os.path.exists(marker):
        return True
    with open(marker + ".new", "w", encoding="ascii") as file:
        file.write(repr(time.monotonic()))
    os.rename(marker + ".new", marker)
    os.kill(os.getpid(), signal.SIGKILL)
    return False


@dataclass
class Handles:
    """An API and the remote functions made with it."""

    name: str
    api: Any
    noop: Any = field(init=False)

    def __post_init__(self) -> None:
        self.noop = self.api.remote(noop)

    def warm(self) -> None:
        """Use every worker, and the functions, once."""
        self.api.get([self.api.remote(doze).remote() for _ in range(4)])
        self.api.get([self.noop.remote() for _ in range(BURST)])

    def actor(self, cls: type) -> Any:
        """A new actor that holds no processor."""
        return self.api.remote(num_cpus=0)(cls).remote()


def task_sync(h: Handles, plan: Plan) -> Reading:
    """No-op tasks, one at a time."""
    get, submit = h.api.get, h.noop.remote

    def op() -> None:
        for _ in range(BURST):
            get(submit())

    return plan.rate(op, BURST)


def task_1000(h: Handles, plan: Plan) -> Reading:
    """No-op tasks, 1,000 in flight."""
    get, submit = h.api.get, h.noop.remote
    return plan.rate(lambda: get([submit() for _ in range(IN_FLIGHT)]), IN_FLIGHT)


def _with_actor(h: Handles, cls: type, measure: Callable[[Any], float]) -> float:
    actor = h.actor(cls)
    settle()
    try:
        return measure(actor)
    finally:
        h.api.kill(actor)


def actor_sync(h: Handles, plan: Plan) -> Reading:
    """Actor calls, one at a time."""

    def measure(actor: Any) -> float:
        get, add = h.api.get, actor.add.remote

        def op() -> None:
            for _ in range(BURST):
                get(add(1))

        return plan.rate(op, BURST)

    return _with_actor(h, Counter, measure)


def actor_1000(h: Handles, plan: Plan) -> Reading:
    """Actor calls, 1,000 in flight."""

    def measure(actor: Any) -> float:
        get, add = h.api.get, actor.add.remote
        return plan.rate(lambda: get([add(1) for _ in range(IN_FLIGHT)]), IN_FLIGHT)

    return _with_actor(h, Counter, measure)


def async_1000(h: Handles, plan: Plan) -> Reading:
    """1,000 concurrent 10 ms awaits in one asynchronous actor."""

    def measure(actor: Any) -> float:
        get, sleep = h.api.get, actor.sleep.remote
        return plan.rate(lambda: get([sleep() for _ in range(IN_FLIGHT)]), IN_FLIGHT)

    return _with_actor(h, Sleeper, measure)


def actor_create(h: Handles, plan: Plan) -> Reading:
    """Milliseconds to create an actor and have its first answer; ending it is not counted."""
    factory = h.api.remote(num_cpus=0)(Counter)
    taken: list[float] = []
    end = time.perf_counter() + plan.seconds
    while len(taken) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        actor = factory.remote()
        h.api.get(actor.add.remote(1))
        taken.append(time.perf_counter() - begin)
        h.api.kill(actor)
        settle()
    return 1e3 * statistics.median(taken)


def chain_1000(h: Handles, plan: Plan) -> Reading:
    """1,000 tasks, each taking the result of the one before."""
    submit = h.api.remote(increment).remote

    def op() -> None:
        ref = submit(0)
        for _ in range(IN_FLIGHT - 1):
            ref = submit(ref)
        if h.api.get(ref) != IN_FLIGHT:
            raise AssertionError("the chain gave a wrong number")

    return plan.rate(op, IN_FLIGHT)


def sleep_1ms(h: Handles, plan: Plan) -> Reading:
    """1 ms sleeps on the two workers."""
    submit = h.api.remote(nap).remote
    return plan.rate(lambda: h.api.get([submit() for _ in range(NAPS)]), NAPS)


def nested_100(h: Handles, plan: Plan) -> Reading:
    """Tasks per second when a task submits 100."""
    outer = h.api.remote(submit_many)

    def op() -> None:
        if h.api.get(outer.remote(h.name, BURST)) != BURST:
            raise AssertionError("a nested task is missing")

    return plan.rate(op, BURST + 1)


def threads_10(h: Handles, plan: Plan) -> Reading:
    """Tasks per second when ten threads submit and wait."""
    get, submit = h.api.get, h.noop.remote

    def one() -> None:
        get([submit() for _ in range(BURST)])

    def op() -> None:
        threads = [threading.Thread(target=one) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return plan.rate(op, THREADS * BURST)


def kill(h: Handles, plan: Plan) -> Reading:
    """Seconds between the SIGKILL of a task's worker and the task's result."""
    victim = h.api.remote(max_retries=3)(die_once)
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        for turn in range(1 if plan.quick else 2):
            marker = os.path.join(place, str(turn))
            h.api.get(victim.remote(marker))
            end = time.monotonic()
            with open(marker, encoding="ascii") as file:
                taken.append(end - float(file.read()))
            h.warm()
            settle()
    return statistics.median(taken)


CALLS: dict[str, Callable[[Handles, Plan], Reading]] = {
    "task_sync": task_sync,
    "task_1000": task_1000,
    "actor_sync": actor_sync,
    "actor_1000": actor_1000,
    "async_1000": async_1000,
    "actor_create": actor_create,
    "chain_1000": chain_1000,
    "sleep_1ms": sleep_1ms,
    "nested_100": nested_100,
    "threads_10": threads_10,
    "kill": kill,
}
