"""A chain of dependent tasks whose node is killed half-way, against the same chain left alone.

The driver is on node 0, which runs no tasks; node 1 runs the chain, is killed with all that runs on
it, and a new node is started in its stead.  Values of 4 bytes travel with the calls and stay with
the driver; those of 10 MiB lie in the memory of node 1, and are lost with it.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy

SIZES = {"4 B": 4, "10 MiB": 10 << 20}
ENDINGS = {"no failure": 0.0, "with failure": 0.5}  # when: a share of the work; 0: never
DETECTION = "death of a node known after, s"
POLL_S = 0.001
DETECT_S = 60.0


def step(value: Any, nap_s: float, journal: str) -> Any:
    """Sleep, then a new value as large; each run leaves a byte in the journal."""
    handle = os.open(journal, os.O_WRONLY | os.O_APPEND)
    os.write(handle, b".")
    os.close(handle)
    time.sleep(nap_s)
    return value + numpy.uint8(1)


def run(system: Any, quick: bool, part: str) -> dict[str, float]:
    work_s = 1.0 if quick else 10.0
    system.start(0, 1)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        journal = Path(place, "journal")
        for name, size in SIZES.items():
            for nap_ms in (10, 100) if quick else (10, 100, 1000):
                label, steps = f"{name}, {nap_ms} ms", int(work_s * 1e3 / nap_ms)
                for ending, kill_s in ENDINGS.items():
                    metric = f"{label}, {ending}, s"
                    if not metric.startswith(part):
                        continue
                    journal.write_bytes(b"")
                    found[metric] = _chain(
                        system, size, steps, nap_ms / 1e3, str(journal), kill_s * work_s
                    )
                    if kill_s:
                        found[f"{label}, tasks run again"] = journal.stat().st_size - steps
    if DETECTION.startswith(part):
        found[DETECTION] = _detection(system)
    return found


def _chain(system: Any, size: int, steps: int, nap_s: float, journal: str, kill_s: float) -> float:
    api = system.api
    task = api.remote(step).options(num_cpus=1, max_retries=20)
    first = api.put(numpy.zeros(size, numpy.uint8))
    api.get(task.remote(first, 0.0, os.devnull))  # a worker is up
    start = time.perf_counter()
    ref = first
    for _ in range(steps):
        ref = task.remote(ref, nap_s, journal)
    if kill_s:
        time.sleep(max(0.0, start + kill_s - time.perf_counter()))
        system.kill(1)
        system.start_again(1)
    assert api.get(ref)[0] == steps & 255
    return time.perf_counter() - start


def _detection(system: Any) -> float:
    """Seconds from the last of a node's processes' death until this program's node knows."""
    before = system.dead()
    start = time.perf_counter()
    system.kill(1)
    while system.dead() == before:
        if time.perf_counter() - start > DETECT_S:
            raise TimeoutError("nobody notices that the node is dead")
        time.sleep(POLL_S)
    return time.perf_counter() - start
