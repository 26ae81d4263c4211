"""The node's workers, by example: spawning that fails, idling, ending, lending, reclaiming."""

from __future__ import annotations

import pytest

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.node.grants import SUSPECT_GRACE
from freehold.core.node.workers import END_GRACE, SPAWN_TRIES
from freehold.core.process.rows import Spec
from freehold.sim.bench import function
from wires import Wires


def fail_spawn(wires: Wires) -> None:
    node = wires.node
    (slot,) = [slot for slot, worker in node.workers.workers.items() if worker.peer is None]
    node.handlers[m.SPAWN_FAILED](node.spawner, wires.now, slot, "no more processes")
    wires.settle()


def test_a_worker_that_cannot_be_started_is_tried_again_more_and_more_slowly() -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a")
    wires.deliver()
    waits = []
    for _ in range(SPAWN_TRIES - 1):
        fail_spawn(wires)
        assert not wires.starting()
        waits.append(wires.node.deadline() - wires.now)
        wires.tick(waits[-1])
        assert wires.starting()
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8])
    fail_spawn(wires)
    wires.deliver()
    kind, text = wires.row("driver", "a").data
    assert kind == "Unschedulable"
    assert "no worker could be started: no more processes" in text
    assert wires.seen("DENIED")


def test_a_worker_that_starts_after_all_ends_the_count_of_failures() -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a")
    wires.deliver()
    for _ in range(SPAWN_TRIES - 1):
        fail_spawn(wires)
        wires.tick(wires.node.deadline() - wires.now)
    wires.worker("w1")
    wires.deliver()
    assert wires.run("w1") == "runs a"
    assert wires.node.workers._failures == 0


def test_workers_that_die_before_they_speak_are_not_replaced_in_a_hurry() -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a")
    wires.deliver()
    (slot,) = wires.node.workers.workers
    wires.node.handlers[m.EXITED](wires.node.spawner, 0.0, slot, 1, "ImportError", b"")
    wires.settle()
    assert not wires.starting()
    wires.tick(wires.node.deadline())
    assert wires.starting()


def idle(prestart: int = 0) -> Wires:
    """Worker w1 has run something and is idle; its lease has been returned."""
    wires = Wires()
    wires.node.workers.prestart = prestart
    wires.node.workers.idle_seconds = 1.0
    wires.begin(function("f"))
    wires.end("w1", "1")
    wires.tick(0.3)
    wires.deliver()
    return wires


def test_an_idle_worker_ends_after_a_while() -> None:
    wires = idle()
    wires.tick(1.0)
    wires.deliver()
    assert wires.seen("EXIT") == ["node -> w1: EXIT idle=True"]
    assert not wires.desks["w1"].alive
    assert not wires.node.workers.workers
    assert wires.node.deaths == 0


def test_as_many_as_are_started_ahead_stay() -> None:
    wires = idle(prestart=1)
    wires.tick(100.0)
    wires.deliver()
    assert wires.desks["w1"].alive
    assert not wires.seen("EXIT")


def test_a_worker_that_owns_what_others_hold_stays() -> None:
    wires = Wires()
    wires.node.workers.idle_seconds = 1.0
    wires.begin(function("f"))
    wires.put("w1", "y", "7")
    wires.end("w1", "box", inside=["y"])
    for _ in range(2):
        wires.tick(1.5)
        wires.deliver()
    assert wires.seen("STAY") == ["w1 -> node: STAY"]
    assert wires.desks["w1"].alive
    wires.drop("driver", "a")
    wires.deliver()
    wires.tick(1.5)
    wires.deliver()
    assert not wires.desks["w1"].alive


def ask(wires: Wires, holder: Peer, *requests: int) -> None:
    """Ask for leases of one CPU."""
    for request in requests:
        wires.node.handlers[m.LEASE](holder, wires.now, request, 1.0, False, {}, [], 0, [])


def test_a_worker_that_does_not_end_is_killed() -> None:
    wires = idle()
    (worker,) = wires.node.workers.workers.values()
    wires.node.workers.end(worker, wires.now, "the test says so")
    wires.wire("node", "w1").clear()  # it is deaf
    wires.settle()
    wires.wire("node", "w1").clear()
    wires.tick(END_GRACE)
    assert wires.seen("SIGNAL") == ["node -> spawner: SIGNAL slot=1 signal=9"]


def test_a_broken_connection_kills_unless_an_exit_explains_it() -> None:
    wires = idle()
    peer = wires.node.peers[wires.desks["w1"].machine.id]
    wires.node.on_down(peer, wires.now)
    wires.tick(SUSPECT_GRACE / 2)
    assert not wires.seen("SIGNAL")
    wires.tick(SUSPECT_GRACE)
    assert wires.seen("SIGNAL")
    assert not wires.desks["w1"].alive


def test_a_blocked_worker_lends_its_cpu_and_takes_it_back_at_once() -> None:
    wires = Wires()
    wires.begin(function("parent"))
    workers = wires.node.workers
    assert workers.free["CPU"] == 0
    executor = wires.desks["w1"].process.executor
    executor.block(wires.desks["w1"].run)
    wires.call("w1", function("child"), "c")
    wires.spawn("w2")
    wires.deliver()
    assert wires.run("w2") == "runs c"
    executor.unblock()
    wires.settle()
    wires.deliver()
    assert workers.free["CPU"] == -1  # two run on one CPU until either ends
    wires.node.check()
    wires.end("w2", "1")
    wires.tick(0.3)
    wires.deliver()
    assert workers.free["CPU"] == 0


