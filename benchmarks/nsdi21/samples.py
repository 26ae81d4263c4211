"""The samples, a CSV file for each experiment: written by ``run.py``, read for tables and plots.

A row is one number of one trial of one system.  ``ground`` says where the nodes were: each in a
network namespace of its own, or all on the loopback device; ``busy`` how many processors were busy
with something else in the moments before and after, whichever was more.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLUMNS = (
    "experiment", "trial", "system", "version", "ground", "metric", "value", "time", "busy",
    "machine",
)  # fmt: skip
SYSTEMS = ("freehold", "freehold by value", "ray")
NAMESPACES, LOOPBACK = "namespaces", "loopback"
Row = dict[str, Any]
Samples = dict[str, dict[str, list[float]]]  # metric -> system -> samples
Medians = dict[str, dict[str, float]]  # metric -> system -> median


def load(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save(path: Path, rows: Iterable[Row]) -> None:
    """The same, written."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """Old rows and new ones, in the order of trials; what was measured again is replaced."""
    again = {_key(row) for row in new}
    rows = [row for row in old if _key(row) not in again] + new
    return sorted(rows, key=lambda row: int(row["trial"]))


def _key(row: Row) -> tuple[str, str, str]:
    return str(row["trial"]), row["system"], row["metric"]


def by_metric(rows: Iterable[Row]) -> Samples:
    """Samples by metric, in the order of the first trial, and by system, in the usual order.

    Where a chain was run with a failure and without, how many times as long it took is another.
    """
    trials: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        trials.setdefault((str(row["trial"]), row["system"]), {})[row["metric"]] = float(
            row["value"]
        )
    found: Samples = {}
    for system in SYSTEMS:
        for (_, its), metrics in trials.items():
            for metric, value in _with_ratios(metrics).items() if its == system else ():
                found.setdefault(metric, {}).setdefault(system, []).append(value)
    return found


def _with_ratios(metrics: dict[str, float]) -> dict[str, float]:
    found = {}
    for metric, value in metrics.items():
        found[metric] = value
        label, failed, _ = metric.partition(", with failure, s")
        if failed and (calm := metrics.get(f"{label}, no failure, s")):
            found[f"{label}, times as long"] = value / calm
    return found


def medians(samples: Samples) -> Medians:
    """The median of each."""
    return {
        metric: {system: statistics.median(some) for system, some in systems.items()}
        for metric, systems in samples.items()
    }
