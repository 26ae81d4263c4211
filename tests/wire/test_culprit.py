"""The path to what cannot be pickled, in values of every kind."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from freehold.errors import SerializationError
from freehold.wire import serial

LOCK = threading.Lock()


@dataclass
class Record:
    number: int
    held: Any


class Pair(NamedTuple):
    first: Any
    second: Any


class Slotted:
    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = LOCK


class Method:
    def __init__(self) -> None:
        self.held = [LOCK]

    def call(self) -> None: ...


class Rude:
    """All that is asked of it fails."""

    def __init__(self) -> None:
        self.held = LOCK

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ValueError("ask somebody else")

    def __repr__(self) -> str:
        raise ValueError("nor for that")


def capturing() -> Callable[[], Any]:
    held = [1, LOCK]
    return lambda: held


def reading_a_global() -> Any:
    class Local:
        def method(self) -> Iterator[Any]:
            return (LOCK for _ in range(2))

    Local.__module__ = "__main__"
    Local.method.__module__ = "__main__"
    return Local


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "value"),
        ([1, {"a": (2, LOCK)}], "value[1]['a'][1]"),
        ({1: {2: {LOCK}}}, "value[1][2]{<unlocked"),
        (Record(1, [LOCK]), "value.held[0]"),
        (Pair(1, LOCK), "value[1]"),
        (Slotted(), "value.held"),
        (Method().call, "value.__self__.held[0]"),
        (collections.deque([1, LOCK]), "value[1]"),
        (collections.OrderedDict(a=LOCK), "value['a']"),
        (functools.partial(print, LOCK), "value.<state>[1][0]"),
        (np.array([1, LOCK], dtype=object), "value.<state>[4][1]"),
        ([Rude()], "value[0].held"),
        (capturing(), "value.held (captured)[1]"),
        (reading_a_global(), "value.method.LOCK (a global)"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_the_path(value: Any, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        serial.dumps(value)
    assert str(caught.value).startswith(f"cannot pickle {path}")
    assert "_thread.lock" in str(caught.value) or "ask somebody else" in str(caught.value)


def test_a_call_names_the_argument_and_the_function() -> None:
    for call, path in (
        (((1, [LOCK]), {}), "args[1][0]"),
        (((), {"x": Record(1, LOCK)}), "kwargs['x'].held"),
    ):
        with pytest.raises(SerializationError) as caught:
            serial.dumps(call)
        assert f"index: cannot pickle {path} (a" in str(serial.of_call(caught.value, "index"))


def test_of_very_wide_values_not_every_part_is_tried() -> None:
    with pytest.raises(SerializationError, match=r"cannot pickle value \(a builtins.list\)"):
        serial.dumps([*range(20_000), LOCK])
