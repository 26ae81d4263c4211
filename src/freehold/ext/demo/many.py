"""The distributed program on a cluster, while one machine and one owner are killed.

Theory of operation.  The batches are put by the driver, and fall into *sectors* of a few each.  A
sector is a task that submits tasks: it borrows the references to its batches, has them mapped all
over the cluster, owns the parts that come of it, and merges them to one part per partition, which
is what the driver gets references to.  So there are several owners, and what they own lies on
several nodes.

When half of the sectors are done, a machine is killed on which some of their results lie, with all
that runs there.  These values are lost, and are made again when the reducers need them: their
sector runs again, and with it the map tasks whose parts it had released long ago.  And a worker
that runs a sector is killed on another machine: what it owned is freed everywhere, and its sector
runs again on another worker.

Every run of a task leaves a line in a file (all machines are this one): what ran twice is counted
there, not by the runtime that is to be checked.

Each machine is in a network namespace of its own, and the driver in one more, where that is
allowed; else all have the loopback device.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import freehold as fh
from freehold.ext import netns
from freehold.ext.cluster import Cluster, Machine
from freehold.ext.demo import node
from freehold.ext.demo.index import Batch, Mapped, Postings, merge
from freehold.ext.demo.program import (
    SETTLE_S,
    STOP_S,
    Columns,
    Loss,
    Outcome,
    Plan,
    Progress,
    map_batch,
    next_report,
    work,
)
from freehold.ext.demo.tree import Tree

SECTORS_EACH = 4  # per node
OWNERS = {"owners": 8.0}  # sectors that a node takes at a time; the driver's own node takes none
NODES_MIN = 3  # one is killed, one loses an owner, and the head's stays


# --- what runs in the workers ---------------------------------------------------------------------


def note(journal: str, *words: object) -> None:
    """Write a line: what happens, in which process, on which machine."""
    line = f"{' '.join(map(str, words))} {os.getpid()} {Path(os.environ['TMPDIR']).name}\n"
    handle = os.open(journal, os.O_WRONLY | os.O_APPEND)  # such writes do not mix
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def map_noted(batch: Batch, partitions: int, journal: str) -> tuple[Postings | Mapped, ...]:
    """Map one batch."""
    note(journal, "map", batch.first)
    return map_batch(batch, partitions)


def map_sector(
    batches: list[fh.Ref[Batch]], partitions: int, journal: str, number: int
) -> tuple[Postings | Mapped, ...]:
    """Return what the batches' postings come to, one part per partition, and last a report."""
    note(journal, "sector", number)
    mapper: Any = fh.remote(map_noted).options(
        num_returns=partitions + 1, scheduling_strategy="SPREAD"
    )
    rows = [mapper.remote(batch, partitions, journal) for batch in batches]
    reports: list[Mapped] = fh.get([row[-1] for row in rows])
    parts = [merge(fh.get([row[at] for row in rows])) for at in range(partitions)]
    sizes = [size for report in reports for size in report.sizes]
    sizes += [part.nbytes for part in parts]
    tokens = sum(report.tokens for report in reports)
    note(journal, "done", number)
    return (*parts, Mapped(os.getpid(), tokens, tuple(sizes)))


# --- what runs in the driver ----------------------------------------------------------------------


