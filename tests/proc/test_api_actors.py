"""Actors: order, concurrency, handles and lifetime."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from sessions import alive, until

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
class Counter:
    """Counts."""

    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, k: int = 1) -> int:
        self.n += k
        return self.n

    def pid(self) -> int:
        return os.getpid()

    @fh.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.n, -self.n

    def fail(self) -> None:
        raise LookupError("inside")

    def keep(self, value: Any) -> None:
        self.kept = value

    def give(self) -> Any:
        return self.kept


def test_state_lives_between_calls() -> None:
    counter = Counter.remote(10)
    assert fh.get(counter.add.remote(1)) == 11
    assert fh.get([counter.add.remote(k=2), counter.add.remote()]) == [13, 14]
    assert fh.get(counter.pid.remote()) != os.getpid()


def test_calls_of_one_caller_run_in_order() -> None:
    counter = Counter.remote()
    assert fh.get([counter.add.remote(1) for _ in range(1000)]) == list(range(1, 1001))


def test_a_call_that_waits_for_its_argument_holds_back_those_behind_it(tmp_path: Path) -> None:
    @fh.remote
    def late(path: str) -> int:
        while not Path(path).exists():
            time.sleep(0.001)
        return 100

    counter = Counter.remote()
    door = tmp_path / "door"
    first = counter.add.remote(late.remote(str(door)))
    second = counter.add.remote(1)
    assert fh.wait([second], timeout=0.05) == ([], [second])
    door.touch()
    assert fh.get([first, second], timeout=5) == [100, 101]


def test_results_of_methods() -> None:
    counter = Counter.remote(3)
    first, second = counter.pair.remote()
    assert fh.get([first, second]) == [3, -3]
    assert fh.get(counter.pair.options(num_returns=1).remote()) == (3, -3)
    with pytest.raises(LookupError, match="inside") as caught:
        fh.get(counter.fail.remote())
    assert "Counter.fail" in str(caught.value)
    assert fh.get(counter.add.remote()) == 4


def test_what_an_actor_is_not() -> None:
    with pytest.raises(TypeError, match=r"use Counter\.remote"):
        Counter()
    counter = Counter.remote()
    with pytest.raises(TypeError, match=r"use \.add\.remote"):
        counter.add(1)
    with pytest.raises(AttributeError, match="has no method 'sub'"):
        counter.sub.remote(1)
    with pytest.raises(ValueError, match="no option 'num_cpus'"):
        counter.add.options(num_cpus=1)
    with pytest.raises(TypeError, match="takes an actor's handle"):
        fh.kill(fh.put(1))  # type: ignore[arg-type]
    fh.get(counter.add.remote())


@pytest.mark.parametrize(
    "option",
    [{"max_concurrency": 0}, {"max_concurrency": "a"}, {"num_cpus": -1}, {"memory": "1"}],
    ids=str,
)
def test_an_impossible_option_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        Counter.options(**option)


def test_a_handle_is_a_value() -> None:
    @fh.remote
    def use(handle: fh.ActorHandle, times: int) -> fh.ActorHandle:
        fh.get([handle.add.remote(1) for _ in range(times)])
        return handle

    counter = Counter.remote()
    again = fh.get(use.remote(counter, 3))
    assert again == counter
    assert hash(again) == hash(counter)
    assert "Counter" in repr(counter)
    stored = fh.put({"c": [counter]})
    del counter
    assert fh.get(again.add.remote(1)) == 4
    del again
    assert fh.get(fh.get(stored)["c"][0].add.remote(1)) == 5


def test_handles_travel_through_actors() -> None:
    keeper = Counter.remote()
    fh.get(keeper.keep.remote(Counter.remote(7)))
    inner = fh.get(keeper.give.remote())
    assert fh.get(inner.add.remote(1)) == 8
    del keeper
    assert fh.get(inner.add.remote(1)) == 9


def test_an_actor_ends_with_its_last_handle_after_its_pending_calls() -> None:
    @fh.remote
    class Slow:
        def work(self) -> int:
            time.sleep(0.2)
            return os.getpid()

    slow = Slow.remote()
    refs = [slow.work.remote() for _ in range(2)]
    del slow
    pid = fh.get(refs, timeout=10)[1]
    until(lambda: not alive(pid), 5)


def test_an_actor_that_was_never_called_ends_too() -> None:
    def actors() -> int:
        return sum(process["kind"] == "actor" for process in fh.status()["processes"])

    counters = [Counter.remote() for _ in range(3)]
    until(lambda: actors() == 3)
    del counters
    until(lambda: actors() == 0)


def test_kill_ends_it_at_once() -> None:
    counter = Counter.remote()
    pid = fh.get(counter.pid.remote())
    fh.kill(counter)
    with pytest.raises(fh.ActorDied, match="killed by freehold"):
        fh.get(counter.add.remote())
    until(lambda: not alive(pid))
    fh.kill(counter)


def test_kill_while_a_call_runs() -> None:
    @fh.remote
    class Sleeper:
        def sleep(self) -> None:
            time.sleep(60)

    sleeper = Sleeper.remote()
    refs = [sleeper.sleep.remote() for _ in range(2)]
    assert fh.wait(refs, timeout=0.1) == ([], refs)
    fh.kill(sleeper)
    for ref in refs:
        with pytest.raises(fh.ActorDied):
            fh.get(ref, timeout=1)


def test_kill_of_an_actor_that_is_not_there_yet(tmp_path: Path) -> None:
    @fh.remote
    class Never:
        def __init__(self, path: str = "") -> None:
            if path:
                Path(path).touch()
                time.sleep(60)

        def f(self) -> int:
            return 1

    @fh.remote(num_cpus=2)
    def hog(path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.001)

    door = tmp_path / "door"
    running = hog.remote(str(door))
    waiting = Never.options(num_cpus=2).remote()  # type: ignore[attr-defined]
    call = waiting.f.remote()
    start = time.monotonic()
    fh.kill(waiting)
    assert time.monotonic() - start < 1
    with pytest.raises(fh.ActorDied, match="killed"):
        fh.get(call, timeout=1)
    constructing = Never.remote(str(tmp_path / "begun"))
    until((tmp_path / "begun").exists)
    start = time.monotonic()
    fh.kill(constructing)
    assert time.monotonic() - start < 1
    with pytest.raises(fh.ActorDied, match="killed"):
        fh.get(constructing.f.remote(), timeout=1)
    door.touch()
    fh.get(running)


def test_a_constructor_that_raises() -> None:
    @fh.remote
    class Broken:
        def __init__(self) -> None:
            raise KeyError("no such thing")

        def f(self) -> None:
            pass

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(fh.ActorDied, match="its constructor raised") as caught:
            fh.get(broken.f.remote(), timeout=5)
        assert isinstance(caught.value.__cause__, KeyError)
        assert "no such thing" in str(caught.value.__cause__)


def test_async_methods_run_concurrently() -> None:
    @fh.remote
    class Meeting:
        def __init__(self) -> None:
            self.here = 0
            self.all = asyncio.Event()

        async def join(self, expected: int) -> int:
            self.here += 1
            if self.here == expected:
                self.all.set()
            await self.all.wait()
            return self.here

        def count(self) -> int:
            return self.here

        async def fail(self, error: type[BaseException]) -> None:
            raise error("async")

    meeting = Meeting.remote()
    assert fh.get([meeting.join.remote(500) for _ in range(500)], timeout=20) == [500] * 500
    assert fh.get(meeting.count.remote()) == 500
    with pytest.raises(ValueError, match="async"):
        fh.get(meeting.fail.remote(ValueError), timeout=5)
    for kind in (asyncio.CancelledError, KeyboardInterrupt):
        with pytest.raises(fh.TaskError):
            fh.get(meeting.fail.remote(kind), timeout=5)


def test_async_concurrency_can_be_bounded() -> None:
    @fh.remote
    class Bounded:
        def __init__(self) -> None:
            self.now = self.most = 0

        async def work(self) -> int:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.005)
            self.now -= 1
            return self.most

    bounded = Bounded.options(max_concurrency=3).remote()  # type: ignore[attr-defined]
    assert max(fh.get([bounded.work.remote() for _ in range(20)], timeout=10)) == 3


def test_an_async_method_awaits_references() -> None:
    @fh.remote
    def double(x: int) -> int:
        return 2 * x

    @fh.remote
    class Chain:
        async def run(self, refs: list[fh.Ref[int]]) -> int:
            return sum(await asyncio.gather(*refs)) + await double.remote(5)

    chain = Chain.remote()
    assert fh.get(chain.run.remote([double.remote(n) for n in range(4)]), timeout=10) == 22


def test_a_blocking_get_in_an_async_actor_does_not_lose_calls() -> None:
    @fh.remote
    def nap() -> int:
        time.sleep(0.05)
        return 1

    @fh.remote
    class Mixed:
        async def blocking(self) -> int:
            return fh.get(nap.remote())

        async def quick(self) -> int:
            return 2

    mixed = Mixed.remote()
    for _ in range(3):
        refs = [mixed.blocking.remote(), *[mixed.quick.remote() for _ in range(5)]]
        assert fh.get(refs, timeout=5) == [1, 2, 2, 2, 2, 2]


def test_plain_methods_in_threads() -> None:
    @fh.remote(max_concurrency=4)
    class Threads:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(4)

        def meet(self) -> str:
            self.barrier.wait(10)
            return threading.current_thread().name

    threads = Threads.remote()
    assert len(set(fh.get([threads.meet.remote() for _ in range(4)], timeout=20))) == 4


def test_actors_without_cpus_are_many() -> None:
    counters = [Counter.remote(n) for n in range(30)]
    assert fh.get([c.add.remote(1) for c in counters], timeout=30) == list(range(1, 31))
    assert fh.status()["resources"]["CPU"]["free"] == 2


def test_an_actor_may_occupy_a_cpu() -> None:
    counter = Counter.options(num_cpus=1).remote()
    fh.get(counter.add.remote())
    assert fh.status()["resources"]["CPU"]["free"] == 1
    with pytest.raises(fh.Unschedulable, match=r"3 CPU \(the node has 2\)"):
        fh.get(Counter.options(num_cpus=3).remote().add.remote(), timeout=5)


def test_an_actor_calls_actors_and_itself() -> None:
    @fh.remote
    class Ping:
        def ping(self, other: fh.ActorHandle, n: int) -> int:
            return n if n == 0 else 1 + fh.get(other.add.remote(n)) * 0 + n

    counter = Counter.remote()
    ping = Ping.remote()
    assert fh.get(ping.ping.remote(counter, 3), timeout=5) == 4


def test_a_name_shows_in_errors_and_status() -> None:
    named = Counter.options(name="the-counter").remote()
    fh.get(named.add.remote())
    assert "the-counter" in repr(named)
    with pytest.raises(LookupError, match=r"fail raised in process"):
        fh.get(named.fail.remote())


def test_actors_made_by_tasks_and_actors() -> None:
    @fh.remote
    def make() -> fh.ActorHandle:
        return Counter.remote(5)

    @fh.remote
    class Parent:
        def child(self) -> fh.ActorHandle:
            self.own = Counter.remote(1)
            return self.own

    parent = Parent.remote()
    child = fh.get(parent.child.remote())
    assert fh.get(child.add.remote(1)) == 2
    handle = fh.get(make.remote())
    assert fh.get(handle.add.remote(1), timeout=5) == 6
