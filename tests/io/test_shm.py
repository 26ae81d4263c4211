"""The arena: one mapping, read-only views, pins that tell when they go."""

from __future__ import annotations

import gc
import mmap
import os
import resource
from collections import deque
from typing import Any

import numpy as np
import pytest

from freehold.io.shm import Arena, Cells

MIB = 1024 * 1024


@pytest.fixture
def arena() -> Any:
    made = Arena.create(4 * MIB)
    yield made
    made.close()


def test_what_is_written_is_read_by_every_mapping(arena: Arena) -> None:
    arena.reserve(0, 2 * MIB)
    other = Arena(os.dup(arena.fd), arena.size)
    large = os.urandom(300_000)
    for warm in (False, True):
        arena.write(64, [(0, b"head"), (64, large)], warm)
        assert bytes(other.read(64, 4)) == b"head"
        assert bytes(other.read(128, len(large))) == large
        arena.write(64, [(0, b"HEAD"), (64, memoryview(large)[::-1].tobytes())], warm)
        assert bytes(other.read(128, len(large))) == large[::-1]
    other.close()


def test_views_are_read_only(arena: Arena) -> None:
    arena.reserve(0, MIB)
    for view in (arena.read(0, 100), arena.pin(0, 100, deque(), "t")):
        assert view.readonly
        assert view.nbytes == 100
        with pytest.raises(TypeError):
            view[0] = 1  # type: ignore[index]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4096, 100_001, MIB])
def test_a_pin_lasts_as_long_as_any_view(arena: Arena, size: int) -> None:
    arena.reserve(0, 2 * MIB)
    arena.write(128, [(0, bytes(range(256)) * (size // 256) or b"x")], True)
    drops: deque[str] = deque()
    view = arena.pin(128, size, drops, "token")
    assert view.nbytes == size
    array = np.frombuffer(view, np.uint8)[size // 2 :]
    part = view[: size // 2 + 1]
    del view
    gc.collect()
    assert not drops
    del part
    assert not drops
    del array
    assert list(drops) == ["token"]


def test_a_pin_at_the_very_end(arena: Arena) -> None:
    arena.reserve(0, arena.size)
    drops: deque[str] = deque()
    assert arena.pin(arena.size - 65, 65, drops, "end").nbytes == 65
    assert list(drops) == ["end"]


def test_pages_are_allocated_ahead(arena: Arena) -> None:
    assert os.fstat(arena.fd).st_blocks == 0
    arena.reserve(0, MIB)
    assert os.fstat(arena.fd).st_blocks * 512 >= MIB
    arena.prepare(MIB, MIB)
    assert os.fstat(arena.fd).st_blocks * 512 >= 2 * MIB
    assert bytes(arena.read(MIB, 8)) == bytes(8)


def test_the_first_write_to_pages_of_others_is_not_a_fault_for_each(arena: Arena) -> None:
    arena.prepare(0, 4 * MIB)
    other = Arena(os.dup(arena.fd), arena.size)
    data = os.urandom(2 * MIB + 5)
    faults = []
    for start in (MIB + 64, MIB + 64, MIB - 200_000):  # anew, again, and in part
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        other.write(start, [(0, data)], True)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        assert bytes(arena.read(start, len(data))) == data
    pages = len(data) // mmap.PAGESIZE
    assert faults[0] < pages / 4, "each page was mapped by itself"
    assert faults[1] <= 2
    assert faults[2] < pages / 20
    other.close()


def test_an_arena_has_no_name() -> None:
    before = sorted(os.listdir("/dev/shm"))
    arena = Arena.create(MIB)
    assert sorted(os.listdir("/dev/shm")) == before
    arena.close()


def test_cells_wrap() -> None:
    cells = Cells()
    cells.cell(5)[:] = b"0123456789abcdef"
    assert bytes(cells.cell(5 + Cells.COUNT)) == b"0123456789abcdef"
    assert bytes(cells.cell(6)) == bytes(Cells.WIDTH)
