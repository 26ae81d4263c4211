"""Results that cannot be delivered whole, and ids of a task that runs twice in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import freehold as fh
from sessions import until


@pytest.fixture
def small_arena() -> Iterator[None]:
    fh.init(num_cpus=1, arena_bytes_max=64 << 20)
    yield
    fh.shutdown()


@pytest.mark.usefixtures("small_arena")
def test_a_result_that_finds_no_room_takes_the_earlier_ones_back() -> None:
    @fh.remote(num_returns=2, max_retries=0)
    def large() -> tuple[bytes, bytes]:
        return bytes(20 << 20), bytes(60 << 20)

    for _ in range(5):  # five of the first results would not fit if they stayed
        for ref in large.remote():  # type: ignore[attr-defined]
            with pytest.raises(fh.ObjectStoreFull):
                fh.get(ref)
    del ref
    until(lambda: fh.status()["objects"]["count"] == 0, 5)


@pytest.mark.usefixtures("small_arena")
def test_a_second_run_in_one_process_makes_new_ids() -> None:
    @fh.remote(retry_exceptions=True)
    def thrice(made: list[fh.Ref[int]] = []) -> list[int]:  # noqa: B006 (it outlives the run)
        made.append(fh.put(len(made)))
        if len(made) < 3:
            raise ValueError
        return fh.get(made)

    assert fh.get(thrice.remote()) == [0, 1, 2]