def sectors_of(tree: Tree, plan: Plan) -> list[list[range]]:
    """Return the groups of files, a few for each sector."""
    groups = tree.groups(plan.batch_bytes)
    each = -(-len(groups) // (SECTORS_EACH * plan.nodes))
    return [groups[start : start + each] for start in range(0, len(groups), each)]


def steps(tree: Tree, plan: Plan) -> int:
    """Return how often progress will be told: sectors, reduce tasks, the index, the queries."""
    return len(sectors_of(tree, plan)) + plan.partitions + 2


def run(tree: Tree, plan: Plan, progress: Progress) -> Outcome:
    """Build and question the index on a cluster of its own; leave nothing behind.

    Raises:
        freehold.FreeholdError: a call failed for good.
        freehold.ext.cluster.ClusterError: a machine could not be started.
        freehold.ext.netns.NetworkError: or not be joined to the others.
        TimeoutError: a wait took longer than the plan allows.
    """
    outcome = Outcome()
    with (
        places(plan.nodes, outcome) as where,
        Cluster(
            plan.nodes, num_cpus=plan.workers / plan.nodes, resources=OWNERS, **where
        ) as cluster,
    ):
        fh.init(address=cluster.address, token=cluster.token)
        try:
            mapping = Halfway(cluster)
            work(tree, plan, progress, outcome, mapping)
            outcome.redone = mapping.journal.redone()
            last = settle(cluster, outcome)
        finally:
            fh.shutdown()
        pids = {pid for machine in cluster.machines for pid in machine.pids()}
    outcome.processes = node.survivors(pids | last.pids, STOP_S)
    return outcome


@contextlib.contextmanager
def places(nodes: int, outcome: Outcome) -> Iterator[netns.Places]:
    """Give machines their places and take this program to its own; say which they are."""
    if reason := netns.forbidden():
        outcome.ground = f"the loopback device ({reason})"
        yield netns.Places(namespaces=[], hosts=[])
        return
    outcome.ground = "network namespaces"
    with netns.Network(nodes + 1) as network, network.inside(nodes):
        yield network.places()


def settle(cluster: Cluster, outcome: Outcome) -> node.Snapshot:
    """Wait until nothing is left on any node; fill in what is, and what was sent."""
    last = node.settle(SETTLE_S)

    def empty() -> bool:
        tables = [machine.status() for machine in cluster.machines if machine.alive]
        tables.append(fh.status())
        outcome.objects = sum(held(table)[0] for table in tables)
        outcome.references = sum(int(table["references"]) for table in tables)
        outcome.moved = sum(int(table["pulls"]["moved_bytes"]) for table in tables)
        outcome.peak_bytes = sum(int(table["arena"]["peak"]) for table in tables)
        return not (outcome.objects or outcome.references)

    node.wait_until(empty, SETTLE_S)
    outcome.moved += outcome.loss.moved if outcome.loss else 0
    return last


def held(table: dict[str, Any]) -> tuple[int, int]:
    """Return how many values and copies of others' a node holds, and their bytes."""
    objects, pulls = table["objects"], table["pulls"]
    return (
        int(objects["count"]) + int(pulls["copies"]),
        int(objects["bytes"]) + int(pulls["copies_bytes"]),
    )


@dataclass(slots=True)
class Journal:
    """What has run where, as the tasks wrote it.

    Attributes:
        path: the file.
    """

    path: Path

    def lines(self) -> list[tuple[str, int, int, int]]:
        """Return (what, its number, process, machine) in the order of events."""
        rows = [line.split() for line in self.path.read_text().splitlines()]
        return [(what, int(number), int(pid), int(at)) for what, number, pid, at in rows]

    def redone(self) -> int:
        """Return how many runs there were beyond one of each task."""
        runs = [(what, number) for what, number, _, _ in self.lines() if what != "done"]
        return len(runs) - len(set(runs))


@dataclass(slots=True)
class Halfway:
    """Maps by sectors, and kills when half of them are done.

    Attributes:
        cluster: whose machines.
        journal: where the tasks note their runs.
        spared: the machine on which an owner was killed; another one is killed itself.
    """

    cluster: Cluster
    spared: int = 0
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(Path(self.cluster.directory, "journal"))
        self.journal.path.touch(0o600)

    def __call__(self, tree: Tree, plan: Plan, progress: Progress, outcome: Outcome) -> Columns:
        """Map the tree; see ``program.Mapping``."""
        owner: Any = fh.remote(map_sector).options(
            num_cpus=0, resources={"owners": 1}, num_returns=plan.partitions + 1,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        columns: Columns = [[] for _ in range(plan.partitions)]
        pending: list[fh.Ref[Mapped]] = []
        sectors = sectors_of(tree, plan)
        done = 0

        def collect(room: int) -> None:
            nonlocal done
            while len(pending) > room:
                next_report(pending, plan, outcome)
                progress("map")
                done += 1
                if 2 * done >= len(sectors) and not (outcome.killed and outcome.loss):
                    self.kill(outcome)

        for number, groups in enumerate(sectors):
            batches = [tree.batch(group) for group in groups]
            outcome.traffic.add(sum(batch.nbytes for batch in batches), hops=2)
            refs = [fh.put(batch) for batch in batches]
            *parts, report = owner.remote(refs, plan.partitions, str(self.journal.path), number)
            for column, part in zip(columns, parts, strict=True):
                column.append(part)
            pending.append(report)
            outcome.tasks += 1 + len(groups)
            collect(room=2 * plan.nodes)
        collect(room=0)
        return columns

    def kill(self, outcome: Outcome) -> None:
        """Kill an owner that runs, and another machine that holds results; what there is of it."""
        lines = self.journal.lines()
        done = {number: at for what, number, _, at in lines if what == "done"}
        running = {
            number: (pid, at)
            for what, number, pid, at in lines
            if what == "sector" and number not in done
        }
        if not outcome.killed and running:
            outcome.killed, self.spared = list(running.values())[-1]
            os.kill(outcome.killed, signal.SIGKILL)
        victims = [at for at in done.values() if at not in (0, self.spared)]  # 0 has the head
        if outcome.killed and victims:
            outcome.loss = self.lose(self.cluster.machines[victims[-1]])

    def lose(self, machine: Machine) -> Loss:
        """Kill all that runs on a machine; say what that was."""
        table = machine.status()
        count, nbytes = held(table)
        processes = len(machine.pids())
        machine.signal(signal.SIGKILL)
        name = f"{machine.index} ({machine.node})"
        return Loss(name, processes, count, nbytes, int(table["pulls"]["moved_bytes"]))
