"""Pulls: who waits for what, and from where it comes."""

from __future__ import annotations

from typing import Any

import pytest

from desks import (
    FAR,
    FAR_AT,
    MAKER,
    NODE,
    OTHER,
    OTHER_AT,
    OWNER,
    OWNER_AT,
    Desk,
    P,
    Q,
    names,
    only,
    place,
    ref,
)
from freehold.core import messages as m
from freehold.core.arena import GRAIN
from freehold.core.node.node import Node
from freehold.core.node.pulls import GET, LOST
from freehold.errors import ProtocolError


# -- one pull for all ------------------------------------------------------------------------------
def test_one_pull_serves_all_who_ask_and_the_owner_is_told() -> None:
    desk = Desk()
    (move,) = desk.fetch(P, "a")
    assert move == ("mover", "MOVE", 1, FAR_AT, ref("a"), place("a"), 0, 0, False)
    assert desk.fetch(Q, "a") == []
    here = [NODE, 0, GRAIN, NODE]
    assert desk.moved("a") == [
        (OWNER, "COPIED", ref("a"), here),
        (P, "FETCHED", ref("a"), place("a"), here, ""),
        (Q, "FETCHED", ref("a"), place("a"), here, ""),
    ]
    assert desk.fetch(P, "a") == [(P, "FETCHED", ref("a"), place("a"), here, "")]
    assert desk.pulls.snapshot()["pins"] == 2


def test_a_copy_stays_after_its_last_pin_until_the_owner_frees_it() -> None:
    desk = Desk()
    here = desk.bring(P, "a")
    desk.unpin(P, "a")
    (again,) = desk.fetch(Q, "a")
    assert again[4] == here
    desk.unpin(Q, "a")
    assert desk.free("a") == []
    assert desk.store.extents.granted == 0
    assert names(desk.fetch(Q, "a")) == ["MOVE"]


def test_a_freed_copy_goes_with_its_last_reader_and_is_found_by_nobody() -> None:
    desk = Desk()
    here = desk.bring(P, "a")
    assert desk.serve(7, here, "a", "x")[0][3:6] == (0, GRAIN, GRAIN)
    desk.free("a")
    assert desk.serve(8, here, "a", "y")[0][3] == -1
    (move,) = desk.fetch(Q, "a")  # made again at the same place, it may be another value
    assert move[1] == "MOVE"
    assert move[7] == GRAIN
    desk.unpin(P, "a")
    assert desk.store.extents.granted == 2 * GRAIN
    desk.served(7)
    assert desk.store.extents.granted == GRAIN


def test_another_size_at_the_same_place_is_another_value() -> None:
    desk = Desk()
    desk.bring(P, "a")
    desk.fetch(Q, "b", 1)
    (answer,) = desk.fetch(P, "b", 2)
    assert answer[4:] == ([], LOST)
    sent = desk.fetch(Q, "a", 2)
    assert names(sent) == ["UNCOPIED", "MOVE"]


def test_unpin_ends_the_pin_of_that_copy() -> None:
    """A process may read two values of one id: of two runs, or of two owners."""
    desk = Desk()
    first = desk.bring(P, "a")
    desk.ask(P, "a", [MAKER, 0, GRAIN, OTHER])
    ((_, _, _, _, second, _),) = only(desk.moved("a"), "FETCHED")
    desk.ask(Q, "a", [MAKER, 0, GRAIN, OTHER])
    copies = desk.pulls.copies.by_offset
    for here, left in ((second, [first]), (second, [first]), (first, [])):
        desk.give(desk.machine.peer(P), m.UNPIN, [here[1], 7])
        assert [copy.offset for copy in copies.values() if P in copy.pins] == [
            each[1] for each in left
        ]
    assert list(copies[second[1]].pins) == [Q]


def test_what_lies_here_is_answered_with_its_place() -> None:
    desk = Desk()
    where = desk.make("m")
    here = desk.bring(P, "a")
    for name, at in (("m", where), ("a", here)):
        (found,) = desk.ask(Q, name, at)
        assert found == (Q, "FETCHED", ref(name), at, at, "")
    for at in ([MAKER, 3 * GRAIN, GRAIN, NODE], [NODE, 3 * GRAIN, GRAIN, NODE]):
        (found,) = desk.ask(Q, "n", at)
        assert found[4:] == ([], LOST)


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ([MAKER, 0, 5], 0),
        ([MAKER, 0, "5", FAR], 0),
        (["m", 0, 5, FAR], 0),
        ([MAKER, -1, 5, FAR], 0),
        ([MAKER, 0, 0, FAR], 0),
        ([MAKER, 0, True, FAR], 0),
        ([MAKER, 0, 5, FAR], 2),
    ],
)
def test_a_foolish_place_is_an_error(where: list[Any], kind: int) -> None:
    desk = Desk()
    with pytest.raises(ProtocolError):
        desk.ask(P, "a", where, kind)
    assert not desk.pulls.pulls


