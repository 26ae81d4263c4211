"""Room for what is pulled: whose memory makes way, who waits for it, and who is refused."""

from __future__ import annotations

from desks import FAR, MAKER, OWNER, OWNER_AT, Desk, P, Q, names, only, place, ref
from freehold.core import messages as m
from freehold.core.arena import GRAIN
from freehold.core.machine import NEVER
from freehold.core.node.pulls import ARGUMENT, GET, PATIENCE, PATIENCE_MOST
from freehold.core.node.room import TRIM_WAIT


def test_gets_go_before_arguments_and_nothing_overtakes_what_does_not_fit() -> None:
    desk = Desk(4)
    desk.bring(P, "z", 2)
    for name, kind in (("a", ARGUMENT), ("b", ARGUMENT), ("c", GET), ("d", GET)):
        peer = desk.machine.peer(Q)
        where = place(name, 2 if name == "c" else 1)
        desk.machine.handlers[m.FETCH](peer, desk.now, ref(name), where, OWNER, OWNER_AT, kind)
    desk.settle()
    assert desk.moving() == ["c"]
    desk.unpin(P, "z")
    assert desk.moving() == ["c", "d", "a"]
    desk.moved("d")
    assert desk.moving() == ["c", "a"]
    desk.unpin(Q, "d")
    assert desk.moving() == ["c", "a", "b"]


def test_an_argument_that_a_get_asks_for_too_goes_with_the_gets() -> None:
    desk = Desk(1)
    desk.bring(P, "z")
    for name in "ab":
        desk.fetch(Q, name, kind=ARGUMENT)
    desk.fetch(P, "b", kind=GET)
    desk.unpin(P, "z")
    assert desk.moving() == ["b"]


def test_idle_copies_make_way_the_least_recently_used_first() -> None:
    desk = Desk(3)
    places = {name: desk.bring(P, name) for name in "abc"}
    desk.unpin(P, "a", "b", "c")
    desk.fetch(Q, "a")
    desk.unpin(Q, "a")
    sent = desk.fetch(Q, "d", 2)
    assert sent[:2] == [
        (OWNER, "UNCOPIED", ref("b"), places["b"]),
        (OWNER, "UNCOPIED", ref("c"), places["c"]),
    ]
    assert names(sent[2:]) == ["MOVE"]
    desk.moved("d")
    desk.unpin(Q, "d")
    assert desk.make("m", 3)[1] == 0, "a new object takes the room of copies"
    assert desk.pulls.snapshot()["evicted"] == 4


def test_a_new_object_waits_for_a_copy_that_is_released_meanwhile() -> None:
    desk = Desk(2)
    desk.bring(P, "a", 2)
    maker = desk.machine.peer(MAKER)
    assert only(desk.give(maker, m.EXTENT, 1, GRAIN), "EXTENT_GRANT") == []
    (grant,) = only(desk.unpin(P, "a"), "EXTENT_GRANT")
    assert grant[4] == GRAIN


def test_nothing_is_evicted_in_vain() -> None:
    desk = Desk(4)
    desk.make("m", 2)
    desk.bring(P, "a")
    desk.unpin(P, "a")
    sent = desk.fetch(P, "b", 3)
    assert "UNCOPIED" not in names(sent)
    assert only(desk.pass_time(TRIM_WAIT), "FETCHED") == [], "the maker has yet to answer"
    (answer,) = only(desk.give(desk.machine.peer(MAKER), m.TRIMMED, 1), "FETCHED")
    assert answer[5].startswith("ObjectStoreFull: no room for")
    assert "process 6f776e65 owns 131,072" in answer[5]


def test_processes_are_asked_for_what_they_keep_in_reserve() -> None:
    desk = Desk(4)
    maker = desk.machine.peer(MAKER)
    maker.kind = "worker"
    desk.machine.peer(FAR).kind = "node"
    desk.give(maker, m.EXTENT, 1, 2 * GRAIN)
    desk.give(desk.machine.peer(P), m.EXTENT, 1, GRAIN)
    desk.bring(Q, "z")
    sent = desk.fetch(P, "a")
    assert [frame[0] for frame in only(sent, "TRIM")] == [MAKER, P], "those that hold extents"
    assert names(desk.give(maker, m.EXTENT_BACK, 0)) == ["MOVE"]
    assert desk.pulls.deadline() == NEVER


