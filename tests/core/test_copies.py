"""Copies on other nodes whose owner dies while they are on their way: nobody else frees them."""

from __future__ import annotations

import pytest

from fleets import Fleet
from freehold.core.messages import SHARED


def fleet() -> Fleet:
    """Driver ``d`` on n1 owns ``x``, which lies there and is to be kept on n2 as well."""
    made = Fleet("n1", "n2")
    made.driver("d", "n1")
    made.put("d", "x", "big")
    made.deliver()
    made.desks["d"].process.keeping.want(made.row("d", "x"), 2)
    made.settle()
    return made


def test_a_copy_is_kept_until_its_owner_frees_it() -> None:
    bench = fleet()
    bench.deliver()
    (copy,) = bench.node_at("n2").pulls.copies.by_offset.values()
    assert copy.pins
    bench.drop("d", "x")
    bench.deliver()
    assert not bench.node_at("n2").pulls.copies.by_offset


def test_one_of_two_that_were_asked_for_twice_is_freed() -> None:
    """The cluster has changed; a node tells of a copy before it says that it is kept."""
    bench = fleet()
    bench.join("n3")
    bench.desks["d"].process.keeping.retry()
    bench.settle()
    bench.deliver()
    made = [name for name in bench.nodes() if bench.node_at(name).pulls.copies.by_offset]
    (place,) = bench.row("d", "x").more.copies  # type: ignore[union-attr]
    assert [bench.names[place[3]]] == made
    bench.drop("d", "x")
    bench.deliver()
    assert not any(bench.node_at(name).pulls.copies.by_offset for name in bench.nodes())


@pytest.mark.parametrize("who", ["d", "n1"])
def test_a_copy_that_comes_after_its_owner_s_death_is_kept_for_nobody(who: str) -> None:
    bench = fleet()
    assert bench.row("d", "x").state == SHARED
    for ends in (("d", "n1"), ("n1", "n2"), ("arena@n2", "n2"), ("mover@n1", "n1")):
        bench.deliver(*ends)
    assert bench.node_at("n2").pulls.moving
    came = [ends for ends in bench.busy() if ends == ("mover@n2", "n2")]
    assert came, "the bytes are on their way"
    late = bench.wires[came[0]].copy()
    bench.wires[came[0]].clear()
    bench.kill(who) if who == "d" else bench.lose(who)
    bench.deliver()
    bench.wires[came[0]].extend(late)
    bench.deliver()
    node = bench.node_at("n2")
    assert not node.pulls.copies.by_offset
    assert not node.departing.waiting
    assert not node.store.extents.of(node.id)
    bench.check()