# -- sources ---------------------------------------------------------------------------------------
def test_gone_is_lost() -> None:
    desk = Desk()
    desk.fetch(P, "a")
    desk.fetch(Q, "a")
    found = desk.moved("a", 0, "gone")
    assert [(frame[0], *frame[4:]) for frame in found] == [(P, [], LOST), (Q, [], LOST)]
    assert desk.store.extents.granted == 0


def test_a_node_from_which_no_bytes_come_is_looked_at() -> None:
    desk = Desk()
    missed: list[bytes] = []
    desk.pulls.on_trouble = lambda node, now: missed.append(node)
    desk.fetch(P, "a")
    desk.moved("a", 10, "the connection broke")
    assert missed == [FAR]
    desk.pass_time(1.0)
    desk.moved("a", 10, "gone")
    desk.fetch(P, "b")
    desk.moved("b", 10, "", OTHER_AT)  # ask that one instead
    desk.moved("b", 10, "refused")
    assert missed == [FAR, OTHER]


def test_after_a_broken_connection_it_goes_on_from_the_bytes_it_has() -> None:
    desk = Desk()
    desk.fetch(P, "a")
    pauses = []
    for have in (1000, 1000, 1000, 5000):
        assert desk.moved("a", have, "broken") == []
        pauses.append(desk.pulls.deadline() - desk.now)
        (move,) = desk.pass_time(pauses[-1])
        assert move[1] == "MOVE"
        assert move[6] == have
        assert move[8], "its second question is for that node alone"
    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[3] == pauses[0], "there was progress"
    assert names(desk.moved("a")) == ["COPIED", "FETCHED"]


@pytest.mark.parametrize("state", ["waiting", "moving", "resting"])
def test_a_dead_node_s_objects_are_lost(state: str) -> None:
    desk = Desk(1)
    if state == "waiting":
        desk.bring(Q, "z")
    desk.fetch(P, "a")
    if state == "resting":
        desk.moved("a", 10, "broken")
    sent = desk.node_down(FAR)
    if state == "moving":
        assert sent == [("mover", "HALT", True, 1)]
        sent = desk.moved("a", 10, "halted")
    (answer,) = only(sent, "FETCHED")
    assert answer[4:] == ([], LOST)
    (again,) = desk.fetch(P, "b")
    assert again[4:] == ([], LOST), "known from the beginning"


def test_another_node_is_asked_instead_and_if_it_fails_the_first_one_itself() -> None:
    desk = Desk()
    desk.fetch(P, "a")
    (move,) = desk.moved("a", 0, "", OTHER_AT)
    assert move[3] == OTHER_AT
    assert (move[5], move[8]) == (place("a"), False)
    (move,) = desk.moved("a", 77, "gone")
    assert (move[3], move[6], move[8]) == (FAR_AT, 77, True)
    assert desk.moved("a", 77, "", OTHER_AT) == []  # it was told not to
    assert desk.pulls.snapshot()["resting"] == 1


def test_nobody_is_sent_to_a_dead_node() -> None:
    desk = Desk()
    desk.pulls.on_node_down(OTHER)
    desk.fetch(P, "a")
    assert desk.moved("a", 0, "", OTHER_AT) == []
    (move,) = desk.pass_time(1.0)
    assert (move[3], move[8]) == (FAR_AT, True)


def test_a_pull_by_way_of_another_outlives_the_node_that_was_named() -> None:
    desk = Desk()
    for name in "ab":
        desk.fetch(P, name)
        desk.moved(name, 0, "", OTHER_AT)
    assert desk.node_down(FAR) == []
    found = desk.moved("a")
    assert only(found, "FETCHED")[0][5] == ""
    assert only(found, "COPIED") == [], "its owner died with that node"
    assert names(desk.node_down(OTHER)) == ["HALT"]
    assert only(desk.moved("b", 5, "halted"), "FETCHED")[0][5] == LOST


def test_when_all_who_asked_are_dead_the_pull_ends() -> None:
    desk = Desk(1)
    desk.fetch(P, "a")
    desk.fetch(Q, "b")
    for who in (P, Q):
        desk.pulls.on_death(who)
    assert desk.settle() == [("mover", "HALT", True, 1)]
    assert desk.store.extents.granted == GRAIN, "the mover may still write there"
    desk.moved("a", GRAIN)  # even if it has come: who knows what was sent
    assert desk.store.extents.granted == 0
    assert not desk.pulls.pulls


