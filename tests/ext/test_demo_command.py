"""The demonstration's command: what it exits with when a run is right, wrong or fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import freehold as fh
from freehold.errors import NodeDied
from freehold.ext import netns
from freehold.ext.demo import command, many
from freehold.ext.demo.plain import PlainIndex
from freehold.ext.demo.program import Outcome, Plan, run, steps
from freehold.ext.demo.tree import Tree, scan

PLAN = Plan()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for number in range(4):
        (tmp_path / f"{number}.py").write_text(f"spam = eggs_{number}\n")
    return scan(tmp_path)


def right(tree: Tree) -> Outcome:
    plain = PlainIndex(tree)
    statistics = plain.statistics()
    answers = {words: plain.search(words) for words in [("spam",)]}
    return Outcome(
        statistics=statistics, digest=plain.digest(), answers=answers, tokens=statistics.tokens,
        tasks=6, killed=7, build_s=0.5, query_s=0.1,
    )  # fmt: skip


def outcome_of(
    monkeypatch: pytest.MonkeyPatch, tree: Tree, run: Callable[..., Outcome]
) -> tuple[int, str]:
    monkeypatch.setattr(command, "run", run)
    console = Console(width=120)
    with console.capture() as capture:
        code = command.check(tree, PLAN, console)
    return code, capture.get()


def test_a_right_run_exits_with_0(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    code, text = outcome_of(monkeypatch, tree, lambda *_: right(tree))
    assert code == 0
    assert "right: equal to the plain computation" in text


@pytest.mark.parametrize("change", [{"digest": "0"}, {"objects": 1}, {"processes": [7]}])
def test_a_wrong_or_leaking_run_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, tree: Tree, change: dict[str, object]
) -> None:
    code, text = outcome_of(monkeypatch, tree, lambda *_: replace(right(tree), **change))
    assert code == 1
    assert "wrong: " in text
    assert "right: " not in text


@pytest.mark.parametrize("error", [NodeDied("gone"), TimeoutError("no map task finished")])
def test_a_failing_run_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, tree: Tree, error: Exception
) -> None:
    def fail(*_: object) -> Outcome:
        raise error

    code, text = outcome_of(monkeypatch, tree, fail)
    assert code == 1
    assert f"failed: {type(error).__name__}: {error}" in text


def test_the_bar_is_told_of_every_step(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    told: list[str] = []
    assert not fh.is_initialized()
    outcome = run(tree, replace(PLAN, queries=3), told.append)
    assert told == ["map"] * 4 + ["reduce"] * 2 + ["index", "query"]
    assert len(told) == steps(tree, PLAN)
    assert (outcome.objects, outcome.references, outcome.processes) == (0, 0, [])


def test_where_namespaces_are_forbidden_all_machines_are_on_loopback_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netns, "forbidden", lambda: "no root")
    outcome = Outcome()
    with many.places(3, outcome) as where:
        assert where == {"namespaces": [], "hosts": []}
    assert outcome.ground == "the loopback device (no root)"
