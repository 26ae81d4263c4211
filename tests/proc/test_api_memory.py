"""Large values: read in place, read-only, pinned by their views; limits that are enforced."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import freehold as fh
from sessions import MIB, until

pytestmark = pytest.mark.usefixtures("session")


def stored() -> int:
    return int(fh.status()["objects"]["bytes"])


@fh.remote
def total(array: Any) -> float:
    return float(array.sum())


@fh.remote
def ones(count: int) -> Any:
    return np.ones(count)


def test_arrays_are_read_in_place_and_read_only() -> None:
    array = np.arange(500_000, dtype=np.float64)
    ref = fh.put(array)
    first, second = fh.get(ref), fh.get(ref)
    assert np.array_equal(first, array)
    assert not first.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    assert np.shares_memory(first, second) or first.ctypes.data == second.ctypes.data
    assert first.ctypes.data % 64 == 0
    assert fh.get(total.remote(ref)) == array.sum()


def test_a_worker_reads_in_place_too() -> None:
    @fh.remote
    def writeable(array: Any) -> bool:
        return bool(array.flags.writeable)

    assert fh.get(writeable.remote(fh.put(np.zeros(100_000)))) is False
    assert fh.get(writeable.remote(np.zeros(100_000))) is False


def test_a_view_pins_the_value() -> None:
    before = np.arange(MIB // 8, dtype=np.int64)
    ref = fh.put(before)
    part = fh.get(ref)[1000:2000]
    del ref
    gc.collect()
    for _ in range(20):  # would overwrite it, were it free
        fh.get(ones.remote(MIB // 8))
        fh.put(np.zeros(MIB // 8))
    assert np.array_equal(part, before[1000:2000])
    assert stored() >= MIB
    del part
    until(lambda: stored() == 0, 2)


def test_a_view_in_an_actor_pins_the_value() -> None:
    @fh.remote
    class Holder:
        def keep(self, array: Any) -> None:
            self.part = array[10:20]

        def read(self) -> list[float]:
            return [float(x) for x in self.part]

    holder = Holder.remote()
    fh.get(holder.keep.remote(fh.put(np.arange(MIB // 8, dtype=np.float64))))
    for _ in range(10):
        fh.put(np.zeros(MIB // 8))
    assert fh.get(holder.read.remote()) == list(range(10, 20))
    assert stored() >= MIB
    fh.kill(holder)
    until(lambda: stored() == 0, 2)


def test_memoryviews_keep_their_shape_and_bytes_are_bytes() -> None:
    view = memoryview(np.arange(60_000, dtype=np.int32).reshape(200, 300))
    again = fh.get(fh.put(view))
    assert (again.format, again.shape, again.readonly) == ("i", (200, 300), True)
    assert again == view
    big = bytes(range(256)) * 2000
    assert fh.get(fh.put(big)) == big
    assert isinstance(fh.get(fh.put(big)), bytes)
    assert fh.get(fh.put(bytearray(big))) == bytearray(big)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros((0, 3)),
        lambda: np.array(5),
        lambda: np.arange(200_000).reshape(400, 500).T,
        lambda: np.arange(200_000)[::3],
        lambda: np.array(["a", None, {"k": 1}], dtype=object),
        lambda: np.zeros(50_000, dtype=[("a", "i4"), ("b", "f8")]),
        lambda: np.arange(100_000).astype("datetime64[s]"),
        lambda: {"a": np.ones(100_000), "b": [np.zeros(100_000), b"x" * 200_000]},
    ],
)
def test_arrays_of_all_kinds_travel(make: Any) -> None:
    value = make()

    @fh.remote
    def same(x: Any) -> Any:
        return x

    for again in (fh.get(fh.put(value)), fh.get(same.remote(value))):
        np.testing.assert_equal(again, value)


def test_inline_and_shared_meet_at_the_limit() -> None:
    limit = 100 * 1024
    for size in (limit - 200, limit - 1, limit, limit + 1, limit + 200):
        data = bytes(size)

        @fh.remote
        def same(x: Any) -> Any:
            return x

        assert fh.get(fh.put(data)) == data
        assert fh.get(same.remote(data)) == data
        assert fh.get(same.remote(fh.put(data))) == data


def test_the_size_of_arguments_shifts_no_ids() -> None:
    """A re-run finds the same ids, although addresses inside its arguments have other lengths."""
    before = fh.put(0)
    calls = [total.remote(np.ones(count)) for count in (10, 100_000, 10)]
    after = fh.put(0)
    numbers = [int(ref.hex(), 16) for ref in (before, *calls, after)]
    assert [number - numbers[0] for number in numbers] == [0, 1, 2, 3, 4]
    assert fh.get(calls) == [10.0, 100_000.0, 10.0]


def test_memory_is_recycled() -> None:
    for _ in range(60):  # of 16 MiB each, in an arena of 256
        ref = fh.put(np.ones(2 * MIB))
        assert fh.get(total.remote(ref)) == 2 * MIB
        del ref
    assert fh.status()["arena"]["peak"] < 150 * MIB


def test_a_value_that_does_not_fit_says_who_holds_what() -> None:
    kept = [fh.put(np.ones(4 * MIB)) for _ in range(4)]  # 128 MiB
    with pytest.raises(fh.ObjectStoreFull, match=r"4 objects hold 134,.*owns 134,.*_max"):
        fh.put(np.ones(20 * MIB))
    with pytest.raises(fh.ObjectStoreFull):
        fh.put(np.ones(40 * MIB))
    with pytest.raises(MemoryError):
        fh.get(ones.remote(20 * MIB), timeout=20)
    with pytest.raises(fh.ObjectStoreFull):
        total.remote(np.ones(20 * MIB))
    del kept
    until(lambda: stored() == 0, 2)
    assert fh.get(total.remote(ones.remote(20 * MIB)), timeout=20) == 20 * MIB


def test_a_memory_limit_is_enforced() -> None:
    @fh.remote(memory=200 * MIB)
    def use(count: int) -> int:
        return len(bytearray(count))

    assert fh.get(use.remote(50 * MIB)) == 50 * MIB
    with pytest.raises(fh.OutOfMemory, match="went over its limit, memory=209,715,200 bytes") as e:
        fh.get(use.remote(900 * MIB))
    assert isinstance(e.value, MemoryError)
    assert fh.get(use.options(memory=None).remote(300 * MIB)) == 300 * MIB


def test_a_memory_limit_of_an_actor() -> None:
    @fh.remote(memory=200 * MIB)
    class Grower:
        def grow(self, count: int) -> int:
            return len(bytearray(count))

    grower = Grower.remote()
    assert fh.get(grower.grow.remote(50 * MIB)) == 50 * MIB
    with pytest.raises(fh.OutOfMemory, match=r"Grower\.grow went over its limit"):
        fh.get(grower.grow.remote(900 * MIB))
    assert fh.get(grower.grow.remote(MIB)) == MIB


def test_numpy_under_a_memory_limit() -> None:
    @fh.remote(memory=100 * MIB)
    def allocate() -> float:
        return float(np.ones(100 * MIB).sum())

    with pytest.raises(fh.OutOfMemory):
        fh.get(allocate.remote())
