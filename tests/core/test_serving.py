"""Serving: which bytes a node sends, how long they stay, and whom it sends to whom."""

from __future__ import annotations

from desks import FAR, MAKER, NODE, OWNER, Desk, P, names, only, place, ref
from freehold.core import messages as m
from freehold.core.arena import GRAIN
from freehold.core.machine import NEVER
from freehold.core.node.serving import EARLY_WAIT


def test_objects_and_copies_are_served_by_their_place_or_by_the_first_one() -> None:
    desk = Desk()
    made = desk.make("m", 2)
    here = desk.bring(P, "a")
    assert desk.serve(1, made, "m", "x") == [
        ("mover", "SERVING", 1, made[1], 2 * GRAIN, 2 * GRAIN, "")
    ]
    for number, where in ((2, here), (3, place("a"))):
        assert desk.serve(number, where, "a", "x", direct=True)[0][3:6] == (here[1], GRAIN, GRAIN)
    for number, where, name in ((4, place("b"), "b"), (5, here, "m")):
        assert desk.serve(number, where, name, "x")[0][3] == -1
    for number, where, name in ((6, made, "a"), (7, [*made[:2], 5, NODE], "m")):
        assert desk.serve(number, where, name, "x") == []  # its maker lives: it may yet come
    assert [frame[2:4] for frame in desk.pass_time(EARLY_WAIT)] == [(6, -1), (7, -1)]


def test_while_an_object_is_being_sent_the_next_asks_the_last_who_did() -> None:
    desk = Desk()
    made = desk.make("m")
    answers = [desk.serve(number, made, "m", f"n{number}")[0] for number in range(4)]
    assert [(answer[3], answer[6]) for answer in answers] == [
        (0, ""), (-2, "n0"), (-2, "n1"), (-2, "n2"),
    ]  # fmt: skip
    assert desk.serve(4, made, "m", "n1")[0][3] == 0, "it is in the chain, so it is served here"
    assert desk.serve(5, made, "m", "n5", direct=True)[0][3] == 0
    assert names(desk.node_down(b"n5......")) == ["HALT"]
    desk.served(5, done=False)
    assert desk.serve(6, made, "m", "n6")[0][6] == "n1"
    desk.served(4, done=False)
    assert desk.serve(7, made, "m", "n7")[0][6] == "n6"
    desk.served(0)
    assert desk.serve(8, made, "m", "n8")[0][3] == 0, "nobody is being sent anything now"


def test_a_pull_in_progress_is_served_and_its_end_reaches_the_readers() -> None:
    desk = Desk()
    for name in "ab":
        desk.fetch(P, name)
        desk.moved(name, 100, "broken")
    assert desk.serve(1, place("a"), "a", "x")[0][3:6] == (0, GRAIN, 100)
    assert desk.serve(2, place("b"), "b", "x")[0][3:6] == (GRAIN, GRAIN, 100)
    desk.pass_time(1.0)
    desk.moved("a")
    sent = desk.moved("b", 100, "gone")
    assert ("mover", "HALT", False, 2) in sent
    assert desk.store.extents.granted == 2 * GRAIN
    desk.served(2, done=False)
    assert desk.store.extents.granted == GRAIN
    desk.served(1)


def test_a_pull_that_only_another_node_needs_goes_on_for_that_one() -> None:
    desk = Desk()
    desk.fetch(P, "a")
    desk.serve(1, place("a"), "a", "x")
    desk.pulls.on_death(P)
    assert desk.settle() == []
    assert desk.served(1, done=False) == [("mover", "HALT", True, 1)]
    desk.moved("a", 0, "halted")
    assert desk.store.extents.granted == 0


def test_a_freed_object_keeps_its_memory_while_it_is_sent() -> None:
    desk = Desk()
    made = desk.make("m")
    desk.serve(1, made, "m", "x")
    desk.store.free_for(OWNER, [[ref("m"), MAKER]])
    assert desk.settle() == []
    assert desk.serve(2, made, "m", "y") == []
    (answer,) = desk.pass_time(EARLY_WAIT)
    assert answer[2:4] == (2, -1)
    assert desk.served(1) == [(MAKER, "FREED", [0])]


def test_a_dead_process_s_extent_stays_while_an_object_in_it_is_sent() -> None:
    desk = Desk()
    made = desk.make("m")
    desk.serve(1, made, "m", "x")
    desk.store.free_for(OWNER, [[ref("m"), MAKER]])
    desk.store.on_death(MAKER)
    assert desk.store.extents.granted == GRAIN
    desk.served(1)
    assert desk.store.extents.granted == 0


def test_a_request_may_overtake_the_seal() -> None:
    desk = Desk()
    maker = desk.machine.peer(MAKER)
    maker.kind = "worker"
    desk.give(maker, m.EXTENT, 1, 2 * GRAIN)
    for number, offset in ((1, 0), (2, GRAIN), (3, GRAIN)):
        assert desk.serve(number, [MAKER, offset, GRAIN, NODE], "m", "x") == []
    (answer,) = desk.give(maker, m.SEAL, ref("m"), OWNER, FAR, 0, GRAIN, [])
    assert answer == ("mover", "SERVING", 1, 0, GRAIN, GRAIN, "")
    desk.served(3, done=False)
    assert desk.pulls.deadline() == desk.now + EARLY_WAIT
    (answer,) = desk.pass_time(EARLY_WAIT)
    assert answer[2:4] == (2, -1)
    assert desk.pulls.deadline() == NEVER


def test_whom_this_node_has_declared_dead_learns_nothing_from_what_is_not_here() -> None:
    """It was freed because its owner, there, was taken for dead: that is no loss."""
    desk = Desk()
    made = desk.make("m")
    desk.store.gone.add(b"x".ljust(8, b"."))
    assert desk.serve(1, place("b"), "b", "x")[0][3:] == (-2, 0, 0, "")
    assert desk.serve(2, made, "m", "x")[0][3] == made[1]
    desk.fetch(P, "a")
    desk.moved("a", 0)  # what such an answer is for who asks
    assert not only(desk.settle(), "FETCHED")
    assert "MOVE" in names(desk.pass_time(1.0))
