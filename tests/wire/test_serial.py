"""Values: what goes in comes out, large buffers in place, references noted, culprits named."""

from __future__ import annotations

import collections
import dataclasses
import enum
import pickle
import threading
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import InvalidReference, SerializationError
from freehold.wire import serial

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


def join(value: Any) -> bytes:
    packed = serial.dumps(value)
    return packed if isinstance(packed, bytes) else packed.join()


def through(value: Any) -> Any:
    return serial.loads(memoryview(join(value)))


@given(plain)
def test_plain_values(value: Any) -> None:
    again = through(value)
    assert again == value
    assert type(again) is type(value)


@given(st.lists(st.integers(0, 20_000), max_size=5))
def test_buffers_of_all_sizes(sizes: list[int]) -> None:
    value = {n: np.arange(size, dtype=np.uint8) for n, size in enumerate(sizes)}
    again = through(value)
    assert value.keys() == again.keys()
    for n, array in value.items():
        assert np.array_equal(again[n], array)


def test_none_is_nothing_and_scalars_are_small() -> None:
    assert join(None) == b""
    assert len(join(5)) < 8
    assert serial.loads(b"") is None


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 100_000])
def test_bytes_of_every_size(size: int) -> None:
    for kind in (bytes, bytearray):
        value = kind(range(256)) * (size // 256 + 1)
        assert through(value[:size]) == value[:size]
        assert type(through(value[:size])) is kind


def test_large_buffers_are_aligned_read_only_and_in_place() -> None:
    value = [np.arange(5000.0), b"x", np.ones((30, 70), np.float32), np.asfortranarray(np.eye(90))]
    place = np.zeros(len(join(value)) + 64, np.uint8)
    start = -place.ctypes.data % 64
    view = memoryview(place)[start : start + len(join(value))]
    view[:] = join(value)
    again = serial.loads(view.toreadonly())
    assert serial.has_views(view)
    low, high = place.ctypes.data, place.ctypes.data + place.nbytes
    for array in (again[0], again[2], again[3]):
        assert array.ctypes.data % 64 == 0
        assert low <= array.ctypes.data < high
        assert not array.flags.writeable
    np.testing.assert_equal(again, value)


def test_the_parts_say_where_they_go() -> None:
    packed = serial.dumps([np.zeros(5000), np.ones(5000)])
    assert not isinstance(packed, bytes)
    end = 0
    for offset, part in packed.parts:
        assert offset >= end
        end = offset + len(memoryview(part).cast("B"))
    assert end == packed.size == len(packed.join())


def test_small_buffers_stay_inside() -> None:
    assert not serial.has_views(join(np.zeros(10)))
    assert isinstance(serial.dumps(np.zeros(10)), bytes)


def test_memoryviews() -> None:
    for source in (b"abc", bytearray(b"x" * 10_000), np.arange(6000, dtype=np.int16)):
        view = memoryview(source)
        again = through(view)
        assert again == view
        assert (again.format, again.shape, again.readonly) == (view.format, view.shape, True)


def test_memoryviews_whose_bytes_do_not_lie_in_order() -> None:
    columns = np.asfortranarray(np.arange(6000.0).reshape(60, 100))
    for source in (columns, columns[::2, 3:40], np.arange(9000)[::3]):
        again = through(memoryview(source))
        assert np.array_equal(np.asarray(again), source)
        assert again.readonly


class Colour(enum.Enum):
    """A user's enumeration."""

    RED = 1


@dataclasses.dataclass
class Point:
    """A user's record."""

    x: int
    other: Any = None


def test_functions_and_classes_that_cannot_be_imported() -> None:
    factor = 3

    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def scaled(self) -> int:
            return self.x * factor

    assert through(lambda x: x + factor)(1) == 4
    assert through(Local(5)).scaled() == 15
    assert through(Local)(2).scaled() == 6
    assert through([Local, Local(1).scaled])[1]() == 3
    assert through(serial) is serial


def test_importable_things_travel_by_name() -> None:
    assert through(Colour.RED) is Colour.RED
    assert through(Point(1, Colour.RED)) == Point(1, Colour.RED)
    assert through(collections.OrderedDict) is collections.OrderedDict
    assert through(len) is len
    assert through(Point) is Point
    assert len(join(Point)) < 200


def test_modules_that_are_registered_travel_by_value() -> None:
    import sys

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        assert len(join(Point)) > 500
        assert type(through(Point(1))).__name__ == "Point"
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_cycles_and_shared_parts() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    again = through(cycle)
    assert again[1] is again
    part = [1]
    first, second = through([part, part])
    assert first is second


class Mark:
    """Stands for a reference."""

    def __reduce__(self) -> Any:
        if not serial.note_reference(self):
            raise InvalidReference("outside")
        return Mark, ()


def test_references_are_noted_wherever_they_are() -> None:
    marks = [Mark() for _ in range(4)]
    captured = marks[2]
    packed = serial.dumps({"a": marks[:2], "f": lambda: captured, "s": [np.zeros(9000), marks[3]]})
    assert not isinstance(packed, bytes)
    assert packed.refs == marks
    with pytest.raises(InvalidReference, match="outside"):
        pickle.dumps(marks[0])


def test_references_of_two_threads_do_not_mix() -> None:
    noted: list[int] = []

    def work() -> None:
        for _ in range(200):
            packed = serial.dumps([Mark() for _ in range(7)])
            assert not isinstance(packed, bytes)
            noted.append(len(packed.refs))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(noted) == {7}


def test_pickling_within_pickling_keeps_the_references_apart() -> None:
    inner: list[Any] = []

    class Nested:
        def __reduce__(self) -> Any:
            packed = serial.dumps([Mark()])
            assert not isinstance(packed, bytes)
            inner.append(packed.refs)
            return list, ()

    outer = Mark()
    packed = serial.dumps([Nested(), outer])
    assert not isinstance(packed, bytes)
    assert packed.refs == [outer]
    assert len(inner[0]) == 1


LOCK = threading.Lock()


def test_code_that_cannot_be_pickled_is_the_same_error() -> None:
    with pytest.raises(SerializationError, match="lock") as caught:
        serial.dumps_code((lambda held: lambda: held)(LOCK))
    assert isinstance(caught.value, TypeError)


def test_a_failed_pickling_leaves_no_collector() -> None:
    with pytest.raises(SerializationError):
        serial.dumps([LOCK])
    with pytest.raises(InvalidReference):
        pickle.dumps(Mark())


def test_a_value_too_deep_or_hostile() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="recursion"):
        serial.dumps(deep)
    while deep:
        deep = deep.pop()

    class Hostile:
        def __reduce__(self) -> Any:
            raise ValueError("no")

        def __repr__(self) -> str:
            raise ValueError("not even that")

        __hash__ = object.__hash__

    with pytest.raises(SerializationError, match="no"):
        serial.dumps({Hostile(): 1, "x": {Hostile()}})
