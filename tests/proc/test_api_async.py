"""Futures and await: an edge of the library, in the user's own loop and threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from typing import Any

import pytest

import freehold as fh
from sessions import until

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
def nap(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@fh.remote
def fail(error: BaseException) -> None:
    raise error


def test_await_in_any_number() -> None:
    async def main() -> list[int]:
        assert await fh.put(1) == 1
        refs = [nap.remote(0.001, n) for n in range(100)]
        return list(await asyncio.gather(*refs))

    assert asyncio.run(main()) == list(range(100))


def test_the_loop_runs_while_it_waits() -> None:
    async def main() -> int:
        ref = nap.remote(0.2)
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.002)

        other = asyncio.create_task(turn())
        await ref
        other.cancel()
        return turns

    assert asyncio.run(main()) > 10


def test_awaiting_an_error() -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            await fail.remote(KeyError("k"))
        ready = fail.remote(KeyError("k"))
        fh.wait([ready])
        with pytest.raises(fh.TaskError):
            await ready
        for kind in (StopIteration, StopAsyncIteration):
            with pytest.raises(fh.TaskError):
                await asyncio.wait_for(fail.remote(kind(3)), 10)

    asyncio.run(main())


def test_a_loop_that_is_gone_harms_nobody() -> None:
    async def main() -> Any:
        ref = nap.remote(0.3, 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ref, 0.01)
        return ref

    ref = asyncio.run(main())
    assert fh.get(ref, timeout=5) == 5
    assert fh.get(nap.remote(0), timeout=5) is None


def test_futures() -> None:
    future = nap.remote(0.01, "v").future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(5) == "v"
    assert fh.put(3).future().result(0) == 3
    with pytest.raises(ValueError, match="x"):
        fail.remote(ValueError("x")).future().result(5)
    with pytest.raises(fh.TaskError):
        fail.remote(StopIteration()).future().result(5)
    done, _ = concurrent.futures.wait([nap.remote(0, n).future() for n in range(20)], 10)
    assert sorted(future.result() for future in done) == list(range(20))


def test_a_cancelled_future_leaves_the_task_running() -> None:
    ref = nap.remote(0.1, 1)
    future = ref.future()
    assert future.cancel()
    assert fh.get(ref, timeout=5) == 1


def test_callbacks_may_use_the_library() -> None:
    got: list[Any] = []

    def callback(future: concurrent.futures.Future[Any]) -> None:
        ref = nap.remote(0.01, future.result() + 1)
        got.append(fh.get(ref, timeout=5))
        del ref

    for _ in range(3):
        nap.remote(0.02, 1).future().add_done_callback(callback)
    fh.get(nap.remote(0.05), timeout=10)
    until(lambda: got == [2, 2, 2], 10)
