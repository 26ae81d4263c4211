"""The arena's bookkeeping: ranges of one big file, never the bytes themselves.

Two levels.  The node grants *extents* to processes (``Extents``); a process places objects inside
its own extents without asking anybody (``Heap``).  Free ranges are reused last in, first out, so
that pages stay warm, and neighbours coalesce, so that space does not crumble.  All offsets are
multiples of ``ALIGN``; sizes are bytes.
"""

from __future__ import annotations

ALIGN = 64  # of objects: what numpy and Arrow want
GRAIN = 64 * 1024  # of extents
EXTENT_MIN = 4 * 1024 * 1024
SHARED_SIZES = (EXTENT_MIN, 2 * EXTENT_MIN, 4 * EXTENT_MIN)  # of extents for several objects


def round_up(size: int, to: int) -> int:
    """The least multiple of ``to`` that is not below ``size``."""
    return -(-size // to) * to


class Ranges:
    """Free ranges of an address interval: first fit, most recently freed first."""

    def __init__(self) -> None:
        self._size_at: dict[int, int] = {}  # start -> size, in order of freeing
        self._start_of_end: dict[int, int] = {}
        self.free_bytes = 0

    def __len__(self) -> int:
        return len(self._size_at)

    def give(self, start: int, size: int) -> tuple[int, int]:
        """Add a range; returns the coalesced range that it became part of."""
        assert start not in self._size_at, f"range at {start} freed twice"
        self.free_bytes += size
        after = self._size_at.pop(start + size, None)
        if after is not None:
            del self._start_of_end[start + size + after]
            size += after
        before = self._start_of_end.pop(start, None)
        if before is not None:
            size += self._size_at.pop(before)
            start = before
        self._size_at[start] = size
        self._start_of_end[start + size] = start
        return start, size

    def take(self, size: int) -> int | None:
        """The start of a range of ``size`` bytes that was free, or None."""
        for start in reversed(self._size_at):
            if self._size_at[start] >= size:
                self.cut(start, size)
                return start
        return None

    def cut(self, start: int, size: int) -> None:
        """Take the first ``size`` bytes of the free range at ``start``."""
        had = self._size_at.pop(start)
        del self._start_of_end[start + had]
        self.free_bytes -= size
        if had > size:
            self._size_at[start + size] = had - size
            self._start_of_end[start + had] = start + size

    def items(self) -> list[tuple[int, int]]:
        """(start, size) of every free range."""
        return list(self._size_at.items())


class Extent:
    """A range of the arena that one process fills with objects."""

    __slots__ = ("free", "size", "start", "warm")

    def __init__(self, start: int, size: int, warm: bool) -> None:
        self.start = start
        self.size = size
        self.warm = start + size if warm else start  # below this, pages have been written
        self.free = Ranges()
        self.free.give(start, size)


class Heap:
    """The extents of one process.  ``place`` returns None when an extent must be had first."""

    def __init__(self, reserve: int) -> None:
        self.reserve = reserve  # bytes of empty extents to keep for reuse
        self.extents: dict[int, Extent] = {}
        self.sizes: dict[int, int] = {}  # of the objects, by offset
        self._extent_of: dict[int, Extent] = {}
        self.used = 0
        self.held = 0  # bytes in extents
        self.empty = 0  # bytes in those that hold nothing

    def add(self, start: int, size: int, warm: bool) -> None:
        """The node has granted an extent."""
        self.extents[start] = Extent(start, size, warm)
        self.held += size
        self.empty += size

    def place(self, size: int) -> int | None:
        """The offset for an object of ``size`` bytes, or None."""
        size = round_up(max(size, 1), ALIGN)
        for extent in reversed(self.extents.values()):
            if extent.free.free_bytes < size:
                continue
            if extent.free.free_bytes == extent.size:
                if self._wasteful(extent, size):
                    continue
                self.empty -= extent.size
            start = extent.free.take(size)
            if start is None:
                continue
            self.sizes[start] = size
            self._extent_of[start] = extent
            self.used += size
            return start
        return None

    def _wasteful(self, extent: Extent, size: int) -> bool:
        """Whether a small object would keep a large empty extent from its next large object."""
        return extent.size not in SHARED_SIZES and size * 4 < extent.size

    def is_warm(self, start: int, size: int) -> bool:
        """Whether the object's pages have been written before; from now on they have."""
        extent = self._extent_of[start]
        warm = start + size <= extent.warm
        extent.warm = max(extent.warm, start + size)
        return warm

    def request_size(self, size: int) -> int:
        """How large an extent to request for an object of ``size`` bytes.

        Who has much gets more at a time, so that it asks less often; at most as much as it has.
        """
        size = round_up(max(size, 1), ALIGN)
        for shared in reversed(SHARED_SIZES):
            if size * 3 <= shared and (shared == EXTENT_MIN or shared <= self.held):
                return shared
        return self.least_size(size)

    def least_size(self, size: int) -> int:
        """The smallest extent for an object of ``size`` bytes."""
        return round_up(max(size, 1), GRAIN)

    def free(self, start: int) -> list[int]:
        """Free the object at ``start``; returns the extents to give back to the node."""
        size = self.sizes.pop(start)
        extent = self._extent_of.pop(start)
        self.used -= size
        extent.free.give(start, size)
        del self.extents[extent.start]  # the most recently freed is tried first
        self.extents[extent.start] = extent
        if extent.free.free_bytes < extent.size:
            return []
        self.empty += extent.size
        return self.trim(self.reserve) if self.empty > self.reserve else []

    def trim(self, keep: int) -> list[int]:
        """Forget empty extents, the oldest first, down to ``keep`` bytes; returns their offsets."""
        gone = []
        for start, extent in list(self.extents.items()):
            if self.empty <= keep:
                break
            if extent.free.free_bytes == extent.size:
                self.empty -= extent.size
                self.held -= extent.size
                del self.extents[start]
                gone.append(start)
        return gone

    def check(self) -> None:
        """Every byte of every extent is either free or in exactly one object."""
        assert self.held == sum(extent.size for extent in self.extents.values())
        for extent in self.extents.values():
            marks = extent.free.items()
            marks += [
                (at, self.sizes[at]) for at, home in self._extent_of.items() if home is extent
            ]
            end = extent.start
            for start, size in sorted(marks):
                assert start == end, f"extent {extent.start}: gap or overlap at {start}"
                end = start + size
            assert end == extent.start + extent.size, f"extent {extent.start} ends at {end}"


class Extents:
    """The node's side: which process holds which range of the arena."""

    def __init__(self, size: int) -> None:
        self.size = round_up(size, GRAIN)
        self.ranges = Ranges()
        self.ranges.give(0, self.size)
        self.sizes: dict[int, int] = {}
        self.holders: dict[int, bytes] = {}
        self.peak = 0
        self.high = 0  # nothing above this offset has ever been granted

    @property
    def granted(self) -> int:
        """Bytes in the hands of processes."""
        return self.size - self.ranges.free_bytes

    def grant(self, holder: bytes, size: int) -> tuple[int, bool] | None:
        """(offset, whether its pages are warm), or None when there is no room."""
        size = round_up(max(size, 1), GRAIN)
        start = self.ranges.take(size)
        if start is None:
            return None
        self.sizes[start] = size
        self.holders[start] = holder
        warm = start + size <= self.high
        self.high = max(self.high, start + size)
        self.peak = max(self.peak, self.granted)
        return start, warm

    def back(self, start: int) -> None:
        """The extent is free again."""
        del self.holders[start]
        self.ranges.give(start, self.sizes.pop(start))

    def of(self, holder: bytes) -> list[int]:
        """The extents of one process."""
        return [start for start, who in self.holders.items() if who == holder]

    def check(self) -> None:
        """Granted and free ranges cover the arena exactly."""
        end = 0
        for start, size in sorted([*self.ranges.items(), *self.sizes.items()]):
            assert start == end, f"gap or overlap at {start}"
            end = start + size
        assert end == self.size
