"""Tasks a second on one object of 1 MiB: submitted by its owner, or through 1 to 8 borrowers.

A borrower is an actor that has got the reference inside a list, and submits tasks that take it.
"""

from __future__ import annotations

import time
from typing import Any

SIZE = 1 << 20
UNIT = "tasks/s"


def length(value: bytes) -> int:
    return len(value)


class Borrower:
    """Holds a reference to somebody else's object."""

    def __init__(self, task: Any, api_name: str) -> None:
        import importlib

        self.task, self.api = task, importlib.import_module(api_name)

    def drive(self, boxed: list[Any], count: int) -> int:
        return sum(self.api.get([self.task.remote(boxed[0]) for _ in range(count)]))


def run(api: Any, quick: bool) -> dict[str, float]:
    total = 80 if quick else 4000
    api.init(num_cpus=2)
    task = api.remote(length)
    ref = api.put(bytes(SIZE))
    api.get([task.remote(ref) for _ in range(8)])  # warm
    start = time.perf_counter()
    seen = sum(api.get([task.remote(ref) for _ in range(total)]))
    found = {"0 borrowers": total / (time.perf_counter() - start)}
    assert seen == total * SIZE
    for borrowers in (1, 2, 4, 8):
        actors = [api.remote(Borrower).remote(task, api.__name__) for _ in range(borrowers)]
        api.get([actor.drive.remote([ref], 2) for actor in actors])
        start = time.perf_counter()
        seen = sum(api.get([actor.drive.remote([ref], total // borrowers) for actor in actors]))
        found[f"{borrowers} borrowers"] = total / (time.perf_counter() - start)
        assert seen == total // borrowers * borrowers * SIZE
        for actor in actors:
            api.kill(actor)
    return found
