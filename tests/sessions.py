"""Helpers for tests that run real processes: waiting for conditions, scripts, what is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

# A shell that starts the tests in the background has SIGINT ignored, and programs inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MIB = 1024 * 1024
SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def until(condition: Callable[[], Any], within: float = 5.0, what: str = "") -> Any:
    """The first true value of ``condition()``; fails when there is none in that many seconds."""
    end = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {what or condition}")
        time.sleep(0.002)


def alive(pid: int) -> bool:
    """Whether that process runs; one that is dead and not yet waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ours(home: str) -> dict[int, str]:
    """The processes, but this one, whose temporary directory is ``home``: pid -> name."""
    mark = f"TMPDIR={home}\0".encode()
    found = {}
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            if process.pid != os.getpid() and mark in environment + b"\0":
                found[process.pid] = process.name()
        except (OSError, psutil.Error):
            continue
    return {pid: name for pid, name in found.items() if alive(pid)}


def left_over(home: str) -> list[str]:
    """What sessions have left: processes, session directories, files in shared memory."""
    found = [f"process {pid} ({name})" for pid, name in ours(home).items()]
    found += [f"directory {name}" for name in os.listdir(home) if name.startswith("freehold")]
    shared = "/dev/shm"
    return found + [f"{shared}/{name}" for name in os.listdir(shared) if "freehold" in name]


def start_script(code: str, *options: str, **more: Any) -> subprocess.Popen[str]:
    """A Python program in a process of its own, warnings being errors."""
    path = os.pathsep.join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": tempfile.gettempdir()}
    settings: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": {**environment, **more.pop("env", {})},
        **more,
    }
    command = [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, **settings)


def run_script(code: str, *options: str, within: float = 30.0, **more: Any) -> str:
    """What such a program printed; fails unless it ended well and was silent on standard error."""
    with start_script(code, *options, **more) as process:
        try:
            out, err = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            out, err = process.communicate()
            raise AssertionError(f"no end after {within:g} s:\n{out}\n{err}") from None
    assert process.returncode == 0, f"exit code {process.returncode}:\n{out}\n{err}"
    assert not err, err
    return str(out)


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that the program prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
