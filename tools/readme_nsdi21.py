"""Write the summary of the NSDI '21 experiments into README.md, from the samples of all trials.

``python tools/readme_nsdi21.py [--check]``: the block ``nsdi21`` (see ``readme_block``), from
``benchmarks/nsdi21/results/*.csv``.
"""

from __future__ import annotations

import sys

import readme_block

BENCHMARK = readme_block.ROOT / "benchmarks" / "nsdi21"
sys.path.insert(0, str(BENCHMARK))

import report  # noqa: E402  (its place is not installed)
import samples  # noqa: E402

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


def _trials(rows: list[dict[str, str]]) -> str:
    """How many trials the samples are of: the fewest and the most of any metric and system."""
    seen: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        seen.setdefault((row["system"], row["metric"]), set()).add(row["trial"])
    counts = sorted({len(trials) for trials in seen.values()})
    return " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))


def table() -> str:
    """A line for each group of metrics: the range of medians, and how many goals are met."""
    lines = [HEAD]
    trials: dict[str, str] = {}
    for experiment, groups in GROUPS.items():
        rows = samples.load(BENCHMARK / "results" / f"{experiment}.csv")
        medians = samples.medians(samples.by_metric(rows))
        trials[experiment] = _trials(rows)
        lines += [line(experiment, *group, medians) for group in groups]
    counts = ", ".join(f"{count} of {name}" for name, count in trials.items())
    tail = f"Ranges of medians; trials: {counts}. Every row is in the results."
    return "\n".join([*lines, "", tail])


def line(experiment: str, heading: str, pattern: str, medians: samples.Medians) -> str:
    """One line."""
    start, _, end = pattern.partition("*")
    chosen = {k: v for k, v in medians.items() if k.startswith(start) and k.endswith(end)}
    ours = {metric: systems.get("freehold") for metric, systems in chosen.items()}
    ratios = {
        metric: report.better_than_ray(experiment, metric, chosen[metric]) for metric in chosen
    }
    told = [report.verdict(experiment, metric, ours[metric], ratios[metric]) for metric in chosen]
    told = [text for text in told if text]
    cells = [
        spread([systems[name] for systems in chosen.values() if name in systems])
        for name in samples.SYSTEMS
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
    sys.exit(readme_block.main("nsdi21", table))
