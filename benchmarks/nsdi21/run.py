"""Run the experiments: systems take turns, every sample goes to a CSV file; a plot for each."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plot
import processes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXPERIMENTS = ("latency", "scalability", "borrowing", "recovery")
SYSTEMS = ("freehold", "freehold by value", "ray")
TRIAL_LIMIT_S = 900.0
COLUMNS = ("experiment", "trial", "system", "version", "metric", "value", "time", "machine")


def main() -> None:
    given = _options()
    pythons = dict.fromkeys(given.system or SYSTEMS, sys.executable)
    if "ray" in pythons:
        if given.ray:
            pythons["ray"] = given.ray
        else:
            del pythons["ray"]
            print("without Ray: name an interpreter that has it with --ray", file=sys.stderr)
    given.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for experiment in given.only or EXPERIMENTS:
        samples: plot.Samples = {}
        with open(given.out / f"{experiment}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            trials = given.recovery_trials if experiment == "recovery" else given.trials
            for trial, system in turns(trials, list(pythons)):
                print(f"{experiment}, trial {trial + 1} of {trials}, {system}", flush=True)
                answer = trial_of(pythons[system], system, experiment, given.quick)
                if isinstance(answer, str):
                    failed += 1
                    print(f"failed: {answer}", file=sys.stderr)
                    continue
                for metric, value in answer["samples"].items():
                    samples.setdefault(metric, {}).setdefault(system, []).append(value)
                    row = (experiment, trial, system, answer["version"], metric, f"{value:.6g}")
                    writer.writerow((*row, f"{time.time():.0f}", machine()))
                file.flush()
        if samples:
            table = table_of(experiment, samples)
            print(table, flush=True)
            (given.out / f"{experiment}.md").write_text(
                _head(experiment, given) + table, encoding="utf-8"
            )
            picture = plot.draw(experiment, UNITS[experiment], samples)
            (given.out / f"{experiment}.svg").write_text(picture, encoding="utf-8")
    sys.exit(1 if failed else 0)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", choices=EXPERIMENTS, action="append")
    options.add_argument("--system", choices=SYSTEMS, action="append", help="all, if not given")
    options.add_argument("--trials", type=int, default=3)
    options.add_argument(
        "--recovery-trials", type=int, default=1, help="a trial of that takes 11 minutes"
    )
    options.add_argument(
        "--ray", metavar="PYTHON", default=found_ray(),
        help="an interpreter that has ray (that of .bench-venv, which `freehold bench` makes)",
    )  # fmt: skip
    options.add_argument("--quick", action="store_true", help="few calls: whether it works")
    options.add_argument("--out", type=Path, default=HERE / "results")
    return options.parse_args()


def found_ray() -> str:
    """The interpreter of the peers' environment; empty if there is none."""
    path = ROOT / ".bench-venv" / "bin" / "python"
    return str(path) if path.exists() else ""


# --- trials ---------------------------------------------------------------------------------------


def turns(trials: int, systems: list[str]) -> Iterator[tuple[int, str]]:
    """Whose turn it is: each once in every trial, in an order that is turned round."""
    for trial in range(trials):
        for system in systems if trial % 2 == 0 else reversed(systems):
            yield trial, system


def trial_of(python: str, system: str, experiment: str, quick: bool) -> dict[str, Any] | str:
    """The samples of one trial, or why there are none.  Nothing of it stays behind."""
    command = [python, str(HERE / "peer.py"), system, experiment, *(["--quick"] if quick else [])]
    with tempfile.TemporaryDirectory(prefix="fhb-", ignore_cleanup_errors=True) as place:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{HERE}", "TMPDIR": place}
        environment |= {"RAY_TMPDIR": place, "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {processes.MARK: place, "PYTHONDONTWRITEBYTECODE": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(
            command, env=environment, text=True, start_new_session=True, **pipes
        ) as process:
            try:
                out, err = process.communicate(timeout=TRIAL_LIMIT_S)
            except BaseException as error:
                process.kill()
                process.communicate()
                if isinstance(error, subprocess.TimeoutExpired):
                    return f"no end after {TRIAL_LIMIT_S:.0f} s"
                raise
            finally:
                processes.kill_all(place)
    lines = out.strip().splitlines()
    if process.returncode or not lines:
        return err.strip()[-2000:] or f"exit code {process.returncode}"
    return json.loads(lines[-1])


# --- what is told ---------------------------------------------------------------------------------

UNITS = {
    "latency": "ms",
    "scalability": "tasks/s; ms or messages a task",
    "borrowing": "tasks/s",
    "recovery": "s, times or runs",
}


def table_of(experiment: str, samples: plot.Samples) -> str:
    """Medians as a table in Markdown, with freehold against Ray, and the goal."""
    systems = [name for name in SYSTEMS if any(name in some for some in samples.values())]
    lines = [
        f"| {experiment} ({UNITS[experiment]}) | {' | '.join(systems)} | against Ray | goal |",
        "|" + "---|" * (len(systems) + 3),
    ]
    for metric, some in samples.items():
        medians = {name: statistics.median(values) for name, values in some.items()}
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


def _head(experiment: str, given: argparse.Namespace) -> str:
    """When, on what and how."""
    words = ["python benchmarks/nsdi21/run.py", f"--only {experiment}"]
    if experiment == "recovery":
        words.append(f"--recovery-trials {given.recovery_trials}")
    else:
        words.append(f"--trials {given.trials}")
    words += ["--quick"] * given.quick + [f'--system "{name}"' for name in given.system or ()]
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    when = time.strftime("%Y-%m-%d %H:%M")
    return f"{when}, {machine()}, load averages {loads}\n\n    {' '.join(words)}\n\n"


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} CPUs, Linux {platform.release()}, {platform.python_version()}"


if __name__ == "__main__":
    main()