def test_who_asks_while_a_pull_is_being_given_up_gets_it_still() -> None:
    desk = Desk()
    desk.fetch(P, "a")
    desk.pulls.on_death(P)
    desk.fetch(Q, "a")
    desk.moved("a", 10, "halted")
    desk.pass_time(1.0)
    (found,) = only(desk.moved("a"), "FETCHED")
    assert found[0] == Q


def test_a_dead_process_pins_nothing_and_a_dead_owner_s_copies_are_kept_for_nobody() -> None:
    desk = Desk()
    desk.bring(P, "a")
    desk.bring(Q, "b")
    desk.pulls.on_death(P)
    assert desk.pulls.snapshot()["pins"] == 1
    desk.pulls.on_death(OWNER)
    desk.settle()
    assert desk.store.extents.granted == GRAIN
    desk.unpin(Q, "b")
    assert desk.store.extents.granted == 0


# -- the node --------------------------------------------------------------------------------------
def node_of_two_drivers() -> Node:
    """A node that knows another, FAR; P and Q live here."""
    node = Node(NODE, cpus=1.0, arena_bytes=8 * GRAIN, prestart=0)
    node.neighbours.node_up(FAR, FAR_AT, [])
    for id in (P, Q):
        peer = node.peer(id)
        peer.kind = "driver"
        node.on_up(peer, 0.0, {})
    return node


def test_the_node_s_own_adopted_objects_are_freed_wherever_there_are_copies() -> None:
    node = node_of_two_drivers()
    holder, owner, far = node.peers[P], node.peers[Q], node.peer(FAR)
    node.handlers[m.EXTENT](holder, 0.0, 1, GRAIN)
    node.store.on_reserved(node.store.arena, 0.0, GRAIN, "")
    node.handlers[m.SEAL](holder, 0.0, ref("a"), owner.id, b"", 0, GRAIN, [])
    node.on_down(owner, 0.0)
    node.handlers[m.HELD](holder, 0.0, owner.id, [[ref("a"), b"ticket", False, True]], [], [], [])
    assert list(node.estates.adopted) == [ref("a")]
    where = [FAR, 0, GRAIN, FAR]
    node.handlers[m.COPIED](far, 0.0, ref("a"), where)
    node.handlers[m.COPIED](far, 0.0, ref("b"), where)
    assert far.outbox == [(m.FREE_FOR, NODE, [[ref("b"), FAR]])]
    elsewhere = [OTHER, 0, GRAIN, OTHER]
    node.handlers[m.COPIED](node.peer(OTHER), 0.0, ref("a"), elsewhere)
    node.handlers[m.UNCOPIED](node.peer(OTHER), 0.0, ref("a"), elsewhere)
    node.handlers[m.RELEASE](holder, 0.0, [[ref("a"), b"ticket"]])
    assert far.outbox[1:] == [(m.FREE_FOR, NODE, [[ref("a"), FAR]])]
    assert node.peers[OTHER].outbox == []
    assert not node.store.objects
    assert not node.estates.adopted


def test_the_node_pulls_and_says_so() -> None:
    node = node_of_two_drivers()
    node.handlers[m.FETCH](node.peers[P], 1.0, ref("a"), place("a"), OWNER, OWNER_AT, GET)
    node.settle(1.0)
    node.store.on_reserved(node.store.arena, 1.0, GRAIN, "")
    (move,) = node.pulls.mover.outbox
    assert move[:3] == (m.MOVE, 1, FAR_AT)
    assert node.snapshot()["pulls"]["moving"] == 1
    node.handlers[m.MOVED](node.pulls.mover, 1.0, 1, 10, "broken", "")
    assert node.deadline() < 2.0
    node.on_timer(2.0)
    assert [frame[0] for frame in node.pulls.mover.outbox] == [m.MOVE] * 2
    node.check()


def test_the_node_asks_nobody_whom_it_knows_to_be_dead() -> None:
    node = node_of_two_drivers()
    node.neighbours.node_down(FAR, "it is dead", 1.0)
    node.peers[P].outbox.clear()
    node.handlers[m.FETCH](node.peers[P], 1.0, ref("a"), place("a"), OWNER, OWNER_AT, GET)
    assert node.peers[P].outbox == [(m.FETCHED, ref("a"), place("a"), [], LOST)]
