"""Tickets of the dead: whoever has never heard of one releases it; who has, keeps the value."""

from __future__ import annotations

import pytest

from fleets import Fleet
from freehold.core.messages import INLINE
from freehold.core.process.claims import GRACE
from freehold.core.process.rows import Row, Spec
from freehold.sim.bench import function


def on(bench: Fleet, node: str, name: str) -> Spec:
    """A function that runs on that node."""
    spec = function(name)
    spec.where = ("node", bench.desks[node].machine.id, False)
    return spec


def handed_on(taker_home: str, keep_own: bool) -> tuple[Fleet, list[list[object]]]:
    """Driver ``d`` on n1 owns ``x``; w1 on n2 hands it to driver ``e``, says so to ``d``, and dies.

    Returns the reference as it travels to ``e``, which has not got it.
    """
    bench = Fleet("n1", cpus=0.0)
    bench.join("n2")
    bench.driver("d", "n1")
    bench.driver("e", taker_home)
    bench.put("d", "x", "1")
    bench.deliver()
    bench.submit("d", ["a"], on(bench, "n2", "giver"), nested=["x"])
    bench.start_workers()
    assert bench.run("w1") == "runs a"
    giver, taker = bench.desks["w1"].process, bench.desks["e"].process
    taker.peer(giver.id, bench.address("w1"))  # they have had to do with each other
    fields = giver.owner.hand_over(bench.row("w1", "x"), giver.peer(taker.id, bench.address("e")))
    bench.settle()
    bench.deliver()
    assert "lent as w1#" in "".join(bench.table("d"))
    bench.kill("w1")
    bench.deliver()
    if not keep_own:
        bench.drop("d", "x")
    bench.drop("d", "a")
    bench.deliver()
    return bench, [fields]


def receive(bench: Fleet, fields: list[list[object]]) -> Row:
    (row,) = bench.desks["e"].process.owner.receive(fields)
    row.handles += 1
    bench.desks["e"].refs["x"] = row
    bench.settle()
    bench.deliver()
    return row


def value(bench: Fleet) -> object:
    bench.get("e", "x")
    bench.deliver()
    return bench.row("e", "x").data


def pass_grace(bench: Fleet) -> None:
    bench.tick(GRACE)
    bench.deliver()


@pytest.mark.parametrize("home", ["n1", "n2"])
def test_a_ticket_for_somebody_who_never_hears_of_it_ends(home: str) -> None:
    bench, _ = handed_on(home, keep_own=False)
    assert bench.table("d") != ["nothing"]
    pass_grace(bench)
    assert bench.table("d") == ["nothing"]
    assert bench.table("e") == ["nothing"]
    bench.check()


@pytest.mark.parametrize("home", ["n1", "n2"])
def test_what_comes_in_time_is_kept(home: str) -> None:
    bench, fields = handed_on(home, keep_own=False)
    receive(bench, fields)
    pass_grace(bench)
    assert value(bench) == b"1"
    assert bench.row("e", "x").state == INLINE
    bench.drop("e", "x")
    bench.deliver()
    assert bench.table("d") == ["nothing"]


@pytest.mark.parametrize("kept", [True, False])
def test_who_hears_of_it_too_late_registers_itself(kept: bool) -> None:
    """If nobody else holds the value by then it is gone, and that is said."""
    bench, fields = handed_on("n2", keep_own=kept)
    pass_grace(bench)
    receive(bench, fields)
    assert value(bench) == (b"1" if kept else bench.row("e", "x").data)
    if kept:
        bench.drop("d", "x")
        bench.deliver()
        assert "lent as e#" in "".join(bench.table("d"))
    else:
        assert bench.row("e", "x").data[0] == "ObjectFreed"
    bench.drop("e", "x")
    bench.deliver()
    assert bench.table("d") == bench.table("e") == ["nothing"]


def test_an_adopter_asks_as_any_owner_does() -> None:
    """``y`` is w1's; the driver hands it to ``e``, which never hears of it, and both die."""
    bench = Fleet("n1", cpus=0.0)
    bench.join("n2")
    bench.driver("d", "n1")
    bench.driver("e", "n2")
    bench.driver("f", "n1")
    bench.put("f", "y", "big")
    bench.deliver()
    owner, taker = bench.desks["f"].process, bench.desks["e"].process
    giver = bench.desks["d"].process
    fields = owner.owner.hand_over(bench.row("f", "y"), owner.peer(giver.id, bench.address("d")))
    (row,) = giver.owner.receive([fields])
    row.handles += 1
    bench.desks["d"].refs["y"] = row
    bench.settle()
    bench.deliver()
    taker.peer(giver.id, bench.address("d"))
    bench.settle()
    bench.kill("f")
    bench.deliver()
    assert bench.node_at("n1").estates.adopted
    giver.owner.hand_over(row, giver.peer(taker.id, bench.address("e")))
    bench.settle()
    bench.deliver()
    bench.kill("d")
    bench.deliver()
    assert bench.node_at("n1").estates.adopted
    pass_grace(bench)
    assert not bench.node_at("n1").estates.adopted
    assert not bench.node_at("n1").store.objects
    bench.check()
