"""Processes in tests: which there are, stopping and ending them, waiting, and what is left over.

A test's sessions are told from all others on the machine by their temporary directory: whatever a
session starts inherits ``TMPDIR`` (``sessions.ours``).  What a process is, is its name, which each
kind sets for itself: ``freehold-node``, ``freehold-worker`` and so on.

A signal takes effect some time after ``kill`` has returned, so each function here returns when the
effect is there: the process is stopped, runs, or has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import psutil

from freehold.ext import netns
from sessions import alive, ours

SHARED = "/dev/shm"
POLL_S = 0.002
TABLE_LINES_MAX = 40

T = TypeVar("T")


# --- which ----------------------------------------------------------------------------------------


def of_session(home: str, name: str = "") -> list[int]:
    """The processes of the sessions of a temporary directory, those with that name (or all)."""
    return sorted(pid for pid, its in ours(home).items() if name in ("", its))


def family(pid: int) -> list[int]:
    """A process and all that descend from it, parents first; none when it has ended."""
    try:
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def table(pids: Iterable[int]) -> str:
    """A line on each process: for the report of a failure."""
    lines = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                command = " ".join(process.cmdline())[:100]
                cpu = process.cpu_times()
                lines.append(
                    f"{pid:>8} {process.ppid():>8} {process.name():<16} {process.status():<10}"
                    f" {cpu.user + cpu.system:6.2f} s  {command}"
                )
        except psutil.Error:
            lines.append(f"{pid:>8} has ended")
    if len(lines) > TABLE_LINES_MAX:
        lines[TABLE_LINES_MAX:] = [f"... and {len(lines) - TABLE_LINES_MAX} more"]
    return "\n".join(["     pid   parent name             state          cpu  command", *lines])


# --- waiting --------------------------------------------------------------------------------------


def eventually(
    condition: Callable[[], T],
    within: float = 10.0,
    what: str = "",
    tell: Callable[[], object] | None = None,
) -> T:
    """The first true value of ``condition()``.

    Args:
        condition: tried again and again; an AssertionError in it counts as not yet.
        within: seconds.
        what: the condition in words.
        tell: called when the time is over; what it returns is added to the failure.

    Raises:
        AssertionError: there is none in time; the text has the last value or failure, and what
            ``tell`` says.
    """
    start = time.monotonic()
    while True:
        last: object
        try:
            value = condition()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() - start > within:
            break
        time.sleep(POLL_S)
    lines = [f"not within {within:g} s: {what or condition}", f"last: {last!r}"]
    if tell is not None:
        lines.append(str(tell()))
    raise AssertionError("\n".join(lines))


# --- signals --------------------------------------------------------------------------------------


def stop(*pids: int) -> None:
    """SIGSTOP: each process is there, and does nothing."""
    _signal(pids, signal.SIGSTOP, lambda pid: _state(pid) in ("stopped", "dead"))


def resume(*pids: int) -> None:
    """SIGCONT."""
    _signal(pids, signal.SIGCONT, lambda pid: _state(pid) != "stopped")


def kill(*pids: int) -> None:
    """SIGKILL; those that have ended already do not matter."""
    _signal(pids, signal.SIGKILL, lambda pid: not alive(pid))


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stopped within the block, resumed after it."""
    try:
        stop(*pids)
        yield
    finally:
        resume(*pids)


def _signal(pids: Iterable[int], number: signal.Signals, done: Callable[[int], bool]) -> None:
    pids = list(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    what = f"effect of {number.name}"
    eventually(lambda: all(map(done, pids)), 10.0, what, lambda: table(pids))


def _state(pid: int) -> str:
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return "dead"


# --- what is left ---------------------------------------------------------------------------------


def _shared() -> frozenset[str]:
    return frozenset(name for name in os.listdir(SHARED) if "freehold" in name)


@dataclass(frozen=True)
class Before:
    """What was there when a test began; taken at its start, compared at its end.

    Attributes:
        home: the temporary directory of the test's sessions.
        shared: what was in shared memory, of whomever.
    """

    home: str
    shared: frozenset[str] = field(default_factory=_shared)

    def left(self) -> list[str]:
        """What sessions and networks of this process have left."""
        found = [f"process {pid} ({name})" for pid, name in sorted(ours(self.home).items())]
        found += [f"file {self.home}/{name}" for name in sorted(os.listdir(self.home))]
        found += [f"file {SHARED}/{name}" for name in sorted(_shared() - self.shared)]
        found += [f"namespace {name}" for name in netns.left()]
        return found

    def assert_nothing_left(self, within: float = 5.0) -> None:
        """Wait until nothing is left.

        Raises:
            AssertionError: something is; the text lists it, with a table of the processes.
        """
        eventually(
            lambda: not self.left(),
            within,
            "nothing is left",
            lambda: "\n".join([*self.left(), table(ours(self.home))]),
        )
