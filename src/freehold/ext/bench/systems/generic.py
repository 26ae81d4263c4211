"""Probes that work the same way for every system."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from .plan import Plan, Probe, Reading, System
from .processes import cpu_seconds, mine, pss

QUICK_START = 1.0  # a system that starts faster than this is started three times
START_LIMIT = 60.0


def _first_result(program: str) -> float:
    """Seconds from starting an interpreter until its first line, the program's first result."""
    begin = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        taken = time.perf_counter() - begin
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=START_LIMIT / 2)
    finally:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    if not line.strip():
        raise RuntimeError("the program printed no result")
    return taken


def startup(program: str, plan: Plan) -> float:
    """Seconds from a fresh interpreter to the first result: imports and start-up included."""
    first = _first_result(program)
    if first > QUICK_START or plan.quick:
        return first
    return statistics.median([first, _first_result(program), _first_result(program)])


def idle(warm: Callable[[], object], plan: Plan) -> Reading:
    """Memory and processor use, in MB and percent of one core, of all processes, doing nothing."""
    warm()
    time.sleep(0.5 if plan.quick else 1.0)
    everyone = mine()
    memory = pss(everyone)
    before, begin = cpu_seconds(everyone), time.perf_counter()
    time.sleep(0.8 if plan.quick else 1.5)
    used = cpu_seconds(everyone) - before
    return {"idle_mem": memory / 1e6, "idle_cpu": 100 * used / (time.perf_counter() - begin)}


def probes_of(system: System) -> dict[str, Probe]:
    """Everything that can be measured of `system`, the generic probes included."""
    found: dict[str, Probe] = {}
    if system.cold:
        found["startup"] = lambda plan: startup(system.cold, plan)
        found["idle"] = lambda plan: idle(system.warm, plan)
    found.update(system.probes)
    return found
