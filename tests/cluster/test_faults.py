"""Every row of the failure table, struck by every kind of fault at random moments.

``make faults`` runs each pair ten times; here each row is struck once, most of them by a kill.
``FREEHOLD_FAULT_RUNS`` says how often, ``FREEHOLD_FAULT_SEED`` from which seed; each run prints its
seed, what struck, and how long it took until all was read.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster import cast
from cluster.cast import Found
from cluster.faults import KINDS, Fault
from cluster.ground import timed
from cluster.processes import eventually
from cluster.rows import ANY, ROWS, Work, head
from cluster.site import DRIVER, OTHER, Site
from cluster.site import make as make_site
from sessions import line_of

RUNS = int(os.environ.get("FREEHOLD_FAULT_RUNS", "0"))
SEED = int(os.environ.get("FREEHOLD_FAULT_SEED", "0"))
PROCESS_S = 3.0  # until all is read after the death of a process
MACHINE_S = 6.0  # ... of a machine that only falls silent: 2 s of it are silence
SLOW_S = 10.0  # ... over a slow link
ONE_EACH = {"owner": "cut", "primary": "cut one way", "actor": "pause", "borrower": "slow"}
PAIRS = [
    (row, kind)
    for row in ROWS
    for kind in KINDS
    if RUNS or kind == ONE_EACH.get(row.__name__, "kill")
]


@pytest.fixture(scope="module")
def common_site(module_home: str, allowed: None) -> Iterator[Site]:
    with make_site() as made:
        yield made


@pytest.fixture
def site(common_site: Site) -> Iterator[Site]:
    yield common_site
    common_site.restore()


@pytest.mark.parametrize(
    ("row", "kind"), PAIRS, ids=[f"{row.__name__}-{kind}".replace(" ", "-") for row, kind in PAIRS]
)
def test_a_row_of_the_table(site: Site, row: Callable[[Site], Work], kind: str) -> None:
    for run in range(RUNS or 1):
        seed = f"{SEED + run}/{row.__name__}/{kind}"
        fault = Fault.drawn(kind, random.Random(seed), brief=row is head)
        print(f"\n{seed:<24} {fault!s:<36}", end=" ", flush=True)
        strike(site, row(site), fault)
        site.restore()
        site.assert_all_freed()


def strike(site: Site, work: Work, fault: Fault) -> None:
    """Let the fault happen while the work is under way, and see what comes of it."""
    moment = time.monotonic() + fault.moment * work.lasts
    eventually(lambda: time.monotonic() >= moment)
    damage = fault.damage(work)
    mending = fault.strike(site, work)
    try:
        found, seconds = timed(lambda: {name: read() for name, (read, _) in work.reads.items()})
    finally:
        if mending is not None:
            mending.join()
    print(f"{seconds:6.3f} s  {sorted({kind for kind, _ in found.values()})}", flush=True)
    for name, outcome in found.items():
        assert_is_right(name, outcome, work, damage)
    bound = SLOW_S if fault.kind == "slow" else PROCESS_S if fault.kind == "kill" else MACHINE_S
    assert seconds < bound
    work.after(damage)
    work.kept.clear()
    work.reads.clear()
    gc.collect()


def assert_is_right(name: str, outcome: Found, work: Work, damage: str) -> None:
    """The value, or an error that the row excuses."""
    _, value = work.reads[name]
    excused: set[str] = set()
    if damage != "nothing":
        excused = work.errors[name][damage == "machine"]
    right = outcome[0] == "value" if value is ANY else outcome == value
    assert right or outcome[0] in excused, f"{name}: {outcome}"


# --- how soon, and what a badly placed program gets -----------------------------------------------

NOTICED_S = 0.05  # until the death of a process is noticed
SILENT_S = 2.0  # ... of a node that is not heard
GAP_S = 4.5  # ... that two nodes do not reach each other, and one of them has gone
LOAD_S = 0.5  # what a busy machine adds
TRIES = 5
PROGRAM = """
import sys, time
import freehold as fh
from cluster import cast
fh.init(log_to_driver=False)
there = cast.there(sys.argv[1])
fh.get(cast.make.options(num_cpus=0, **there).remote(cast.LARGE, 1))
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
found = cast.outcome(cast.make.options(num_cpus=0, **there).remote(cast.LARGE, 1), 30)
print(found[0], time.monotonic() - start, found[1], flush=True)
sys.stdin.readline()
"""


def victim(site: Site, machine: int) -> tuple[Any, int]:
    """A task there that may not run twice, and the process that runs it."""
    log = site.path("log")
    options = {"max_retries": 0, "num_cpus": 0, **site.on(machine)}
    running = cast.hold_on.options(**options).remote(log, log + "-never", 1)
    eventually(lambda: cast.lines(log))
    return running, int(cast.lines(log)[0].split()[1])


def test_the_death_of_a_process_is_noticed_within_50_ms(site: Site) -> None:
    times = []
    for _ in range(TRIES):
        running, pid = victim(site, 1)
        os.kill(pid, signal.SIGKILL)
        (kind, _), seconds = timed(lambda running=running: cast.outcome(running))
        assert kind == "WorkerDied"
        times.append(seconds)
    print(f"\n{' '.join(f'{1e3 * one:.1f}' for one in sorted(times))} ms")
    assert min(times) < NOTICED_S
    assert max(times) < NOTICED_S + LOAD_S


def test_a_node_that_is_silent_is_noticed_within_2_s(site: Site) -> None:
    running, _ = victim(site, 2)
    site.network.down(2)
    (kind, _), seconds = timed(lambda: cast.outcome(running))
    print(f"\n{seconds:.3f} s")
    assert kind == "WorkerDied"
    assert seconds < SILENT_S + LOAD_S


def test_a_driver_that_does_not_reach_a_node_waits_for_it_no_longer_than_the_bound(
    site: Site,
) -> None:
    """Its node stays, since a driver runs there; what the other one ran is done elsewhere."""
    running, _ = victim(site, 2)
    site.network.cut(DRIVER, 2)
    (kind, text), seconds = timed(lambda: cast.outcome(running))
    print(f"\n{seconds:.3f} s")
    assert kind == "WorkerDied"
    assert "cannot reach each other" in text
    assert seconds < GAP_S + LOAD_S
    assert cast.outcome(cast.make.options(**site.on(2)).remote(10, 1))[0] == "value"


def test_a_driver_that_most_nodes_do_not_reach_is_told_so(site: Site) -> None:
    machine = site.cluster.machines[1]
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        argv = [sys.executable, "-c", PROGRAM, machine.node]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        env = {**machine.variables, "TMPDIR": directory}
        with site.network.popen(OTHER, argv, env, **pipes) as program:
            assert program.stdin is not None
            assert line_of(program) == "ready"
            for other in (1, 2, DRIVER):
                site.network.cut(OTHER, other)
            program.stdin.write("\n")
            program.stdin.flush()
            kind, seconds, text = line_of(program).split(maxsplit=2)
            program.communicate("\n")
    print(f"\n{float(seconds):.3f} s: {text}")
    assert kind == "NodeDied"
    assert "cannot reach each other" in text
    assert float(seconds) < GAP_S + LOAD_S
