"""The parts of a process by example: calls, executors, actors, memory, deaths, names."""

from __future__ import annotations

import pytest

from freehold.core import messages as m
from freehold.core.ids import Context, Contexts, context_of, output_of, ref_id, task_of
from freehold.core.leases import Limits
from freehold.core.machine import NEVER, Machine, Peer
from freehold.errors import ProtocolError, from_wire
from freehold.sim.bench import Bench, actor_class, function, method

# -- ids ------------------------------------------------------------------------------------------


def test_ids_name_results_before_they_exist() -> None:
    context = Context(b"c" * 12)
    first, second = context.next_id(), context.next_id()
    assert (len(first), first[:12], first != second) == (16, b"c" * 12, True)
    assert ref_id(first, 0) == first
    assert task_of(ref_id(first, 3)) == first
    assert output_of(ref_id(first, 3)) == 3
    assert output_of(first) == 0


def test_a_rerun_elsewhere_makes_the_same_ids_and_here_others() -> None:
    task = b"t" * 16
    here, there = Contexts(), Contexts()
    assert here.base(task) == there.base(task) == context_of(task)
    assert here.base(task) != context_of(task)
    running = Context(b"", task)
    assert running.next_id()[:12] == context_of(task)


# -- the contract ---------------------------------------------------------------------------------


def test_an_opcode_that_nobody_takes_is_the_peers_fault() -> None:
    machine = Machine(b"me", m.OPCODES)
    with pytest.raises(ProtocolError, match="opcode"):
        machine.handlers[m.TASK](Peer(b"x" * 8, kind="worker"), 0.0)


def test_a_peer_is_dirty_once_and_never_when_it_is_down() -> None:
    machine = Machine(b"me", m.OPCODES)
    peer = machine.peer(b"x" * 8, "there")
    machine.send(peer, m.BYE)
    machine.send(peer, m.BYE)
    assert machine.dirty == [peer]
    peer.outbox.clear()
    machine.dirty.clear()
    peer.down = True
    machine.send(peer, m.BYE)
    assert not peer.outbox
    assert machine.deadline() == NEVER
    assert machine.peer(b"x" * 8) is peer


def test_every_message_has_an_opcode_and_an_explanation() -> None:
    assert [message.op for message in m.MESSAGES] == list(range(m.OPCODES))
    assert all(message.doc and message.sender and message.receiver for message in m.MESSAGES)


def test_errors_cross_the_wire_by_name() -> None:
    assert type(from_wire("WorkerDied", "it died")).__name__ == "WorkerDied"


# -- calls ----------------------------------------------------------------------------------------


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


def test_a_task_waits_for_its_arguments_and_gets_their_values() -> None:
    bench = ready()
    bench.submit("driver", ["a"], function("f"))
    bench.submit("driver", ["b"], function("f"), deps=["a"])
    bench.deliver()
    bench.run("w1")
    bench.finish("w1", "7")
    bench.deliver()
    (line,) = [line for line in bench.lines if "TASK_FULL" in line]
    assert "[0 a driver 'driver' 1 7]" in line


def test_a_failed_argument_fails_the_task_without_running_it() -> None:
    bench = ready()
    bench.submit("driver", ["a"], function("f"))
    bench.submit("driver", ["b"], function("f"), deps=["a"])
    bench.deliver()
    bench.run("w1")
    bench.finish("w1", "!oops")
    bench.deliver()
    assert bench.get("driver", "b") == "failed oops"
    assert bench.run("w1") == "nothing to run"


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


def test_a_task_that_comes_while_another_waits_is_turned_back() -> None:
    """It may be what the waiting task waits for; behind it, it would never run."""
    bench = ready()
    spec = function("f")
    spec.pace = 1e-6
    bench.submit("driver", ["a"], spec)
    bench.deliver()
    bench.run("w1")
    worker = bench.desks["w1"]
    worker.process.executor.block(worker.run)
    bench.submit("driver", ["b"], spec)  # sent before the driver knows
    bench.settle()
    bench.deliver()
    assert not worker.process.executor.queue
    assert any(line.startswith("w1 > driver: RETURNED [b] True") for line in bench.lines)
    worker.process.executor.unblock()
    bench.finish("w1", "1")
    bench.deliver()
    assert bench.run("w1") == "runs b"


def test_an_actor_that_waits_gives_no_call_back() -> None:
    bench = ready()
    bench.submit("driver", ["k"], actor_class("K"))
    bench.deliver()
    bench.worker("w2")
    bench.deliver()
    bench.run("w2")
    bench.finish("w2", "")
    bench.deliver()
    bench.submit("driver", ["a"], method("m"), actor="k")
    bench.submit("driver", ["b"], method("m"), actor="k")
    bench.deliver()
    bench.run("w2")
    desk = bench.desks["w2"]
    desk.process.executor.block(desk.run)
    bench.settle()
    bench.deliver()
    assert not [line for line in bench.lines if "w2 > driver: RETURNED" in line]
    desk.process.executor.unblock()
    bench.finish("w2", "1")
    assert bench.run("w2") == "runs b"


