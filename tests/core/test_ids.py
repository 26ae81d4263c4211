"""Names: the same from run to run, never the same twice."""

from __future__ import annotations

import pytest

from freehold.core import ids
from freehold.core.ids import Context, Contexts


def test_a_rerun_submits_the_same_ids() -> None:
    task = b"t" * ids.TASK_ID_BYTES
    first, second = Context(b"", task), Context(b"", task)
    assert [first.next_id() for _ in range(3)] == [second.next_id() for _ in range(3)]
    assert first.base == ids.context_of(task)


def test_a_task_that_submits_nothing_has_no_context() -> None:
    assert Context(b"", b"t" * 16).base == b""


def test_ids_are_numbered_within_their_context() -> None:
    context = Context(b"c" * ids.CONTEXT_BYTES)
    made = [context.next_id() for _ in range(300)]
    assert made == sorted(set(made))
    assert all(len(id) == ids.TASK_ID_BYTES for id in made)
    assert made[258] == b"c" * 12 + b"\0\0\1\2"


def test_the_first_output_is_the_task() -> None:
    task = b"t" * ids.TASK_ID_BYTES
    assert ids.ref_id(task, 0) == task
    names = [ids.ref_id(task, output) for output in (0, 1, 255, 256, ids.OUTPUTS_MAX)]
    assert len(set(names)) == 5
    assert [ids.task_of(name) for name in names] == [task] * 5
    assert [ids.output_of(name) for name in names] == [0, 1, 255, 256, ids.OUTPUTS_MAX]


def test_a_second_run_in_one_process_makes_other_ids_and_repeats_too() -> None:
    task = b"t" * ids.TASK_ID_BYTES
    here, there = Contexts(), Contexts()
    runs = [here.base(task) for _ in range(3)]
    assert len(set(runs)) == 3
    assert runs[0] == ids.context_of(task)
    assert [there.base(task) for _ in range(3)] == runs


def test_the_memory_of_contexts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "CONTEXTS_MAX", 10)
    contexts = Contexts()
    for number in range(100):
        contexts.base(number.to_bytes(16, "big"))
    assert len(contexts._runs) == 10
