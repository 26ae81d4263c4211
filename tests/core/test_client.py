"""Submission, results, deaths: what runs when, what runs again, and whose answer counts."""

from __future__ import annotations

from freehold.core import messages as m
from freehold.core.messages import FAILED, INLINE, PENDING
from freehold.core.process.client import RETRY
from freehold.core.process.leases import Limits
from freehold.core.process.rows import Spec
from freehold.sim.bench import function
from wires import Wires


def quick(name: str = "f", retries: int = 0, outputs: int = 1) -> Spec:
    spec = function(name, retries=retries, outputs=outputs)
    spec.pace = 0.0001
    return spec


def running(spec: Spec, *names: str) -> Wires:
    """Worker w1 has been sent these tasks, and has started the first; no retry rests."""
    wires = Wires(1.0, Limits(retry_rest=0.0))
    wires.call("driver", spec, *names)
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    return wires


def test_a_task_starts_when_its_last_dependency_has_a_value() -> None:
    wires = Wires(2.0)
    wires.call("driver", quick(), "a", "b")
    wires.submit("driver", ["c"], quick("g"), deps=["a", "b"])
    wires.spawn("w1")
    wires.deliver()
    assert wires.run("w1") == "runs a"
    wires.finish("w1", "1")
    wires.deliver()
    assert wires.run("w1") == "runs b"
    assert wires.run("w1") == "nothing to run"
    wires.desks["w1"].run = None


def test_dependencies_travel_with_the_task_and_in_their_places() -> None:
    wires = Wires()
    wires.put("driver", "x", "1")
    wires.put("driver", "y", "2")
    wires.submit("driver", ["a"], quick(), deps=["x", "y"])
    wires.spawn("w1")
    wires.deliver()
    (run,) = wires.desks["w1"].process.executor.queue
    assert run.full is not None
    assert [(at, state, data) for at, _, state, data in run.full.deps] == [
        (0, INLINE, b"1"),
        (1, INLINE, b"2"),
    ]


def test_a_task_whose_dependency_failed_is_not_sent_anywhere() -> None:
    wires = running(quick(), "a")
    wires.submit("driver", ["b"], quick("g"), deps=["a"])
    wires.finish("w1", "!boom")
    wires.deliver()
    assert wires.row("driver", "b").state == FAILED
    assert wires.row("driver", "b").data == b"boom"
    assert not wires.desks["w1"].process.executor.queue


def test_a_function_is_sent_once_to_a_worker() -> None:
    wires = running(quick(), "a", "b", "c")
    assert len(wires.seen("FUNCTION")) == 1
    assert len(wires.seen("TASK")) == 3


def test_outputs_are_named_after_their_task() -> None:
    wires = Wires()
    wires.submit("driver", ["a", "b"], quick(outputs=2))
    wires.spawn("w1")
    wires.deliver()
    run = wires.desks["w1"].process.executor.next()
    assert run is not None
    wires.desks["w1"].process.executor.finish(run, [(INLINE, b"1", []), (INLINE, b"2", [])])
    wires.settle()
    wires.deliver()
    a, b = wires.row("driver", "a"), wires.row("driver", "b")
    assert (a.data, b.data) == (b"1", b"2")
    assert b.id == a.id + b"\0\1"


def test_a_death_charges_only_what_had_started() -> None:
    wires = running(quick(retries=3), "a", "b", "c")
    wires.finish("w1", "1")
    wires.run("w1")  # b
    wires.kill("w1")
    wires.deliver()
    tasks = {name: wires.row("driver", name).task for name in "abc"}
    assert tasks["a"] is None  # its answer had been sent
    assert tasks["b"] is not None
    assert tasks["c"] is not None
    assert (tasks["b"].tries, tasks["c"].tries) == (2, 3)


def test_without_retries_what_had_started_fails_and_what_had_not_runs_elsewhere() -> None:
    wires = running(quick(), "a", "b")
    wires.kill("w1")
    wires.spawn("w2")
    wires.deliver()
    assert wires.row("driver", "a").data[0] == "WorkerDied"
    assert "signal 9" in wires.row("driver", "a").data[1]
    assert wires.run("w2") == "runs b"
    wires.finish("w2", "2")
    wires.deliver()
    assert wires.row("driver", "b").data == b"2"


