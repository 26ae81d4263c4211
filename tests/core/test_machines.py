"""What only several machines together can show, each case by example."""

from __future__ import annotations

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.process.leases import Limits
from freehold.errors import from_wire
from freehold.sim.bench import Bench, function


def test_errors_cross_the_wire_by_name() -> None:
    assert type(from_wire("WorkerDied", "it died")).__name__ == "WorkerDied"


def ready(cpus: float = 1.0, limits: Limits | None = None) -> Bench:
    """A bench whose first worker is leased by the driver and has run one task."""
    bench = Bench(cpus, limits)
    bench.submit("driver", ["first"], function("f"))
    bench.deliver()
    bench.worker("w1")
    bench.deliver()
    bench.run("w1")
    bench.finish("w1", "0")
    bench.deliver()
    bench.drop("driver", "first")
    bench.lines.clear()
    return bench


def test_depth_follows_the_measured_pace() -> None:
    bench = ready(limits=Limits(depth_max=8, ahead=0.01))
    for pace, expected in ((1.0, 1), (0.005, 3), (1e-6, 8)):
        spec = function(f"pace{pace}")
        spec.pace = pace
        names = [f"{pace}-{number}" for number in range(10)]
        for name in names:
            bench.submit("driver", [name], spec)
        (lease,) = next(iter(bench.desks["driver"].process.client.leases.pools.values())).leases
        assert len(lease.inflight) == expected
        for _ in names:
            bench.deliver()
            bench.run("w1")
            bench.finish("w1", "done")
        bench.deliver()


def test_what_a_worker_sealed_and_never_reported_is_freed() -> None:
    bench = ready(cpus=2)
    bench.submit("driver", ["a"], function("f"))
    bench.deliver()
    bench.run("w1")
    bench.finish("w1", "bigvalue")
    bench.flights = [flight for flight in bench.flights if flight[1] == "node"]  # not the answer
    bench.deliver("node")
    assert bench.node.store.objects
    bench.kill("w1")
    bench.deliver()
    assert bench.get("driver", "a").startswith("failed ['WorkerDied'")
    assert not bench.node.store.objects
    assert bench.node.store.extents.granted == 0


def test_a_place_is_never_announced_before_its_object() -> None:
    """A crash between two sends must leave the node informed, not the caller."""
    bench = ready()
    desk = bench.desks["w1"]
    bench.submit("driver", ["a"], function("f"))
    bench.submit("driver", ["b"], function("f"))
    bench.deliver()
    bench.run("w1")
    process = desk.process
    driver, node = process.peers[bench.desks["driver"].machine.id], process.owner.node
    assert node is not None
    process.send(driver, m.UNBLOCKED)
    process.heap.add(0, 1 << 22, False)
    process.seal(b"x" * 16, driver.id, 0, 10)
    assert process.dirty == [node, driver]


def test_the_same_id_of_two_owners_is_two_objects() -> None:
    bench = ready()
    store, worker = bench.node.store, bench.node.peers[bench.desks["w1"].machine.id]
    bench.node.store.on_extent(worker, 0.0, 1, 1000)
    one, other = b"a" * 8, b"b" * 8
    store.on_seal(worker, 0.0, b"x" * 16, one, b"", 0, 100, [])
    store.on_seal(worker, 0.0, b"x" * 16, other, b"", 128, 100, [])
    bench.node.check()
    store.on_free(Peer(one), 0.0, [[b"x" * 16, worker.id]])
    bench.node.check()
    (left,) = store.objects.values()
    assert (left.owner, left.offset) == (other, 128)


def test_a_reference_whose_owner_died_before_this_process_began_is_no_hang() -> None:
    bench = ready(cpus=2)
    bench.submit("driver", ["a"], function("f"))
    bench.deliver()
    bench.run("w1")
    bench.put("w1", "y", "7")
    bench.finish("w1", "box", ["y"])
    bench.deliver()
    bench.kill("w1")
    bench.deliver()
    bench.submit("driver", ["b"], function("g"))
    bench.deliver()
    bench.worker("w2")
    bench.deliver()
    late = bench.desks["w2"]
    row = late.process.owner.hold(b"y" * 16, bench.desks["w1"].machine.id, "w1")
    late.process.owner.want(row)
    late.process.on_down(late.process.peer(bench.desks["w1"].machine.id), 0.0)  # it cannot dial
    bench.settle()
    bench.deliver()
    assert row.data[0] == "OwnerDied"


def test_a_task_that_is_tried_again_keeps_what_it_needs() -> None:
    """The first try kept a reference; when that is on record, the second try still needs all."""
    bench = ready(cpus=2)
    bench.submit("driver", ["y"], function("make"))
    bench.deliver()
    bench.run("w1")
    bench.put("w1", "inner", "7")
    bench.finish("w1", "box", ["inner"])
    bench.deliver()
    bench.open("driver", "y")
    bench.put("driver", "x", "bigvalue")
    bench.submit("driver", ["a"], function("f", retries=2), deps=["x"], nested=["inner"])
    task = bench.desks["driver"].refs["a"].task
    assert task is not None
    bench.drop("driver", "x")
    bench.deliver()
    driver = bench.desks["driver"].process
    task.pin()
    driver.owner.unpin(task)
    assert task.links is not None, "it is not over"
    assert driver.heap.used
