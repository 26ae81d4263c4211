"""The demonstration's verdict finds each way in which a run can be wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from freehold.ext.demo import node
from freehold.ext.demo.index import Statistics
from freehold.ext.demo.plain import PlainIndex
from freehold.ext.demo.program import INLINE_BYTES_MAX, Loss, Outcome, Traffic
from freehold.ext.demo.report import show, verdict
from freehold.ext.demo.tree import Tree, scan


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for number in range(4):
        (tmp_path / f"[{number}].py").write_text(f"import spam\nspam.eggs_{number}(spam)\n")
    return scan(tmp_path)


def right(plain: PlainIndex) -> Outcome:
    """What a faultless run comes to."""
    statistics = plain.statistics()
    return Outcome(
        statistics=statistics,
        digest=plain.digest(),
        answers={words: plain.search(words) for words in [("spam", "eggs_1"), ("spam",)]},
        tokens=statistics.tokens,
        tasks=3,
        killed=7,
        build_s=0.5,
        query_s=0.1,
    )


def test_a_faultless_run_is_right(tree: Tree) -> None:
    plain = PlainIndex(tree)
    assert verdict(right(plain), plain) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"statistics": Statistics(1, 1, 1, "", {}, [])}, "statistics differ"),
        ({"tokens": 5}, "statistics differ"),
        ({"digest": "0"}, "index differs"),
        ({"answers": {("spam",): [("0.py", 1)]}}, "1 of 1 queries"),
        ({"answers": {}}, "no query was answered"),
        ({"killed": 0}, "no worker was killed"),
        ({"objects": 2}, "2 objects were left"),
        ({"references": 3}, "3 references were left"),
        ({"processes": [11, 12]}, "[11, 12]"),
    ],
)
def test_each_fault_is_found(tree: Tree, change: dict[str, Any], says: str) -> None:
    plain = PlainIndex(tree)
    faults = verdict(replace(right(plain), **change), plain)
    assert len(faults) == 1
    assert says in faults[0]


def test_on_several_nodes_one_must_be_killed_and_something_made_again(tree: Tree) -> None:
    plain = PlainIndex(tree)
    assert verdict(right(plain), plain, nodes=3) == ["no node was killed"]
    lost = replace(right(plain), loss=Loss("2 (0a0b)", 5, 9, 1_234_567, 0))
    assert len(verdict(lost, plain, nodes=3)) == 1
    assert "nothing was made again" in verdict(lost, plain, nodes=3)[0]
    assert verdict(replace(lost, redone=4), plain, nodes=3) == []


def test_the_table_says_what_was_lost_with_a_node(tree: Tree) -> None:
    console = Console(width=120)
    loss = Loss("2 (0a0b)", 5, 9, 1_234_567, 0)
    outcome = replace(right(PlainIndex(tree)), loss=loss, redone=4, moved=7_000_000)
    with console.capture() as capture:
        show(console, tree, outcome, plain_s=0.25)
    text = " ".join(capture.get().replace("│", " ").split())
    for part in ("node 2 (0a0b) (SIGKILL)", "9 objects (1.2 MB)", "4 tasks run again", "7.0 MB"):
        assert part in text


def test_the_table_says_what_was_measured(tree: Tree) -> None:
    console = Console(width=120)
    outcome = replace(right(PlainIndex(tree)), redone=2, peak_bytes=12_345_678)
    with console.capture() as capture:
        show(console, tree, outcome, plain_s=0.25)
    text = capture.get()
    for part in ("12.3 MB", "worker 7 (SIGKILL); 2 tasks", "6/s", "[0].py (3)", "(one plain"):
        assert part in text


def test_traffic_counts_hops_for_values_only() -> None:
    traffic = Traffic()
    traffic.add(INLINE_BYTES_MAX + 1, hops=2)
    traffic.add(10, hops=3)
    assert traffic.shared == INLINE_BYTES_MAX + 1
    assert traffic.inline == 30
    assert traffic.by_value == 2 * (INLINE_BYTES_MAX + 1) + 30


def test_survivors_are_the_processes_that_still_run() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        assert node.survivors([ended.pid, waiting.pid], 0.0) == [waiting.pid]
        waiting.kill()
        assert node.survivors([ended.pid, waiting.pid], 5.0) == []