def test_without_retries_a_task_never_runs_twice_even_if_its_answer_was_lost() -> None:
    """A connection that broke and came back may have lost results: all count as started."""
    wires = running(quick(), "a", "b")
    worker = wires.desks["w1"].process
    wires.finish("w1", "1")
    wires.run("w1")
    wires.cut("w1", "driver")
    driver = wires.desks["driver"].process
    driver.on_up(driver.peers[worker.id], wires.now, {})
    wires.kill("w1")
    wires.deliver()
    assert [wires.row("driver", name).data[0] for name in "ab"] == ["WorkerDied"] * 2
    assert not any(pool.queue for pool in driver.client.leases.pools.values())


def test_tries_run_out() -> None:
    wires = running(quick(retries=1), "a")
    wires.kill("w1")
    wires.spawn("w2")
    wires.deliver()
    assert wires.row("driver", "a").state == PENDING
    wires.run("w2")
    wires.kill("w2")
    wires.deliver()
    assert wires.row("driver", "a").data[0] == "WorkerDied"
    assert wires.desks["driver"].process.client.deaths.retried == 1


def test_a_negative_number_of_tries_does_not_run_out() -> None:
    wires = running(quick(retries=-1), "a")
    for number in range(2, 8):
        wires.kill(f"w{number - 1}")
        wires.spawn(f"w{number}")
        wires.deliver()
        assert wires.run(f"w{number}") == "runs a"


def test_the_late_answer_of_a_try_that_was_given_up_is_refused() -> None:
    wires = running(quick(retries=1), "a")
    wires.finish("w1", "first")
    wires.kill("w1")
    wires.deliver("spawner", "node")
    wires.deliver("w1", "node")
    wires.deliver("node", "driver")  # the news of its death overtakes its answer
    wires.deliver("w1", "driver")
    assert wires.row("driver", "a").state == PENDING
    wires.spawn("w2")
    wires.deliver()
    wires.run("w2")
    wires.finish("w2", "second")
    wires.deliver()
    assert wires.row("driver", "a").data == b"second"


def test_what_comes_with_a_refused_answer_is_released() -> None:
    wires = running(quick(retries=1), "a")
    wires.call("w1", quick("child"), "c")
    wires.deliver()
    wires.put("driver", "mine", "1")
    driver = wires.desks["driver"].process
    worker = driver.peers[wires.desks["w1"].process.id]
    ticket = worker.id + b"\0\0\0\7"
    inner = [wires.row("w1", "c").id, worker.id, "w1", ticket]
    unknown = b"?" * 16
    driver.handlers[m.DONE_FULL](worker, 0.0, unknown, [[INLINE, b"x", [inner]]], [])
    wires.settle()
    assert wires.sent("driver", "w1")[-1] == "RELEASE"
    assert wires.row("w1", "c").id not in driver.owner.rows


def test_an_exception_runs_again_only_when_the_worker_says_that_the_caller_wanted_it() -> None:
    wires = running(quick(retries=1), "a")
    for expected in (PENDING, FAILED):
        executor, run = wires.desks["w1"].process.executor, wires.desks["w1"].run
        assert run is not None
        executor.finish(run, [(RETRY, b"error", [])])
        wires.settle()
        wires.deliver()
        assert wires.row("driver", "a").state == expected
        wires.run("w1")


def test_a_result_that_nobody_wants_leaves_nothing() -> None:
    wires = running(quick(), "a")
    wires.drop("driver", "a")
    driver = wires.desks["driver"].process
    assert len(driver.owner.rows) == 1  # it still runs
    wires.finish("w1", "1")
    wires.deliver()
    assert not driver.owner.rows


def test_when_the_node_dies_everything_pending_fails_and_nothing_is_begun() -> None:
    wires = running(quick(), "a")
    driver = wires.desks["driver"].process
    node = driver.owner.node
    assert node is not None
    driver.on_down(node, wires.now)
    assert wires.row("driver", "a").data[0] == "NodeDied"
    wires.call("driver", quick(), "b")
    assert wires.row("driver", "b").data[0] == "NodeDied"
    driver.on_timer(wires.now)
