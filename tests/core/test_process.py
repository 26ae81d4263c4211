"""A process and its node: deaths heard in any order, exits, status."""

from __future__ import annotations

import pytest

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.process.process import Process
from freehold.sim.bench import function
from wires import Wires


def two_at_work() -> Wires:
    """The driver owns `x`, and needs it for the task of w1 only; w2 is busy with another."""
    wires = Wires(2.0)
    wires.put("driver", "x", "1")
    wires.submit("driver", ["a"], function("giver"), nested=["x"])
    wires.submit("driver", ["t"], function("user"))
    wires.spawn("w1", "w2")
    wires.deliver()
    wires.run("w1")
    wires.run("w2")
    wires.drop("driver", "x")
    return wires


def handed_on_by_the_dead() -> Wires:
    """As above; w1 has given `x` to w2, and died before it could register w2."""
    wires = two_at_work()
    wires.end("w1", "stored", keep=["x"])
    wires.tick(0.3)
    wires.call("w2", function("fetch"), "c")
    wires.deliver()
    assert wires.run("w1") == "runs c"
    wires.finish("w1", "here it is", inside=["x"])
    assert wires.sent("w1", "driver") == ["REGISTER"]
    wires.wire("w1", "driver").clear()
    wires.deliver("w1", "w2")
    wires.kill("w1")
    wires.deliver("w1", "node")
    wires.deliver("spawner", "node")
    wires.open("w2", "c")
    return wires


@pytest.mark.parametrize("first", ["driver", "w2"])
def test_what_the_dead_has_handed_on_is_registered_for_whom_it_had_not(first: str) -> None:
    """Its share is the node's until everybody has said what the dead has given it."""
    wires = handed_on_by_the_dead()
    wires.deliver("node", first)
    wires.deliver(first, "node")
    assert wires.table("driver") != ["nothing"]
    wires.deliver()
    wires.get("w2", "x")
    wires.deliver()
    assert wires.get("w2", "x") == "inline 1"
    assert not wires.node.estates.loans.by_id
    wires.drop("w2", "x")
    wires.drop("w2", "c")  # which contains it
    wires.deliver()
    assert "x" not in "".join(wires.table("driver"))


def test_what_the_dead_was_told_to_use_is_not_freed_before_it_is_known_who_has_it() -> None:
    """The caller's task fails with its worker, which has handed the argument on just before."""
    wires = two_at_work()
    wires.drop("driver", "a")
    wires.give("w1", "w2", "x")
    giver, driver = wires.desks["w1"].machine, wires.desks["driver"].machine
    giver.peers[driver.id].outbox.clear()  # its REGISTER
    wires.kill("w1")
    wires.deliver("w1", "node")
    wires.deliver("spawner", "node")
    wires.deliver("node", "driver")
    wires.deliver()
    wires.get("w2", "x")
    wires.deliver()
    assert wires.get("w2", "x") == "inline 1"
    wires.drop("w2", "x")
    wires.deliver()
    assert "x" not in "".join(wires.table("driver"))


def test_a_suspicion_that_is_too_late_is_answered_with_the_death() -> None:
    wires = Wires()
    wires.begin(function("f"))
    wires.kill("w1")
    wires.deliver("w1", "node")
    wires.deliver("spawner", "node")
    wires.deliver("w1", "driver")
    wires.deliver()
    assert len(wires.seen("PROC_DOWN")) == 2
    assert wires.row("driver", "a").data[0] == "WorkerDied"


def test_a_node_that_is_given_up_says_why_before_it_ends() -> None:
    process = Process(b"p" * 8, "p.sock")
    node = process.peer(b"n" * 8, "n.sock")
    node.kind = "node"
    process.on_up(node, 0.0, {"cpus": 1.0})
    process.handlers[m.OUSTED](node, 0.0, "it has been silent for 2.0 s")
    process.on_down(node, 0.0)
    assert "no member of the cluster any more: it has been silent" in process.client.lost


