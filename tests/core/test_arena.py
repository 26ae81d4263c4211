"""Ranges, heaps and extents against a map of bytes, and by example."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from freehold.core.arena import ALIGN, EXTENT_MIN, GRAIN, Extents, Heap, Ranges, round_up
from stateful import effort

SIZE = 64


class RangesModel(RuleBasedStateMachine):
    """Ranges beside a list that says of each byte whether it is free."""

    taken: Bundle[tuple[int, int]] = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.ranges = Ranges()
        self.ranges.give(0, SIZE)
        self.free = [True] * SIZE

    def longest(self) -> int:
        runs = "".join("x" if free else " " for free in self.free).split()
        return max((len(run) for run in runs), default=0)

    @rule(target=taken, size=st.integers(1, 20))
    def take(self, size: int) -> tuple[int, int]:
        start = self.ranges.take(size)
        if start is None:
            assert self.longest() < size, "there was room"
            return (0, 0)
        assert all(self.free[start : start + size]), "taken twice"
        self.free[start : start + size] = [False] * size
        return (start, size)

    @rule(which=consumes(taken))
    def give(self, which: tuple[int, int]) -> None:
        start, size = which
        if size:
            begin, length = self.ranges.give(start, size)
            assert begin <= start
            assert begin + length >= start + size
            self.free[start : start + size] = [True] * size

    @invariant()
    def agrees(self) -> None:
        model = [False] * SIZE
        for start, size in self.ranges.items():
            assert not any(model[start : start + size])
            model[start : start + size] = [True] * size
        assert model == self.free
        assert self.ranges.free_bytes == sum(self.free)
        ends = {start + size for start, size in self.ranges.items()}
        assert not ends & {start for start, _ in self.ranges.items()}, "neighbours do not coalesce"


class HeapModel(RuleBasedStateMachine):
    """A node's extents and two processes' heaps: nobody's objects overlap, and all comes back."""

    placed: Bundle[tuple[int, int]] = Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.extents = Extents(8 * EXTENT_MIN)
        self.heaps = [Heap(0), Heap(EXTENT_MIN)]
        self.objects: dict[int, int] = {}

    @rule(
        target=placed,
        who=st.integers(0, 1),
        size=st.one_of(st.integers(1, 5000), st.integers(1, 3 * EXTENT_MIN)),
    )
    def place(self, who: int, size: int) -> tuple[int, int]:
        heap = self.heaps[who]
        start = heap.place(size)
        if start is None:
            asked = round_up(heap.request_size(size), GRAIN)
            granted = self.extents.grant(b"%d" % who, asked)
            if granted is None:
                return (who, -1)
            heap.add(granted[0], self.extents.sizes[granted[0]], granted[1])
            start = heap.place(size)
            assert start is not None, "an extent was granted for it"
        assert start % ALIGN == 0
        end = start + size
        for other, length in self.objects.items():
            assert end <= other or other + length <= start, "two objects overlap"
        self.objects[start] = size
        return (who, start)

    @rule(which=consumes(placed))
    def free(self, which: tuple[int, int]) -> None:
        who, start = which
        if start >= 0:
            del self.objects[start]
            for extent in self.heaps[who].free(start):
                self.extents.back(extent)

    @rule(who=st.integers(0, 1))
    def trim(self, who: int) -> None:
        for extent in self.heaps[who].trim(0):
            self.extents.back(extent)
        assert self.heaps[who].empty == 0

    @invariant()
    def adds_up(self) -> None:
        self.extents.check()
        for heap in self.heaps:
            heap.check()
        held = {start for heap in self.heaps for start in heap.extents}
        assert held == set(self.extents.sizes)
        used = sum(round_up(size, ALIGN) for size in self.objects.values())
        assert sum(heap.used for heap in self.heaps) == used
        assert self.heaps[0].empty == 0, "nothing is kept in reserve, yet an extent is empty"


TestRanges = RangesModel.TestCase
TestRanges.settings = effort(100, 30)
TestHeap = HeapModel.TestCase
TestHeap.settings = effort(150, 30)


def test_free_ranges_are_reused_last_in_first_out() -> None:
    ranges = Ranges()
    ranges.give(0, 10)
    ranges.give(20, 10)
    assert ranges.take(10) == 20
    assert ranges.take(11) is None


def test_a_range_that_is_freed_twice_is_an_error() -> None:
    ranges = Ranges()
    ranges.give(0, 10)
    with pytest.raises(AssertionError, match="freed twice"):
        ranges.give(0, 10)


def test_pages_are_warm_once_they_have_been_written() -> None:
    heap = Heap(1 << 30)
    heap.add(0, EXTENT_MIN, warm=False)
    first = heap.place(1000)
    assert first == 0
    assert not heap.is_warm(first, 1000)
    heap.free(first)
    again = heap.place(500)
    assert again == 0
    assert heap.is_warm(again, 500)


def test_a_small_object_leaves_a_large_empty_extent_alone() -> None:
    heap = Heap(1 << 30)
    heap.add(0, 8 * EXTENT_MIN, warm=False)
    assert heap.place(100) is None
    assert heap.place(4 * EXTENT_MIN) == 0


def test_extents_know_what_was_granted_before() -> None:
    extents = Extents(4 * GRAIN)
    assert extents.grant(b"a", GRAIN) == (0, False)
    assert extents.grant(b"b", 3 * GRAIN) == (GRAIN, False)
    assert extents.grant(b"a", 1) is None
    assert extents.granted == extents.peak == 4 * GRAIN
    extents.back(0)
    assert extents.of(b"a") == []
    assert extents.grant(b"c", GRAIN) == (0, True)
    assert extents.of(b"b") == [GRAIN]
