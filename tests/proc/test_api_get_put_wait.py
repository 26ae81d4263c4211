"""get, put and wait: what they take, what they give, when they stop waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from sessions import until

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
def gate(path: str, value: Any = None) -> Any:
    """Ends when the file is there."""
    while not Path(path).exists():
        time.sleep(0.001)
    return value


@fh.remote
def same(value: Any) -> Any:
    return value


@fh.remote
def boom() -> None:
    raise ValueError("boom")


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "open"
    yield path
    path.touch()


def test_get_of_one_of_a_list_and_of_nothing() -> None:
    a, b = same.remote(1), fh.put("b")
    assert fh.get(a) == 1
    assert fh.get([b, a, b]) == ["b", 1, "b"]
    assert fh.get([]) == []


@pytest.mark.parametrize("wrong", [(), {}, 5, None, "ref", iter([])], ids=repr)
def test_get_takes_a_reference_or_a_list(wrong: Any) -> None:
    with pytest.raises(ValueError, match="takes a reference or a list of references"):
        fh.get(wrong)


def test_get_takes_no_tuple_of_references() -> None:
    with pytest.raises(ValueError, match="tuple"):
        fh.get((fh.put(1),))  # type: ignore[call-overload]


@pytest.mark.parametrize("item", [5, None, [], "x"], ids=repr)
def test_get_takes_no_list_with_anything_else(item: Any) -> None:
    with pytest.raises(TypeError, match="the list holds"):
        fh.get([fh.put(1), item])


def test_a_timeout_leaves_the_task_running(door: Path) -> None:
    ref = gate.remote(str(door), 3)
    start = time.monotonic()
    with pytest.raises(fh.GetTimeoutError, match=r"not ready within 0\.05 s") as caught:
        fh.get(ref, timeout=0.05)
    assert 0.04 < time.monotonic() - start < 1
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(fh.GetTimeoutError):
        fh.get([fh.put(1), ref], timeout=0)
    door.touch()
    assert fh.get(ref, timeout=5) == 3
    assert fh.get(ref, timeout=0) == 3


def test_a_negative_timeout_is_refused(door: Path) -> None:
    ref = gate.remote(str(door))
    for call in (fh.get, fh.wait):
        for timeout in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout must not be negative"):
                call([ref], timeout=timeout)  # type: ignore[operator]


def test_a_timeout_longer_than_any_clock_is_for_ever(door: Path) -> None:
    ref = gate.remote(str(door))
    threading.Timer(0.1, door.touch).start()
    fh.get(ref, timeout=1e300)
    assert fh.wait([gate.remote(str(door))], timeout=1e300)[1] == []


def test_get_of_a_list_raises_the_first_error_without_waiting(door: Path) -> None:
    slow = gate.remote(str(door))
    start = time.monotonic()
    with pytest.raises(ValueError, match="boom"):
        fh.get([slow, boom.remote()], timeout=20)
    assert time.monotonic() - start < 5


def test_put_takes_no_reference() -> None:
    with pytest.raises(TypeError, match="this is a reference already"):
        fh.put(fh.put(1))


def test_put_keeps_a_copy() -> None:
    items = [1]
    ref = fh.put(items)
    items.append(2)
    assert fh.get(ref) == [1]
    assert fh.get(ref) is not fh.get(ref)


def test_wait_gives_ready_and_rest_in_order(door: Path) -> None:
    slow, a, b = gate.remote(str(door), "s"), fh.put(1), same.remote(2)
    fh.get(b)
    assert fh.wait([slow, a, b]) == ([a], [slow, b])
    assert fh.wait([slow, b, a], num_returns=2) == ([b, a], [slow])
    assert fh.wait([slow, b, a], num_returns=3, timeout=0.02) == ([b, a], [slow])
    assert fh.wait([slow], timeout=0) == ([], [slow])
    door.touch()
    assert fh.wait([slow, b, a], num_returns=3) == ([slow, b, a], [])
    assert fh.wait([]) == ([], [])


def test_a_failed_reference_is_ready() -> None:
    ref = boom.remote()
    assert fh.wait([ref], timeout=5) == ([ref], [])
    with pytest.raises(ValueError, match="boom"):
        fh.get(ref)


def test_wait_refuses_what_it_cannot_mean() -> None:
    ref = fh.put(1)
    for wrong in ((ref,), ref, {ref}, None):
        with pytest.raises(TypeError, match="takes a list of references"):
            fh.wait(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the list holds 5"):
        fh.wait([ref, 5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="each reference once"):
        fh.wait([ref, ref])
    for number in (0, 2, -1):
        with pytest.raises(ValueError, match="num_returns must be from 1 to 1"):
            fh.wait([ref], num_returns=number)


def test_wait_on_many_returns_as_soon_as_enough_are_ready(door: Path) -> None:
    slow = [gate.options(num_cpus=0).remote(str(door)) for _ in range(3)]
    fast = [same.remote(n) for n in range(200)]
    ready, rest = fh.wait([*slow, *fast], num_returns=200, timeout=20)
    assert ready == fast
    assert rest == slow


def test_references_compare_hash_and_print() -> None:
    ref = fh.put(1)
    again = fh.get(fh.put([ref]))[0]
    assert again == ref
    assert len({ref, again}) == 1
    assert ref != fh.put(1)
    assert ref != 1
    assert ref.hex() in repr(ref)
    assert ref.binary().hex() == ref.hex()


def test_a_reference_copies_to_itself() -> None:
    import copy

    ref = fh.put(1)
    assert copy.copy(ref) is ref
    assert copy.deepcopy([ref])[0] is ref


def test_threads_wait_for_each_others_results(door: Path) -> None:
    got: list[Any] = []

    def work(number: int) -> None:
        got.append(fh.get(gate.options(num_cpus=0).remote(str(door), number)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: fh.status()["leases"] >= 6, 20)
    door.touch()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(6))


def test_status_tells_what_the_node_has(door: Path) -> None:
    ref = gate.remote(str(door))
    held = fh.put(b"x" * 200_000)
    status = until(lambda: (s := fh.status())["resources"]["CPU"]["free"] == 1 and s, 5)
    assert status["resources"]["CPU"] == {"total": 2.0, "free": 1.0}
    assert status["objects"]["count"] == 1
    assert status["objects"]["bytes"] >= 200_000
    kinds = [process["kind"] for process in status["processes"]]
    assert kinds.count("driver") == 1
    assert kinds.count("worker") >= 2
    assert status["references"] >= 2
    del ref, held
