"""Write the summary of the NSDI '21 experiments into README.md, from the samples of all trials.

``python tools/readme_nsdi21.py [--check]``: fills the block between the ``nsdi21`` markers from
``benchmarks/nsdi21/results/*.csv``; with ``--check`` it only says whether it is up to date.
"""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCHMARK = ROOT / "benchmarks" / "nsdi21"
README = ROOT / "README.md"
BEGIN, END = "<!-- nsdi21:begin -->", "<!-- nsdi21:end -->"
HEAD = "| | freehold | by value | Ray Core | against Ray | goal met |\n|---|---|---|---|---|---|"
GROUPS = {  # experiment -> heading, whether a metric belongs to it
    "latency": [("a call with an argument of 1 MiB, ms", "")],
    "scalability": [("chains of 2 B results, tasks/s", "2 B*tasks/s"),
                    ("chains of 1 MiB results, tasks/s", "1 MiB*tasks/s"),
                    ("head messages a task", "*head messages a task")],
    "borrowing": [("tasks on a borrowed object, tasks/s", "")],
    "recovery": [("a node dies, small chain, times as long", "4 B*times as long"),
                 ("the same, 10 MiB chain", "10 MiB*times as long"),
                 ("its death known after, s", "death*")],
}  # fmt: skip


def main() -> int:
    """Fill or check the block."""
    sys.path.insert(0, str(BENCHMARK))
    text = README.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if "--check" in sys.argv:
        return 0 if made == text else 1
    README.write_text(made)
    return 0


def table() -> str:
    """A line for each group of metrics: the range of medians, and how many goals are met."""
    lines = [HEAD]
    trials = 0
    for experiment, groups in GROUPS.items():
        samples, count = read(BENCHMARK / "results" / f"{experiment}.csv")
        trials = max(trials, count)
        lines += [line(experiment, *group, samples) for group in groups]
    tail = f"Ranges of medians of up to {trials} trials; every row is in the results."
    return "\n".join([*lines, "", tail])


def read(path: Path) -> tuple[dict[str, dict[str, float]], int]:
    """Medians by metric and system; the number of trials."""
    found: dict[str, dict[str, list[float]]] = {}
    trials = set()
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            of = found.setdefault(row["metric"], {})
            of.setdefault(row["system"], []).append(float(row["value"]))
            trials.add(row["trial"])
    medians = {
        metric: {name: statistics.median(values) for name, values in systems.items()}
        for metric, systems in found.items()
    }
    return medians, len(trials)


def line(experiment: str, heading: str, pattern: str, samples: dict[str, dict[str, float]]) -> str:
    """One line."""
    import run

    start, _, end = pattern.partition("*")
    chosen = {k: v for k, v in samples.items() if k.startswith(start) and k.endswith(end)}
    ours = {metric: systems.get("freehold") for metric, systems in chosen.items()}
    ratios = {metric: run.better_than_ray(experiment, metric, chosen[metric]) for metric in chosen}
    told = [run.verdict(experiment, metric, ours[metric], ratios[metric]) for metric in chosen]
    told = [text for text in told if text]
    cells = [
        spread([systems[name] for systems in chosen.values() if name in systems])
        for name in run.SYSTEMS
    ]
    known = [ratio for ratio in ratios.values() if ratio]
    cells.append(f"{spread(known)}x" if known else "")
    met = sum(text.endswith(": met") for text in told)
    return f"| {heading} | {' | '.join(cells)} | {f'{met} of {len(told)}' if told else ''} |"


def spread(values: list[float]) -> str:
    """The least and the largest."""
    if not values:
        return ""
    low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in
                 (min(values), max(values)))  # fmt: skip
    return low if low == high else f"{low} – {high}"


if __name__ == "__main__":
    sys.exit(main())
