"""What comes together is handled together, and means what it means one by one."""

from __future__ import annotations

from typing import Any

import pytest

from freehold.core import messages as m
from freehold.core.messages import INLINE, PENDING
from freehold.core.process.executor import Run
from freehold.core.process.leases import Limits
from freehold.core.process.rows import Waiter
from freehold.sim.bench import function
from wires import Wires

NAMES = ("a", "b", "c", "d")


def sent(limits: Limits | None = None) -> Wires:
    """Worker w1 has been sent four tasks."""
    spec = function("f")
    spec.pace = 0.0001
    wires = Wires(1.0, limits)
    wires.call("driver", spec, *NAMES)
    wires.spawn("w1")
    wires.deliver()
    return wires


def done(wires: Wires, *names: str) -> list[Any]:
    """The messages that say that these tasks are over."""
    return [[m.DONE, wires.desks["driver"].refs[name].id, name.encode()] for name in names]


def take(wires: Wires, messages: list[Any], together: bool) -> list[Any]:
    """The driver takes w1's messages; those that it left to the handlers."""
    process = wires.desks["driver"].process
    peer = process.peers[wires.desks["w1"].machine.id]
    left = process.in_bulk(peer, 1.0, messages) if together else messages
    for op, *fields in left:
        process.handlers[op](peer, 1.0, *fields)
    return left


def seen(wires: Wires) -> Any:
    """What the driver knows of the tasks, and of the lease."""
    process = wires.desks["driver"].process
    rows = [wires.desks["driver"].refs[name] for name in NAMES]
    states = [(row.state, row.data, row.task is None, row.handles, row.holds) for row in rows]
    ((pool, lease),) = [
        (pool, lease) for pool in process.client.leases.pools.values() for lease in pool.leases
    ]
    paces = {task.spec.pace for task in lease.inflight.values()}
    return states, list(lease.inflight), lease in pool.idle, lease.last, lease.batch, paces


@pytest.mark.parametrize("names", ["ab", "abc", "abcd", "aabb", "cab"])
def test_results_together_are_what_they_are_one_by_one(names: str) -> None:
    both = []
    for together in (True, False):
        wires = sent()
        wires.submit("driver", ["e"], function("g"), deps=["b"])  # somebody waits for b
        row, waiter = wires.desks["driver"].refs["c"], Waiter(1)
        row.waiters = [waiter]  # and for c
        left = take(wires, done(wires, *names), together)
        assert not together or not left
        both.append((seen(wires), waiter.left))
    assert both[0] == both[1]
    states = both[0][0][0]
    assert [state[0] for state in states] == [
        INLINE if name in names else PENDING for name in NAMES
    ]


def test_a_result_that_nobody_refers_to_is_dropped() -> None:
    wires = sent()
    for name in ("a", "b"):
        row = wires.desks["driver"].refs[name]
        wires.desks["driver"].process.owner.drop(row)
    messages = done(wires, "a", "b", "c")
    assert take(wires, messages, True) == []
    rows = wires.desks["driver"].process.owner.rows
    assert [message[1] in rows for message in messages] == [False, False, True]


@pytest.mark.parametrize("other", [[m.DONE], [m.DONE, b"x"], [m.DONE_FULL, b"x", [], []], 7, []])
def test_the_first_that_is_something_else_is_left_and_all_that_follow(other: Any) -> None:
    wires = sent()
    first, second, third = done(wires, "a", "b", "c")
    process = wires.desks["driver"].process
    peer = process.peers[wires.desks["w1"].machine.id]
    messages = [first, second, other, third]
    assert process.in_bulk(peer, 1.0, messages) == [other, third]
    assert process.in_bulk(peer, 1.0, [third]) == [third]
    assert [wires.desks["driver"].refs[name].state for name in NAMES] == [1, 1, 0, 0]


def test_who_has_no_tasks_of_this_process_finishes_none() -> None:
    wires = sent()
    process = wires.desks["driver"].process
    messages = done(wires, "a", "b")
    assert process.in_bulk(wires.node.peer(b"stranger"), 1.0, messages) == messages


def test_tasks_together_are_queued_in_their_order() -> None:
    wires = sent()
    worker = wires.desks["w1"].process
    peer = worker.peers[wires.desks["driver"].machine.id]
    runs = worker.executor.queue
    runs.clear()
    messages = [[m.TASK, bytes([number]) * 16, b"key", b"args"] for number in range(5)]
    odd = [m.TASK, b"x" * 16, b"key"]
    assert worker.in_bulk(peer, 1.0, [*messages, odd, messages[0]]) == [odd, messages[0]]
    expected = [Run(peer, id, key, args, None) for _, id, key, args in messages]
    fields = Run.__slots__
    assert [[getattr(run, name) for name in fields] for run in runs] == [
        [getattr(run, name) for name in fields] for run in expected
    ]


def test_tasks_that_come_while_one_waits_are_left_to_be_turned_back() -> None:
    wires = sent()
    worker = wires.desks["w1"].process
    peer = worker.peers[wires.desks["driver"].machine.id]
    worker.executor.callers[peer.id] = peer
    messages = [[m.TASK, bytes([number]) * 16, b"key", b""] for number in range(2)]
    assert worker.in_bulk(peer, 1.0, messages) == messages