def test_a_request_that_waits_has_the_leases_of_others_reclaimed_each_once() -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a")
    wires.spawn("w1")
    wires.deliver()
    wires.add("driver2")
    for name in ("b", "c"):
        wires.call("driver2", function("g"), name)
        wires.deliver()
    assert wires.seen("RECLAIM") == ["node -> driver: RECLAIM lease=1"]
    wires.run("w1")
    wires.end("w1", "1")
    assert wires.run("w1") == "runs b"


def test_leases_are_shared_evenly_by_those_who_ask_for_all_of_them() -> None:
    """The first has both and wants more; its own requests do not stand before the other's."""
    wires = Wires(cpus=2.0)
    driver = wires.node.peers[wires.desks["driver"].machine.id]
    ask(wires, driver, 1, 2, 3, 4)
    wires.spawn("w1", "w2")
    wires.add("driver2")
    other = wires.node.peers[wires.desks["driver2"].machine.id]
    ask(wires, other, 1, 2)
    assert [lease.holder for lease in wires.node.workers.leases.values() if lease.reclaimed] == [
        driver
    ]
    wires.node.handlers[m.LEASE_RETURN](driver, wires.now, 1, True)
    assert [lease.holder for lease in wires.node.workers.leases.values()] == [driver, other]
    ask(wires, driver, 5)
    assert not any(lease.reclaimed for lease in wires.node.workers.leases.values())


def test_what_can_never_be_granted_is_denied_with_the_reason() -> None:
    wires = Wires(cpus=2.0)
    wires.call("driver", function("f", cpus=3.0), "a")
    wires.deliver()
    text = wires.row("driver", "a").data[1]
    assert text == "f: no node can ever provide 3 CPU (the node has 2)"
    assert not wires.starting()


def test_what_waits_for_something_else_holds_nobody_up() -> None:
    """An actor has the only gpu: a task that wants it waits, and those behind it run."""
    wires = Wires(cpus=2.0)
    workers = wires.node.workers
    workers.total["gpu"], workers.free["gpu"] = 1.0, 0.0
    wires.call("driver", Spec(b"f", "f", b"code", resources=(("gpu", 1.0),)), "a")
    wires.deliver()
    wires.call("driver", function("g", cpus=1.0), "b")
    wires.spawn("w1")
    wires.deliver()
    assert wires.run("w1") == "runs b"
    assert len(workers.queue) == 1


def test_a_large_request_is_not_overtaken_and_a_free_one_passes() -> None:
    wires = Wires(cpus=2.0)
    wires.begin(function("f", cpus=1.0))
    wires.add("driver2")
    for name, cpus in (("large", 2.0), ("small", 1.0), ("free", 0.0)):
        wires.call("driver2", function(name, cpus=cpus), name)
    wires.deliver()
    assert [grant.cpus for grant in wires.node.workers.queue] == [2.0, 1.0, 0.0]  # no worker yet
    wires.spawn("w2")
    wires.deliver()
    assert wires.run("w2") == "runs free"
    assert [grant.cpus for grant in wires.node.workers.queue] == [2.0, 1.0]


def test_a_cancelled_request_lets_those_behind_it_through() -> None:
    wires = Wires(cpus=2.0)
    node, driver = wires.node, wires.node.peers[wires.desks["driver"].machine.id]
    wires.call("driver", function("f"), "a", "a2")
    wires.spawn("w1", "w2")
    wires.deliver()
    wires.run("w1")
    wires.end("w1", "1")
    wires.add("driver2")
    asker = node.peers[wires.desks["driver2"].machine.id]
    node.handlers[m.LEASE](driver, wires.now, 90, 2.0, True, {}, [], 0, [])
    wires.tick(0.3)  # the driver returns the idle lease, and w1 could run something small
    wires.deliver()
    node.handlers[m.LEASE](asker, wires.now, 91, 1.0, True, {}, [], 0, [])
    assert [grant.request for grant in node.workers.queue] == [90, 91]
    node.handlers[m.LEASE_CANCEL](driver, wires.now, 90)
    assert not node.workers.queue


def test_the_workers_of_a_dead_holder_are_killed() -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a")
    wires.spawn("w1")
    wires.deliver()
    wires.kill("driver")
    wires.deliver()
    assert not wires.desks["w1"].alive
    assert wires.node.finished
    assert wires.node.workers.free == wires.node.workers.total


def test_a_worker_that_has_run_for_a_session_without_a_job_runs_for_no_job() -> None:
    """An embedded session's driver names none, and a detached actor that it has made has one."""
    wires = idle()
    wires.desks["driver"].process.client.leases.requests.job = [b"detached", "", []]
    wires.call("driver", function("f"), "b")
    wires.deliver()
    assert wires.run("w1") != "runs b"
    assert wires.starting() or wires.seen("EXIT")
