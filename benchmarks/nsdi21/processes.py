"""Processes, read from /proc: the processor time of a trial, a head's traffic, and an end.

A trial's processes are known by a variable in their environment, which all that it starts inherit.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MARK = "NSDI21_TRIAL"
SETTLE_S, SETTLE_MAX_S = 0.5, 10.0
REST = 0.2  # of one processor, all processes together


def pids_of(trial: str) -> list[int]:
    """The processes of a trial."""
    mark = f"\0{MARK}={trial}\0".encode()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _has(name, mark)]


def busy(seconds: float) -> float:
    """How many processors have been busy, with whatever, for so long from now."""
    before, start = _used(), time.monotonic()
    time.sleep(seconds)
    return (_used() - before) / (time.monotonic() - start)


def _used() -> float:
    """Processor seconds of the machine, without those that were idle."""
    user, nice, system, _, _, *interrupts = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts)) * TICK_S


def cpu_seconds() -> float:
    """User and system time of this trial; of what has ended, what its parent has waited for."""
    return sum(map(cpu_of, pids_of(os.environ[MARK])))


def settle() -> None:
    """Wait until what has been started is at rest: so much, and no more, is fair to all."""
    until = time.monotonic() + SETTLE_MAX_S
    before = cpu_seconds()
    while time.monotonic() < until:
        time.sleep(SETTLE_S)
        now = cpu_seconds()
        if now - before < REST * SETTLE_S:
            return
        before = now


def cpu_of(pid: int) -> float:
    """User and system time of a process and those that it has waited for; 0 if it has ended."""
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return 0.0
    return sum(int(field) for field in text.rpartition(")")[2].split()[11:15]) * TICK_S


def traffic_of(pid: int) -> tuple[int, int]:
    """Segments with data, and bytes, in and out, on the process's TCP connections (see ss(8)).

    A small message is a segment, unless several are sent at once.
    """
    command = ["ss", "-Htinp", "state", "established"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0, 0
    messages = size = 0
    for entry in re.split(r"\n(?=\S)", text):
        if f"pid={pid}," in entry:
            messages += sum(map(int, re.findall(r" data_segs_(?:in|out):(\d+)", entry)))
            size += sum(map(int, re.findall(r" bytes_(?:sent|received):(\d+)", entry)))
    return messages, size


def kill_all(trial: str) -> None:
    """End what still runs of a trial."""
    while pids := pids_of(trial):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def _has(pid: str, mark: bytes) -> bool:
    try:
        return mark in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return False
