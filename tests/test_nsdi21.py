"""The paper's experiments run, and leave samples, a plot and nothing else."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from freehold.ext.netns import forbidden

RUN = Path(__file__).resolve().parents[1] / "benchmarks" / "nsdi21" / "run.py"
METRICS = {  # experiment -> metrics in a trial, one of them
    "latency": (8, "other node, actor, pipelined"),
    "scalability": (64, "2 B, spread, 8 owners, tasks/s"),
    "borrowing": (5, "8 borrowers"),
    "recovery": (13, "10 MiB, 10 ms, with failure, s"),
}


GROUND = "loopback" if forbidden() else "namespaces"  # of nodes, if nobody says


def run(
    experiment: str, out: Path, *options: str, path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--quick", "--only", experiment, "--out", str(out)]
    command += ["--system", "freehold"]
    environment = {**os.environ, "TMPDIR": str(out), "PATH": path}
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def samples(out: Path, experiment: str) -> list[dict[str, str]]:
    with open(out / f"{experiment}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("experiment", METRICS)
def test_an_experiment_leaves_its_samples_and_a_plot(experiment: str, tmp_path: Path) -> None:
    done = run(experiment, tmp_path, "--trials", "1")
    assert done.returncode == 0, done.stderr
    rows = samples(tmp_path, experiment)
    assert {row["ground"] for row in rows} == {GROUND}
    count, metric = METRICS[experiment]
    assert len(rows) == count
    assert float(next(row["value"] for row in rows if row["metric"] == metric)) > 0
    picture = ElementTree.parse(tmp_path / f"{experiment}.svg").getroot()
    assert metric in [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(os.listdir(tmp_path)) == [f"{experiment}.{kind}" for kind in ("csv", "md", "svg")]
    table = (tmp_path / f"{experiment}.md").read_text()
    assert f"benchmarks/nsdi21/run.py --only {experiment}" in table
    assert f"| {metric} |" in table
    assert ("| 10 MiB, 10 ms, times as long |" in table) == (experiment == "recovery")


def test_a_part_is_added_and_where_namespaces_cannot_be_had_nodes_are_on_loopback(
    tmp_path: Path,
) -> None:
    nowhere = str(tmp_path)  # has no `ip`
    done = run("latency", tmp_path, "--trials", "1", "--part", "same node, task", path=nowhere)
    assert done.returncode == 0, done.stderr
    assert "nodes are on the loopback device: network namespaces need 'ip'" in done.stderr
    first = samples(tmp_path, "latency")
    assert [row["ground"] for row in first] == ["loopback"] * 2

    parts = ("--add", "--trial", "0", "--part", "same node, actor")
    done = run("latency", tmp_path, *parts, "--ground", "namespaces", path=nowhere)
    assert done.returncode == 1
    assert "network namespaces need 'ip'" in done.stderr
    assert samples(tmp_path, "latency") == first

    done = run("latency", tmp_path, *parts)
    assert done.returncode == 0, done.stderr
    both = samples(tmp_path, "latency")
    assert both[:2] == first
    assert [row["ground"] for row in both[2:]] == [GROUND] * 2
    assert "| same node, task, pipelined |" in (tmp_path / "latency.md").read_text()


def test_a_system_that_fails_is_told_and_the_other_goes_on(tmp_path: Path) -> None:
    done = run(
        "borrowing", tmp_path, "--trials", "1", "--system", "ray", "--ray", sys.executable
    )  # has no ray
    assert done.returncode == 1
    assert "No module named 'ray'" in done.stderr
    assert "freehold" in (tmp_path / "borrowing.csv").read_text()
