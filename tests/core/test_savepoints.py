"""How far back a loss can reach: which values are kept on a second node, and until when."""

from __future__ import annotations

import pytest

from fleets import Fleet, driver_apart
from freehold.core.messages import COLLECTED, SHARED
from freehold.core.process.leases import Limits
from freehold.core.process.rows import Row
from freehold.core.process.savepoints import Savepoints
from freehold.sim.bench import function

LIMITS = Limits(remake=2.5, idle=1e6)


def fleet(limits: Limits = LIMITS) -> Fleet:
    """Driver ``d`` on n1, which runs nothing; n2 runs its tasks."""
    return driver_apart(limits=limits)


def link(bench: Fleet, name: str, *deps: str, seconds: float = 1.0) -> None:
    """A task that takes so long; its arguments are not referred to any more."""
    bench.submit("d", [name], function("f", retries=3), deps=deps)
    bench.start_workers()
    run(bench, seconds)
    for dep in deps:
        if dep in bench.desks["d"].refs:
            bench.drop("d", dep)
    bench.deliver()
    bench.check()


def run(bench: Fleet, seconds: float) -> str:
    """The worker that has something to do does it, in so many seconds."""
    (worker,) = [
        name
        for name, slot in bench.slot_of.items()
        if slot and bench.desks[name].alive and bench.desks[name].process.executor.queue
    ]
    said = bench.run(worker)
    bench.now += seconds
    bench.finish(worker, "big")
    bench.deliver()
    return said


def chain(bench: Fleet, names: str) -> None:
    for before, name in zip(" " + names, names, strict=False):
        link(bench, name, *before.strip())


def lose(bench: Fleet) -> list[str]:
    """The node dies that runs tasks, and another comes; what runs again."""
    bench.join("n3")
    bench.lose("n2")
    bench.start_workers()
    said = []
    while any(
        slot and bench.desks[name].alive and bench.desks[name].process.executor.queue
        for name, slot in bench.slot_of.items()
    ):
        said.append(run(bench, 1.0).removeprefix("runs "))
        bench.start_workers()
    return said


def points(bench: Fleet) -> Savepoints:
    return bench.desks["d"].process.client.lineage.savepoints


def nodes(row: Row) -> int:
    """How many places the value has."""
    assert row.more is not None
    return 1 + len(row.more.copies)


def test_a_chain_is_made_again_from_its_last_savepoint() -> None:
    bench = fleet()
    chain(bench, "abcde")
    assert points(bench).made == 1
    assert [bench.names[id] for id in bench.desks["d"].process.keeping.rows] == ["c"]
    assert lose(bench) == ["d", "e"]
    assert bench.row("d", "e").state == SHARED


def test_without_a_limit_or_another_node_the_whole_chain_is_made_again() -> None:
    bench = fleet(LIMITS._replace(remake=0.0))
    chain(bench, "abcde")
    assert points(bench).made == 0
    assert lose(bench) == list("abcde")


def test_only_the_last_savepoint_is_kept_and_everything_goes_in_the_end() -> None:
    bench = fleet()
    chain(bench, "abc")
    third = bench.row("d", "c")
    assert nodes(third) == 2
    chain_on(bench, "c", "de")
    assert third.state == SHARED
    chain_on(bench, "e", "f")
    assert nodes(bench.row("d", "f")) == 2
    assert third.state == COLLECTED
    bench.drop("d", "f")
    bench.deliver()
    process = bench.desks["d"].process
    assert not process.owner.rows
    assert not process.client.lineage.recipes
    assert not process.keeping.rows
    for name in bench.nodes():
        node = bench.node_at(name)
        assert not node.store.objects
        assert not node.pulls.copies.by_offset


def chain_on(bench: Fleet, last: str, names: str) -> None:
    for before, name in zip(last + names, names, strict=False):
        link(bench, name, before)


def test_a_savepoint_of_which_no_copy_can_be_had_does_not_keep_those_behind_it() -> None:
    bench = fleet()
    chain(bench, "abc")
    savepoints = points(bench)
    third = bench.row("d", "c")
    chain_on(bench, "c", "de")
    assert third.state == SHARED
    keeping = bench.desks["d"].process.keeping
    savepoints.copy = lambda row, copies: keeping.settled(row)  # nobody can
    chain_on(bench, "e", "f")
    assert third.state == COLLECTED
    assert nodes(bench.row("d", "f")) == 1
    assert lose(bench) == list("abcdef")


def test_what_lies_with_its_owner_is_safe_without_a_copy() -> None:
    bench = Fleet("n1", limits=LIMITS)
    bench.join("n2")
    bench.driver("d", "n1")
    bench.deliver()
    chain(bench, "abc")
    assert points(bench).made == 1
    assert not bench.desks["d"].process.keeping.rows


@pytest.mark.parametrize(("seconds", "made"), [(2.4, 0), (2.5, 1)])
def test_a_copy_must_be_worth_its_bytes(seconds: float, made: int) -> None:
    bench = fleet(LIMITS._replace(remake=0.1))
    points(bench).rate = 1
    chain(bench, "a")
    size = bench.row("d", "a").data[2]
    points(bench).rate = size / 2.5
    link(bench, "b", seconds=seconds)
    assert points(bench).made == made


def test_a_run_on_a_path_of_its_own_does_not_count_twice() -> None:
    """What can be made again at the same time costs the longest path."""
    bench = fleet()
    for name in "abc":
        link(bench, name)
    link(bench, "d", "a", "b", "c")
    more = bench.row("d", "d").more
    assert more is not None
    assert more.cost == 2.0
