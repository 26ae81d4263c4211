"""Run the experiments: systems take turns, every sample goes to a CSV file; a plot for each."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import platform
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
SOURCE = HERE.parents[1] / "src"
EXPERIMENTS = ("latency", "scalability", "borrowing", "recovery")
TRIAL_LIMIT_S = 300.0
COLUMNS = ("experiment", "trial", "system", "version", "metric", "value", "time", "machine")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", choices=EXPERIMENTS, action="append")
    options.add_argument("--trials", type=int, default=3)
    options.add_argument("--ray", metavar="PYTHON", help="an interpreter that has ray")
    options.add_argument("--quick", action="store_true", help="few calls: whether it works")
    options.add_argument("--out", type=Path, default=HERE / "results")
    given = options.parse_args()
    pythons = {"freehold": sys.executable, **({"ray": given.ray} if given.ray else {})}
    given.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for experiment in given.only or EXPERIMENTS:
        samples: plot.Samples = {}
        with open(given.out / f"{experiment}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for trial, system in turns(given.trials, list(pythons)):
                print(f"{experiment}, trial {trial + 1} of {given.trials}, {system}", flush=True)
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
            unit = importlib.import_module(experiment).UNIT
            picture = plot.draw(experiment, unit, samples)
            (given.out / f"{experiment}.svg").write_text(picture, encoding="utf-8")
    sys.exit(1 if failed else 0)


def turns(trials: int, systems: list[str]) -> Iterator[tuple[int, str]]:
    """Whose turn it is: each once in every trial, in an order that is turned round."""
    for trial in range(trials):
        for system in systems if trial % 2 == 0 else reversed(systems):
            yield trial, system


def trial_of(python: str, system: str, experiment: str, quick: bool) -> dict[str, Any] | str:
    """The samples of one trial, or why there are none.  Nothing of it stays behind."""
    command = [python, str(HERE / "peer.py"), system, experiment, *(["--quick"] if quick else [])]
    with tempfile.TemporaryDirectory(prefix="fhb-", ignore_cleanup_errors=True) as place:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": place}
        environment |= {"RAY_TMPDIR": place, "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}
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


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} CPUs, Linux {platform.release()}, {platform.python_version()}"


if __name__ == "__main__":
    main()
