"""What the demonstration asks of the node: its counters, a kill, and whether anything is left.

Everything that depends on the shape of ``freehold.status()`` stands in ``snapshot``.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

import freehold as fh

POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The node's counters at one moment.

    Attributes:
        objects: values that live in shared memory.
        peak_bytes: the most shared memory that values have taken so far.
        references: references that somebody in this program still counts.
        retries: tasks that were run again after a process died.
        pids: the node's processes, other than this one.
    """

    objects: int
    peak_bytes: int
    references: int
    retries: int
    pids: frozenset[int]


def snapshot() -> Snapshot:
    """Return the node's counters now."""
    status = fh.status()
    return Snapshot(
        objects=int(status["objects"]["count"]),
        peak_bytes=int(status["objects"]["peak_bytes"]),
        references=int(status["references"]),
        retries=int(status["retries"]),
        pids=frozenset(int(process["pid"]) for process in status["processes"]) - {os.getpid()},
    )


def kill(pid: int) -> None:
    """End one of the node's processes at once, as the kernel does when memory runs out.

    Raises:
        RuntimeError: it is not one of the node's processes.
    """
    if pid not in snapshot().pids:
        raise RuntimeError(f"process {pid} is not one of the node's")
    os.kill(pid, signal.SIGKILL)


def settle(timeout_s: float) -> Snapshot:
    """Wait until no object and no reference is left; return the last snapshot either way."""
    gc.collect()
    last = snapshot()

    def empty() -> bool:
        nonlocal last
        last = snapshot()
        return not (last.objects or last.references)

    wait_until(empty, timeout_s)
    return last


def survivors(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Wait until those processes have ended; return the ones that have not."""
    left = set(pids)

    def gone() -> bool:
        left.intersection_update([pid for pid in left if running(pid)])
        return not left

    wait_until(gone, timeout_s)
    return sorted(left)


def running(pid: int) -> bool:
    """Return whether a process exists and has not ended; a zombie has."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition; return whether it came about in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
