"""What of the machine this process may use: all of it, or what a container or ``ulimit`` leaves.

A container is a control group with a limit, and so are many batch systems' jobs.  Its processes see
the whole machine, and are killed, or made to wait, when they take more than the group's part.  So
the group's files are read, and those of the groups around it; those that are not there say nothing.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator

V2 = ("sys/fs/cgroup", "sys/fs/cgroup/unified")  # where the one hierarchy of today is mounted


def cpu_count(root: str = "/") -> int:
    """The CPUs that this process may use; a part of one counts as one."""
    count = float(len(os.sched_getaffinity(0)))
    for group in _groups(root, "cpu"):
        quota, _, period = _read(group, "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group, "cpu.cfs_quota_us"), _read(group, "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            count = min(count, int(quota) / int(period))
    return max(1, math.ceil(count))


def memory_bytes(root: str = "/") -> int:
    """The memory that this process and its like may use, in bytes."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group in _groups(root, "memory"):
        limit = _read(group, "memory.max") or _read(group, "memory.limit_in_bytes")
        if limit.isdecimal():
            size = min(size, int(limit))
    return size


def address_space_bytes() -> int | None:
    """How much one process may map, in bytes (``ulimit -v``); None: as much as there is."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def is_busy(root: str = "/") -> bool:
    """Whether so much wants to run now that the machine has no processor for who asks."""
    running = _read(os.path.join(root, "proc"), "loadavg").split("/")[0].split()[3:]
    return bool(running) and int(running[0]) > (os.cpu_count() or 1)  # who asks runs, too


def _groups(root: str, controller: str) -> Iterator[str]:
    """The directories of this process's control groups, innermost first.

    In a container they may be mounted where the outermost one is expected, under no name.
    """
    for line in _read(os.path.join(root, "proc/self"), "cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            mounts = [os.path.join(root, mount) for mount in V2]
        elif controller in controllers.split(","):
            mounts = [os.path.join(root, V2[0], name) for name in (controllers, controller)]
        else:
            continue
        while path:
            yield from (os.path.join(mount, path.strip("/")) for mount in mounts)
            path = path.rpartition("/")[0]
        yield from mounts


def _read(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""
