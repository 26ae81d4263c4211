"""Milliseconds a call with an argument of 1 MiB: tasks and actors, on this node and on another.

The paper plots the pipelined time (that of n calls, divided by n); the time of one call after
another is reported as well.  The argument is put once, the reply is tiny.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy
from systems import place

SIZE = 1 << 20
NODES = {"same node": 0, "other node": 1}


def take(value: Any) -> int:
    """Sees the argument; a tiny reply."""
    return int(value[-1])


class Taker:
    """The same as an actor."""

    def take(self, value: Any) -> int:
        return int(value[-1])


def run(system: Any, quick: bool, part: str) -> dict[str, float]:
    count = 30 if quick else 1000
    system.start(1, 1)
    api = system.api
    value = api.put(numpy.zeros(SIZE, numpy.uint8))
    found = {}
    for where, index in NODES.items():
        task = api.remote(take).options(num_cpus=1, resources=place(index))
        actor = api.remote(Taker).options(num_cpus=0, resources=place(index)).remote()
        for kind, call in (("task", task.remote), ("actor", actor.take.remote)):
            if not f"{where}, {kind}".startswith(part):
                continue
            api.get([call(value) for _ in range(5)])  # warm: the lease, and the argument's copy
            one, many = _times(api, call, value, count)
            found[f"{where}, {kind}, one at a time"] = one
            found[f"{where}, {kind}, pipelined"] = many
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
