"""The processes of one system: found in /proc by a tag in their environment, and by descent."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

TAG = "FREEHOLD_BENCH_RUN"  # this environment variable marks whatever a peer starts
PROC = Path("/proc")
QUIET = 0.3
Seen = dict[int, str]  # process id -> when it started, so that a reused id is told apart


def _stats() -> dict[int, tuple[int, str]]:
    """Parent and start time of every process that can be seen and is no zombie."""
    stats: dict[int, tuple[int, str]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                text = (entry / "stat").read_text(errors="replace")
                fields = text.rpartition(")")[2].split()
                if fields[0] != "Z":
                    stats[int(entry.name)] = (int(fields[1]), fields[19])
    return stats


def _tagged(pid: int, needle: bytes) -> bool:
    with suppress(OSError):
        return needle in (PROC / str(pid) / "environ").read_bytes()
    return False


def members(tag: str, root: int = 0, seen: Seen | None = None) -> Seen:
    """Processes with `tag`, `root`, those of `seen` that still live, and all their descendants."""
    stats = _stats()
    known = seen or {}
    needle = f"{TAG}={tag}".encode()
    found = {
        pid
        for pid, (_, started) in stats.items()
        if pid == root or known.get(pid) == started or _tagged(pid, needle)
    }
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in stats.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return {pid: stats[pid][1] for pid in sorted(found)}


def mine() -> Seen:
    """The processes of the system that this process drives."""
    return members(os.environ.get(TAG, "-"), os.getpid())


def pss(pids: Seen | list[int]) -> int:
    """Bytes of memory, shared pages divided among those that share them."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


def cpu_seconds(pids: Seen) -> float:
    """Processor time used so far, in seconds, by all threads of `pids`."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for task in (PROC / str(pid) / "task").iterdir():
                with suppress(OSError, ValueError, IndexError):
                    total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def settle(patience: float = 3.0) -> None:
    """Wait until what this system still does in the background, such as starting workers, is over.

    Over means: less than QUIET of a core is used, in all its processes together.
    """
    deadline = time.monotonic() + patience
    before, begin = cpu_seconds(mine()), time.perf_counter()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        after, end = cpu_seconds(mine()), time.perf_counter()
        if after - before < QUIET * (end - begin):
            return
        before, begin = after, end


def end_all(tag: str, seen: Seen, grace: float) -> int:
    """End what a run has left: give it `grace` seconds, then kill. How many had to be killed."""
    left = members(tag, 0, seen)
    killed = 0
    for number, seconds in ((0, grace), (signal.SIGTERM, 1.0), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + seconds
        for pid in left if number else ():
            killed += number == signal.SIGTERM
            with suppress(OSError):
                os.kill(pid, number)
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = members(tag, 0, {**seen, **left})
    return killed
