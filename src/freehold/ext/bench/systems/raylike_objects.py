"""Objects and references, against any API shaped like Ray's."""

import gc
import importlib
import itertools
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from .plan import IN_FLIGHT, Plan, Probe, Reading, count, no_gc, size
from .processes import mine, pss
from .raylike import CALLS, Handles

SMALL = b"x" * 100
RECORD = {"id": 7, "name": "x" * 64, "scores": [1.5, 2.5]}
BURST = 100
LARGE_IN_FLIGHT = 50
MANY = 10_000
MEGABYTES_100 = 100_000_000
WARM_PUTS = 100


def put_small(h: Handles, plan: Plan) -> Reading:
    """Puts per second of small values, each reference dropped at once."""
    put = h.api.put

    def rate(value: object) -> float:
        def op() -> None:
            for _ in range(BURST):
                put(value)

        return plan.rate(op, BURST)

    return {"put_small": rate(SMALL), "put_dict": rate(RECORD)}


def get_small(h: Handles, plan: Plan) -> Reading:
    """Gets per second of small values, over 100 objects in turn."""
    get = h.api.get

    def rate(value: object) -> float:
        refs = [h.api.put(value) for _ in range(BURST)]

        def op() -> None:
            for ref in refs:
                get(ref)

        return plan.rate(op, BURST)

    return {"get_small": rate(SMALL), "get_dict": rate(RECORD)}


def _hundred_megabytes() -> Any:
    numpy: Any = importlib.import_module("numpy")

    return numpy.ones(MEGABYTES_100, dtype=numpy.uint8)


def put_first(h: Handles, plan: Plan) -> Reading:
    """GB/s of putting 100 MB, five of them, all kept: pages that nobody has used before."""
    array = _hundred_megabytes()
    kept = []
    taken: list[float] = []
    for _ in range(5):
        begin = time.perf_counter()
        kept.append(h.api.put(array))
        taken.append(time.perf_counter() - begin)
    return MEGABYTES_100 / statistics.median(taken) / 1e9


def put_warm(h: Handles, plan: Plan) -> Reading:
    """GB/s of putting 100 MB and dropping it, after many such puts."""
    array = _hundred_megabytes()
    end = time.perf_counter() + (1.0 if plan.quick else 2.0)
    for _ in range(WARM_PUTS):
        h.api.put(array)
        if time.perf_counter() > end:
            break
    taken = plan.times(lambda: h.api.put(array))
    return MEGABYTES_100 / statistics.median(taken) / 1e9


def _megabyte() -> Any:
    numpy: Any = importlib.import_module("numpy")

    return numpy.ones(1_000_000, dtype=numpy.uint8)


def arg_value(h: Handles, plan: Plan) -> Reading:
    """Calls per second with a 1 MB array as argument, 50 in flight."""
    array = _megabyte()
    submit = h.api.remote(size).remote
    many = range(LARGE_IN_FLIGHT)
    return plan.rate(lambda: h.api.get([submit(array) for _ in many]), LARGE_IN_FLIGHT)


def arg_ref(h: Handles, plan: Plan) -> Reading:
    """Calls per second with a reference to a 1 MB array as argument, 50 in flight."""
    ref = h.api.put(_megabyte())
    submit = h.api.remote(size).remote
    many = range(LARGE_IN_FLIGHT)
    return plan.rate(lambda: h.api.get([submit(ref) for _ in many]), LARGE_IN_FLIGHT)


def numbers(many: int) -> tuple[int, ...]:
    """A task with many results."""
    return tuple(range(many))


def refs_10k(h: Handles, plan: Plan) -> Reading:
    """Milliseconds of one task that gets a list of 10,000 references to results of others."""
    each = MANY // BURST
    made = h.api.remote(num_returns=each)(numbers)
    refs = [ref for _ in range(BURST) for ref in made.remote(each)]
    submit = h.api.remote(size).remote

    def op() -> None:
        if h.api.get(submit(refs)) != MANY:
            raise AssertionError("references are missing")

    return plan.milliseconds(op)


def wait_1000(h: Handles, plan: Plan) -> Reading:
    """Milliseconds to submit 1,000 tasks and take their references one by one out of `wait`."""
    wait, submit = h.api.wait, h.noop.remote

    def op() -> None:
        rest = [submit() for _ in range(IN_FLIGHT)]
        while rest:
            _, rest = wait(rest, num_returns=1)

    return plan.milliseconds(op)


def fanin_1000(h: Handles, plan: Plan) -> Reading:
    """Milliseconds of one task with 1,000 finished tasks' references as its arguments."""
    refs = [h.noop.remote() for _ in range(IN_FLIGHT)]
    h.api.get(refs)
    submit = h.api.remote(count).remote

    def op() -> None:
        if h.api.get(submit(*refs)) != IN_FLIGHT:
            raise AssertionError("arguments are missing")

    return plan.milliseconds(op)


def _growth(make: Callable[[int], list[Any]], plan: Plan) -> tuple[float, float, list[Any]]:
    """Bytes a reference, at the owner and in all processes; and the references, still held."""
    trial = 300
    make(trial)
    begin = time.perf_counter()
    make(trial)
    seconds = (time.perf_counter() - begin) / trial
    wanted = (0.8 if plan.quick else 1.5) / seconds
    least, most = (1500, 20_000) if plan.quick else (2500, 100_000)
    number = int(min(most, max(least, wanted)))
    gc.collect()
    time.sleep(0.3)
    driver = [os.getpid()]
    owner, everyone = pss(driver), pss(mine())
    with no_gc():
        refs = make(number)
    time.sleep(0.3)
    owner = pss(driver) - owner
    everyone = pss(mine()) - everyone
    return owner / number, everyone / number, refs


def _finished(h: Handles, number: int) -> list[Any]:
    """References of `number` finished tasks whose results nobody has asked for."""
    refs: list[Any] = []
    while len(refs) < number:
        more = [h.noop.remote() for _ in range(min(IN_FLIGHT, number - len(refs)))]
        h.api.wait(more, num_returns=len(more))
        refs += more
    return refs


def ref_memory(h: Handles, plan: Plan) -> Reading:
    """Bytes a reference costs while it is held: of a small put, and of a finished task."""
    values = itertools.repeat(SMALL)
    put_owner, put_all, kept = _growth(
        lambda number: [h.api.put(value) for value in itertools.islice(values, number)], plan
    )
    task_owner, task_all, more = _growth(partial(_finished, h), plan)
    del kept, more
    return {
        "ref_put": put_all,
        "ref_put_owner": put_owner,
        "ref_task": task_all,
        "ref_task_owner": task_owner,
    }


OBJECTS: dict[str, Callable[[Handles, Plan], Reading]] = {
    "ref_memory": ref_memory,
    "put_first": put_first,
    "put_warm": put_warm,
    "put_small": put_small,
    "get_small": get_small,
    "arg_value": arg_value,
    "arg_ref": arg_ref,
    "refs_10k": refs_10k,
    "wait_1000": wait_1000,
    "fanin_1000": fanin_1000,
}


def probes(handles: Callable[[], Handles]) -> dict[str, Probe]:
    """Every probe, bound to the API that `handles` gives once it has been started."""

    def bind(probe: Callable[[Handles, Plan], Reading]) -> Probe:
        return lambda plan: probe(handles(), plan)

    return {name: bind(probe) for name, probe in {**CALLS, **OBJECTS}.items()}
