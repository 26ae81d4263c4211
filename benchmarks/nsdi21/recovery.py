"""A chain of dependent tasks whose worker is killed half-way: seconds, and times as long as whole.

The task in the middle kills its own process the first time it runs.  Values of 4 bytes travel with
the calls; those of 10 MB lie in shared memory.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = {"4 B": 4, "10 MB": 10_000_000}
UNIT = "s, times"


def step(value: bytes, nap_s: float, mark: str) -> bytes:
    """Sleep, then a new value as large; die first if the mark says so."""
    if mark and os.path.exists(mark):
        os.remove(mark)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(nap_s)
    return bytes([value[0] + 1 & 255]) + value[1:]


def run(api: Any, quick: bool) -> dict[str, float]:
    work_s = 0.2 if quick else 2.0
    api.init(num_cpus=2)
    task = api.remote(step)
    api.get(task.remote(b"up", 0.0, ""))
    found = {}
    with tempfile.TemporaryDirectory() as place:
        mark = Path(place, "mark")
        for name, size in SIZES.items():
            for nap_ms in (10, 100):
                steps = max(2, int(work_s * 1e3 / nap_ms))
                times = []
                for deadly in (False, True):
                    if deadly:
                        mark.touch()
                    times.append(_chain(api, task, bytes(size), steps, nap_ms / 1e3, str(mark)))
                    assert not mark.exists()
                found[f"{name}, {nap_ms} ms, added s"] = times[1] - times[0]
                found[f"{name}, {nap_ms} ms, times"] = times[1] / times[0]
    return found


def _chain(api: Any, task: Any, value: bytes, steps: int, nap_s: float, mark: str) -> float:
    start = time.perf_counter()
    ref = api.put(value)
    for number in range(steps):
        ref = task.remote(ref, nap_s, mark if number == steps // 2 else "")
    assert api.get(ref)[0] == steps & 255
    return time.perf_counter() - start
