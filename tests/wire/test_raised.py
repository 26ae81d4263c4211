"""Exceptions as values: each arrives with its class, its text and its fields."""

from __future__ import annotations

import copyreg
import dataclasses
from typing import Any, Self

import pytest

from freehold.wire import serial


class Failed(Exception):
    """Its constructor takes other things than its base's."""

    def __init__(self, job: str, code: int) -> None:
        super().__init__(f"{job}: {code}")
        self.job = job
        self.code = code


class Prefixed(Exception):
    """It could be made from its ``args``, and would say something else."""

    def __init__(self, text: str) -> None:
        super().__init__(f"error: {text}")


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        self.code = code


class Missing(FileNotFoundError):
    """A built-in class that keeps fields of its own."""

    def __init__(self, path: str) -> None:
        super().__init__(2, "no such thing", path)


class NotThere(ImportError):
    def __init__(self) -> None:
        super().__init__("not there", name="there", path="/here")


class Undecodable(UnicodeDecodeError):
    def __init__(self) -> None:
        super().__init__("utf-8", b"\xff", 0, 1, "invalid")


class Several(ExceptionGroup[Exception]):
    code: int

    def __new__(cls, errors: list[Exception], code: int) -> Self:
        made = super().__new__(cls, "several", errors)
        made.code = code
        return made

    def __init__(self, errors: list[Exception], code: int) -> None: ...


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, *, code: int) -> None:
        self.code = code


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


def fields(error: BaseException) -> Any:
    names = ("args", "job", "code", "errno", "strerror", "filename", "name", "path", "object")
    found = {name: getattr(error, name) for name in names if hasattr(error, name)}
    return type(error), str(error), {**found, "args": repr(error.args)}


def through(value: Any) -> Any:
    packed = serial.dumps(value)
    return serial.loads(packed if isinstance(packed, bytes) else packed.join())


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain", 3),
        Failed("index", 3),
        Prefixed("once"),
        KeywordOnly(code=3),
        Missing("/nowhere"),
        NotThere(),
        Undecodable(),
        Several([Failed("index", 3), ValueError(4)], 5),
        Slotted(code=3),
        Frozen(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_it_arrives_as_it_was(error: Exception) -> None:
    error.__dict__["__notes__"] = ["noted"]
    again = through([error])[0]
    assert fields(again) == fields(error)
    assert again.__notes__ == ["noted"]


def test_the_parts_of_a_group_too() -> None:
    group = ExceptionGroup("both", [Failed("index", 3), Missing("/nowhere")])
    again = through(group)
    assert [fields(part) for part in again.exceptions] == [fields(one) for one in group.exceptions]


def test_a_class_that_says_how_it_is_pickled_is_asked() -> None:
    class ByHand(Failed):
        def __reduce__(self) -> Any:
            return Prefixed, ("by hand",)

    assert type(through(ByHand("index", 3))) is Prefixed
    copyreg.pickle(KeywordOnly, lambda error: (Prefixed, ("registered",)))  # type: ignore[arg-type]
    try:
        assert str(through(KeywordOnly(code=3))) == "error: registered"
    finally:
        del copyreg.dispatch_table[KeywordOnly]