def test_status_counts_what_every_process_has() -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a", "b")
    wires.put("driver", "x", "big")
    wires.spawn("w1")
    driver = wires.desks["driver"].process
    request = driver.questions.ask_status()
    wires.settle()
    wires.deliver()
    status = driver.questions.statuses[request]
    assert status is not None
    assert status["references"] == 3
    assert status["queued"] == 1
    assert status["objects"]["count"] == 1
    assert [each["state"] for each in status["processes"]] == ["up", "leased"]
    assert status["resources"]["CPU"] == {"total": 1.0, "free": 0.0}


def test_a_process_that_does_not_answer_does_not_hold_up_the_status() -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a")
    wires.spawn("w1")
    driver = wires.desks["driver"].process
    request = driver.questions.ask_status()
    wires.settle()
    wires.deliver("driver", "node")
    wires.wire("node", "w1").clear()
    wires.deliver()
    assert driver.questions.statuses[request] is None
    wires.tick(wires.node.deadline() - wires.now)
    wires.deliver()
    assert driver.questions.statuses[request] is not None


@pytest.mark.parametrize("idle", [True, False])
def test_a_worker_that_holds_something_ends_only_if_it_must(idle: bool) -> None:
    wires = Wires()
    wires.call("driver", function("f"), "a")
    wires.spawn("w1")
    wires.put("w1", "y", "1")
    worker = wires.desks["w1"].process
    assert worker.owner.node is not None
    worker.on_exit(worker.owner.node, 0.0, idle)
    assert worker.exiting == (not idle)


@pytest.mark.parametrize("held", [False, True])
def test_a_dismissed_worker_stays_while_others_need_what_it_owns(held: bool) -> None:
    """Its node leaves; what only its own globals hold keeps it no longer."""
    wires = Wires()
    wires.begin(function("f"))
    wires.put("w1", "y", "1")
    wires.put("w1", "z", "2")
    wires.end("w1", "box", inside=["y"] if held else [])
    worker = wires.desks["w1"].process
    assert worker.owner.node is not None
    worker.on_dismiss(worker.owner.node, 0.0)
    assert worker.exiting == (not held)


def test_who_falls_silent_answers_nobody_old_or_new() -> None:
    wires = Wires(2.0)
    wires.put("driver", "x", "1")
    driver = wires.desks["driver"].process
    known = driver.peer(b"a friend", "somewhere")
    driver.on_up(known, wires.now, {})
    driver.fall_silent()
    stranger = driver.peer(b"stranger", "somewhere")
    driver.on_up(stranger, wires.now, {})
    for peer in (known, stranger):
        driver.handlers[m.PULL](peer, wires.now, [wires.id("x")])
        assert peer.outbox == []


def test_a_worker_works_for_the_job_of_who_has_leased_it_whomever_it_meets_later() -> None:
    """An embedded session's driver names no job, and a detached actor names its own."""
    process = Process(b"w1", "here")
    process.on_up(Peer(b"n0", "there", "node"), 0.0, {"cpus": 1.0})
    process.on_up(Peer(b"d0", "there", "driver"), 0.0, {})
    process.on_up(Peer(b"w2", "there", "worker"), 0.0, {"job": [b"actor", "", []]})
    assert process.client.leases.requests.job == []


def test_a_worker_takes_the_job_of_who_has_leased_it() -> None:
    process = Process(b"w1", "here")
    process.on_up(Peer(b"d0", "there", "driver"), 0.0, {"job": [b"d0", "there", []]})
    process.on_up(Peer(b"w2", "there", "worker"), 0.0, {"job": [b"actor", "", []]})
    assert process.client.leases.requests.job == [b"d0", "there", []]


def test_what_is_made_for_a_caller_whose_node_has_died_meanwhile_is_its_estate_s() -> None:
    """The node knows the dead one by that node only, and would take the object for its own."""
    worker, home, there = Process(b"worker..", "w"), b"home....", b"there..."
    node = worker.peer(home, f"{home.hex()}|n|n1:1")
    node.kind = "node"
    worker.on_up(node, 0.0, {})
    caller = worker.peer(b"caller..", f"{there.hex()}|w|n2:1")
    worker.handlers[m.NODE_LOST](node, 0.0, there, "it crashed", True, [])
    node.outbox.clear()
    worker.heap.add(4096, 4096, True)
    place = worker.seal(b"i" * 16, caller.id, 4096, 100)
    assert node.outbox == [(m.SEAL, b"i" * 16, caller.id, there, *place[1:3], [])]
