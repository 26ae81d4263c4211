"""References: nested, returned, borrowed, kept; memory is free as soon as nobody holds one."""

from __future__ import annotations

import gc
import pickle
import time
from typing import Any

import pytest

import freehold as fh
from sessions import MIB, until

pytestmark = pytest.mark.usefixtures("session")


def stored() -> int:
    return int(fh.status()["objects"]["bytes"])


@fh.remote
def make(size: int) -> bytes:
    return bytes(size)


@fh.remote
def wrap(value: Any) -> list[Any]:
    return [fh.put(value)]


@fh.remote
def length(value: Any) -> int:
    return len(value)


@fh.remote
class Shelf:
    def __init__(self) -> None:
        self.items: list[Any] = []

    def keep(self, refs: list[Any]) -> int:
        self.items += refs
        return len(self.items)

    def give(self) -> list[Any]:
        return self.items

    def read(self) -> list[int]:
        return [len(value) for value in fh.get(self.items)]

    def clear(self) -> None:
        self.items = []


def test_memory_is_free_at_once() -> None:
    refs = [fh.put(bytes(MIB)) for _ in range(4)]
    assert stored() >= 4 * MIB
    del refs[1:]
    until(lambda: MIB <= stored() < 2 * MIB, 1)
    refs.clear()
    until(lambda: stored() == 0, 1)


def test_results_and_arguments_are_freed() -> None:
    ref = make.remote(MIB)
    assert fh.get(length.remote(ref)) == MIB
    assert stored() >= MIB
    del ref
    assert fh.get(length.remote(bytes(2 * MIB))) == 2 * MIB
    until(lambda: stored() == 0, 1)


def test_a_result_that_nobody_waits_for_is_freed() -> None:
    for _ in range(20):
        make.remote(MIB)
    until(lambda: stored() == 0 and not fh.status()["references"], 5)


def test_cycles_with_references_are_freed() -> None:
    for _ in range(5):
        cycle: list[Any] = [fh.put(bytes(MIB))]
        cycle.append(cycle)
    del cycle
    gc.collect()
    until(lambda: stored() == 0, 1)


def test_a_reference_in_a_value_keeps_it_alive() -> None:
    inner = fh.put(bytes(MIB))
    outer = fh.put({"inner": [inner]})
    del inner
    assert stored() >= MIB
    assert len(fh.get(fh.get(outer)["inner"][0])) == MIB
    del outer
    until(lambda: stored() == 0, 1)


def test_references_nest_deeply() -> None:
    ref: Any = fh.put(bytes(MIB))
    for _ in range(3000):
        ref = fh.put([ref])
    middle = ref
    for _ in range(1500):
        middle = fh.get(middle)[0]
    del ref
    assert stored() >= MIB
    del middle
    until(lambda: stored() == 0 and not fh.status()["references"], 5)


def test_references_come_back_from_tasks() -> None:
    made = fh.get(wrap.remote(b"v" * MIB))[0]
    assert len(fh.get(made)) == MIB
    twice = fh.get(fh.get(wrap.remote(fh.get(wrap.remote(5))))[0])[0]
    assert fh.get(twice) == 5


def test_a_worker_owns_what_it_made_and_others_borrow_it() -> None:
    made = fh.get(wrap.remote(b"x" * MIB))[0]  # owned by a worker
    assert fh.get(length.remote(made)) == MIB  # by whichever worker
    shelf = Shelf.remote()
    assert fh.get(shelf.keep.remote([made])) == 1
    del made
    assert fh.get(shelf.read.remote()) == [MIB]
    back = fh.get(shelf.give.remote())[0]
    fh.get(shelf.clear.remote())
    assert len(fh.get(back)) == MIB
    del back
    until(lambda: stored() == 0, 2)


def test_an_actor_stores_references_of_the_driver() -> None:
    shelf = Shelf.remote()
    ref = fh.put(bytes(MIB))
    fh.get(shelf.keep.remote([ref, make.remote(2 * MIB)]))
    del ref
    assert fh.get(shelf.read.remote()) == [MIB, 2 * MIB]
    again = fh.get(shelf.give.remote())
    fh.kill(shelf)
    assert [len(value) for value in fh.get(again)] == [MIB, 2 * MIB]
    del again
    until(lambda: stored() == 0, 2)


def test_an_actor_that_ends_lets_go() -> None:
    shelf = Shelf.remote()
    fh.get(shelf.keep.remote([fh.put(bytes(MIB))]))
    assert stored() >= MIB
    del shelf
    until(lambda: stored() == 0, 3)


def test_references_pass_between_actors() -> None:
    first, second = Shelf.remote(), Shelf.remote()

    @fh.remote
    def carry(source: fh.ActorHandle, target: fh.ActorHandle) -> int:
        items = fh.get(source.give.remote())
        return fh.get(target.keep.remote(items))

    fh.get(first.keep.remote([fh.put(b"a" * MIB), fh.put(b"small")]))
    assert fh.get(carry.remote(first, second)) == 2
    fh.kill(first)
    assert fh.get(second.read.remote()) == [MIB, 5]


def test_a_reference_outlives_the_task_that_made_it() -> None:
    @fh.remote
    def start() -> list[fh.Ref[int]]:
        @fh.remote
        def nap() -> int:
            time.sleep(0.2)
            return 9

        return [nap.remote()]  # still running when this one ends

    assert fh.get(fh.get(start.remote())[0], timeout=10) == 9


def test_many_references_go_and_come() -> None:
    @fh.remote
    def spread(refs: list[Any]) -> list[Any]:
        return refs[::2]

    refs: Any = [fh.put(n) for n in range(500)]
    for _ in range(3):
        refs = fh.get(spread.remote(refs))
    assert fh.get(refs) == list(range(0, 500, 8))


def test_pickling_outside_says_what_to_do() -> None:
    ref = fh.put(1)
    with pytest.raises(fh.InvalidReference, match="pass it as an argument"):
        pickle.dumps(ref)
    with pytest.raises(ValueError, match="pickled outside freehold"):
        pickle.dumps([ref])


def test_a_reference_used_in_two_threads_of_a_task() -> None:
    @fh.remote
    def threads(refs: list[Any]) -> int:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(lambda ref: fh.get(ref), refs * 10))

    assert fh.get(threads.remote([fh.put(n) for n in range(5)]), timeout=10) == 100


def test_retries_submit_the_same_names_again() -> None:
    @fh.remote(retry_exceptions=True, max_retries=3)
    def restless(shelf: fh.ActorHandle) -> int:
        slow = fh.remote(time.sleep).options(num_cpus=0)
        tries = fh.get(shelf.keep.remote([fh.put(b"kept"), slow.remote(0.05)]))
        if tries < 6:
            raise KeyError(tries)
        return tries

    shelf = Shelf.remote()
    assert fh.get(restless.remote(shelf), timeout=20) == 6
