"""Milliseconds a call: a 1 MiB argument, tasks and actors, one at a time and pipelined.

The paper plots the pipelined time (that of n calls, divided by n); the time of one call after
another, which leases make longer when cold, is reported as well, and so is the very first call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

SIZE = 1 << 20
UNIT = "ms"


def take(value: bytes) -> bytes:
    """Sees the whole argument; a tiny reply."""
    return value[-2:]


class Taker:
    """The same as an actor."""

    def take(self, value: bytes) -> bytes:
        return value[-2:]


def run(api: Any, quick: bool) -> dict[str, float]:
    count = 50 if quick else 1000
    api.init(num_cpus=2)
    value = bytes(SIZE)
    task = api.remote(take)
    actor = api.remote(Taker).remote()
    api.get(actor.take.remote(b"up"))
    found = {}
    for kind, call in (("task", task.remote), ("actor", actor.take.remote)):
        start = time.perf_counter()
        api.get(call(api.put(value)))
        found[f"{kind}, first"] = (time.perf_counter() - start) * 1e3
        for mode, argument in (("reference", api.put(value)), ("value", value)):
            calls = count if mode == "reference" else max(10, count // 10)
            one, many = _times(api, call, argument, calls)
            found[f"{kind}, by {mode}, one at a time"] = one
            found[f"{kind}, by {mode}, pipelined"] = many
    return found


def _times(api: Any, call: Callable[[Any], Any], argument: Any, count: int) -> tuple[float, float]:
    singles = []
    for _ in range(count):
        start = time.perf_counter()
        api.get(call(argument))
        singles.append(time.perf_counter() - start)
    start = time.perf_counter()
    api.get([call(argument) for _ in range(count)])
    return statistics.median(singles) * 1e3, (time.perf_counter() - start) / count * 1e3
