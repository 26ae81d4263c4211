"""The helpers for processes: signals have taken effect when they return, failures tell why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import processes
from cluster.processes import Before, eventually, family, kill, of_session, resume, stop, stopped
from sessions import alive, line_of

TWO = r"import os, sys; os.fork(); os.write(1, b'up\n'); sys.stdin.read()"  # whole lines


@pytest.fixture
def program(home: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a child, both of the test's home."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", TWO], text=True, **pipes) as process:
        assert line_of(process) == line_of(process) == "up"
        yield process
        kill(*family(process.pid))


def test_processes_are_found_by_home_name_and_descent(
    home: str, program: subprocess.Popen[str]
) -> None:
    pids = family(program.pid)
    assert len(pids) == 2
    assert pids[0] == program.pid
    assert of_session(home) == sorted(pids)
    assert of_session(home, psutil.Process(program.pid).name()) == sorted(pids)
    assert of_session(home, "freehold-node") == []


def test_signals_have_taken_effect_when_the_call_returns(program: subprocess.Popen[str]) -> None:
    pids = family(program.pid)
    stop(*pids)
    assert {psutil.Process(pid).status() for pid in pids} == {"stopped"}
    resume(*pids)
    assert "stopped" not in {psutil.Process(pid).status() for pid in pids}
    with stopped(pids[1]):
        assert psutil.Process(pids[1]).status() == "stopped"
        kill(pids[1])  # also while it is stopped
        assert not alive(pids[1])
    kill(*pids)
    kill(*pids)  # twice does not matter
    assert not any(map(alive, pids))


def test_a_wait_that_fails_tells_the_condition_its_last_value_and_more() -> None:
    with pytest.raises(AssertionError, match=r"(?s)0\.01 s: spam\nlast: \[\]\neggs"):
        eventually(list, 0.01, "spam", lambda: "eggs")

    def fails() -> bool:
        raise AssertionError("not yet")

    with pytest.raises(AssertionError, match="not yet"):
        eventually(fails, 0.01)
    values = iter([0, "", 7])
    assert eventually(lambda: next(values)) == 7


def test_what_is_left_is_told(home: str, program: subprocess.Popen[str]) -> None:
    before = Before(home)
    (Path(home) / "freehold-spam").touch()
    with pytest.raises(AssertionError, match=r"(?s)process \d+ .*freehold-spam.*os\.fork") as told:
        before.assert_nothing_left(within=0.01)
    assert str(program.pid) in str(told.value)
    (Path(home) / "freehold-spam").unlink()
    kill(*family(program.pid))
    program.communicate()
    before.assert_nothing_left()


def test_the_table_survives_processes_that_have_ended(program: subprocess.Popen[str]) -> None:
    kill(*family(program.pid))
    program.communicate()
    assert "has ended" in processes.table([program.pid])
