"""What is told of an experiment: a table with the goals, and whether they are met; a plot."""

from __future__ import annotations

import time
from pathlib import Path

import plot
import samples
from samples import LOOPBACK, NAMESPACES, SYSTEMS, Row

WHERE = {NAMESPACES: "in network namespaces", LOOPBACK: "on the loopback device"}
UNITS = {
    "latency": "ms",
    "scalability": "tasks/s; ms or messages a task",
    "borrowing": "tasks/s",
    "recovery": "s, times or runs",
}


def write(out: Path, experiment: str, rows: list[Row], options: str) -> str:
    """Leave the table and the plot beside the samples; the table."""
    found = samples.by_metric(rows)
    table = table_of(experiment, found)
    head = head_of(experiment, rows, options)
    (out / f"{experiment}.md").write_text(head + table, encoding="utf-8")
    picture = plot.draw(experiment, UNITS[experiment], found)
    (out / f"{experiment}.svg").write_text(picture, encoding="utf-8")
    return table


def head_of(experiment: str, rows: list[Row], options: str) -> str:
    """When, on what, where and how; and what else the machine did."""
    times = sorted(float(row["time"]) for row in rows)
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(times[at])) for at in (0, -1))
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    lines = [f"{first} to {last} UTC, {machines}.", ""]
    for system in SYSTEMS:
        its = [row for row in rows if row["system"] == system]
        if its:
            trials = len({row["trial"] for row in its})
            grounds = " and ".join(sorted({WHERE[row["ground"]] for row in its}))
            lines.append(
                f"- {system} {its[-1]['version']}: {trials} trial{'s' * (trials > 1)}, nodes "
                f"{grounds}{_busy(its)}"
            )
    trials = len({row["trial"] for row in rows})
    command = f"python benchmarks/nsdi21/run.py --only {experiment} --trials {trials}{options}"
    return "\n".join([*lines, "", f"    {command}", "", ""])


def _busy(rows: list[Row]) -> str:
    """What else the machine did beside these samples, as far as it was looked at."""
    known = [float(row["busy"]) for row in rows if row["busy"]]
    told = f", at most {max(known):.2g} CPUs busy elsewhere" if known else ""
    unknown = len(rows) - len(known)
    return told + f" ({unknown} of {len(rows)} samples: not known)" * bool(told and unknown)


def table_of(experiment: str, found: samples.Samples) -> str:
    """Medians; and how many times better than Ray."""
    systems = [name for name in SYSTEMS if any(name in some for some in found.values())]
    lines = [
        f"| {experiment} ({UNITS[experiment]}) | {' | '.join(systems)} | against Ray | goal |",
        "|" + "---|" * (len(systems) + 3),
    ]
    for metric, medians in samples.medians(found).items():
        cells = [f"{medians[name]:.3g}" if name in medians else "" for name in systems]
        ours, better = medians.get("freehold"), better_than_ray(experiment, metric, medians)
        cells += [f"{better:.3g}x" if better else "", verdict(experiment, metric, ours, better)]
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def better_than_ray(experiment: str, metric: str, medians: dict[str, float]) -> float:
    """How many times better freehold is; 0 if nothing is known."""
    ours, theirs = medians.get("freehold"), medians.get("ray")
    lower = not metric.endswith("tasks/s") and experiment != "borrowing"
    return (theirs / ours if lower else ours / theirs) if ours and theirs else 0.0


def verdict(experiment: str, metric: str, ours: float | None, better: float) -> str:
    """The goal, and whether it is met; empty where there is none, or nothing to compare with."""
    kind, number = GOALS[experiment](metric)
    if kind == "times Ray":
        return f">= {number:g}x: {_met(better >= number)}" if better else ""
    return f"<= {number:g}: {_met(ours <= number)}" if kind and ours is not None else ""


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def _ten_times(metric: str) -> tuple[str, float]:
    return "times Ray", 10.0


def _scalability(metric: str) -> tuple[str, float]:
    if metric.endswith("tasks/s"):
        return "times Ray", 10.0
    return ("at most", 0.05) if metric.endswith("head messages a task") else ("", 0.0)


def _recovery(metric: str) -> tuple[str, float]:
    if metric.endswith("times as long"):
        return "at most", 1.15 if metric.startswith("4 B") else 1.3
    return ("at most", 2.0) if metric.startswith("death") else ("", 0.0)


GOALS = {
    "latency": _ten_times,
    "scalability": _scalability,
    "borrowing": _ten_times,
    "recovery": _recovery,
}
