"""Tasks: arguments, options, results, nesting; what a person may do with a remote function."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from sessions import until

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
def double(x: Any) -> Any:
    return x * 2


@fh.remote
def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def test_a_task_runs_in_another_process() -> None:
    assert fh.get(double.remote(21)) == 42
    assert fh.get(fh.remote(os.getpid).remote()) != os.getpid()


def test_arguments_by_position_and_by_name() -> None:
    assert fh.get(echo.remote(1, "a", k=2, j=[3])) == ((1, "a"), {"k": 2, "j": [3]})
    assert fh.get(echo.remote()) == ((), {})


def test_defaults_closures_and_lambdas_travel() -> None:
    base = 10

    def add(x: int, more: int = 5) -> int:
        return base + x + more

    assert fh.get(fh.remote(add).remote(1)) == 16
    assert fh.get(fh.remote(lambda x: x + base).remote(1)) == 11


def test_a_top_level_reference_arrives_as_its_value() -> None:
    ref = fh.put(20)
    assert fh.get(echo.remote(ref, k=ref)) == ((20,), {"k": 20})
    assert fh.get(echo.remote(double.remote(double.remote(1)))) == ((4,), {})


def test_a_nested_reference_stays_a_reference() -> None:
    @fh.remote
    def inside(items: list[Any], *, table: dict[str, Any]) -> tuple[str, int, int]:
        return type(items[0]).__name__, fh.get(items[0]), fh.get(table["k"])

    assert fh.get(inside.remote([fh.put(5)], table={"k": fh.put(6)})) == ("Ref", 5, 6)


def test_no_one_and_several_results() -> None:
    @fh.remote(num_returns=2)
    def two() -> tuple[int, str]:
        return 1, "b"

    @fh.remote(num_returns=0)
    def none(path: str) -> None:
        Path(path).touch()

    refs: Any = two.remote()
    assert isinstance(refs, list)
    assert fh.get(refs) == [1, "b"]
    assert fh.get(two.options(num_returns=1).remote()) == (1, "b")
    three: Any = two.options(num_returns=3).remote()
    for ref in three:
        with pytest.raises(ValueError, match="num_returns=3, but the function returned 2 values"):
            fh.get(ref)


def test_a_task_without_result_runs(tmp_path: Path) -> None:
    @fh.remote(num_returns=0)
    def touch(path: str) -> None:
        Path(path).touch()

    target = tmp_path / "touched"
    assert touch.remote(str(target)) is None
    until(target.exists)


def test_a_wrong_number_of_results_is_an_error() -> None:
    @fh.remote(num_returns=2)
    def one() -> int:
        return 1

    refs: Any = one.remote()
    with pytest.raises(ValueError, match="num_returns=2, but the function returned <class 'int'>"):
        fh.get(refs[1])


@pytest.mark.parametrize(
    "option",
    [
        {"num_cpus": -1},
        {"num_cpus": "1"},
        {"num_cpus": float("nan")},
        {"num_cpus": float("inf")},
        {"num_returns": -1},
        {"num_returns": 1.5},
        {"num_returns": 65_536},
        {"max_retries": -2},
        {"max_retries": None},
        {"retry_exceptions": [int]},
        {"retry_exceptions": "yes"},
        {"memory": -5},
        {"resources": {"a": -1}},
        {"resources": ["a"]},
        {"resources": {"CPU": 1}},
        {"name": ""},
        {"name": 5},
    ],
    ids=str,
)
def test_an_impossible_option_is_refused_at_once(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        fh.remote(**option)(lambda: None)
    with pytest.raises(ValueError, match=next(iter(option))):
        double.options(**option)


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no option 'num_cpu'; it has .*num_cpus"):
        fh.remote(num_cpu=1)(lambda: None)
    with pytest.raises(ValueError, match="no option 'lifetime'"):
        double.options(lifetime="detached")
    with pytest.raises(ValueError, match=r"no option 'max_retries'; it has .*max_concurrency"):
        fh.remote(max_retries=1)(type("C", (), {}))


def test_remote_takes_functions_and_classes_only() -> None:
    with pytest.raises(TypeError, match="only functions and classes can be remote, not 5"):
        fh.remote(5)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="@remote"):
        fh.remote()
    with pytest.raises(ValueError, match="@remote"):
        fh.remote(len, num_cpus=1)  # type: ignore[call-overload]


def test_async_functions_and_generators_are_no_tasks() -> None:
    async def wait() -> None:
        pass

    def count() -> Any:
        yield 1

    with pytest.raises(TypeError, match="a method of an actor"):
        fh.remote(wait)
    with pytest.raises(TypeError, match="return a list"):
        fh.remote(num_cpus=1)(count)


def test_a_remote_function_cannot_be_called_directly() -> None:
    with pytest.raises(TypeError, match=r"use double\.remote"):
        double(1)
    assert double.__wrapped__(1) == 2  # type: ignore[attr-defined]
    assert double.__name__ == "double"


def test_options_leave_the_original_alone() -> None:
    other = double.options(num_returns=2)
    assert fh.get(double.remote(2)) == 4
    assert len(other.remote("ab")) == 2  # type: ignore[arg-type]
    assert fh.get(other.remote([1])) == [1, 1]  # type: ignore[call-overload]


def test_recursion_deeper_than_the_node_has_cpus() -> None:
    @fh.remote
    def fib(n: int) -> int:
        return n if n < 2 else sum(fh.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert fh.get(fib.remote(7), timeout=30) == 13


def test_a_fractional_and_a_free_task() -> None:
    assert fh.get([double.options(num_cpus=0.25).remote(n) for n in range(8)]) == [
        2 * n for n in range(8)
    ]
    assert fh.get([double.options(num_cpus=0).remote(n) for n in range(8)]) == [
        2 * n for n in range(8)
    ]


def test_fractions_run_side_by_side_and_whole_cpus_do_not_overlap(tmp_path: Path) -> None:
    @fh.remote
    def meet(directory: str, me: int, others: int) -> int:
        (Path(directory) / str(me)).touch()
        end = time.monotonic() + 10
        while len(list(Path(directory).iterdir())) < others and time.monotonic() < end:
            time.sleep(0.002)
        return len(list(Path(directory).iterdir()))

    refs = [meet.options(num_cpus=0.5).remote(str(tmp_path), n, 4) for n in range(4)]
    assert fh.get(refs, timeout=20) == [4] * 4


def test_a_function_keeps_its_state_out_of_other_calls() -> None:
    @fh.remote
    def append(item: int, to: list[int]) -> list[int]:
        to.append(item)
        return to

    mine: list[int] = []
    assert fh.get(append.remote(1, mine)) == [1]
    assert mine == []
    kept = fh.put([0])
    assert fh.get([append.remote(n, kept) for n in range(3)]) == [[0, 0], [0, 1], [0, 2]]


def test_many_results_come_in_the_order_of_their_references() -> None:
    assert fh.get([double.remote(n) for n in range(2000)]) == [2 * n for n in range(2000)]


def test_a_long_chain_and_a_wide_fan_in() -> None:
    @fh.remote
    def add(*numbers: int) -> int:
        return sum(numbers)

    ref = fh.put(0)
    for _ in range(500):
        ref = add.remote(ref, 1)
    assert fh.get(ref, timeout=30) == 500
    assert fh.get(add.remote(*[add.remote(n) for n in range(300)]), timeout=30) == 44_850


def test_a_thousand_references_in_a_list() -> None:
    @fh.remote
    def total(refs: list[fh.Ref[int]]) -> int:
        return sum(fh.get(refs))

    assert fh.get(total.remote([fh.put(n) for n in range(1000)]), timeout=30) == 499_500


def test_a_remote_function_is_a_value_too() -> None:
    @fh.remote
    def apply(function: Any, x: int) -> Any:
        return fh.get(function.remote(x))

    assert fh.get(apply.remote(double, 4)) == 8


def test_custom_resources() -> None:
    with pytest.raises(fh.Unschedulable, match=r"1 ladder \(the node has 0\)"):
        fh.get(double.options(resources={"ladder": 1}).remote(1), timeout=5)


def test_references_in_the_code_of_a_function() -> None:
    captured = fh.put(7)

    @fh.remote
    def use() -> int:
        return fh.get(captured)

    with pytest.raises(fh.SerializationError, match="pass it as an argument"):
        use.remote()


def test_retries_after_exceptions_only_where_asked(tmp_path: Path) -> None:
    @fh.remote
    def flaky(directory: str, fails: int) -> int:
        tries = len(os.listdir(directory))
        (Path(directory) / str(tries)).touch()
        if tries < fails:
            raise KeyError(tries)
        return tries

    def fresh(name: str) -> str:
        (tmp_path / name).mkdir()
        return str(tmp_path / name)

    assert fh.get(flaky.options(retry_exceptions=True).remote(fresh("a"), 2)) == 2
    assert fh.get(flaky.options(retry_exceptions=[KeyError]).remote(fresh("b"), 1)) == 1
    with pytest.raises(KeyError):
        fh.get(flaky.options(retry_exceptions=[ValueError]).remote(fresh("c"), 1))
    with pytest.raises(KeyError):
        fh.get(flaky.remote(fresh("d"), 1))
    once = flaky.options(retry_exceptions=True, max_retries=1)
    with pytest.raises(KeyError):
        fh.get(once.remote(fresh("e"), 9))
    assert len(os.listdir(tmp_path / "e")) == 2
