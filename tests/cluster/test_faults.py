"""Every row of the failure table, struck by every kind of fault at random moments.

``make faults`` runs each pair ten times; here each row is struck once, most of them by a kill.
``FREEHOLD_FAULT_RUNS`` says how often, ``FREEHOLD_FAULT_SEED`` from which seed; each run prints its
seed, what struck, and how long it took until all was read.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.cast import Found
from cluster.faults import KINDS, Fault
from cluster.ground import timed
from cluster.processes import eventually
from cluster.rows import ANY, ROWS, Work, head
from cluster.site import Site
from cluster.site import make as make_site

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
