"""Errors that are kept keep nothing else."""

from __future__ import annotations

import gc
import weakref

from freehold.errors import ProtocolError
from freehold.io.failures import FAILURES_MAX, Failures


class Thing:
    pass


def test_a_kept_error_keeps_nothing_of_those_who_were_running() -> None:
    failures = Failures()
    seen = []

    def fail() -> None:
        mine = Thing()
        seen.append(weakref.ref(mine))
        try:
            raise OSError("first")
        except OSError as error:
            raise ProtocolError("second") from error

    def run() -> None:
        mine = Thing()
        seen.append(weakref.ref(mine))
        try:
            fail()
        except ProtocolError as error:
            failures.append(error)

    run()
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
    assert str(failures[0]) == "second"


def test_the_oldest_are_forgotten() -> None:
    failures = Failures()
    for number in range(FAILURES_MAX + 1):
        failures.append(ProtocolError(f"{number}"))
    assert [str(failures[0]), len(failures)] == ["1", FAILURES_MAX]
