"""Tasks a second, driven by 1 to 8 owners: actors that each submit tasks of their own.

The tasks sleep for 5 ms, on more CPUs than there are: four workers can do 800 tasks/s at best.
What tells the systems apart beyond that is the processor time of all their processes, per task.
"""

from __future__ import annotations

import time
from typing import Any

import processes

NAP_S = 0.005
CPUS = 4  # offered; naps do not use them
UNIT = "tasks/s, ms"


def sleep(seconds: float) -> None:
    time.sleep(seconds)


class Owner:
    """Submits tasks and owns their results."""

    def __init__(self, nap: Any, api_name: str) -> None:
        import importlib

        self.nap, self.api = nap, importlib.import_module(api_name)

    def drive(self, count: int) -> int:
        self.api.get([self.nap.remote(NAP_S) for _ in range(count)])
        return count


def run(api: Any, quick: bool) -> dict[str, float]:
    total = 80 if quick else 1600
    api.init(num_cpus=CPUS)
    nap = api.remote(sleep)
    api.get([nap.remote(0.05 if quick else 2.0) for _ in range(CPUS)])  # every worker is up
    found = {}
    for owners in (1, 2, 4, 8):
        actors = [api.remote(Owner).remote(nap, api.__name__) for _ in range(owners)]
        api.get([actor.drive.remote(CPUS) for actor in actors])  # warm
        used, start = processes.cpu_seconds(), time.perf_counter()
        done = sum(api.get([actor.drive.remote(total // owners) for actor in actors]))
        wall = time.perf_counter() - start
        found[f"{owners} owners, tasks/s"] = done / wall
        found[f"{owners} owners, CPU ms a task"] = (processes.cpu_seconds() - used) / done * 1e3
        for actor in actors:
            api.kill(actor)
    return found
