"""What a task raises, at its caller: both a TaskError and the user's class."""

from __future__ import annotations

import asyncio
import functools
import pickle
import traceback
from dataclasses import dataclass
from typing import Any

import pytest

import freehold as fh

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
def fail(make: Any) -> None:
    raise make()


def raised_by(make: Any) -> Any:
    with pytest.raises(fh.TaskError) as caught:
        fh.get(fail.remote(make), timeout=10)
    return caught.value


class Custom(Exception):
    """A user's class: fields, and a text of its own."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(code)
        self.code = code
        self.hint = hint

    def __reduce__(self) -> Any:
        return functools.partial(Custom, hint=self.hint), (self.code,)

    def describe(self) -> str:
        return f"{self.code}: {self.hint}"


def test_it_is_both_a_task_error_and_the_users_class() -> None:
    @fh.remote
    def divide(a: int, b: int) -> float:
        return a / b

    with pytest.raises(ZeroDivisionError) as caught:
        fh.get(divide.remote(1, 0))
    error = caught.value
    assert isinstance(error, fh.TaskError)
    assert isinstance(error.cause, ZeroDivisionError)
    assert type(error).__name__ == "TaskError(ZeroDivisionError)"
    assert "return a / b" in error.remote_traceback
    assert "divide" in error.function
    assert error.pid > 0
    assert "return a / b" in str(error)
    assert "division by zero" in "".join(traceback.format_exception(error))


def test_the_remote_traceback_begins_in_the_users_code() -> None:
    @fh.remote
    class Failing:
        async def later(self) -> None:
            raise KeyError("k")

    plain = fail.remote(lambda: KeyError("k"))
    with_options = fail.options(memory=2**40, max_retries=0).remote(lambda: KeyError("k"))
    for ref in (plain, with_options, Failing.remote().later.remote()):
        with pytest.raises(KeyError) as caught:
            fh.get(ref, timeout=10)
        lines = caught.value.remote_traceback.splitlines()  # type: ignore[attr-defined]
        assert lines[0].startswith("Traceback")
        assert "test_api_errors.py" in lines[1]


def test_fields_and_methods_of_a_users_class() -> None:
    error = raised_by(lambda: Custom(5, hint="try again"))
    assert isinstance(error, Custom)
    assert (error.code, error.hint, error.describe()) == (5, "try again", "5: try again")
    assert error.args == (5,)


def test_an_error_in_a_local_class() -> None:
    class Local(RuntimeError):
        pass

    with pytest.raises(Local):
        fh.get(fail.remote(lambda: Local("x")))


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (lambda: open("/nonexistent/file"), "errno", 2),  # noqa: SIM115 (it raises)
        (lambda: open("/nonexistent/file"), "filename", "/nonexistent/file"),  # noqa: SIM115
        (lambda: b"\xff".decode(), "start", 0),
        (lambda: b"\xff".decode(), "encoding", "utf-8"),
        (lambda: __import__("no_such_module"), "name", "no_such_module"),
        (lambda: compile("a b", "file", "exec"), "lineno", 1),
        (lambda: next(iter(())), "value", None),
    ],
)
def test_built_in_errors_keep_their_fields(make: Any, field: str, value: Any) -> None:
    assert getattr(raised_by(make), field) == value


def test_errors_pickle() -> None:
    for make in (lambda: ValueError(1), lambda: Custom(1, hint="h"), lambda: OSError(2, "no")):
        error = raised_by(make)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert again.remote_traceback == error.remote_traceback


def test_a_group_can_be_caught_in_parts() -> None:
    caught: list[Any] = []
    try:
        fh.get(fail.remote(lambda: ExceptionGroup("two", [ValueError(1), TypeError("t")])))
    except* ValueError as group:
        caught += group.exceptions
    except* TypeError as group:
        caught += group.exceptions
    assert [type(error) for error in caught] == [ValueError, TypeError]


def test_a_cause_that_cannot_be_pickled_is_left_out() -> None:
    class Stuck(Exception):
        def __init__(self) -> None:
            super().__init__("held")
            self.lock = __import__("threading").Lock()

    error = raised_by(Stuck)
    assert error.cause is None
    assert "Stuck: held" in str(error)


def test_a_cause_that_cannot_be_read_back_is_left_out() -> None:
    class Stale(Exception):
        def __reduce__(self) -> Any:
            return int, ("no number",)

    error = raised_by(lambda: Stale("only here"))
    assert error.cause is None
    assert "Stale: only here" in str(error)


def test_a_class_whose_constructor_takes_other_things() -> None:
    class Demanding(Exception):
        def __init__(self, job: str, *, code: int) -> None:
            super().__init__(f"{job}: {code}")
            self.code = code

    error = raised_by(lambda: Demanding("index", code=2))
    assert type(error).__name__ == "TaskError(Demanding)"
    assert (error.code, error.args, str(error.cause)) == (2, ("index: 2",), "index: 2")


def test_built_in_classes_that_others_may_not_allocate() -> None:
    error = raised_by(lambda: MemoryError("too much"))
    assert isinstance(error, MemoryError)
    assert error.args == ("too much",)


def test_the_librarys_fields_come_before_properties_of_the_users_class() -> None:
    class Shadowing(Exception):
        @property
        def cause(self) -> str:
            return "another"

    error = raised_by(lambda: Shadowing("s"))
    assert isinstance(error, fh.TaskError)
    assert isinstance(error.cause, Exception)


def test_classes_that_cannot_be_derived_from() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise RuntimeError("no heirs")

    error = raised_by(lambda: Final("f"))
    assert type(error) is fh.TaskError
    assert isinstance(error.cause, Exception)
    assert error.cause.args == ("f",)


def test_frozen_and_slotted_errors() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    class Slotted(Exception):
        __slots__ = ("code",)

        def __init__(self, code: int) -> None:
            super().__init__(code)
            self.code = code

    assert raised_by(lambda: Slotted(4)).code == 4
    assert raised_by(lambda: Frozen(4)).code == 4


@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_base_exceptions_fail_the_task_not_the_worker(kind: type[BaseException]) -> None:
    error = raised_by(kind)
    assert isinstance(error.cause, kind)
    assert not isinstance(error, kind)


def test_an_error_passes_through_the_tasks_that_depend_on_it() -> None:
    @fh.remote
    def use(x: Any) -> Any:
        return x

    ref = fail.remote(lambda: Custom(3, hint="root"))
    for _ in range(20):
        ref = use.remote(ref)
    with pytest.raises(Custom) as caught:
        fh.get(ref)
    assert "fail" in caught.value.function  # type: ignore[attr-defined]


def test_an_error_of_a_nested_task_keeps_its_class() -> None:
    @fh.remote
    def outer(make: Any) -> Any:
        return fh.get(fail.remote(make))

    with pytest.raises(Custom) as caught:
        fh.get(outer.remote(lambda: Custom(3, hint="deep")))
    error: Any = caught.value
    assert "outer" in error.function
    assert isinstance(error.cause, fh.TaskError)
    assert error.hint == "deep"


def test_errors_of_the_library_in_a_task_keep_their_class() -> None:
    @fh.remote
    def impatient() -> Any:
        import time

        return fh.get(fh.remote(time.sleep).remote(0.5), timeout=0.01)

    with pytest.raises(fh.GetTimeoutError) as caught:
        fh.get(impatient.remote(), timeout=10)
    assert isinstance(caught.value, fh.TaskError)


def test_every_error_of_the_library_pickles_and_has_one_root() -> None:
    kinds = [kind for kind in vars(fh).values() if isinstance(kind, type)]
    errors = [kind for kind in kinds if issubclass(kind, BaseException)]
    assert len(errors) > 15
    for kind in errors:
        assert issubclass(kind, fh.FreeholdError)
        error = kind("f", "text", None, 1) if kind is fh.TaskError else kind("text")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error)
