"""Large copies: every byte arrives, and only a helper that is at work is waited for."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from freehold.io import copier
from freehold.io.copier import LEAST, PIECE, Copier

ROOM = LEAST + 3 * PIECE


@pytest.fixture
def mapping() -> mmap.mmap:
    return mmap.mmap(-1, ROOM)


@pytest.fixture(params=["helped", "alone"])
def made(mapping: mmap.mmap, request: pytest.FixtureRequest) -> Iterator[Copier]:
    one = Copier(mapping)
    one._alone = request.param == "alone"
    yield one
    one.close()


def pattern(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1)


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, LEAST, LEAST + PIECE + 1])
def test_every_byte_arrives_and_no_other_changes(
    made: Copier, mapping: mmap.mmap, size: int
) -> None:
    source = pattern(size)[:size]
    for part in (source, bytearray(source), memoryview(source)):
        mapping[:] = bytes(ROOM)
        made.copy(64, part)
        assert mapping[64 : 64 + size] == source
        assert not any(mapping[:64])
        assert not any(mapping[64 + size : 64 + size + 4096])


def test_the_source_is_let_go(made: Copier) -> None:
    source = bytearray(LEAST)
    made.copy(0, source)
    source.clear()  # which a buffer that is still held would not allow


def test_what_is_not_contiguous_is_refused(made: Copier) -> None:
    with pytest.raises(BufferError):
        made.copy(0, memoryview(bytes(LEAST))[::2])


def test_a_helper_that_never_begins_is_not_waited_for(
    mapping: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(copier.threading.Thread, "start", lambda thread: started.append(thread))
    one = Copier(mapping)
    one._alone = False
    one.copy(0, pattern(LEAST)[:LEAST])
    assert len(started) == 1
    assert mapping[:LEAST] == pattern(LEAST)[:LEAST]


def test_who_can_have_no_helper_copies_alone(
    mapping: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(copier.threading.Thread, "start", refuse)
    one = Copier(mapping)
    one._alone = False
    one.copy(0, pattern(LEAST)[:LEAST])
    assert one._alone
    assert mapping[:LEAST] == pattern(LEAST)[:LEAST]


def test_the_helper_ends_with_its_copier(mapping: mmap.mmap) -> None:
    before = set(threading.enumerate())
    one = Copier(mapping)
    one._alone = False
    one.copy(0, bytes(LEAST))
    (helper,) = set(threading.enumerate()) - before
    one.close()
    helper.join(5.0)
    assert not helper.is_alive()


def test_threads_may_copy_at_the_same_time(made: Copier, mapping: mmap.mmap) -> None:
    half = PIECE + 5
    parts = [bytes([number]) * half for number in (1, 2)]
    threads = [
        threading.Thread(target=made.copy, args=(number * half, part))
        for number, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mapping[: 2 * half] == b"".join(parts)
