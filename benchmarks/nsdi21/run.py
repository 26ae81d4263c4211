"""Run the experiments: systems take turns, every sample goes to a CSV file; a table and a plot.

A run begins new files.  With ``--add`` it keeps what is there and replaces what it measures again,
so that an experiment can be run one trial, one system and one part at a time.

Nodes of freehold are in network namespaces, one each, where the machine allows it, and the program
that measures is on the first one's; else, and with ``--ground loopback``, all are on the loopback
device.  Those of Ray always are, as ``ray.cluster_utils`` makes them: it has the shorter way.
"""

from __future__ import annotations

import argparse
import contextlib
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

import processes
import report
import samples
from samples import LOOPBACK, NAMESPACES, SYSTEMS, Row

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "src"))

from freehold.ext.netns import Network, forbidden  # noqa: E402  (this tree's, not an installed one)

EXPERIMENTS = ("latency", "scalability", "borrowing", "recovery")
TRIALS = {"recovery": 1}  # a trial of all three takes a quarter of an hour
NODES = 2  # of every experiment
TRIAL_LIMIT_S = 900.0
LOOK_S = 0.25


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
    ground = ground_of(given.ground)
    failed = 0
    for experiment in given.only or EXPERIMENTS:
        path = given.out / f"{experiment}.csv"
        rows = samples.load(path) if given.add else []
        trials = given.trials or TRIALS.get(experiment, 3)
        for trial, system in turns(trials, list(pythons)):
            if given.trial not in (None, trial):
                continue
            where = LOOPBACK if system == "ray" else ground
            print(f"{experiment}, trial {trial} of {trials}, {system}, {where}", flush=True)
            made = trial_of(pythons[system], system, experiment, where, given)
            if isinstance(made, str):
                failed += 1
                print(f"failed: {made}", file=sys.stderr)
                continue
            names = {"experiment": experiment, "trial": trial, "system": system}
            rows = samples.merged(rows, [names | row for row in made])
            samples.save(path, rows)
        if rows:
            print(report.write(given.out, experiment, rows, _told(given, rows)), flush=True)
    sys.exit(1 if failed else 0)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", choices=EXPERIMENTS, action="append")
    options.add_argument("--system", choices=SYSTEMS, action="append", help="all, if not given")
    options.add_argument("--trials", type=int, help="3, but 1 of recovery")
    options.add_argument("--add", action="store_true", help="to the samples that there are")
    options.add_argument("--trial", type=int, help="only that one, counted from 0")
    options.add_argument(
        "--part", default="", help='only metrics that begin so: "10 MiB, 10 ms" of recovery'
    )
    options.add_argument(
        "--ground", choices=(NAMESPACES, LOOPBACK), help="namespaces, if they are allowed"
    )
    options.add_argument(
        "--ray", metavar="PYTHON", default=found_ray(),
        help="an interpreter that has ray (that of .bench-venv, which `freehold bench` makes)",
    )  # fmt: skip
    options.add_argument("--quick", action="store_true", help="few calls: whether it works")
    options.add_argument("--out", type=Path, default=HERE / "results")
    return options.parse_args()


def _told(given: argparse.Namespace, rows: list[Row]) -> str:
    """The options that made these rows, besides the experiment and the number of trials."""
    known = {row["system"] for row in rows}
    words = [f' --system "{name}"' for name in SYSTEMS if name in known]
    return "".join(words if len(words) < len(SYSTEMS) else []) + " --quick" * given.quick


def found_ray() -> str:
    """The interpreter of the peers' environment; empty if there is none."""
    path = ROOT / ".bench-venv" / "bin" / "python"
    return str(path) if path.exists() else ""


def ground_of(wanted: str | None) -> str:
    """Where nodes can be; why they are not where one would like them."""
    reason = "" if wanted == LOOPBACK else forbidden()
    if reason and wanted:
        sys.exit(reason)
    if reason:
        print(f"nodes are on the loopback device: {reason}", file=sys.stderr)
    return LOOPBACK if reason else wanted or NAMESPACES


# --- trials ---------------------------------------------------------------------------------------


def turns(trials: int, systems: list[str]) -> Iterator[tuple[int, str]]:
    """Whose turn it is: each once in every trial, in an order that is turned round."""
    for trial in range(trials):
        for system in systems if trial % 2 == 0 else reversed(systems):
            yield trial, system


def trial_of(
    python: str, system: str, experiment: str, ground: str, given: argparse.Namespace
) -> list[Row] | str:
    """The rows of one trial, or why there are none.  Nothing of it stays behind."""
    busy = processes.busy(LOOK_S)
    command = [python, str(HERE / "peer.py"), system, experiment, "--part", given.part]
    command += ["--quick"] * given.quick
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="fhb-", ignore_cleanup_errors=True)
        )
        environment = {"PYTHONPATH": f"{ROOT / 'src'}:{HERE}", "TMPDIR": place}
        environment |= {"RAY_TMPDIR": place, "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {processes.MARK: place, "PYTHONDONTWRITEBYTECODE": "1"}
        network = None
        if ground == NAMESPACES:
            network = stack.enter_context(Network(NODES))
            command += ["--places", json.dumps(network.places())]
        answer = _answer(command, environment, place, network)
    if isinstance(answer, str):
        return answer
    busy = max(busy, processes.busy(LOOK_S))
    common = {"version": answer["version"], "ground": ground, "time": f"{time.time():.0f}"}
    common |= {"busy": f"{busy:.2f}", "machine": machine()}
    return [
        common | {"metric": metric, "value": f"{value:.6g}"}
        for metric, value in answer["samples"].items()
    ]


def _answer(
    command: list[str], environment: dict[str, str], place: str, network: Network | None
) -> dict[str, Any] | str:
    """What a trial's process answers, or why it does not."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    enter = network.entering(0) if network else []
    with subprocess.Popen(
        [*enter, *command], env={**os.environ, **environment}, start_new_session=True, **pipes
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
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def machine() -> str:
    """What it ran on."""
    kernel = platform.release().partition("-")[0]
    return f"{os.cpu_count()} CPUs, Linux {kernel}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
