"""Where a task goes for its arguments' sake, and how many leases are asked for there."""

from __future__ import annotations

import pytest

from freehold.core.machine import Peer
from freehold.core.messages import INLINE, SHARED
from freehold.core.process.leases import Limits
from freehold.core.process.locality import BRING, BRING_BYTE, near
from freehold.core.process.rows import Links, Row, Task
from freehold.sim.bench import function
from wires import Wires

HOME, OTHER, THIRD = (name * 8 for name in (b"h", b"o", b"t"))
MIB = 1 << 20


def shared(node: bytes, size: int = MIB, holds: int = 1) -> Row:
    row = Row(bytes(16), None)
    row.state, row.data, row.holds = SHARED, [b"w" * 8, 0, size, node], holds
    return row


def task(*rows: Row, pace: float | None = None, args: Row | None = None) -> Task:
    made = Task(function("f"), b"")
    made.spec.pace = pace
    made.links = Links()
    made.links.deps = [(number, row) for number, row in enumerate(rows)]
    made.links.args_row = args
    return made


def goes(made: Task) -> bytes:
    return near(made, Peer(HOME, "", "node"))


def test_it_goes_to_the_node_with_most_bytes() -> None:
    assert goes(task(shared(OTHER, 10), shared(THIRD, 11), shared(OTHER, 2))) == OTHER
    assert goes(task(shared(THIRD, 10), args=shared(OTHER, 11))) == OTHER


def test_without_large_arguments_it_goes_anywhere() -> None:
    small = Row(bytes(16), None)
    small.state, small.data = INLINE, b"x"
    assert goes(task(small, pace=1e-6)) == b""
    assert goes(Task(function("f"), b"")) == b""


@pytest.mark.parametrize(("factor", "where"), [(0.9, HOME), (1.1, b"")])
def test_it_leaves_home_if_it_runs_longer_than_its_arguments_travel(
    factor: float, where: bytes
) -> None:
    pace = factor * (BRING + MIB * BRING_BYTE)
    assert goes(task(shared(HOME), pace=pace)) == where
    assert goes(task(pace=pace, args=shared(HOME))) == where


def test_it_leaves_home_while_nothing_is_known_of_its_function() -> None:
    assert goes(task(shared(HOME))) == b""


def test_what_many_tasks_read_is_brought_once_and_keeps_none_at_home() -> None:
    assert goes(task(shared(HOME, holds=2), pace=1e-4)) == b""
    assert goes(task(shared(HOME, holds=2), shared(HOME), pace=1e-4)) == HOME


def test_no_more_leases_are_asked_for_at_home_than_it_could_grant() -> None:
    leases = Wires(2.0, Limits()).desks["driver"].process.client.leases
    home, cpus = leases.home
    leases.cpus, leases.nodes = 8.0, 4
    assert cpus == 2.0
    assert leases.pool_of((1.0, (), ("node", home, True))).most == 2
    assert leases.pool_of((1.0, (), ("node", OTHER, True))).most == 8
    assert leases.pool_of((1.0, (), ())).most == 8
