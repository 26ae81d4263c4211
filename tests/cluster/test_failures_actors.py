"""Actors die with their process or their node: restarts, retries, order, and typed errors."""

from __future__ import annotations

import random
from typing import Any

import pytest

import freehold as fh
from cluster import cast
from cluster.cast import LARGE, outcome
from cluster.ground import Ground, timed
from cluster.processes import eventually

BOUND_S = 3.0
CALLS = 200


def counter(field: Ground, log: str, **options: Any) -> tuple[Any, int]:
    """An actor on machine 1, and its process."""
    made = cast.Counter.options(**field.on(1), **options).remote(log)
    where, pid = fh.get(made.whoami.remote(), timeout=20)
    assert where == 1
    return made, pid


def kill(field: Ground, pid: int, whole: bool) -> None:
    if whole:
        field.cluster.kill_node(1)
    else:
        field.kill_process(pid)


def births(log: str) -> int:
    return sum(line.startswith("born") for line in cast.lines(log))


@pytest.mark.parametrize("whole", [False, True], ids=["process", "node"])
def test_an_actor_without_restarts_is_dead(field: Ground, whole: bool) -> None:
    log, gate = field.path("log"), field.path("gate")
    actor, pid = counter(field, log)
    running = actor.pause.remote(gate)
    behind = actor.add.remote()
    eventually(lambda: len(cast.lines(log)) == 2)
    kill(field, pid, whole)
    found, seconds = timed(lambda: [outcome(ref) for ref in (running, behind, actor.add.remote())])
    assert [kind for kind, _ in found] == ["ActorDied"] * 3
    assert seconds < BOUND_S
    assert births(log) == 1


@pytest.mark.parametrize("whole", [False, True], ids=["process", "node"])
def test_calls_that_may_have_run_fail_and_later_ones_find_the_new_actor(
    field: Ground, whole: bool
) -> None:
    log, gate = field.path("log"), field.path("gate")
    actor, pid = counter(field, log, max_restarts=1)
    running = actor.pause.remote(gate)
    eventually(lambda: len(cast.lines(log)) == 2)
    kill(field, pid, whole)
    found, seconds = timed(lambda: outcome(running))
    assert found[0] == "ActorUnavailable"
    later, more = timed(lambda: outcome(actor.add.remote()))
    assert later[0] == "value"
    assert later[1][0] != pid
    assert later[1][1] == 1  # it begins anew
    assert seconds + more < BOUND_S
    assert births(log) == 2
    field.kill_process(later[1][0])
    assert outcome(actor.add.remote())[0] == "ActorDied"  # its restarts are used up


@pytest.mark.parametrize("whole", [False, True], ids=["process", "node"])
@pytest.mark.parametrize("seed", range(3))
def test_retried_calls_keep_each_caller_s_order(field: Ground, seed: int, whole: bool) -> None:
    """Two callers; the actor is killed at a random moment.  Each incarnation sees each caller's
    calls in order, all of them, from the first that had no answer; nobody else answers."""
    log = field.path("log")
    actor, pid = counter(field, log, max_restarts=1, max_task_retries=1)
    other = cast.call_often.options(num_cpus=0, **field.on(2)).remote(actor, "other", CALLS)
    mine = [actor.add.remote("mine", number) for number in range(CALLS)]
    moment = 1 + random.Random(seed).randrange(CALLS)
    eventually(lambda: len(cast.lines(log)) > moment)
    kill(field, pid, whole)
    found = [outcome(ref) for ref in mine]
    others = fh.get(other, timeout=20)
    for answers in (found, others):
        assert [kind for kind, _ in answers] == ["value"] * CALLS
        pids = [value[0] for _, value in answers]
        assert pids == sorted(pids, key=lambda one: one != pid)  # the old one's, then the new one's
        counts = [value[1] for _, value in answers if value[0] != pid]
        assert counts == sorted(counts)
    seen = [line.split() for line in cast.lines(log) if not line.startswith("born")]
    for caller in ("mine", "other"):
        for one in (str(pid), *{line[2] for line in seen if line[2] != str(pid)}):
            numbers = [int(number) for who, number, where in seen if (who, where) == (caller, one)]
            assert numbers == list(range(numbers[0], numbers[-1] + 1) if numbers else [])
    eventually(lambda: births(log) == 2)  # a late death may be noticed after the last answer


def test_constructor_arguments_are_made_again_for_a_restart(field: Ground) -> None:
    value = cast.make.options(**field.on(1)).remote(LARGE, 3)
    retried = {"max_restarts": 1, "max_task_retries": -1}  # the call may be sent to the dead
    actor = cast.Bearer.options(**retried, **field.on(1)).remote(value)
    assert outcome(actor.read.remote()) == ("value", (3, LARGE))
    del value
    field.cluster.kill_node(1)
    found, seconds = timed(lambda: outcome(actor.read.remote()))
    assert found == ("value", (3, LARGE))
    assert seconds < BOUND_S


@pytest.mark.parametrize("whole", [False, True], ids=["process", "node"])
def test_an_actor_ends_with_its_owner(field: Ground, whole: bool) -> None:
    """Who holds a handle may see it answer a last time, or be away, and then hears of its end."""
    log = field.path("log")
    owner = field.keeper(2)
    actor = fh.get(owner.hire.remote(field.node(1), log), timeout=20)
    pid = fh.get(actor.whoami.remote(), timeout=20)[1]
    if whole:
        field.cluster.kill_node(2)
    else:
        field.kill_process(fh.get(owner.whoami.remote())[1])
    seen = set()

    def ended() -> bool:
        kind, _ = outcome(actor.add.remote(), BOUND_S)
        seen.add(kind)
        return kind == "ActorDied"

    eventually(ended, BOUND_S, "the holder knows")
    assert seen <= {"value", "ActorUnavailable", "ActorDied"}
    eventually(lambda: pid not in field.workers(1), BOUND_S, "the actor has ended")
    assert births(log) == 1
