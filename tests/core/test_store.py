"""Shared objects at the node: extents, frees in any order, and the estates of the dead."""

from __future__ import annotations

import pytest

from freehold.core.arena import EXTENT_MIN
from freehold.core.node.room import ANSWER_WAIT, TRIM_WAIT
from freehold.core.node.store import Store
from freehold.sim.bench import function
from wires import Wires


def made(*names: str, value: str = "big") -> Wires:
    """Worker w1 owns these objects in the arena; the driver holds references to them."""
    wires = Wires(2.0)
    wires.begin(function("make"))
    for name in names:
        wires.put("w1", name, value)
    wires.end("w1", "box", inside=names)
    wires.open("driver", "a")
    return wires


def store(wires: Wires) -> Store:
    return wires.node.store


def test_a_freed_object_gives_its_memory_back_to_its_maker() -> None:
    wires = made("y")
    heap = wires.desks["w1"].process.heap
    assert (len(store(wires).objects), heap.used) == (1, 1024)
    wires.drop("driver", "a")
    wires.drop("driver", "y")
    wires.deliver()
    assert (len(store(wires).objects), heap.used) == (0, 0)


def test_a_result_in_the_arena_is_its_callers_and_lies_in_the_workers_extent() -> None:
    wires = Wires()
    wires.begin(function("make"))
    wires.end("w1", "big")
    (stored,) = store(wires).objects.values()
    assert wires.names[stored.owner] == "driver"
    assert wires.names[stored.holder] == "w1"
    wires.drop("driver", "a")
    wires.deliver()
    assert wires.lines[-1] == "node -> w1: FREED offsets=[0]"
    assert wires.desks["w1"].process.heap.used == 0


def test_a_free_may_overtake_the_seal() -> None:
    wires = Wires()
    wires.begin(function("make"))
    wires.drop("driver", "a")
    wires.finish("w1", "big")
    wires.deliver("w1", "driver")
    wires.deliver("driver", "node")
    assert len(store(wires).early) == 1
    wires.deliver()
    assert not store(wires).early
    assert not store(wires).objects
    assert wires.desks["w1"].process.heap.used == 0


def test_what_others_hold_of_a_dead_owners_objects_is_adopted_and_the_rest_is_freed() -> None:
    wires = made("y", "z")
    wires.get("driver", "y")
    wires.deliver()
    wires.drop("driver", "a")
    wires.drop("driver", "z")
    wires.kill("w1")
    wires.deliver()
    assert [wires.names[id] for id in wires.node.estates.adopted] == ["y"]
    assert len(store(wires).objects) == 1
    assert wires.get("driver", "y") == "shared [w1 0 1000 node]"
    assert store(wires).extents.granted == EXTENT_MIN  # kept for what lies in it
    wires.drop("driver", "y")
    wires.deliver()
    assert not wires.node.estates.adopted
    assert not store(wires).objects
    assert store(wires).extents.granted == 0


def test_a_borrower_can_hand_on_what_the_node_has_adopted() -> None:
    wires = made("y")
    wires.get("driver", "y")
    wires.deliver()
    wires.kill("w1")
    wires.submit("driver", ["b"], function("keep"), nested=["y"])
    wires.spawn("w2")
    wires.deliver()
    wires.run("w2")
    wires.finish("w2", "ok", keep=["y"])
    wires.drop("driver", "y")
    wires.drop("driver", "a")
    wires.deliver()
    wires.get("w2", "y")
    wires.deliver()
    assert wires.get("w2", "y") == "shared [w1 0 1000 node]"
    wires.drop("w2", "y")
    wires.deliver()
    assert not store(wires).objects


def test_what_its_holder_has_never_asked_for_is_adopted_too() -> None:
    wires = made("y")
    wires.kill("w1")  # the driver has never asked for the place of y
    wires.deliver()
    wires.get("driver", "y")
    wires.deliver()
    assert wires.get("driver", "y") == "shared [w1 0 1000 node]"


def test_a_value_that_was_only_in_the_dead_process_is_an_error_that_says_so() -> None:
    wires = made("y", value="small")
    wires.kill("w1")
    wires.deliver()
    wires.get("driver", "y")
    wires.deliver()
    assert wires.row("driver", "y").data[0] == "OwnerDied"


def test_the_extents_of_a_dead_process_come_back_when_its_last_object_goes() -> None:
    wires = Wires(2.0)
    for name in "ab":
        wires.submit("driver", [name], function("make"))
    wires.spawn("w1", "w2")
    wires.deliver()
    for worker in ("w1", "w2"):
        wires.run(worker)
        wires.end(worker, "big")
    assert store(wires).extents.granted == 2 * EXTENT_MIN
    wires.kill("w1")
    wires.deliver()
    assert store(wires).extents.granted == 2 * EXTENT_MIN  # a result of the dead is still there
    for name in "ab":
        wires.drop("driver", name)
    wires.deliver()
    assert store(wires).extents.granted == EXTENT_MIN  # which the living keeps in reserve


def test_an_heir_that_dies_before_all_have_answered_keeps_nothing() -> None:
    wires = made("y")
    wires.get("driver", "y")
    wires.deliver()
    wires.add("driver2")
    wires.kill("w1")
    wires.deliver("w1", "node")
    wires.deliver("spawner", "node")  # both drivers are asked
    wires.deliver("node", "driver")
    wires.deliver("driver", "node")
    wires.kill("driver")
    wires.deliver("driver", "node")
    assert store(wires).objects  # driver2 might hold it, and has not answered
    wires.deliver()
    assert not wires.node.estates.adopted
    assert not store(wires).objects
    assert store(wires).extents.granted == 0


