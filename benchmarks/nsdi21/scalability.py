"""Tasks a second, driven by 1 to 8 owners, and what of it reaches the head.

Owners are actors, all on the driver's node (colocated) or on both (spread).  Each drives chains of
ten rounds: a task takes the result of the round before.  Tasks do nothing; results are of 2 bytes
or of 1 MiB.  What tells systems apart beyond the rate is the processor time of all their processes,
and that of the head and its messages, per task: these must not grow with the number of owners.
"""

from __future__ import annotations

import time
from typing import Any

import processes
from systems import HeadCounters, place

ROUNDS = 10
CPUS = 2  # of each node
SIZES = {"2 B": 2, "1 MiB": 1 << 20}
OWNERS = (1, 2, 4, 8)


def link(value: bytes) -> bytes:
    return bytes(value)


class Owner:
    """Submits tasks and owns their results."""

    def __init__(self, link: Any, api_name: str) -> None:
        import importlib

        self.link, self.api = link, importlib.import_module(api_name)

    def drive(self, width: int, size: int) -> int:
        refs = [self.api.put(bytes(size)) for _ in range(width)]
        for _ in range(ROUNDS):
            refs = [self.link.remote(ref) for ref in refs]
        self.api.wait(refs, num_returns=len(refs))
        return width * ROUNDS


def run(system: Any, quick: bool, part: str) -> dict[str, float]:
    system.start(CPUS, CPUS)
    api = system.api
    task = api.remote(link).options(num_cpus=1)
    found = {}
    for name, size in SIZES.items():
        total = (8 if quick else 400) * ROUNDS if size == 2 else (8 if quick else 80) * ROUNDS
        for layout in ("colocated", "spread"):
            for owners in OWNERS:
                label = f"{name}, {layout}, {owners} owners"
                if label.startswith(part):
                    found |= _measure(system, api, task, label, owners, total, size)
    return found


def _measure(
    system: Any, api: Any, task: Any, label: str, owners: int, total: int, size: int
) -> dict[str, float]:
    spread = ", spread" in label
    actors = [
        api.remote(Owner)
        .options(num_cpus=0, resources=place(number % 2 if spread else 0))
        .remote(task, api.__name__)
        for number in range(owners)
    ]
    api.get([actor.drive.remote(CPUS, size) for actor in actors])  # warm
    head = HeadCounters(system)
    used, start = processes.cpu_seconds(), time.perf_counter()
    done = sum(api.get([actor.drive.remote(total // ROUNDS // owners, size) for actor in actors]))
    wall, used = time.perf_counter() - start, processes.cpu_seconds() - used
    seconds, messages, _ = head.since()
    for actor in actors:
        api.kill(actor)
    return {
        f"{label}, tasks/s": done / wall,
        f"{label}, CPU ms a task": used / done * 1e3,
        f"{label}, head CPU ms a task": seconds / done * 1e3,
        f"{label}, head messages a task": messages / done,
    }
