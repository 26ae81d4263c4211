"""Tasks a second on one object of 1 MiB: submitted by its owner, or through 1 to 8 borrowers.

A borrower is an actor that has got the reference inside a list, and submits tasks that take it;
borrowers and tasks are on both nodes.
"""

from __future__ import annotations

import time
from typing import Any

import numpy
from systems import place

SIZE = 1 << 20
BORROWERS = (0, 1, 2, 4, 8)


def length(value: Any) -> int:
    return len(value)


class Borrower:
    """Holds a reference to somebody else's object."""

    def __init__(self, task: Any, api_name: str) -> None:
        import importlib

        self.task, self.api = task, importlib.import_module(api_name)

    def drive(self, boxed: list[Any], count: int) -> int:
        return sum(self.api.get([self.task.remote(boxed[0]) for _ in range(count)]))


def run(system: Any, quick: bool, part: str) -> dict[str, float]:
    total = 80 if quick else 800 if system.copies_values else 4000  # a rate, whatever the number
    system.start(1, 1)
    api = system.api
    task = api.remote(length).options(num_cpus=1, scheduling_strategy="SPREAD")
    ref = api.put(numpy.zeros(SIZE, numpy.uint8))
    api.get([task.remote(ref) for _ in range(16)])  # warm
    found = {}
    for borrowers in BORROWERS:
        label = f"{borrowers} borrowers"
        if label.startswith(part):
            found[label] = total / _seconds(api, borrowers, task, ref, total)
    return found


def _seconds(api: Any, borrowers: int, task: Any, ref: Any, total: int) -> float:
    actors = [
        api.remote(Borrower)
        .options(num_cpus=0, resources=place(number % 2))
        .remote(task, api.__name__)
        for number in range(borrowers)
    ]
    api.get([actor.drive.remote([ref], 2) for actor in actors])  # warm
    start = time.perf_counter()
    if actors:
        counts = api.get([actor.drive.remote([ref], total // borrowers) for actor in actors])
    else:
        counts = api.get([task.remote(ref) for _ in range(total)])
    seconds = time.perf_counter() - start
    assert sum(counts) == total * SIZE
    for actor in actors:
        api.kill(actor)
    return seconds
