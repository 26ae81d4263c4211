"""The command line: ``freehold start | stop | drain | status | demo | bench | version``.

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
Found = dict[str, list[Status]]  # nodes, and clusters if there are any
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


def _drain() -> click.Command:
    from freehold.cli.cluster import drain

    return drain


def _stop() -> click.Command:
    from freehold.cli.cluster import stop

    return stop


LATER: dict[str, tuple[Callable[[], click.Command], str]] = {
    "bench": (_bench, "Measure freehold, its peers and the floor side by side."),
    "demo": (_demo, "Index a source tree while processes are killed."),
    "drain": (_drain, "Let a node take no more work, and leave when it has none."),
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
@click.option("--address", metavar="HOST:PORT", help="A cluster's head, if not this machine's.")
@click.option("--json", "as_json", is_flag=True, help="The tables as JSON, one line.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--every", default=1.0, type=click.FloatRange(0.1), metavar="S", help=EVERY)
def status(address: str | None, as_json: bool, watch: bool, every: float) -> None:
    """Show the nodes that run here, and the clusters that they belong to.

    Of a cluster the head tells its nodes, programs and placement groups; the token is found as by
    `freehold start`.  Of the nodes here only this user's are seen.  The exit status is 1 when there
    is nothing to show.
    """
    try:
        if watch:
            _watch(address, as_json, every)
        found = _look(address)
        if as_json:
            click.echo(json.dumps(found))
        elif any(found.values()):
            from rich.console import Console

            Console().print(view(found))
        else:
            click.echo(NOBODY, err=True)
        sys.exit(0 if any(found.values()) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _look(address: str | None) -> Found:
    from freehold.errors import FreeholdError
    from freehold.proc import tool

    try:
        clusters = tool.clusters(address)
    except FreeholdError as error:
        raise click.ClickException(str(error)) from None
    return {"nodes": tool.statuses(), **({"clusters": clusters} if clusters else {})}


def _looks(address: str | None, every: float) -> Iterator[Found]:
    while True:
        yield _look(address)
        time.sleep(every)


def _watch(address: str | None, as_json: bool, every: float) -> None:
    """Show the tables anew until interrupted."""
    if as_json:
        for found in _looks(address, every):
            click.echo(json.dumps(found))
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        for found in _looks(address, every):
            live.update(view(found) if any(found.values()) else NOBODY, refresh=True)


def view(found: Found) -> RenderableType:
    """Clusters and nodes as tables."""
    from rich.console import Group

    from freehold.cli import clusters

    blocks = [clusters.view(cluster) for cluster in found.get("clusters", [])]
    blocks += [_node(node) for node in found["nodes"]]
    parts: list[RenderableType] = []
    for block in blocks:
        parts += ["", *block] if parts else block
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
    for request in node.get("requests", []):
        needs = " + ".join(f"{amount:g} {name}" for name, amount in request["needs"].items())
        lacks = f", lacks {', '.join(request['lacks'])}" if request["lacks"] else ""
        table.add_row("", f"pid {request['pid']} waits for {needs}{lacks}")
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
