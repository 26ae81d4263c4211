"""What outlives its owner: the simulator knows what must, and planted bugs lose it."""

from __future__ import annotations

import pytest

from freehold.core.node.neighbours import Neighbours
from freehold.sim.fleet import Fleet
from freehold.sim.values import Violation


def found(start: int, seeds: int) -> str:
    """How the first seed fails."""
    for seed in range(start, start + seeds):
        try:
            Fleet(seed, fault="cold").run()
        except Violation as error:
            return str(error)
    return ""


def test_finds_a_node_that_asks_only_those_who_watch_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Neighbours, "meets", lambda self, *fields: None)
    assert "an heirloom is lost" in found(0, 100)
