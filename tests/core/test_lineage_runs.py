"""Lost values are made again: by one run, however many of its results are lost."""

from __future__ import annotations

from freehold.core.ids import ref_id
from freehold.core.messages import SHARED
from freehold.core.process.rows import Row
from freehold.sim.bench import function
from wires import Wires


def finish(wires: Wires, worker: str) -> None:
    """The worker's run returns two values in shared memory."""
    desk = wires.desks[worker]
    run, desk.run = desk.run, None
    assert run is not None
    outputs = [
        (*wires._place(desk, ref_id(run.id, output), run.peer.id, "big"), list[Row]())
        for output in range(2)
    ]
    desk.process.executor.finish(run, outputs)
    wires.settle()
    wires.deliver()


def two_results() -> tuple[Wires, list[Row]]:
    """The driver has two results of one task, which is their recipe."""
    wires = Wires(2.0)
    wires.desks["driver"].process.client.lineage.active = True
    wires.submit("driver", ["a", "b"], function("f", retries=3, outputs=2))
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    finish(wires, "w1")
    wires.kill("w1")  # its values stay
    wires.deliver()
    rows = [wires.row("driver", name) for name in "ab"]
    assert [row.state for row in rows] == [SHARED, SHARED]
    return wires, rows


def assert_whole(wires: Wires, rows: list[Row]) -> None:
    """Both values are there, by one more run, and nothing is under way any more."""
    client = wires.desks["driver"].process.client
    assert [row.state for row in rows] == [SHARED, SHARED]
    assert [row.holds for row in rows] == [0, 0]
    assert client.lineage.revived == 1
    assert len(wires.seen("TASK_FULL")) == 2
    assert not any(lease.inflight for pool in client.leases.pools.values() for lease in pool.leases)
    client.lineage.check()


def test_results_that_are_lost_together_cost_one_run() -> None:
    wires, rows = two_results()
    wires.desks["driver"].process.client.lineage.node_died(rows[0].data[3])
    wires.settle()
    wires.spawn("w2")
    wires.deliver()
    wires.run("w2")
    finish(wires, "w2")
    assert_whole(wires, rows)


def test_a_result_that_is_lost_while_another_is_made_again_comes_with_it() -> None:
    wires, rows = two_results()
    lineage = wires.desks["driver"].process.client.lineage
    lineage.lost(rows[0], rows[0].data)
    wires.settle()
    wires.spawn("w2")
    wires.deliver()
    wires.run("w2")
    lineage.lost(rows[1], rows[1].data)
    finish(wires, "w2")
    assert_whole(wires, rows)
