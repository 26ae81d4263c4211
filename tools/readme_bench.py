"""Write the benchmark's table into README.md, from what ``make bench`` has measured.

``python tools/readme_bench.py [--check]``: the block ``bench`` (see ``readme_block``), from
``benchmarks/results/bench.json``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import readme_block

RESULTS = readme_block.ROOT / "benchmarks" / "results" / "bench.json"


def number(value: float) -> str:
    """Three significant digits, thousands with a k."""
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 10_000:
        return f"{value / 1000:.3g}k"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cell(entry: dict[str, Any] | None) -> str:
    """A median with half of its spread, in percent."""
    if entry is None:
        return ""
    median = float(entry["median"])
    half = (entry["max"] - entry["min"]) / 2 / median * 100 if median else 0.0
    return f"{number(median)} ± {half:.0f} %"


def row(entry: dict[str, Any]) -> str:
    """One line of the table."""
    systems = entry["systems"]
    best = entry.get("best_peer")
    peer = f"{best} {number(systems[best]['median'])}" if best in systems else ""
    ratios = entry["times_better_than"]
    against = [f"{ratios[name]:.3g}x {name}" for name in ("ray", "floor") if name in ratios]
    goals = [f"{goal['goal']} {_verdict(goal['met'])}" for goal in entry["goals"]]
    cells = [
        f"{entry['label']}, {entry['unit']}",
        cell(systems.get("freehold")),
        cell(systems.get("ray")),
        peer,
        cell(systems.get("floor")),
        ", ".join(against),
        "; ".join(goals),
    ]
    return "| " + " | ".join(cells) + " |"


def _verdict(met: bool | None) -> str:
    return {True: "met", False: "**missed**", None: "not told"}[met]


def table() -> str:
    """The whole block."""
    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine, versions = data["machine"], data["versions"]
    known = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    lines = [
        (
            f"Measured on {data['date'][:10]} with `{data['command']}`: {machine['cpus']} CPUs, "
            f"{machine['python']}, {machine['kernel']}; "
            f"medians of {data['repetitions']} interleaved "
            f"repetitions with half the spread. {known}."
        ),
        "",
        "| | freehold | Ray Core | best other | floor | freehold is | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [row(entry) for entry in data["rows"] if "freehold" in entry["systems"]]
    if data["skipped"]:
        lines += ["", "Left out: " + "; ".join(f"{k} ({v})" for k, v in data["skipped"].items())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(readme_block.main("bench", table))
