"""What fails again and again runs again ever more slowly; the first retry is immediate."""

from __future__ import annotations

from freehold.core.messages import PENDING
from freehold.core.process.leases import Limits
from freehold.core.process.rests import Rests
from freehold.core.process.rows import Row, Task
from freehold.sim.bench import actor_class, function
from wires import Wires

REST = 0.1
LIMITS = Limits(retry_rest=REST, retry_rest_max=4 * REST)


def task_of(name: bytes) -> Task:
    task = Task(function("f", retries=9), b"")
    task.row = Row(name, task)
    return task


def test_rests_grow_up_to_a_limit() -> None:
    rests = Rests(REST, 4 * REST)
    found = []
    for failures in range(1, 7):
        task = task_of(b"%d" % failures)
        found.append(rests.deadline() if rests.begin(task, failures, 0.0) else 0.0)
        found[-1] = rests.deadline() if found[-1] else 0.0
        rests.clear()
    assert found == [0.0, REST, 2 * REST, 4 * REST, 4 * REST, 4 * REST]


def test_who_has_rested_longest_enough_comes_first_and_who_is_not_wanted_does_not() -> None:
    rests = Rests(REST, 4 * REST)
    slow, quick, unwanted = task_of(b"slow"), task_of(b"quick"), task_of(b"unwanted")
    assert rests.begin(slow, 4, 0.0)
    assert rests.begin(quick, 2, 0.0)
    assert rests.begin(unwanted, 2, 0.0)
    unwanted.rows[0].task = None
    assert rests.over(REST / 2) == []
    assert rests.over(REST) == [quick]
    assert quick not in rests
    assert slow in rests
    assert rests.over(4 * REST) == [slow]


def test_no_number_of_failures_is_too_large() -> None:
    rests = Rests(REST, 4 * REST)
    assert rests.begin(task_of(b"a"), 100_000, 0.0)
    assert rests.deadline() == 4 * REST


def test_a_task_that_kills_its_workers_rests_after_the_second() -> None:
    wires = Wires(1.0, LIMITS)
    wires.call("driver", function("f", retries=-1), "a")
    wires.spawn("w1")
    wires.deliver()
    assert wires.run("w1") == "runs a"
    wires.kill("w1")
    wires.spawn("w2")
    wires.deliver()
    assert wires.run("w2") == "runs a"  # at once
    wires.kill("w2")
    wires.deliver()
    process = wires.desks["driver"].process
    assert wires.row("driver", "a").state == PENDING
    assert process.client.deaths.rests.tasks
    assert process.snapshot()["queued"] == 1
    wires.tick(REST * 1.01)
    wires.spawn("w3")
    wires.deliver()
    assert wires.run("w3") == "runs a"
    wires.finish("w3", "1")
    wires.deliver()
    assert wires.get("driver", "a") == "inline 1"


def test_when_the_node_dies_those_that_rest_fail_like_any_other() -> None:
    wires = Wires(1.0, LIMITS)
    wires.call("driver", function("f", retries=-1), "a")
    for number in (1, 2):
        wires.spawn(f"w{number}")
        wires.deliver()
        wires.run(f"w{number}")
        wires.kill(f"w{number}")
        wires.deliver()
    process = wires.desks["driver"].process
    assert process.client.deaths.rests.tasks
    process.client.deaths.node_died("the node daemon is gone")
    assert wires.row("driver", "a").data[0] == "NodeDied"
    assert not process.client.deaths.rests.tasks


def test_an_actor_whose_process_keeps_dying_rests_and_one_that_has_lived_does_not() -> None:
    wires = Wires(4.0, LIMITS)
    spec = actor_class("K")
    spec.options["max_restarts"] = -1
    wires.submit("driver", ["k"], spec)

    def live_and_die(number: int) -> None:
        wires.spawn(f"w{number}")
        wires.deliver()
        assert wires.run(f"w{number}") == "runs k"
        wires.finish(f"w{number}", "")
        wires.deliver()
        wires.kill(f"w{number}")
        wires.deliver()

    rests = wires.desks["driver"].process.client.deaths.rests
    live_and_die(1)
    assert not rests.tasks
    live_and_die(2)
    assert rests.tasks
    wires.tick(REST * 1.01)
    assert not rests.tasks
    wires.spawn("w3")
    wires.deliver()
    wires.run("w3")
    wires.finish("w3", "")
    wires.deliver()
    wires.tick(60.0)
    wires.kill("w3")
    wires.deliver()
    assert not rests.tasks
