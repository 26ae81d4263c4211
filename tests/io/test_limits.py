"""Limits of control groups, in trees as the kernel shows them in and out of containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from freehold.io import limits

MIB = 1024 * 1024
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
CPUS = len(os.sched_getaffinity(0))


def tree(root: Path, groups: str, **files: str) -> str:
    """A file system with these groups of the process and these files, '__' for '/'."""
    for name, text in {"proc__self__cgroup": groups, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return str(root)


def test_without_groups_it_is_the_machine(tmp_path: Path) -> None:
    for root in (str(tmp_path), tree(tmp_path, "0::/")):
        assert limits.memory_bytes(root) == MACHINE
        assert limits.cpu_count(root) == CPUS


def test_no_limit_is_none(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "0::/user/one",
        **{
            "sys__fs__cgroup__user__one__memory.max": "max",
            "sys__fs__cgroup__user__one__cpu.max": "max 100000",
        },
    )  # fmt: skip
    assert (limits.memory_bytes(root), limits.cpu_count(root)) == (MACHINE, CPUS)
    root = tree(
        tmp_path, "4:memory:/\n1:cpu,cpuacct:/",
        **{
            "sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712",
            "sys__fs__cgroup__cpu,cpuacct__cpu.cfs_quota_us": "-1",
            "sys__fs__cgroup__cpu,cpuacct__cpu.cfs_period_us": "100000",
        },
    )  # fmt: skip
    assert (limits.memory_bytes(root), limits.cpu_count(root)) == (MACHINE, CPUS)


@pytest.mark.parametrize("mount", ["sys__fs__cgroup", "sys__fs__cgroup__unified"])
@pytest.mark.parametrize("place", ["", "__user", "__user__one"])
def test_of_one_hierarchy_the_least_counts_wherever_it_is(
    tmp_path: Path, mount: str, place: str
) -> None:
    root = tree(
        tmp_path, "0::/user/one",
        **{
            f"{mount}{place}__memory.max": str(64 * MIB),
            f"{mount}{place}__cpu.max": "50000 100000",
        },
    )  # fmt: skip
    assert limits.memory_bytes(root) == 64 * MIB
    assert limits.cpu_count(root) == 1


def test_of_one_hierarchy_for_each_resource(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "4:memory:/docker/abc\n3:cpuset:/\n1:cpu,cpuacct:/docker/abc\n0::/",
        **{
            "sys__fs__cgroup__memory__memory.limit_in_bytes": str(64 * MIB),
            "sys__fs__cgroup__cpu__docker__abc__cpu.cfs_quota_us": "20000",
            "sys__fs__cgroup__cpu__docker__abc__cpu.cfs_period_us": "100000",
        },
    )  # fmt: skip
    assert limits.memory_bytes(root) == 64 * MIB, "in the container's own view of it"
    assert limits.cpu_count(root) == 1


def test_a_machine_is_busy_when_more_wants_to_run_than_it_has_processors(tmp_path: Path) -> None:
    for name, running, busy in (("a", 0, False), ("b", 1, True)):
        load = f"9.00 9.00 9.00 {(os.cpu_count() or 1) + running}/300 77"
        assert limits.is_busy(tree(tmp_path / name, "", proc__loadavg=load)) is busy
    assert not limits.is_busy(str(tmp_path / "nothing"))
