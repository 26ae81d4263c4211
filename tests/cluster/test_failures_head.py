"""The head dies: what runs goes on, what is new waits for it, and one with the same store recovers.

Also deaths while there is no head: nodes judge for themselves.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import freehold as fh
from cluster import cast
from cluster.cast import LARGE, outcome
from cluster.ground import Ground, timed
from cluster.processes import eventually

BOUND_S = 3.0
UNREACHABLE_S = 2.0
PROGRAM = """
import freehold as fh
from cluster import cast
fh.init(log_to_driver=False)
print(fh.get(cast.make.remote(10, 1))[0], flush=True)
fh.shutdown()
"""


def test_without_a_head_tasks_leases_reads_and_calls_go_on(field: Ground) -> None:
    runs, gate = field.path("runs"), field.path("gate")
    keeper = field.keeper(2)
    (ref,) = fh.get(keeper.make.remote(field.node(1), LARGE, 7))
    running = cast.hold_on.options(**field.on(1)).remote(runs, gate, 5)
    eventually(lambda: len(cast.lines(runs)) == 1)
    field.cluster.kill_head()

    def work() -> list[Any]:
        assert fh.get(keeper.read.remote(), timeout=20) == ("value", (7, LARGE))
        assert outcome(ref) == ("value", (7, LARGE))
        spread = [cast.whoami.options(num_cpus=0, **field.on(at)).remote() for at in range(3)]
        return [where for where, _ in fh.get(spread, timeout=20)]

    found, seconds = timed(work)
    assert found == [0, 1, 2]
    assert seconds < BOUND_S
    open(gate, "w").close()
    assert fh.get(running, timeout=20) == 5
    assert len(cast.lines(runs)) == 1
    field.cluster.restart_head()
    assert work() == [0, 1, 2]


def test_a_head_on_the_same_store_knows_the_nodes_that_are_there(field: Ground) -> None:
    before = [field.node(index) for index in range(3)]
    runs, gate = field.path("runs"), field.path("gate")
    running = cast.hold_on.options(**field.on(1)).remote(runs, gate, 5)
    eventually(lambda: len(cast.lines(runs)) == 1)
    for _ in range(3):
        field.cluster.kill_head()
        field.cluster.restart_head()
    eventually(lambda: all(status["members"]["head"] for status in field.statuses()))
    for status in field.statuses():
        assert status["members"]["nodes"] == 4  # the driver's own is one
        assert status["node"] in before or status["resources"]["CPU"]["total"] == 0
    open(gate, "w").close()
    assert fh.get(running, timeout=20) == 5
    assert len(cast.lines(runs)) == 1


def test_a_program_that_begins_while_the_head_is_away_waits_for_it_or_says_so(
    field: Ground,
) -> None:
    field.cluster.kill_head()
    argv = [sys.executable, "-c", PROGRAM]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with field.cluster.machines[1].popen(argv, **pipes) as program:
        back = threading.Thread(target=field.cluster.restart_head)
        back.start()
        (out, err), seconds = timed(program.communicate)
        back.join()
    assert out.strip() == "1" or "ClusterUnreachable" in err
    assert seconds < 2 * BOUND_S


def test_a_node_that_dies_while_there_is_no_head_is_dead_to_all(field: Ground) -> None:
    log = field.path("log")
    mine = cast.make.options(**field.on(1)).remote(LARGE, 3, log)
    keeper = field.keeper(2)
    (borrowed,) = fh.get(keeper.make.remote(field.node(1), LARGE, 7))
    fh.wait([mine])
    dead = field.node(1)
    field.cluster.kill_head()
    field.cluster.kill_node(1)
    found, seconds = timed(lambda: [outcome(mine), outcome(borrowed)])
    assert found == [("value", (3, LARGE)), ("value", (7, LARGE))]
    assert seconds < UNREACHABLE_S + BOUND_S
    field.cluster.restart_head()
    field.cluster.restart(1)
    assert field.node(1) != dead
    eventually(lambda: all(status["members"]["nodes"] == 4 for status in field.statuses()))
    assert fh.get(cast.whoami.options(**field.on(1, False)).remote(), timeout=20)[0] == 1


def test_the_head_s_machine_dies_with_its_node(field: Ground) -> None:
    """The survivors finish their work; when the machine comes back the cluster is whole again."""
    keeper = field.keeper(2)
    (borrowed,) = fh.get(keeper.make.remote(field.node(0), LARGE, 7))
    mine = cast.make.options(**field.on(0)).remote(LARGE, 3)
    fh.wait([mine])
    field.cluster.kill_node(0)
    found, seconds = timed(lambda: [outcome(mine), outcome(borrowed)])
    assert found == [("value", (3, LARGE)), ("value", (7, LARGE))]
    assert seconds < UNREACHABLE_S + BOUND_S
    field.cluster.restart(0)
    eventually(lambda: [status["members"]["nodes"] for status in field.statuses()] == [4] * 4)
    assert fh.get(cast.whoami.options(**field.on(0, False)).remote(), timeout=20)[0] == 0
