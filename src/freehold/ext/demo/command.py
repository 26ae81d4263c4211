"""``freehold demo``: run, compare with the plain computation, show, and exit accordingly.

Exit status: 0 all is as it must be, 1 wrong, leaking, failed or hanging, 2 wrong usage.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from freehold.errors import FreeholdError
from freehold.ext.cluster import ClusterError
from freehold.ext.demo import many
from freehold.ext.demo.plain import PlainIndex
from freehold.ext.demo.program import Outcome, Plan, run, steps
from freehold.ext.demo.report import show, verdict
from freehold.ext.demo.tree import Tree, scan, standard_library
from freehold.ext.netns import NetworkError

HANG_S = 60.0
HANG_BYTES_PER_S = 1e6  # a larger tree may take longer before it counts as a hang


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False), required=False)
@click.option("--cpus", type=click.IntRange(1), help="Workers (2; with --nodes, 1 each).")
@click.option("--nodes", type=click.IntRange(many.NODES_MIN), help="A cluster of so many nodes.")
def demo(path: str | None, cpus: int | None, nodes: int | None) -> None:
    """Index a source tree while processes are killed, and check the result.

    PATH is any directory with source files; by default, the running Python's standard library.
    One worker is killed halfway; with --nodes, a worker that owns references is, and a whole node.
    """
    try:
        tree = scan(Path(path) if path else standard_library())
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from None
    limit_s = HANG_S + tree.nbytes / HANG_BYTES_PER_S
    faulthandler.dump_traceback_later(limit_s, exit=True)  # the watchdog: shows where, exits 1
    try:
        workers = (cpus or 1) * nodes if nodes else cpus or 2
        plan = Plan(workers, nodes or 1, partitions=workers, timeout_s=limit_s / 2)
        status = check(tree, plan, Console())
    finally:
        faulthandler.cancel_dump_traceback_later()
    sys.exit(status)


def check(tree: Tree, plan: Plan, console: Console) -> int:
    """Run the program and its plain twin, show the outcome, and return the exit status."""
    where = escape(str(tree.root))
    on = f"{plan.workers} workers" + (f" on {plan.nodes} nodes" if plan.nodes > 1 else "")
    console.print(f"Indexing {len(tree.names):,} files below {where} with {on}")
    try:
        outcome = run_with_bar(tree, plan, console)
    except (FreeholdError, ClusterError, NetworkError, OSError, RuntimeError) as error:
        console.print(f"[red]failed[/red]: {type(error).__name__}: {escape(str(error))}")
        return 1
    started = time.perf_counter()
    with console.status("Computing the same thing in one plain process"):
        plain = PlainIndex(tree)
    show(console, tree, outcome, time.perf_counter() - started)
    faults = verdict(outcome, plain, plan.nodes)
    for fault in faults:
        console.print(f"[red]wrong[/red]: {fault}")
    if not faults:
        console.print("[green]right[/green]: equal to the plain computation, and nothing left")
    return 1 if faults else 0


def run_with_bar(tree: Tree, plan: Plan, console: Console) -> Outcome:
    """Run the program behind a progress bar."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        count, program = (many.steps, many.run) if plan.nodes > 1 else (steps, run)
        task = bar.add_task("map", total=count(tree, plan))
        return program(tree, plan, lambda phase: bar.update(task, advance=1, description=phase))
