"""Functions and classes by value: what they do, and where they come from."""

from __future__ import annotations

import traceback
from typing import Any

from freehold.wire import serial


def test_a_function_keeps_its_file() -> None:
    def outer(value: int) -> list[float]:
        def inner(divisor: int) -> float:
            return value / divisor

        return [inner(divisor) for divisor in (2, 0)]

    again: Any = serial.loads_code(serial.dumps_code(outer))
    assert again is not outer
    assert again.__code__.co_filename == __file__
    try:
        again(1)
    except ZeroDivisionError as error:
        shown = "".join(traceback.format_exception(error))
    assert "return value / divisor" in shown
    assert shown.count(__file__) >= 3, "a function inside keeps it, too"


def test_a_class_keeps_its_file() -> None:
    class Local:
        def method(self) -> int:
            return 3

    again: Any = serial.loads_code(serial.dumps_code(Local))
    assert again().method() == 3
    assert again.method.__code__.co_filename == __file__


def test_the_same_function_is_the_same_bytes() -> None:
    def function() -> int:
        return 1

    assert serial.dumps_code(function) == serial.dumps_code(function)
