"""The caller's leases: how deep, how many, when they are called back and when they go back."""

from __future__ import annotations

import pytest

from freehold.core.process.leases import Leases, Limits
from freehold.core.process.rows import STALLED, Pool, Spec
from freehold.sim.bench import function
from wires import Wires

LIMITS = Limits(depth_max=8, ahead=0.002, stall=0.01, idle=0.2, leases_max=4)


def paced(pace: float | None, **options: float) -> Spec:
    spec = function("f", **options)  # type: ignore[arg-type]
    spec.pace = pace
    return spec


def bench(cpus: float = 1.0) -> tuple[Wires, Leases]:
    wires = Wires(cpus, LIMITS)
    return wires, wires.desks["driver"].process.client.leases


def only_pool(leases: Leases) -> Pool:
    (pool,) = leases.pools.values()
    return pool


@pytest.mark.parametrize(
    ("pace", "depth"), [(None, 1), (1.0, 1), (0.002, 2), (0.001, 3), (0.0001, 8), (0.0, 8)]
)
def test_depth_follows_the_pace(pace: float | None, depth: int) -> None:
    wires, leases = bench()
    wires.call("driver", paced(pace), *"abcdefghijkl")
    wires.spawn("w1")
    wires.deliver()
    (lease,) = only_pool(leases).leases
    assert len(lease.inflight) == depth
    assert len(wires.desks["w1"].process.executor.queue) == depth


def test_the_pace_is_learnt_quickly_downwards_and_slowly_upwards() -> None:
    wires, _ = bench()
    spec = paced(None)
    wires.call("driver", spec, "a", "b", "c")
    wires.spawn("w1")
    paces = []
    for took in (0.1, 0.05, 0.1):
        wires.deliver()
        wires.run("w1")
        wires.now += took
        wires.finish("w1", "x")
        wires.deliver()
        paces.append(spec.pace)
    assert paces == pytest.approx([0.1, 0.085, 0.0865])


def test_results_that_come_together_took_no_longer_than_a_worker_keeps_them_back() -> None:
    wires, leases = bench()
    spec = paced(None)
    wires.call("driver", spec, "a", "b", "c")
    wires.spawn("w1")
    paces = []
    for took in (0.1, 0.0, 0.1):  # the second comes with the first
        wires.deliver()
        wires.run("w1")
        wires.now += took
        wires.finish("w1", "x")
        wires.deliver()
        paces.append(spec.pace)
    per_task = leases.limits.keep / 2
    assert paces == pytest.approx([0.1, 0.1, 0.1 + (per_task - 0.1) * 0.3])


def test_as_many_leases_are_requested_as_tasks_queue_but_no_more_than_could_be_granted() -> None:
    wires, leases = bench(cpus=2.0)
    wires.call("driver", paced(None), "a")
    assert wires.sent("driver", "node") == ["LEASE"]
    wires.call("driver", paced(None), "b", "c", "d")
    assert wires.sent("driver", "node") == ["LEASE"] * 2
    assert only_pool(leases).most == 2


def test_there_is_a_pool_for_each_shape() -> None:
    wires, leases = bench(cpus=4.0)
    wires.call("driver", paced(None, cpus=1.0), "a")
    wires.call("driver", paced(None, cpus=2.0), "b")
    wires.call("driver", paced(None, cpus=0.0), "c")
    assert {shape[0]: pool.most for shape, pool in leases.pools.items()} == {1.0: 4, 2.0: 2, 0.0: 4}


def test_an_idle_lease_goes_back_after_a_while() -> None:
    wires, leases = bench()
    wires.begin(paced(None))
    wires.end("w1", "x")
    process = wires.desks["driver"].process
    assert process.deadline() == pytest.approx(wires.now + LIMITS.idle)
    wires.tick(LIMITS.idle / 2)
    assert only_pool(leases).leases
    wires.tick(LIMITS.idle / 2)
    assert not only_pool(leases).leases
    wires.deliver()
    assert not wires.node.workers.leases


def two_leases(stalled: float) -> Wires:
    """Worker w1 runs `a`, with `b` and `c` behind it; w2 has just been granted."""
    wires, _ = bench(cpus=2.0)
    wires.call("driver", paced(0.0001), "a", "b", "c")
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    wires.now += stalled
    wires.worker("w2")
    wires.deliver("driver")
    return wires


def test_a_stalled_lease_gives_back_all_that_waits_and_takes_no_more_until_it_answers() -> None:
    wires = two_leases(stalled=1.0)
    assert wires.sent("driver", "w1") == ["RECALL"]
    wires.deliver()
    assert [run.id for run in wires.desks["w2"].process.executor.queue] == [
        wires.row("driver", "b").id,
        wires.row("driver", "c").id,
    ]
    wires.call("driver", wires.row("driver", "a").task.spec, "d")  # type: ignore[union-attr]
    assert wires.sent("driver", "w1") == []
    wires.end("w1", "x")
    lease = wires.desks["driver"].process.client.leases.pools
    assert not any(each.shut & STALLED for pool in lease.values() for each in pool.leases)


