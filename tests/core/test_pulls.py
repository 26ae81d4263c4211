"""Pulls: who waits for what, whose memory it is, and whom a node sends to whom."""

from __future__ import annotations

from typing import Any

import pytest

from freehold.core import messages as m
from freehold.core.arena import GRAIN
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node import Node
from freehold.core.pulls import ARGUMENT, GET, LOST, PATIENCE, PATIENCE_MOST, Pulls
from freehold.core.room import TRIM_WAIT
from freehold.core.serving import EARLY_WAIT
from freehold.core.store import Store
from freehold.errors import ProtocolError

NODE, FAR, OTHER = b"node....", b"far.....", b"other..."
FAR_AT, OTHER_AT = FAR.hex() + "||far:1", OTHER.hex() + "||other:1"
OWNER, MAKER = b"owner...", b"maker..."
OWNER_AT = FAR.hex() + "|/owner|"
P, Q = b"p.......", b"q......."


class Desk:
    """A node's store and pulls; the test plays everybody else."""

    def __init__(self, grains: int = 8, **limits: Any) -> None:
        self.now = 100.0
        self.machine = Machine(NODE, m.OPCODES)
        self.store = Store(self.machine, grains * GRAIN)
        self.addresses = {FAR: FAR_AT, OTHER: OTHER_AT}  # of the living nodes
        self.pulls = Pulls(self.machine, self.store, **limits)
        self.pulls.address_of = lambda node: self.addresses.get(node, "")
        self.pages = True  # the machine has memory for them
        self.got: list[tuple[Any, ...]] = []
        for id in (P, Q):
            self.machine.peer(id).kind = "worker"

    # -- frames -----------------------------------------------------------------------------------
    def give(self, peer: Peer, op: int, *fields: Any) -> list[tuple[Any, ...]]:
        """A frame arrives; returns what the node sends for it."""
        self.machine.handlers[op](peer, self.now, *fields)
        return self.settle()

    def settle(self) -> list[tuple[Any, ...]]:
        """Everything is flushed: (receiver, name, *fields) of what was sent."""
        found: list[tuple[Any, ...]] = []
        self.machine.settle(self.now)
        self.pulls.settle(self.now)
        while self.machine.dirty:
            dirty, self.machine.dirty = self.machine.dirty, []
            for peer in dirty:
                frames, peer.outbox = peer.outbox, []
                for op, *fields in frames:
                    if peer is self.store.arena:
                        reason = "" if self.pages else "the machine is full"
                        self.machine.handlers[m.RESERVED](peer, self.now, fields[0], reason)
                    else:
                        found.append((peer.id or peer.kind, m.NAMES[op], *fields))
            self.pulls.settle(self.now)
        self.store.check()
        self.pulls.check()
        self.got += found
        return found

    def pass_time(self, seconds: float) -> list[tuple[Any, ...]]:
        self.now += seconds
        self.store.on_timer(self.now)
        self.pulls.on_timer(self.now)
        return self.settle()

    # -- processes --------------------------------------------------------------------------------
    def fetch(self, process: bytes, name: str, grains: float = 1, kind: int = GET) -> Any:
        return self.ask(process, name, place(name, grains), kind)

    def ask(self, process: bytes, name: str, where: list[Any], kind: int = GET) -> Any:
        """FETCH of what lies at that place."""
        peer = self.machine.peer(process)
        return self.give(peer, m.FETCH, ref(name), where, OWNER, OWNER_AT, kind)

    def unpin(self, process: bytes, *names: str) -> Any:
        return self.give(self.machine.peer(process), m.UNPIN, [ref(name) for name in names])

    def free(self, name: str) -> Any:
        """Its owner, which lives on another node, needs it no longer."""
        self.store.free_for(OWNER, [[ref(name), NODE]])
        return self.settle()

    def node_down(self, node: bytes) -> Any:
        """The head has said that the node is dead."""
        self.addresses.pop(node, None)
        self.pulls.on_node_down(node)
        return self.settle()

    # -- the mover --------------------------------------------------------------------------------
    def moving(self) -> list[str]:
        return [pull.key[0].decode().strip(".") for pull in self.pulls.moving.values()]

    def moved(self, name: str, have: int | None = None, reason: str = "", other: str = "") -> Any:
        (pull,) = [pull for pull in self.pulls.moving.values() if pull.key[0] == ref(name)]
        have = pull.size if have is None else have
        return self.give(self.pulls.mover, m.MOVED, pull.transfer, have, reason, other)

    def bring(self, process: bytes, name: str, grains: float = 1) -> list[Any]:
        """Fetch it, and it comes; returns its place."""
        self.fetch(process, name, grains)
        (found,) = only(self.moved(name), "FETCHED")
        assert found[5] == ""
        return list(found[4])

    def serve(self, number: int, where: list[Any], name: str, node: str, direct: bool = False):  # type: ignore[no-untyped-def]
        fields = (number, ref(name), where, node.encode().ljust(8, b"."), node, direct)
        return only(self.give(self.pulls.mover, m.SERVE, *fields), "SERVING")

    def served(self, number: int, done: bool = True) -> Any:
        return self.give(self.pulls.mover, m.SERVED, number, done)

    def make(self, name: str, grains: int = 1) -> list[Any]:
        """A process here makes an object; returns its place."""
        maker = self.machine.peer(MAKER)
        maker.kind = "worker"
        (grant,) = only(self.give(maker, m.EXTENT, 1, grains * GRAIN), "EXTENT_GRANT")
        assert grant[4], grant
        size = grains * GRAIN
        self.give(maker, m.SEAL, ref(name), OWNER, FAR, grant[3], size, [])
        return [MAKER, grant[3], size, NODE]


def ref(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def place(name: str, grains: float = 1) -> list[Any]:
    return [MAKER, GRAIN * ord(name[0]), int(grains * GRAIN), FAR]


def only(frames: list[tuple[Any, ...]], name: str) -> list[tuple[Any, ...]]:
    return [frame for frame in frames if frame[1] == name]


def names(frames: list[tuple[Any, ...]]) -> list[str]:
    return [frame[1] for frame in frames]


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


def test_unpin_ends_the_oldest_pin_of_that_object() -> None:
    desk = Desk()
    desk.bring(P, "a")
    desk.bring(P, "b")
    elsewhere = [MAKER, 0, GRAIN, OTHER]
    desk.ask(P, "a", elsewhere)
    desk.moved("a")
    copies = {copy.key: copy for copy in desk.pulls.copies.by_offset.values()}
    desk.unpin(P, "a")
    held = [key for key, copy in copies.items() if P in copy.pins]
    assert sorted(key[3] for key in held if key[0] == ref("a")) == [OTHER]
    desk.unpin(P, "a", "b", "a", "b")
    assert desk.pulls.snapshot()["pins"] == 0


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


# -- memory ----------------------------------------------------------------------------------------
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


# -- serving ---------------------------------------------------------------------------------------
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
