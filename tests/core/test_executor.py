"""The worker's half: order, blocked tasks, recalls, what is kept."""

from __future__ import annotations

from freehold.core.messages import INLINE
from freehold.core.process.rows import Spec
from freehold.sim.bench import actor_class, function, method
from wires import Wires


def quick(name: str = "f") -> Spec:
    spec = function(name)
    spec.pace = 0.0001
    return spec


def running(*names: str) -> Wires:
    wires = Wires()
    wires.call("driver", quick(), *names)
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    return wires


def queued(wires: Wires, where: str) -> list[str]:
    return [wires.names[run.id] for run in wires.desks[where].process.executor.queue]


def test_runs_start_in_the_order_in_which_they_came_and_the_last_one_is_known() -> None:
    wires = running("a", "b", "c")
    executor = wires.desks["w1"].process.executor
    assert wires.names[executor.started] == "a"
    for name in "bc":
        wires.finish("w1", "x")
        assert wires.run("w1") == f"runs {name}"
        assert wires.names[executor.started] == name


def test_a_recall_takes_from_the_tail() -> None:
    wires = running("a", "b", "c", "d")
    executor = wires.desks["w1"].process.executor
    executor.on_recall(executor.queue[0].peer, 0.0, 2)
    assert queued(wires, "w1") == ["b"]
    executor.on_recall(executor.queue[0].peer, 0.0, 99)
    assert queued(wires, "w1") == []


def test_a_task_that_waits_turns_back_all_that_is_stuck_and_all_that_comes() -> None:
    wires = running("a", "b", "c")
    executor = wires.desks["w1"].process.executor
    executor.block(wires.desks["w1"].run)
    wires.settle()
    assert queued(wires, "w1") == []
    assert wires.sent("w1", "driver") == ["RETURNED"]
    assert wires.sent("w1", "node") == ["BLOCKED"]
    driver = wires.desks["w1"].process.peers[wires.desks["driver"].machine.id]
    executor.on_task(driver, 0.0, b"late" * 4, b"f", b"")
    wires.settle()
    assert queued(wires, "w1") == []
    assert wires.sent("w1", "driver") == ["RETURNED"] * 2
    executor.unblock()
    wires.settle()
    assert wires.sent("w1", "driver")[-1] == "UNBLOCKED"
    executor.on_task(driver, 0.0, b"next" * 4, b"f", b"")
    assert len(executor.queue) == 1


def test_nested_waits_are_one_to_the_node() -> None:
    wires = running("a")
    executor, run = wires.desks["w1"].process.executor, wires.desks["w1"].run
    executor.block(run)
    executor.block(run)
    executor.unblock()
    wires.settle()
    assert wires.sent("w1", "node") == ["BLOCKED"]
    executor.unblock()
    wires.settle()
    assert wires.sent("w1", "node") == ["BLOCKED"] * 2


def test_a_reference_that_is_stored_is_kept_and_read_later() -> None:
    wires = Wires()
    wires.put("driver", "x", "1")
    wires.begin(quick(), nested=["x"])
    wires.drop("driver", "x")
    wires.end("w1", "ok", keep=["x"])
    wires.get("w1", "x")
    wires.deliver()
    assert wires.get("w1", "x") == "inline 1"
    wires.drop("w1", "x")
    wires.deliver()
    assert [row.id for row in wires.desks["driver"].process.owner.rows.values()] == [
        wires.row("driver", "a").id
    ]


def test_what_is_not_kept_needs_no_words() -> None:
    wires = Wires()
    wires.put("driver", "x", "1")
    wires.begin(quick(), nested=["x"])
    wires.end("w1", "ok")
    assert len(wires.seen("DONE")) == 1
    assert not wires.seen("DONE_FULL", "RELEASE", "REGISTER")


def test_the_object_that_a_run_reads_is_held_until_the_run_is_over() -> None:
    wires = Wires()
    wires.put("driver", "x", "big")
    wires.submit("driver", ["a"], quick(), deps=["x"])
    wires.drop("driver", "x")
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    (guard,) = wires.desks["w1"].process.owner.rows.values()
    assert (guard.handles, guard.holds) == (0, 1)
    assert len(wires.node.store.objects) == 1
    wires.end("w1", "ok")
    assert not wires.desks["w1"].process.owner.rows
    assert not wires.node.store.objects


def test_returned_runs_let_go_of_what_they_would_have_read() -> None:
    wires = Wires()
    wires.put("driver", "x", "big")
    wires.call("driver", quick(), "a")
    wires.begin(quick(), "b", deps=["x"])
    assert wires.desks["w1"].process.owner.rows
    wires.desks["w1"].process.executor.block(wires.desks["w1"].run)
    assert not wires.desks["w1"].process.owner.rows


def test_an_actors_calls_are_never_given_back() -> None:
    wires = Wires()
    wires.begin(actor_class("K"), "k")
    wires.end("w1", "none")
    for name in "ab":
        wires.submit("driver", [name], method("m"), actor="k")
    wires.deliver()
    wires.run("w1")
    executor = wires.desks["w1"].process.executor
    executor.block(wires.desks["w1"].run)
    executor.on_recall(executor.queue[0].peer, 0.0, 9)
    assert queued(wires, "w1") == ["b"]


def test_the_runs_of_a_dead_caller_are_forgotten() -> None:
    wires = running("a", "b", "c")
    executor, run = wires.desks["w1"].process.executor, wires.desks["w1"].run
    assert run is not None
    run.peer.down = True
    executor.on_death(run.peer)
    assert not executor.queue
    executor.finish(run, [(INLINE, b"1", [])])
    wires.settle()
    assert wires.sent("w1", "driver") == []