def test_what_is_larger_than_the_arena_is_refused_at_once() -> None:
    desk = Desk(2)
    ((who, name, _, _, where, why),) = desk.fetch(P, "a", 3)
    assert (who, name, where) == (P, "FETCHED", [])
    assert why.startswith("ObjectStoreFull: no room for 196,608 bytes in the arena of 131,072")


def test_who_holds_everything_and_waits_for_more_is_refused() -> None:
    desk = Desk(2)
    desk.bring(P, "a", 2)
    assert only(desk.fetch(P, "b"), "FETCHED") == []
    (answer,) = only(desk.pass_time(TRIM_WAIT), "FETCHED")
    assert (answer[0], answer[2], answer[4]) == (P, ref("b"), [])
    assert "of copies, process 702e2e2e uses 131,072" in answer[5]


def test_others_are_given_time_to_release_what_they_use() -> None:
    desk = Desk(2)
    desk.bring(Q, "a", 2)
    desk.fetch(P, "b")
    desk.fetch(P, "c")
    desk.pass_time(TRIM_WAIT)
    desk.pass_time(PATIENCE - 0.1)
    assert desk.pulls.waiting[GET]
    answers = [only(desk.pass_time(seconds), "FETCHED") for seconds in (0.2, PATIENCE, 0.1)]
    assert [[frame[2] for frame in answer] for answer in answers] == [[ref("b")], [ref("c")], []]
    desk.fetch(P, "d")
    desk.pass_time(PATIENCE - 0.1)
    desk.unpin(Q, "a")
    assert desk.moving() == ["d"]


def test_small_mercies_do_not_keep_anybody_waiting_for_ever() -> None:
    desk = Desk(4)
    desk.bring(Q, "a", 2)
    desk.fetch(P, "b", 4)
    maker = desk.machine.peer(MAKER)
    maker.kind = "worker"
    rounds = 0
    while not only(desk.got, "FETCHED")[1:]:
        (grant,) = only(desk.give(maker, m.EXTENT, rounds, GRAIN), "EXTENT_GRANT")
        desk.give(maker, m.EXTENT_BACK, grant[3])
        desk.pass_time(1.0)
        rounds += 1
    assert rounds <= PATIENCE * PATIENCE_MOST + 1


def test_while_bytes_move_the_next_waits() -> None:
    desk = Desk(2)
    desk.fetch(P, "a", 2)
    desk.fetch(P, "b")
    desk.pass_time(PATIENCE)
    assert only(desk.got, "FETCHED") == []
    desk.moved("a")
    (answer,) = only(desk.pass_time(TRIM_WAIT), "FETCHED")
    assert answer[2] == ref("b")


def test_without_pages_idle_copies_lend_theirs_or_it_is_refused() -> None:
    desk = Desk(4)
    desk.bring(P, "a", 2)
    desk.unpin(P, "a")
    desk.pages = False
    sent = desk.fetch(P, "b", 2)
    assert names(sent) == ["UNCOPIED", "MOVE"]
    ((who, _, _, _, where, why),) = desk.fetch(Q, "c", 2)
    assert (who, where) == (Q, [])
    assert why.startswith("ObjectStoreFull: the machine is full; no room")


def test_queues_are_bounded() -> None:
    desk = Desk(8, pulls_max=2, moves_max=1)
    desk.fetch(P, "a")
    desk.fetch(P, "b")
    assert desk.moving() == ["a"], "as many as may move"
    ((_, _, _, _, where, why),) = desk.fetch(P, "c")
    assert where == []
    assert why.startswith("ObjectStoreFull")
    desk.moved("a")
    assert desk.moving() == ["b"]
