"""The command: choose, install, run in turn, print, write."""

import datetime
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from . import plot, runner, table
from .results import Results
from .rows import CONTENDERS, PROBES, Contender
from .venvs import InstallError, PeerVenv

SOURCE = str(Path(__file__).resolve().parents[3])
VENV = Path(".bench-venv")
FULL, QUICK = (0.3, 3), (0.1, 1)  # seconds a sample, repetitions


def _names(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    """A comma-separated list of systems."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    known = [entry.name for entry in CONTENDERS]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"no system {name!r}; there are {', '.join(known)}")
    return names


def _probes(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    """A comma-separated list of probes."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in PROBES:
            raise click.BadParameter(f"no probe {name!r}; there are {', '.join(PROBES)}")
    return [probe for probe in PROBES if probe in names] or list(PROBES)


def _jobs(
    chosen: list[Contender], seconds: float, results: Results, progress: Progress
) -> dict[str, runner.Job]:
    """A job for every system that can be had; the others are noted as skipped."""
    peers = PeerVenv(VENV.absolute(), lambda words: progress.console.print(f"[dim]{words}"))
    jobs: dict[str, runner.Job] = {}
    for entry in chosen:
        try:
            if entry.own:
                python, search = sys.executable, (SOURCE, *peers.numpy_for_us())
            else:
                peers.need(entry.requirements)
                python, search = peers.python, ()
        except (InstallError, OSError) as error:
            results.skip(entry.name, f"cannot be installed: {error}")
        else:
            jobs[entry.name] = runner.Job(entry.module, python, search, seconds, results.quick)
    return jobs


def _teller(progress: Progress, bar: TaskID, about: str) -> Callable[[str], None]:
    """Shows which probe is under way."""
    return lambda probe: progress.update(bar, description=f"{about} {probe}")


def _run_all(
    jobs: dict[str, runner.Job], probes: list[str], results: Results, progress: Progress
) -> None:
    """Every system once, and that so many times: drift of the machine meets all of them."""
    bar = progress.add_task("", total=results.repetitions * len(jobs))
    names = list(jobs)
    for turn in range(results.repetitions):
        first = turn % len(names) if names else 0
        for name in names[first:] + names[:first]:
            about = f"repetition {turn + 1} of {results.repetitions}: {name}"
            progress.update(bar, description=about)
            due = [p for p in probes if f"{name} {p}" not in results.skipped]
            if name not in results.skipped:
                results.add(name, runner.run(jobs[name], due, _teller(progress, bar, about)))
            progress.advance(bar)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """A terminated benchmark ends its children as an interrupted one does."""
    raise KeyboardInterrupt


def _command(context: click.Context) -> str:
    """The command line that was given, places shortened to their last part."""
    words = ["freehold bench"]
    for option in context.command.params:
        name = option.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            words.append(option.opts[0])
            if isinstance(value, list):
                words.append(",".join(value))
            elif not isinstance(value, bool):
                words.append(Path(str(value)).name)
    return " ".join(words)


@click.command()
@click.option("--only", default="", callback=_names, help="Only these systems (comma-separated).")
@click.option("--skip", default="", callback=_names, help="All but these systems.")
@click.option("--probes", default="", callback=_probes, help="Only these probes.")
@click.option("--quick", is_flag=True, help="One repetition of short samples.")
@click.option("--reps", type=click.IntRange(1), help="Repetitions (3; 1 with --quick).")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01),
    help="Length of a sample, in seconds (0.3; 0.1 with --quick).",
)
@click.option(
    "--out",
    default="benchmarks/results",
    type=click.Path(path_type=Path),
    help="Folder of the two files.",
)
@click.option("--name", default="", help="Name of the two files (bench; quick with --quick).")
@click.option("--check", is_flag=True, help="Exit with 1 when a goal is missed.")
def bench(
    only: list[str],
    skip: list[str],
    probes: list[str],
    quick: bool,
    reps: int | None,
    seconds: float | None,
    out: Path,
    name: str,
    check: bool,
) -> None:
    """Measure freehold, its peers and the floor side by side; print and write one table."""
    sample, turns = QUICK if quick else FULL
    results = Results(
        command=_command(click.get_current_context()),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        repetitions=reps or turns,
        quick=quick,
    )
    chosen = [c for c in CONTENDERS if (not only or c.name in only) and c.name not in skip]
    console = Console()
    signal.signal(signal.SIGTERM, _terminate)
    begin = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        jobs = _jobs(chosen, seconds or sample, results, progress)
        _run_all(jobs, probes, results, progress)
    results.seconds = time.monotonic() - begin
    out.mkdir(parents=True, exist_ok=True)
    stem = name or ("quick" if quick else "bench")
    results.save(out / f"{stem}.json")
    plot.save(results, out / f"{stem}.svg")
    table.show(results, console)
    console.print(f"written: {out / stem}.json, {out / stem}.svg")
    if check and results.missed():
        sys.exit(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, the process's own arguments by default; its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        bench.main(arguments, prog_name="freehold bench")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
