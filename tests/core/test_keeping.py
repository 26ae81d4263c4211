"""The rows of which copies are kept: who is asked, when, and what is freed."""

from __future__ import annotations

from typing import Any

import pytest

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import SHARED
from freehold.core.process.process import Process
from freehold.core.process.rows import Row

ME, WORKER, HOME, B, C = (name * 8 for name in (b"m", b"w", b"h", b"b", b"c"))
ID = b"i" * 16


class Bench:
    """A process whose node is played by the test."""

    def __init__(self) -> None:
        self.process = Process(ME, "me")
        self.node = Peer(HOME, "home", "node")
        self.process.owner.node = self.node
        self.process.home = HOME
        self.row = self.process.owner.put(ID, SHARED, [WORKER, 0, 100, HOME])
        self.row.handles = 1

    def asked(self) -> list[tuple[Any, ...]]:
        """What the node was asked since the last time."""
        self.process.settle(0.0)
        frames, self.node.outbox = self.node.outbox, []
        return [frame for frame in frames if frame[0] in (m.COPY, m.FREE)]

    def says(self, op: int, *fields: Any) -> None:
        self.process.handlers[op](self.node, 0.0, *fields)

    def kept(self, node: bytes, offset: int = 0) -> list[Any]:
        """A node has made the copy that was asked for; its place."""
        place = [node, offset, 100, node]
        self.says(m.COPIED, ID, place)
        self.says(m.KEPT, ID, node, place, "")
        return place

    def lost(self, node: bytes) -> None:
        self.says(m.NODE_LOST, node, "it died", True, [])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def places(row: Row) -> list[bytes]:
    assert row.more is not None
    return [place[3] for place in [row.data, *row.more.copies]]


def test_as_many_copies_are_asked_for_as_are_missing_one_by_one(bench: Bench) -> None:
    entry = bench.process.keeping.want(bench.row, 3)
    assert bench.asked() == [(m.COPY, ID, bench.row.data, [HOME])]
    bench.kept(B)
    assert bench.asked() == [(m.COPY, ID, bench.row.data, [B, HOME])]
    assert not bench.process.keeping.is_met(entry)
    bench.kept(C)
    assert bench.asked() == []
    assert bench.process.keeping.is_met(entry)
    assert places(bench.row) == [HOME, B, C]


def test_a_copy_that_may_make_room_does_not_count(bench: Bench) -> None:
    bench.says(m.COPIED, ID, [B, 0, 100, B])
    bench.process.keeping.want(bench.row, 2)
    assert [frame[3] for frame in bench.asked()] == [[HOME]]


def test_a_lost_copy_is_asked_for_anew(bench: Bench) -> None:
    bench.process.keeping.want(bench.row, 2)
    bench.kept(B)
    bench.asked()
    bench.lost(B)
    assert bench.asked() == [(m.COPY, ID, bench.row.data, [HOME])]
    bench.kept(C)
    assert places(bench.row) == [HOME, C]


def test_when_a_node_cannot_another_is_asked_and_the_last_one_says_why(bench: Bench) -> None:
    entry = bench.process.keeping.want(bench.row, 2)
    bench.asked()
    bench.says(m.KEPT, ID, B, [], "it is full")
    assert bench.asked() == [(m.COPY, ID, bench.row.data, [B, HOME])]
    bench.says(m.KEPT, ID, b"", [], "nobody")
    assert bench.asked() == []
    assert entry.why == "nobody; it is full"
    bench.says(m.CLUSTER, {"CPU": 1.0}, 3)  # a node has joined
    assert bench.asked() == [(m.COPY, ID, bench.row.data, [HOME])]


def test_what_leaves_is_freed_when_another_place_is_there(bench: Bench) -> None:
    old = bench.row.data
    bench.says(m.DEPART, ME, ID, old)
    bench.says(m.DEPART, ME, ID, old)  # twice does not matter
    assert bench.asked() == [(m.COPY, ID, old, [HOME])]
    new = bench.kept(B)
    assert bench.row.data == new
    assert bench.asked() == [(m.FREE, [[ID, WORKER, HOME]])]
    assert bench.process.keeping.rows == {}
    bench.says(m.DEPART, ME, ID, new)  # that node leaves, too
    assert bench.asked() == [(m.COPY, ID, new, [B])]


def test_a_copy_that_leaves_is_replaced_and_the_first_place_stays(bench: Bench) -> None:
    bench.process.keeping.want(bench.row, 2)
    leaving = bench.kept(B)
    bench.asked()
    bench.says(m.DEPART, ME, ID, leaving)
    assert bench.asked() == [(m.COPY, ID, bench.row.data, [B, HOME])]
    bench.kept(C)
    assert places(bench.row) == [HOME, C]
    assert bench.asked() == [(m.FREE, [[ID, B, B]])]


def test_what_was_freed_meanwhile_is_nobody_s(bench: Bench) -> None:
    bench.process.keeping.want(bench.row, 2)
    bench.asked()
    bench.process.owner.drop(bench.row)
    assert bench.asked() == [(m.FREE, [[ID, WORKER, HOME]])]
    assert bench.process.keeping.rows == {}
    bench.kept(B)  # the answer to what had been asked before
    assert bench.asked() == [(m.FREE, [[ID, B, B]])]
    bench.says(m.DEPART, ME, ID, [WORKER, 0, 100, HOME])
    assert bench.asked() == []


def test_a_copy_too_many_is_freed(bench: Bench) -> None:
    bench.process.keeping.want(bench.row, 2)
    bench.says(m.CLUSTER, {"CPU": 1.0}, 4)  # asks again: whoever was asked may be dead
    bench.asked()
    bench.kept(B)
    bench.kept(C)
    assert places(bench.row) == [HOME, B]
    assert bench.asked() == [(m.FREE, [[ID, C, C]])]
