"""The distributed program: files to batches, batches to postings, postings to shards, an index.

Theory of operation.  The driver reads files and puts each batch into shared memory; a map task
turns it into one part per partition, each a value of its own (``num_returns``).  The driver never
sees a part: it collects references, column by column, and hands each column to a reducer, which
reads the parts in place.  The reducers' shards go, by reference again, to the index actor.  What
the driver does see is a small report per task, which is also how it knows that a task is done.

A bounded number of map tasks is in flight, and the reference to a batch is dropped as soon as its
task is submitted: so a batch's memory is free again once it is mapped, however large the tree is.

When half of the map tasks are done, the worker that reported last is killed: it has just been given
its next task, which is lost with it and must be run again elsewhere.  What the worker had made
before lives in the node's shared memory and is not lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import freehold as fh
from freehold.ext.demo import node
from freehold.ext.demo.index import Batch, Hit, Index, Mapped, Postings, Statistics, invert, merge
from freehold.ext.demo.tree import Tree

Columns = list[list[fh.Ref[Postings]]]
Progress = Callable[[str], None]
"""Called with the phase's name after each finished step of it; see ``steps``."""

INLINE_BYTES_MAX = 100 * 1024
SETTLE_S = 5.0
STOP_S = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run.

    Attributes:
        workers: CPUs, of all nodes together.
        nodes: 1: a session of its own; more: a cluster, see ``many``.
        partitions: reducers, and shards of the index.
        batch_bytes: aim for the text in a map task.
        queries: how many questions to ask.
        timeout_s: how long any one wait may take.
    """

    workers: int = 2
    nodes: int = 1
    partitions: int = 2
    batch_bytes: int = 1 << 20
    queries: int = 1000
    timeout_s: float = 60.0


@dataclass(slots=True)
class Traffic:
    """Bytes that moved, and bytes that calls by value would have copied between processes.

    Attributes:
        shared: written once into shared memory, and read there in place.
        inline: small enough to travel with the call: copied once per hop.
        by_value: what a call by value copies: each value once per hop.
    """

    shared: int = 0
    inline: int = 0
    by_value: int = 0

    def add(self, size: int, hops: int) -> None:
        """Count a value that goes from process to process that many times."""
        if size > INLINE_BYTES_MAX:
            self.shared += size
        else:
            self.inline += size * hops
        self.by_value += size * hops


@dataclass(frozen=True, slots=True)
class Loss:
    """A machine that was killed, and what went with it.

    Attributes:
        name: its number and its node's id.
        processes: how many ran there.
        objects: values and copies in its shared memory.
        nbytes: bytes of those.
        moved: bytes that it had been sent by other nodes.
    """

    name: str
    processes: int
    objects: int
    nbytes: int
    moved: int


@dataclass(slots=True)
class Outcome:
    """What a run came to: the index's answers, its costs, and what was left.

    Attributes:
        statistics: of all identifiers.
        digest: of the index's whole content.
        answers: for each pair of words asked for, the files that have both.
        tokens: identifiers read, as the map tasks counted them.
        tasks: map and reduce tasks that were needed.
        killed: the worker that was killed.
        ground: what the machines are on, where there are several.
        loss: the machine that was killed, where there are several.
        redone: tasks that were run again because of that.
        moved: bytes that nodes have sent to each other.
        build_s: seconds from the first batch to the complete index.
        query_s: seconds that all queries took.
        peak_bytes: the most shared memory that values took.
        objects: values left in shared memory at the end.
        references: references left at the end.
        processes: processes left after shutdown.
    """

    traffic: Traffic = field(default_factory=Traffic)
    statistics: Statistics | None = None
    digest: str = ""
    answers: dict[tuple[str, ...], list[Hit]] = field(default_factory=dict)
    tokens: int = 0
    tasks: int = 0
    killed: int = 0
    ground: str = ""
    loss: Loss | None = None
    redone: int = 0
    moved: int = 0
    build_s: float = 0.0
    query_s: float = 0.0
    peak_bytes: int = 0
    objects: int = 0
    references: int = 0
    processes: list[int] = field(default_factory=list)


Mapping = Callable[[Tree, Plan, Progress, Outcome], Columns]
"""Maps the tree, and returns references to the parts, one list per partition."""


# --- what runs in the workers ---------------------------------------------------------------------


def map_batch(batch: Batch, partitions: int) -> tuple[Postings | Mapped, ...]:
    """Return the batch's postings, one part per partition, and last a report."""
    parts, tokens = invert(batch, partitions)
    return (*parts, Mapped(os.getpid(), tokens, tuple(part.nbytes for part in parts)))


def reduce_parts(*parts: Postings) -> tuple[Postings, int]:
    """Return the shard that the parts of one partition make, and its bytes."""
    shard = merge(parts)
    return shard, shard.nbytes