def test_what_was_freed_early_is_forgotten_with_its_maker() -> None:
    wires = Wires()
    wires.begin(function("make"))
    wires.drop("driver", "a")
    wires.finish("w1", "big")
    wires.deliver("w1", "driver")
    wires.wire("w1", "node").clear()  # it dies before it has told the node
    wires.kill("w1")
    wires.deliver("driver", "node")
    assert store(wires).early
    wires.deliver()
    assert not store(wires).early


def test_what_a_dead_process_had_not_sealed_is_garbage() -> None:
    wires = Wires()
    wires.begin(function("make"))
    process = wires.desks["w1"].process
    request = process.request_extent(1000)
    wires.settle()
    wires.deliver()
    assert process.extents[request] == ""
    assert process.heap.place(1000) == 0
    wires.kill("w1")
    wires.deliver()
    assert store(wires).extents.granted == 0


def test_a_full_arena_asks_for_reserves_before_it_refuses() -> None:
    wires = Wires()
    driver = wires.desks["driver"].process
    wires.put("driver", "x", "big")
    wires.drop("driver", "x")
    assert driver.heap.empty == EXTENT_MIN
    size = store(wires).extents.size
    wanted = driver.request_extent(size)
    wires.settle()
    wires.deliver()
    assert driver.extents[wanted] == ""
    assert wires.seen("TRIM")


def test_a_refusal_says_who_holds_what() -> None:
    wires = made("y")
    driver = wires.desks["driver"].process
    too_large = driver.request_extent(store(wires).extents.size)
    wires.settle()
    wires.deliver()
    assert driver.extents[too_large] is None
    wires.tick(TRIM_WAIT * 1.2)
    wires.deliver()
    refusal = driver.extents[too_large]
    assert refusal is not None
    assert "1 objects hold 1,000 bytes" in refusal
    assert wires.desks["w1"].machine.id.hex()[:8] in refusal


def asked_for_all(wires: Wires) -> int:
    """The driver has asked for as much as there is; w1 has yet to hear of it."""
    request = wires.desks["driver"].process.request_extent(store(wires).extents.size)
    wires.settle()
    wires.deliver("driver", "node")
    assert wires.wire("node", "w1")
    return request


def test_nothing_is_refused_before_every_process_has_answered() -> None:
    wires = made("y")
    extents = wires.desks["driver"].process.extents
    wanted = asked_for_all(wires)
    wires.tick(ANSWER_WAIT * 0.9)
    wires.deliver("node", "driver")
    assert extents[wanted] is None
    wires.deliver("node", "w1")
    assert extents[wanted] is None
    wires.deliver()
    assert extents[wanted], "refused when it has"


def test_a_process_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    wires = made("y")
    wanted = asked_for_all(wires)
    wires.tick(ANSWER_WAIT * 1.1)
    wires.deliver("node", "driver")
    assert wires.desks["driver"].process.extents[wanted]


def test_a_dead_process_is_not_waited_for() -> None:
    wires = made("y")
    wires.drop("driver", "y")
    wires.drop("driver", "a")
    wires.deliver()
    wanted = asked_for_all(wires)
    wires.kill("w1")
    wires.deliver()
    assert wires.desks["driver"].process.extents[wanted] == ""
    assert not store(wires).trims


@pytest.mark.parametrize("owner", ["w1", "driver"])
def test_what_is_freed_while_others_are_asked_goes_to_who_waits(owner: str) -> None:
    """The frees come to the node, or to the memory's holder, when it has answered already."""
    wires = made("y") if owner == "w1" else Wires()
    if owner == "driver":
        wires.submit("driver", ["a"], function("make"))
        wires.spawn("w1")
        wires.deliver()
        wires.run("w1")
        wires.finish("w1", "big")
        wires.deliver()
    wanted = asked_for_all(wires)
    wires.deliver("node", "w1")
    assert wires.wire("w1", "node"), "it has answered"
    for name in ("y", "a") if owner == "w1" else ("a",):
        wires.drop("driver", name)
    wires.deliver()
    assert wires.desks["driver"].process.extents[wanted] == ""


def test_what_is_made_again_on_the_same_worker_is_another_object_until_one_is_freed() -> None:
    """A task may run again for what its result refers to, while the result is in use."""
    wires = Wires()
    wires.begin(function("make", retries=1))
    wires.end("w1", "big")
    worker = wires.desks["w1"].process
    row = wires.row("driver", "a")
    first = row.data
    offset = worker.heap.place(1000)
    assert offset is not None
    second = worker.seal(row.id, wires.desks["driver"].machine.id, offset, 1000)
    wires.settle()
    wires.deliver()
    assert sorted(store(wires).by_offset) == sorted([first[1], second[1]])
    assert store(wires).bytes == 2000
    wires.desks["driver"].process.owner.freed.append((row.id, second))
    wires.settle()
    wires.deliver()
    assert list(store(wires).by_offset) == [first[1]], "the one that was refused"
    store(wires).check()
    wires.drop("driver", "a")
    wires.deliver()
    assert not store(wires).objects
    assert worker.heap.used == 0
    store(wires).check()
