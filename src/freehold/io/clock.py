"""Time, identity and entropy of this process."""

from __future__ import annotations

import os
import time

now = time.monotonic
sleep = time.sleep
yield_cpu = os.sched_yield
pid = os.getpid
random_bytes = os.urandom


def cpu_count() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) or 1


def memory_bytes() -> int:
    """The machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