# --- what runs in the driver ----------------------------------------------------------------------


def steps(tree: Tree, plan: Plan) -> int:
    """Return how often progress will be told: each map and reduce task, the index, the queries."""
    return len(tree.groups(plan.batch_bytes)) + plan.partitions + 2


def run(tree: Tree, plan: Plan, progress: Progress) -> Outcome:
    """Build and question the index on a node of its own; leave nothing behind.

    Raises:
        freehold.FreeholdError: a call failed for good.
        TimeoutError: a wait took longer than the plan allows.
    """
    outcome = Outcome()
    fh.init(num_cpus=plan.workers)
    try:
        work(tree, plan, progress, outcome, map_tree)
        last = node.settle(SETTLE_S)
        outcome.redone, outcome.peak_bytes = last.retries, last.peak_bytes
        outcome.objects, outcome.references = last.objects, last.references
    finally:
        fh.shutdown()
    outcome.processes = node.survivors(last.pids, STOP_S)
    return outcome


def work(tree: Tree, plan: Plan, progress: Progress, outcome: Outcome, mapping: Mapping) -> None:
    """Fill in the outcome; every reference is gone when it returns."""
    started = time.perf_counter()
    columns = mapping(tree, plan, progress, outcome)
    shards = reduce_columns(columns, plan, progress, outcome)
    del columns
    index = fh.remote(Index).remote(tree.names)
    fh.get([index.add.remote(shard) for shard in shards], timeout=plan.timeout_s)
    del shards
    outcome.build_s = time.perf_counter() - started
    progress("index")
    question(index, plan, outcome)
    progress("query")


def map_tree(tree: Tree, plan: Plan, progress: Progress, outcome: Outcome) -> Columns:
    """Map every batch; return references to the parts, one list per partition."""
    mapper: Any = fh.remote(map_batch).options(num_returns=plan.partitions + 1)
    groups = tree.groups(plan.batch_bytes)
    columns: Columns = [[] for _ in range(plan.partitions)]
    pending: list[fh.Ref[Mapped]] = []
    done = 0

    def collect(room: int) -> None:
        nonlocal done
        while len(pending) > room:
            report = next_report(pending, plan, outcome)
            progress("map")
            done += 1
            if not outcome.killed and 2 * done >= len(groups):
                node.kill(report.pid)
                outcome.killed = report.pid

    for group in groups:
        batch = tree.batch(group)
        outcome.traffic.add(batch.nbytes, hops=1)
        *parts, report = mapper.remote(fh.put(batch), plan.partitions)
        for column, part in zip(columns, parts, strict=True):
            column.append(part)
        pending.append(report)
        collect(room=4 * plan.workers)
    collect(room=0)
    outcome.tasks += len(groups)
    return columns


def next_report(pending: list[fh.Ref[Mapped]], plan: Plan, outcome: Outcome) -> Mapped:
    """Take a finished map task's report off the pending ones, and count what it says."""
    ready, _ = fh.wait(pending, num_returns=1, timeout=plan.timeout_s)
    if not ready:
        raise TimeoutError(f"no map task finished within {plan.timeout_s:g} s")
    pending.remove(ready[0])
    report: Mapped = fh.get(ready[0])
    outcome.tokens += report.tokens
    for size in report.sizes:
        outcome.traffic.add(size, hops=2)  # by value: mapper to driver to reducer
    return report


def reduce_columns(
    columns: Columns, plan: Plan, progress: Progress, outcome: Outcome
) -> list[fh.Ref[Postings]]:
    """Merge each partition's parts; return references to the shards."""
    reducer: Any = fh.remote(reduce_parts).options(num_returns=2)
    results: list[Any] = [reducer.remote(*column) for column in columns]
    for _, size in results:
        outcome.traffic.add(fh.get(size, timeout=plan.timeout_s), hops=2)
        progress("reduce")
    outcome.tasks += len(results)
    return [shard for shard, _ in results]


def question(index: Any, plan: Plan, outcome: Outcome) -> None:
    """Ask the index actor for what the verdict and the table need."""
    outcome.statistics = fh.get(index.statistics.remote(), timeout=plan.timeout_s)
    outcome.digest = fh.get(index.digest.remote(), timeout=plan.timeout_s)
    sample = fh.get(index.sample.remote(plan.queries), timeout=plan.timeout_s)
    frequent = [word for word, _ in outcome.statistics.top] or sample[:1]
    pairs = [(word, frequent[number % len(frequent)]) for number, word in enumerate(sample)]
    started = time.perf_counter()
    answers = fh.get([index.search.remote(pair) for pair in pairs], timeout=plan.timeout_s)
    outcome.query_s = time.perf_counter() - started
    outcome.answers = dict(zip(pairs, answers, strict=True))
