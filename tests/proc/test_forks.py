"""What tasks do to their own process: fork it, close its standard files, leave it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

import freehold as fh
from freehold.io.procs import start_time
from sessions import until

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
def one() -> int:
    return 1


@fh.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


def test_a_child_that_returns_from_the_task_does_not_answer_for_it() -> None:
    @fh.remote(max_retries=0)
    def fork() -> tuple[int, int]:
        return os.fork(), os.getpid()

    @fh.remote
    class Forking:
        def fork(self) -> tuple[int, int]:
            return os.fork(), os.getpid()

        async def later(self) -> tuple[int, int]:
            return self.fork()

    actor = Forking.remote()
    calls = [fork.remote() for _ in range(20)] + [actor.later.remote() for _ in range(5)]
    for child, parent in fh.get(calls, timeout=30):
        assert child
        assert child != parent
        until(lambda child=child: not start_time(child), 5.0, f"{child} lives on")
    assert fh.get([one.remote() for _ in range(100)], timeout=30) == [1] * 100
    assert fh.status()["deaths"] == 0


def test_a_child_is_told_that_it_is_none_of_the_session() -> None:
    @fh.remote
    def fork(counter: Any) -> int:
        ref = one.remote()
        pid = os.fork()
        if not pid:
            told = 0
            for call in (lambda: fh.get(ref), one.remote, counter.add.remote, fh.status):
                try:
                    call()
                except fh.NotInitialized:
                    told += 1
            os._exit(told)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * fh.get(ref)

    assert fh.get(fork.remote(Counter.remote()), timeout=30) == 4


def test_a_child_that_leaves_by_itself() -> None:
    @fh.remote(max_retries=0)
    def fork() -> int:
        pid = os.fork()
        if not pid:
            sys.exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert fh.get(fork.remote(), timeout=30) == 7


def test_no_connection_takes_the_place_of_closed_standard_files() -> None:
    @fh.remote(max_retries=0)
    def close(counter: Any) -> list[str]:
        for fd in (0, 1, 2):
            os.close(fd)
        assert fh.get(counter.add.remote()) == 1  # over a new connection
        return [fd for fd in os.listdir("/proc/self/fd") if int(fd) < 3]

    # listing the directory takes the first free descriptor, which is the one that is found
    assert fh.get(close.remote(Counter.remote()), timeout=30) == ["0"]


def test_standard_files_that_a_task_has_closed_are_there_for_the_next() -> None:
    @fh.remote(max_retries=0)
    def close() -> None:
        os.closerange(1, 3)

    @fh.remote(max_retries=0)
    def show() -> None:
        print("shown")
        print("told", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)

    fh.get([close.remote() for _ in range(20)], timeout=30)
    with pytest.raises(fh.WorkerDied, match=r"shown\ntold"):
        fh.get(show.remote(), timeout=30)


def test_what_sys_exit_was_told_is_told() -> None:
    @fh.remote(max_retries=0)
    def leave() -> None:
        sys.exit("there is nothing to do")

    with pytest.raises(fh.WorkerDied, match=r"code 1(.|\n)*nothing to do"):
        fh.get(leave.remote(), timeout=30)
