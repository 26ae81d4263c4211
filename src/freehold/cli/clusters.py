"""Clusters as tables, for ``freehold status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

INDENT = 2


def view(cluster: dict[str, Any]) -> list[RenderableType]:
    """One cluster: its nodes, its programs, its placement groups, its detached actors."""
    from rich.padding import Padding
    from rich.text import Text

    head = Text.assemble(("cluster ", "bold"), (cluster["address"], "bold"))
    if "error" in cluster:
        return [head, Text(f"  its head does not answer: {cluster['error']}", "red")]
    parts = [_nodes(cluster["nodes"])]
    if cluster["jobs"]:
        parts.append(_jobs(cluster["jobs"]))
    if cluster["groups"]:
        parts.append(_groups(cluster["groups"]))
    if cluster["detached"]:
        parts.append(_detached(cluster["detached"]))
    return [head, *(Padding(part, (0, 0, 0, INDENT), expand=False) for part in parts)]


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    from rich.text import Text

    table.add_row(*(Text(str(cell)) for cell in cells))


def _nodes(nodes: list[dict[str, Any]]) -> RenderableType:
    table = _table("node", "address", "in use", "waiting", "state", "labels")
    for node in nodes:
        in_use = ", ".join(
            f"{total - node['free'].get(name, 0):g} of {total:g} {name}"
            for name, total in node["total"].items()
        )
        state = node["state"] if node["connected"] else f"silent for {node['silent']:.1f} s"
        labels = ", ".join(f"{name}={text}" for name, text in node["labels"].items())
        address = node["address"].rpartition("|")[2]
        _row(table, node["node"], address, in_use, node["waiting"] or "", state, labels)
    return table


def _jobs(jobs: list[dict[str, Any]]) -> RenderableType:
    table = _table("job", "on node", "pid", "program", "state")
    for job in jobs:
        state = "runs" if job["alive"] else f"ended: {job['reason']}"
        info = job["info"]
        _row(table, job["job"], job["node"], info.get("pid", ""), info.get("program", ""), state)
    return table


def _groups(groups: list[dict[str, Any]]) -> RenderableType:
    table = _table("group", "name", "strategy", "state", "bundles")
    for group in groups:
        bundles = ", ".join(
            " + ".join(f"{amount:g} {name}" for name, amount in resources.items())
            + (f" on {node[:8]}" if node else "")
            for resources, node in group["bundles"]
        )
        _row(table, group["group"], group["name"], group["strategy"], group["state"], bundles)
    return table


def _detached(actors: list[dict[str, Any]]) -> RenderableType:
    table = _table(
        "detached actor", "namespace", "on node", "incarnation", "restarts left", "state"
    )
    for actor in actors:
        left = "any number" if actor["restarts_left"] < 0 else actor["restarts_left"]
        state = f"{actor['state']}: {actor['why']}" if actor["why"] else actor["state"]
        space = actor["namespace"].removeprefix("actors/")
        _row(table, actor["name"], space, actor["node"], actor["number"], left, state)
    return table
