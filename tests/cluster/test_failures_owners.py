"""Owners die or end: holders keep what survives, parents make the rest again, or it is an error."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import freehold as fh
from cluster import cast
from cluster.cast import LARGE, SMALL, outcome
from cluster.ground import Ground, timed
from cluster.processes import eventually
from sessions import line_of

BOUND_S = 3.0
AT_ONCE_S = 1.0  # until an error that says that nothing can be done
PROGRAM = """
import sys
import freehold as fh
from cluster import cast
fh.init(log_to_driver=False)
node, log, ending = sys.argv[1:]
kept = [cast.make.options(**cast.there(node)).remote(cast.LARGE, 1), fh.put(bytes(cast.LARGE))]
keeper = cast.Keeper.options(**cast.there(node)).remote()
fh.get(keeper.keep.remote(kept))
running = cast.hold_on.options(**cast.there(node)).remote(log, log + "-never", 1)
while not cast.lines(log):
    pass
print("ready", flush=True)
sys.stdin.read()
if ending == "clean":
    fh.shutdown()
"""


def owner_pid(owner: Any) -> int:
    return int(fh.get(owner.whoami.remote(), timeout=20)[1])


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_dead_owner_s_values_in_shared_memory_stay(field: Ground, where: int) -> None:
    """Wherever they are: beside the owner, beside another node, or here."""
    owner = field.keeper(2)
    (ref,) = fh.get(owner.make.remote(field.node(where), LARGE, 7))
    field.kill_process(owner_pid(owner))
    found, seconds = timed(lambda: outcome(ref))
    assert found == ("value", (7, LARGE))
    assert seconds < BOUND_S
    task = cast.grow.options(**field.on(1)).remote(ref)  # it can be handed on, too
    assert outcome(task) == ("value", (8, LARGE))


def test_what_died_with_its_owner_is_an_error_within_a_second(field: Ground) -> None:
    owner = field.keeper(2)
    (small,) = fh.get(owner.put.remote(SMALL, 7))
    field.kill_process(owner_pid(owner))
    found, seconds = timed(lambda: outcome(small))
    assert found[0] == "OwnerDied"
    assert small.hex() in found[1]
    assert "driver" in found[1]  # what to do
    assert seconds < AT_ONCE_S


def test_a_pending_value_dies_with_its_owner(field: Ground) -> None:
    owner, gate = field.keeper(2), field.path("gate")
    (pending,) = fh.get(owner.begin.remote(field.node(1), gate))
    field.kill_process(owner_pid(owner))
    found, seconds = timed(lambda: outcome(pending))
    assert found[0] == "OwnerDied"
    assert seconds < AT_ONCE_S


def test_owner_executor_and_location_at_once(field: Ground) -> None:
    """The node of an actor that owns a value made there; of a task of ours; of a parent."""
    log = field.path("log")
    owner = field.keeper(1)
    (orphan,) = fh.get(owner.make.remote(field.node(1), LARGE, 1))
    ours = cast.make.options(**field.on(1)).remote(LARGE, 2, log, "ours")
    fh.wait([ours])
    field.cluster.kill_node(1)
    found, seconds = timed(lambda: [outcome(ours), outcome(orphan)])
    assert found[0] == ("value", (2, LARGE))
    assert found[1][0] == "OwnerDied"
    assert seconds < BOUND_S
    assert cast.lines(log) == ["ours", "ours"]


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("whole", [False, True], ids=["process", "node"])
def test_what_a_task_had_put_is_put_again_by_its_re_run(
    field: Ground, size: int, whole: bool
) -> None:
    log = field.path("log")
    outer = cast.put_inside.options(**field.on(1)).remote(size, 6, log)
    (inner,) = fh.get(outer, timeout=20)
    if whole:
        field.cluster.kill_node(1)
    else:
        field.kill_process(fh.get(cast.whoami.options(**field.on(1)).remote())[1])
    found, seconds = timed(lambda: outcome(inner))
    assert found == ("value", (6, size))
    assert seconds < BOUND_S
    assert cast.lines(log) == ["put_inside"] * (1 if size == LARGE and not whole else 2)


@pytest.mark.parametrize("holder", ["caller", "field"])
def test_a_dead_parent_s_re_run_makes_the_same_ids_and_holders_re_attach(
    field: Ground, holder: str
) -> None:
    """The parent ran on machine 1 and its child too: parent, child and value go at once."""
    log = field.path("log")
    outer = cast.submit_inside.options(num_cpus=0, **field.on(1)).remote(
        field.node(1), LARGE, 6, log
    )
    (inner,) = fh.get(outer, timeout=20)
    keeper = field.keeper(0)
    if holder == "field":
        fh.get(keeper.keep.remote([inner]))
        del inner
    field.cluster.kill_node(1)
    found, seconds = timed(
        lambda: fh.get(keeper.read.remote()) if holder == "field" else outcome(inner)
    )
    assert found == ("value", (6, LARGE))
    assert seconds < BOUND_S
    assert sorted(cast.lines(log)) == ["make", "make", "submit_inside", "submit_inside"]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_owner_that_ends_in_good_order_leaves_its_values(field: Ground, size: int) -> None:
    owner = field.keeper(2)
    pid = owner_pid(owner)
    (made,) = fh.get(owner.make.remote(field.node(2), size, 7))
    (put,) = fh.get(owner.put.remote(size, 8))
    del owner
    eventually(lambda: pid not in field.workers(2), what="the actor has ended")
    assert [outcome(made), outcome(put)] == [("value", (7, size)), ("value", (8, size))]


@pytest.mark.parametrize("ending", ["clean", "killed"])
def test_a_driver_s_tasks_actors_and_objects_go_with_it(field: Ground, ending: str) -> None:
    log = field.path("log")
    argv = [sys.executable, "-c", PROGRAM, field.node(2), log, ending]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with field.cluster.machines[1].popen(argv, **pipes) as driver:
        assert line_of(driver) == "ready"
        mine = cast.make.options(num_cpus=0, **field.on(2)).remote(LARGE, 3)
        assert outcome(mine) == ("value", (3, LARGE))
        if ending == "killed":
            driver.kill()
        driver.communicate()
    pid = int(cast.lines(log)[0].split()[1])
    eventually(lambda: pid not in field.workers(2), BOUND_S, "its task has ended")
    assert outcome(mine) == ("value", (3, LARGE))
    del mine
    field.assert_all_freed(BOUND_S)
