"""The command line: ``freehold status | demo | bench | version``.

Each command imports what it needs when it is called, so that ``freehold --help`` stays quick.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

import freehold

if TYPE_CHECKING:
    from rich.console import RenderableType

Status = dict[str, Any]  # of one node; see proc/tool.py
NOBODY = "no freehold node of this user is running on this machine"
INDENT = "  "
EVERY = "Seconds between two looks (1)."


def _demo() -> click.Command:
    from freehold.ext.demo.command import demo

    return demo


def _bench() -> click.Command:
    from freehold.ext.bench.cli import bench

    return bench


def _start() -> click.Command:
    from freehold.cli.cluster import start

    return start


def _stop() -> click.Command:
    from freehold.cli.cluster import stop

    return stop


LATER: dict[str, tuple[Callable[[], click.Command], str]] = {
    "bench": (_bench, "Measure freehold, its peers and the floor side by side."),
    "demo": (_demo, "Index a source tree while a worker is killed."),
    "start": (_start, "Start a cluster on this machine, or join one."),
    "stop": (_stop, "Stop what `freehold start` has started here."),
}


class Commands(click.Group):
    """A group some of whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name, in order."""
        return sorted([*super().list_commands(ctx), *LATER])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now if need be."""
        if cmd_name in LATER:
            return LATER[cmd_name][0]()
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        lines = {name: command.get_short_help_str(70) for name, command in self.commands.items()}
        lines.update({name: text for name, (_, text) in LATER.items()})
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))


@click.group(cls=Commands)
@click.version_option(freehold.__version__, prog_name="freehold", message="%(prog)s %(version)s")
def main() -> None:
    """Remote calls with shared memory: tasks, actors and references."""


@main.command()
def version() -> None:
    """Tell the versions of freehold, its protocol and Python."""
    from freehold.proc.tool import PROTOCOL

    python = f"{platform.python_implementation()} {platform.python_version()}"
    click.echo(f"freehold {freehold.__version__}, protocol {PROTOCOL}, {python}")


# --- status ---------------------------------------------------------------------------------------


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The tables as JSON, one line.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--every", default=1.0, type=click.FloatRange(0.1), metavar="S", help=EVERY)
def status(as_json: bool, watch: bool, every: float) -> None:
    """Show the nodes that run here: processes, objects, queues.

    Only this user's nodes are seen.  The exit status is 1 when there is none.
    """
    try:
        if watch:
            _watch(as_json, every)
        found = _look()
        if as_json:
            click.echo(_line(found))
        elif found:
            from rich.console import Console

            Console().print(view(found))
        else:
            click.echo(NOBODY, err=True)
        sys.exit(0 if found else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _look() -> list[Status]:
    from freehold.proc import tool

    return tool.statuses()


def _line(found: list[Status]) -> str:
    return json.dumps({"nodes": found})


def _looks(every: float) -> Iterator[list[Status]]:
    while True:
        yield _look()
        time.sleep(every)


def _watch(as_json: bool, every: float) -> None:
    """Show the tables anew until interrupted."""
    if as_json:
        for found in _looks(every):
            click.echo(_line(found))
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        for found in _looks(every):
            live.update(view(found) if found else NOBODY, refresh=True)


def view(found: list[Status]) -> RenderableType:
    """The nodes as tables."""
    from rich.console import Group

    parts: list[RenderableType] = []
    for node in found:
        parts += ["", *_node(node)] if parts else _node(node)
    return Group(*parts)


def _node(node: Status) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    head = Text.assemble(("node ", "bold"), (node.get("node", "?"), "bold"), f"  {node['dir']}")
    if "error" in node:
        return [head, Text(f"{INDENT}does not answer: {node['error']}", "red")]
    return [
        head,
        Padding(_summary(node), (0, 0, 0, len(INDENT)), expand=False),
        Padding(_processes(node), (0, 0, 0, len(INDENT)), expand=False),
    ]


def _summary(node: Status) -> RenderableType:
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, amount in node["resources"].items():
        table.add_row(name, f"{amount['total'] - amount['free']:g} of {amount['total']:g} in use")
    objects, arena = node["objects"], node["arena"]
    adopted = f", {objects['adopted']} adopted from dead owners" if objects["adopted"] else ""
    table.add_row(
        "shared objects",
        f"{objects['count']:,}, {size(objects['bytes'])} (peak {size(objects['peak_bytes'])})"
        + adopted,
    )
    table.add_row("arena", f"{size(arena['granted'])} granted of {size(arena['size'])}")
    table.add_row("references", f"{node['references']:,}")
    table.add_row("leases", f"{node['leases']:,} held, {node['waiting']:,} requests wait")
    table.add_row(
        "tasks",
        f"{node['queued']:,} queued, {_sum(node, 'inflight'):,} sent to workers, "
        f"{node['retries']:,} retried",
    )
    table.add_row("workers died", f"{node['deaths']:,}")
    return table


def _sum(node: Status, count: str) -> int:
    return sum(int(process["counts"].get(count, 0)) for process in node["processes"])


COUNTS = {"owned": "owned", "borrowed": "borrowed", "queued": "queued", "inflight": "sent"}


def _processes(node: Status) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("pid", "kind", "state", "runs"):
        table.add_column(name, overflow="ellipsis", no_wrap=name != "runs", max_width=40)
    for name in ("CPUs", *COUNTS.values(), "shared"):
        table.add_column(name, justify="right", no_wrap=True)
    daemon = {"pid": node["pid"], "kind": "node", "state": "up", "counts": {}}
    for process in [daemon, *node["processes"]]:
        counts = process["counts"]
        cells = [process["pid"], process["kind"], _state(process), process.get("runs", "")]
        cells.append(f"{process['cpus']:g}" if process.get("cpus") else "")
        cells += [f"{counts[name]:,}" if counts.get(name) else "" for name in COUNTS]
        cells.append(size(counts["shared_bytes"]) if counts.get("shared_bytes") else "")
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _state(process: Status) -> str:
    return "in get" if process.get("blocked") else str(process["state"])


def size(count: int) -> str:
    """A number of bytes for people: decimal units, three digits."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{count} B" if unit == "B" else f"{amount:.3g} {unit}"
