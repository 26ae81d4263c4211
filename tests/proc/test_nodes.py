"""What a node is told at its start, where the program leaves it open."""

from __future__ import annotations

import pytest

from freehold.config import Config
from freehold.io import limits
from freehold.proc.nodes import common


@pytest.mark.parametrize(("cpus", "started"), [(0.0, 0), (0.5, 0), (2.0, 2), (1e6, 3)])
def test_no_more_workers_are_started_ahead_than_the_machine_can_run(
    cpus: float, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPUs may be offered that are not there, for tasks that only wait; those come on demand."""
    monkeypatch.setattr(limits, "cpu_count", lambda: 3)
    assert common(Config(), cpus)["prestart"] == started


def test_as_many_are_started_ahead_as_the_program_asks_for() -> None:
    assert common(Config(prestart=7), 1.0)["prestart"] == 7
