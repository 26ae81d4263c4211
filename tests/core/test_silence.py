"""Who does not answer when an estate is collected is not waited for, and what it holds stays."""

from __future__ import annotations

import pytest

from core.test_estates import fleet, named
from fleets import Fleet
from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import FAILED
from freehold.core.node.estate import ANSWER_MAX, HELD_MAX


def hold_back(bench: Fleet, source: str, target: str) -> list[bytes | None]:
    """Everything arrives but what is on that wire, now and in a while; what that was."""
    held: list[bytes | None] = []
    while busy := [ends for ends in bench.busy() if bench.wires[ends]]:
        if (source, target) in busy:
            held += bench.wires[source, target]
            bench.wires[source, target].clear()
        else:
            bench.deliver(*busy[0])
    return held


def stored(bench: Fleet, name: str = "x") -> list[str]:
    """The nodes where it lies."""
    return [
        node
        for node in bench.nodes()
        for own in bench.node_at(node).store.objects.values()
        if bench.names[own.id] == name
    ]


def assert_nothing_is_left(bench: Fleet) -> None:
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    for name in bench.nodes():
        node = bench.node_at(name)
        assert not node.estates.adopted, name
        assert not node.estates.late, name
        assert not node.estates.loans.by_id, name
    assert stored(bench) == []
    bench.check()


@pytest.mark.parametrize("end", ["speaks", "speaks of nothing", "dies", "dies with its node"])
def test_a_silent_process_holds_everything_until_it_speaks(end: str) -> None:
    """It may be reading in place, and cannot say so: its thread is busy, or stopped."""
    bench = fleet("n2")
    bench.driver("e", "n2")
    bench.give("d", "e", "x")
    bench.settle()
    bench.deliver()
    bench.get("e", "x")
    bench.deliver()
    assert bench.get("e", "x") == "shared [w1 0 1000 n2]", "on its own node"
    bench.drop("d", "x")
    bench.deliver()
    bench.kill("w1")
    if end == "speaks of nothing":
        bench.drop("e", "x")
        bench.wires["e", "n2"].clear()  # its RELEASE was for the dead
    held = hold_back(bench, "e", "n2")
    assert held
    bench.tick(HELD_MAX)
    assert not bench.node_at("n2").estates.open
    assert list(bench.node_at("n2").estates.late) == [bench.desks["w1"].machine.id]
    assert stored(bench) == ["n2"]
    if end == "dies":
        bench.kill("e")
    elif end == "dies with its node":
        bench.lose("n2")
    else:
        bench.wires["e", "n2"].extend(held)
        bench.deliver()
        assert stored(bench) == (["n2"] if end == "speaks" else [])
        assert not bench.node_at("n2").estates.late
        if end == "speaks":
            bench.drop("e", "x")
    assert_nothing_is_left(bench)


@pytest.mark.parametrize("end", ["speaks", "dies"])
def test_a_node_says_who_is_silent_there(end: str) -> None:
    """What the node stores is adopted all the same, and others read it."""
    bench = fleet("n3")
    bench.driver("e", "n3")
    bench.kill("w1")
    held = hold_back(bench, "e", "n3")
    assert held
    bench.tick(HELD_MAX)
    bench.deliver()
    assert bench.node_at("n2").estates.adopted
    assert bench.node_at("n2").estates.late, "the adopter knows of the silent one"
    assert bench.node_at("n3").estates.late
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "shared [w2 0 1000 n3]"
    bench.drop("d", "x")
    bench.deliver()
    assert stored(bench) == ["n3"]
    if end == "dies":
        bench.kill("e")
    else:
        bench.wires["e", "n3"].extend(held)
    assert_nothing_is_left(bench)


def test_what_a_silent_node_stores_is_adopted_if_its_processes_hold_it() -> None:
    """What others held of it has ended in an error by then: nobody knew where it was."""
    bench = fleet("n3", named("new", ["n1", "n3"]))
    adopter = bench.nodes()[-1]
    bench.driver("e", "n3")
    bench.give("d", "e", "x")
    bench.settle()
    bench.deliver()
    bench.get("e", "x")
    bench.get("d", "x")
    bench.deliver()
    bench.crash("n2")
    bench.bury("n2")
    held = hold_back(bench, "n3", adopter)
    bench.tick(ANSWER_MAX)
    bench.deliver()
    assert not bench.node_at(adopter).estates.open
    bench.wires["n3", adopter].extend(held)
    bench.deliver()
    assert stored(bench) == ["n3"]
    assert bench.get("e", "x") == "shared [w2 0 1000 n3]"
    bench.drop("e", "x")
    bench.fetch("d", "x")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert bench.row("d", "x").state == FAILED
    bench.drop("d", "x")
    assert_nothing_is_left(bench)


def test_a_node_that_goes_on_after_its_death_says_nothing_of_estates() -> None:
    """It had stood still; whom it calls silent died with it, and nobody would ever say so."""
    bench = fleet("n3")
    adopter, node = bench.node_at("n2"), bench.node_at("n3")
    bench.kill("w1")
    bench.deliver()
    last = [bench.desks["w1"].machine.id, [], [], [], [], [], [b"silent.."]]
    bench.crash("n3")
    bench.bury("n3")
    bench.deliver()
    late = Peer(node.id, bench.address("n3"), "node")
    adopter.handlers[m.ESTATE_HELD](late, bench.now, *last)
    assert not adopter.estates.late


def test_what_a_node_says_that_was_given_up_is_not_heard() -> None:
    """It had stood still for long; who is silent there is dead to all others."""
    bench = fleet("n3")
    bench.driver("e", "n3")
    bench.kill("w1")
    assert hold_back(bench, "e", "n3")
    bench.tick(HELD_MAX)
    said = hold_back(bench, "n3", "n2")
    assert said
    bench.tick(ANSWER_MAX)
    hold_back(bench, "n3", "n2")
    bench.bury("n3")
    hold_back(bench, "n3", "n2")
    bench.wires["n3", "n2"].extend(said)
    bench.deliver("n3", "n2")
    assert not bench.node_at("n2").estates.late
    assert not bench.node_at("n2").estates.adopted
    bench.drop("d", "x")
    bench.crash("n3")
    assert_nothing_is_left(bench)


def test_who_dies_while_it_waits_for_an_answer_is_handed_nothing() -> None:
    """What is inside the value would else be held for it for ever."""
    bench = Fleet("n1", cpus=0.0)
    for name in ("o", "e", "f"):
        bench.driver(name, "n1")
    bench.put("o", "in", "big")
    bench.put("o", "out", "big", inside=["in"])
    owner = bench.desks["o"].process
    for name in ("e", "f"):
        taker = bench.desks[name].process
        there = owner.peer(taker.id, bench.address(name))
        (row,) = taker.owner.receive([owner.owner.hand_over(bench.row("o", "out"), there)])
        row.handles += 1
        bench.desks[name].refs["out"] = row
    bench.settle()
    bench.deliver()
    bench.kill("o")
    bench.get("e", "out")
    held = hold_back(bench, "f", "n1")
    assert bench.node_at("n1").estates.pulls
    bench.kill("e")
    held += hold_back(bench, "f", "n1")
    bench.wires["f", "n1"].extend(held)
    bench.deliver()
    assert not bench.node_at("n1").estates.pulls
    assert stored(bench, "in") == stored(bench, "out") == ["n1"]
    bench.drop("f", "out")
    bench.deliver()
    assert stored(bench, "in") == stored(bench, "out") == []
    bench.check()
