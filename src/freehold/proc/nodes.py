"""What a node daemon is told when it is started, by a driver or by ``freehold start``."""

from __future__ import annotations

import os
import sys
from typing import Any

from freehold.config import MIB, Config
from freehold.core.arena import GRAIN, round_up
from freehold.io import limits

ARENA_PART = 0.3  # of the memory


def common(config: Config, cpus: float) -> dict[str, Any]:
    """What every node is told; the limits are for its workers."""
    return {
        "cpus": cpus,
        "resources": config.resources or {},
        "arena": round_up(config.arena_bytes_max or _arena(), GRAIN),
        "prestart": _prestart(cpus) if config.prestart is None else config.prestart,
        "worker_idle": config.worker_idle_s,
        "workers_max": config.workers_max,
        "reserve": _reserve(config),
        "depth_max": config.depth_max,
        "lease_idle": config.lease_idle_ms / 1000,
        "remake": config.remake_s_max,
        "lineage_max": config.lineage_bytes_max,
        "inline_max": config.inline_bytes_max,
        "path": search_path(),
    }


def search_path() -> list[str]:
    """Where the program finds its modules; workers look there too."""
    paths = []
    for path in sys.path:
        try:
            paths.append(os.fsdecode(path or os.getcwd()))
        except (OSError, TypeError):  # the working directory is gone, or it is no path
            continue
    return paths


def _prestart(cpus: float) -> int:
    """Workers to start ahead of demand: what the machine can run, however much is offered."""
    return min(int(cpus), limits.cpu_count())


def _arena() -> int:
    """As much of the memory as shared objects may have, where nobody says otherwise, in bytes."""
    size = int(limits.memory_bytes() * ARENA_PART)
    mapped = limits.address_space_bytes()
    return size if mapped is None else max(MIB, min(size, mapped // 8))  # it is mapped twice over


def _reserve(config: Config) -> int:
    """Bytes of the arena to keep ready ahead of demand."""
    if config.reserve_bytes is not None:
        return config.reserve_bytes
    return min(512 * MIB, limits.memory_bytes() // 40)
