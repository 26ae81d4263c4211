"""Workers and nodes die: their tasks run again, and what they stored is found or made again."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

import freehold as fh
from cluster import cast
from cluster.cast import LARGE, SMALL, outcome
from cluster.ground import Ground, timed
from cluster.processes import eventually

BOUND_S = 3.0


def test_a_dead_worker_s_tasks_run_elsewhere_and_what_it_has_sealed_stays(field: Ground) -> None:
    log, runs, gate = field.path("log"), field.path("runs"), field.path("gate")
    sealed = cast.make.options(**field.on(1)).remote(LARGE, 3, log)
    fh.wait([sealed])
    running = cast.hold_on.options(**field.on(1)).remote(runs, gate, 5)
    eventually(lambda: len(cast.lines(runs)) == 1)
    field.kill_process(int(cast.lines(runs)[0].split()[1]))
    _, seconds = timed(lambda: eventually(lambda: len(cast.lines(runs)) == 2))
    assert seconds < BOUND_S
    open(gate, "w").close()
    assert fh.get([running, cast.grow.remote(sealed)], timeout=20) == [5, bytes([4]) * LARGE]
    assert fh.get(sealed) == bytes([3]) * LARGE
    assert cast.lines(log) == ["make"]


def test_a_task_without_retries_ends_in_an_error(field: Ground) -> None:
    runs, gate = field.path("runs"), field.path("gate")
    running = cast.hold_on.options(max_retries=0, **field.on(1)).remote(runs, gate, 5)
    eventually(lambda: len(cast.lines(runs)) == 1)
    field.cluster.kill_node(1)
    found, seconds = timed(lambda: outcome(running))
    assert found[0] == "WorkerDied"
    assert seconds < BOUND_S
    assert len(cast.lines(runs)) == 1


def test_only_what_a_dead_node_had_runs_again_with_what_it_is_made_from(field: Ground) -> None:
    log = field.path("log")

    def chain(node: int, name: str) -> fh.Ref[Any]:
        first = cast.make.options(**field.on(node)).remote(LARGE, 1, log, f"{name}1")
        second = cast.grow.options(**field.on(node)).remote(first, log, f"{name}2")
        return cast.grow.options(**field.on(node)).remote(second, log, f"{name}3")

    lost, spared = chain(1, "lost"), chain(2, "spared")
    small = cast.make.options(**field.on(1)).remote(SMALL, 9, log, "small")
    fh.wait([lost, spared, small], num_returns=3)
    eventually(lambda: _objects(field) == 2, what="what only lineage needs is collected")
    field.cluster.kill_node(1)
    found, seconds = timed(lambda: [outcome(ref) for ref in (lost, spared, small)])
    assert found == [("value", (3, LARGE)), ("value", (3, LARGE)), ("value", (9, SMALL))]
    assert seconds < BOUND_S
    again = sorted(cast.lines(log)[7:])
    assert again == ["lost1", "lost2", "lost3"]


def _objects(field: Ground) -> int:
    return sum(status["objects"]["count"] for status in field.statuses())


def test_a_copy_on_another_node_spares_the_re_run(field: Ground) -> None:
    log = field.path("log")
    value = cast.make.options(**field.on(1)).remote(LARGE, 1, log)
    fh.get(cast.grow.options(**field.on(2)).remote(value), timeout=20)
    field.cluster.kill_node(1)
    found, seconds = timed(lambda: outcome(value))
    assert found == ("value", (1, LARGE))
    assert seconds < BOUND_S
    assert cast.lines(log) == ["make"]


def test_a_lost_result_that_may_not_be_made_again_names_why(field: Ground) -> None:
    counter = cast.Keeper.options(max_restarts=1, **field.on(1)).remote()
    made = counter.give.remote(LARGE, 4)
    once = cast.make.options(max_retries=0, **field.on(1)).remote(LARGE, 5)
    fh.wait([made, once], num_returns=2)
    field.cluster.kill_node(1)
    found, seconds = timed(lambda: [outcome(made), outcome(once)])
    assert [kind for kind, _ in found] == ["ObjectLost", "ObjectLost"]
    assert seconds < BOUND_S
    for (_, text), ref, why in zip(found, (made, once), ("actor", "max_retries"), strict=True):
        assert ref.hex() in text
        assert why in text


def test_the_node_daemon_alone_takes_its_workers_with_it(field: Ground) -> None:
    runs, gate = field.path("runs"), field.path("gate")
    running = cast.hold_on.options(**field.on(1)).remote(runs, gate, 5)
    eventually(lambda: len(cast.lines(runs)) == 1)
    machine, before = field.cluster.machines[1], field.node(1)
    machine.signal(9, "freehold-node")
    eventually(lambda: not field.workers(1), BOUND_S, "its workers have ended")
    eventually(lambda: len(cast.lines(runs)) == 2, BOUND_S, "its task runs elsewhere")
    open(gate, "w").close()
    assert fh.get(running, timeout=20) == 5
    field.cluster.restart(1)
    assert field.node(1) != before
    eventually(lambda: all(status["members"]["nodes"] == 4 for status in field.statuses()))
    assert fh.get(cast.whoami.options(**field.on(1, False)).remote(), timeout=20)[0] == 1


def test_everything_but_one_node(field: Ground) -> None:
    keepers = [field.keeper(index) for index in (1, 2)]
    held = [
        fh.get(keeper.make.remote(field.node(3 - at), LARGE, at))[0]
        for at, keeper in enumerate(keepers, 1)
    ]
    own = [cast.make.options(**field.on(index)).remote(LARGE, index) for index in (0, 1, 2)]
    fh.wait(own, num_returns=3)
    gate = field.path("gate")
    late = cast.read_late.options(**field.on(2)).remote(cast.wait_for.remote(gate), own[1])
    for index in (1, 2):
        field.cluster.kill_node(index)
    open(gate, "w").close()
    found, seconds = timed(lambda: [outcome(ref) for ref in (*own, late, *held)])
    assert found[:4] == [("value", (tag, LARGE)) for tag in (0, 1, 2, 1)]
    # ... or a survivor had adopted the first one's, when the node that had it died, too
    assert [kind for kind, _ in found[4:]] in (["OwnerDied"] * 2, ["ObjectLost", "OwnerDied"])
    assert seconds < 2 * BOUND_S


@pytest.mark.parametrize("whole", [False, True], ids=["process", "node"])
def test_a_borrower_that_dies_while_it_registers_leaves_nothing(field: Ground, whole: bool) -> None:
    """At random moments, while references to new objects are on their way to it."""
    draw = random.Random(whole)
    for _ in range(3 if whole else 7):
        owner, borrower = field.keeper(2), field.keeper(1)
        pid = fh.get(borrower.whoami.remote())[1]
        refs = fh.get(owner.make.remote(field.node(2), LARGE, 1))
        kept = [borrower.keep.remote(refs), borrower.keep.remote([fh.put(bytes(LARGE))])]
        kept += [borrower.keep.remote(refs) for _ in range(10)]
        until = time.monotonic() + draw.random() * 0.02
        while time.monotonic() < until:
            pass
        if whole:
            field.cluster.kill_node(1)
        else:
            field.kill_process(pid)
        ends = {outcome(ref)[0] for ref in kept}
        assert ends <= {"value", "ActorDied"}
        assert outcome(refs[0]) == ("value", (1, LARGE))
        del owner, borrower, refs, kept
        field.restore()
        field.assert_all_freed()