def test_short_tasks_behind_one_that_does_not_stall_stay() -> None:
    wires = two_leases(stalled=0.0)
    assert wires.sent("driver", "w1") == []


def test_a_stall_is_noticed_in_time_even_if_nothing_happens() -> None:
    wires = two_leases(stalled=0.0)
    process = wires.desks["driver"].process
    assert process.deadline() == pytest.approx(LIMITS.stall)
    wires.tick(LIMITS.stall)
    assert wires.sent("driver", "w1") == ["RECALL"]


def test_a_lease_whose_last_task_is_returned_to_another_is_idle() -> None:
    """It must not be forgotten: neither used nor given back."""
    wires, leases = bench(cpus=2.0)
    wires.call("driver", paced(0.0001), "a", "b")
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    wires.now += 1.0
    wires.worker("w2")
    wires.deliver("driver")
    wires.finish("w1", "x")  # just before it hears that `b` is called back
    wires.deliver("driver", "w1")
    wires.deliver("w1", "driver")
    assert wires.sent("driver", "w2") == ["FUNCTION", "TASK"]
    pool = only_pool(leases)
    assert len(pool.leases) == 2
    assert all(lease.inflight or lease in pool.idle for lease in pool.leases)


def test_a_reclaimed_lease_takes_no_more_and_is_returned_when_it_is_empty() -> None:
    wires, leases = bench()
    wires.call("driver", paced(0.0001), "a", "b")
    wires.spawn("w1")
    wires.deliver()
    (lease,) = only_pool(leases).leases
    driver = wires.desks["driver"].process
    node = driver.owner.node
    assert node is not None
    wires.now += LIMITS.slice
    leases.on_reclaim(node, wires.now, lease.id)
    wires.call("driver", paced(0.0001), "c")
    assert len(lease.inflight) == 2
    for _ in "ab":
        wires.run("w1")
        wires.finish("w1", "x")
    wires.deliver("w1", "driver")
    assert wires.sent("driver", "node").count("LEASE_RETURN") == 1
    assert lease not in only_pool(leases).leases
    wires.deliver()
    assert wires.run("w1") == "runs c"  # by a new lease
    assert driver.client.leases.requests.open == {}


def test_a_reclaimed_lease_is_used_for_its_slice_of_time() -> None:
    wires, leases = bench()
    wires.call("driver", paced(0.0001), "a", "b")
    wires.spawn("w1")
    wires.deliver()
    (lease,) = only_pool(leases).leases
    node = wires.desks["driver"].process.owner.node
    assert node is not None
    leases.on_reclaim(node, wires.now, lease.id)
    wires.call("driver", paced(0.0001), "c")
    assert len(lease.inflight) == 3
    wires.run("w1")
    wires.finish("w1", "x")
    wires.now += LIMITS.slice
    wires.deliver("w1", "driver")
    wires.call("driver", paced(0.0001), "d")
    assert len(lease.inflight) == 2
    for _ in "bc":
        wires.deliver("driver", "w1")
        wires.run("w1")
        wires.finish("w1", "x")
    wires.deliver("w1", "driver")
    assert wires.sent("driver", "node").count("LEASE_RETURN") == 1


def test_an_idle_lease_that_is_reclaimed_is_returned_at_once() -> None:
    wires, leases = bench()
    wires.begin(paced(None))
    wires.end("w1", "x")
    (lease,) = only_pool(leases).leases
    node = wires.desks["driver"].process.owner.node
    assert node is not None
    leases.on_reclaim(node, wires.now, lease.id)
    wires.settle()
    assert wires.sent("driver", "node") == ["LEASE_RETURN"]


def test_a_grant_that_is_not_needed_any_more_goes_back() -> None:
    wires, leases = bench()
    wires.call("driver", paced(None), "a")
    wires.deliver()
    only_pool(leases).queue.clear()
    wires.tick(LIMITS.idle)
    assert wires.sent("driver", "node") == ["LEASE_CANCEL"]
    wires.worker("w1")
    wires.deliver()
    assert not wires.node.workers.leases


def test_what_can_never_be_had_fails_the_tasks_that_wait_for_it() -> None:
    wires, _ = bench()
    wires.call("driver", paced(None, cpus=2.0), "a", "b")
    wires.deliver()
    for name in "ab":
        assert wires.row("driver", name).data[0] == "Unschedulable"
        assert "2 CPU (the node has 1)" in wires.row("driver", name).data[1]