def test_an_unschedulable_task_fails_at_once() -> None:
    bench = Bench(cpus=1)
    bench.submit("driver", ["a"], function("f", cpus=4))
    bench.deliver()
    assert bench.get("driver", "a").startswith("failed ['Unschedulable'")


def test_a_late_answer_of_a_dead_worker_is_refused() -> None:
    bench = ready(cpus=2)
    bench.submit("driver", ["a"], function("f", retries=1))
    bench.deliver()
    bench.run("w1")
    bench.finish("w1", "late")
    late, bench.flights = bench.flights, []
    bench.kill("w1")
    bench.deliver()
    bench.worker("w2")
    bench.deliver()
    bench.run("w2")
    bench.flights += late
    bench.deliver()
    assert bench.get("driver", "a") == "pending"
    bench.finish("w2", "second")
    bench.deliver()
    assert bench.get("driver", "a") == "inline second"


def test_a_method_call_after_a_kill_fails_and_its_arguments_outlive_the_process() -> None:
    bench = ready(cpus=2)
    bench.submit("driver", ["k"], actor_class("K"))
    bench.deliver()
    bench.worker("w2")
    bench.deliver()
    bench.run("w2")
    bench.finish("w2", "")
    bench.deliver()
    bench.put("driver", "x", "bigvalue")
    bench.submit("driver", ["a"], method("m"), deps=["x"], actor="k")
    bench.drop("driver", "x")
    client = bench.desks["driver"].process.client
    client.actors.kill(client.actors.line(bench.desks["driver"].refs["k"]))
    bench.settle()
    assert bench.get("driver", "a").startswith("failed ['ActorDied' 'm: it was killed")
    assert bench.desks["driver"].process.heap.used, "the actor may be reading it still"
    bench.kill("w2")
    bench.deliver()
    assert not bench.desks["driver"].process.heap.used
    bench.submit("driver", ["b"], method("m"), actor="k")
    assert bench.get("driver", "b").startswith("failed ['ActorDied'")


def test_a_constructor_that_raises_kills_the_actor_and_ends_its_worker() -> None:
    bench = ready(cpus=2)
    bench.submit("driver", ["k"], actor_class("K"))
    bench.submit("driver", ["a"], method("m"), actor="k")
    bench.deliver()
    bench.worker("w2")
    bench.deliver()
    bench.run("w2")
    bench.finish("w2", "!no")
    bench.deliver()
    assert bench.get("driver", "a").startswith(
        "failed ['ActorDied' 'm: its constructor raised' no]"
    )
    assert "node > w2: EXIT False" in bench.lines


# -- memory ---------------------------------------------------------------------------------------


def test_large_results_are_freed_where_they_lie() -> None:
    bench = ready()
    bench.submit("driver", ["a"], function("f"))
    bench.deliver()
    bench.run("w1")
    bench.finish("w1", "bigvalue")
    bench.deliver()
    assert bench.get("driver", "a").startswith("shared [w1")
    assert bench.desks["w1"].process.heap.used
    bench.drop("driver", "a")
    bench.deliver()
    assert not bench.desks["w1"].process.heap.used
    assert not bench.node.store.objects


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


def test_a_full_arena_refuses_after_a_trim_and_says_who_holds_what() -> None:
    bench = ready()
    store, driver = bench.node.store, bench.node.peers[bench.desks["driver"].machine.id]
    store.on_extent(driver, 0.0, 1, store.extents.size - (1 << 20))
    store.on_extent(driver, 0.0, 2, 2 << 20)
    driver.outbox.clear()
    bench.node.on_timer(1.0)
    ((op, request, _, size, _, reason),) = driver.outbox
    assert (op, request, size) == (m.EXTENT_GRANT, 2, 0)
    assert "no room for 2,097,152 bytes" in reason


# -- deaths ---------------------------------------------------------------------------------------


def test_when_the_node_is_gone_everything_pending_fails() -> None:
    bench = ready()
    bench.submit("driver", ["a"], function("f"))
    bench.submit("driver", ["k"], actor_class("K"))
    bench.submit("driver", ["b"], method("m"), actor="k")
    process = bench.desks["driver"].process
    assert process.owner.node is not None
    process.on_down(process.owner.node, 1.0)
    for name in ("a", "k", "b"):
        assert "NodeDied" in bench.get("driver", name)
    assert all(peer.down and not peer.outbox for peer in process.peers.values())


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


def test_an_idle_worker_declines_to_exit_while_it_owns_something() -> None:
    bench = ready()
    bench.put("w1", "x", "1")
    process = bench.desks["w1"].process
    assert process.owner.node is not None
    process.handlers[m.EXIT](process.owner.node, 0.0, True)
    assert not process.exiting
    bench.drop("w1", "x")
    process.handlers[m.EXIT](process.owner.node, 0.0, True)
    assert process.exiting


def test_the_snapshot_counts() -> None:
    bench = ready()
    bench.put("driver", "x", "1")
    bench.submit("driver", ["a"], function("f"))
    counts = bench.desks["driver"].process.snapshot()
    assert (counts["owned"], counts["pending"], counts["inflight"]) == (2, 1, 1)
    assert bench.node.snapshot()["objects"]["count"] == 0


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
