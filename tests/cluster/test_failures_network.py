"""Networks fail: nodes in namespaces whose cables are cut, cut one way, slow; nodes that pause.

Machine 0 has the head; the driver is a program on machine 1; machine 2 is the victim.  A node that
is not heard of for ``unreachable_s`` (2 s) is dead: what it had is made again elsewhere; when it
returns it is refused, ends its workers, and joins under a new incarnation.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import cast, ground
from cluster.netns import Network
from cluster.processes import eventually
from freehold.ext.cluster import Cluster
from sessions import SOURCE, line_of

UNREACHABLE_S = 2.0
GAP_S = 5.0  # until one of two has gone that do not reach each other, and its work is done again
BOUND_S = UNREACHABLE_S + 4.0
PROGRAM = """
import sys, time
import freehold as fh
from cluster import cast
fh.init(log_to_driver=False)
node, log = sys.argv[1:]
there = cast.there(node)
result = cast.make.options(**there).remote(cast.LARGE, 1, log, "made")
fh.wait([result])
running = cast.hold_on.options(num_cpus=0, **there).remote(log + "-runs", log + "-gate", 5)
actor = cast.Counter.options(max_restarts=1, max_task_retries=-1, **there).remote(log)
was, _ = fh.get(actor.add.remote())
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
value = fh.get(cast.grow.options(num_cpus=0).remote(result), timeout=30)[0]
now, count = fh.get(actor.add.remote(), timeout=30)
open(log + "-gate", "w").close()
end = fh.get(running, timeout=30)
print(value, end, was == now, count, round(time.monotonic() - start, 3), flush=True)
sys.stdin.readline()
fh.shutdown()
"""


class Place:
    """Three machines on a network, and a driver on machine 1 that has to do with machine 2."""

    def __init__(self, network: Network, cluster: Cluster, files: str) -> None:
        self.network = network
        self.cluster = cluster
        self.log = f"{files}/log"
        argv = [sys.executable, "-c", PROGRAM, cluster.machines[2].node, self.log]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.driver = cluster.machines[1].popen(argv, **pipes)
        assert line_of(self.driver) == "ready"
        eventually(lambda: len(cast.lines(self.log + "-runs")) == 1)

    def go_on(self) -> tuple[list[str], float]:
        """Let the driver use what machine 2 had: result, task, same actor, calls; the seconds."""
        assert self.driver.stdin is not None
        self.driver.stdin.write("\n")
        self.driver.stdin.flush()
        *found, seconds = line_of(self.driver).split()
        return found, float(seconds)

    def births(self) -> int:
        return sum(line.startswith("born") for line in cast.lines(self.log))

    def is_back(self) -> bool:
        """Whether machine 2 has a node under a new id, whose workers are new, too."""
        machine = self.cluster.machines[2]
        return ground.node_of(machine) not in ("", machine.node)


@pytest.fixture(scope="module")
def machines(module_home: str, allowed: None) -> Iterator[tuple[Network, Cluster]]:
    with (
        Network(3) as hosts,
        Cluster(
            nodes=3,
            env={"PYTHONPATH": os.pathsep.join([SOURCE, ground.TESTS])},
            **hosts.places(),
        ) as cluster,
    ):
        yield hosts, cluster


@pytest.fixture
def place(machines: tuple[Network, Cluster]) -> Iterator[Place]:
    """All is connected and runs before the test."""
    network, cluster = machines
    victim = cluster.machines[2]
    network.heal()
    network.limit(2, None)
    cluster.kill_node(2, signal.SIGCONT)
    victim.node = eventually(lambda: ground.node_of(victim), 15.0, "machine 2 has a node")
    with tempfile.TemporaryDirectory() as files:
        made = Place(network, cluster, files)
        yield made
        Path(made.log + "-gate").touch()
        with contextlib.suppress(BrokenPipeError):
            made.driver.communicate("\n\n")


def assert_replaced(place: Place, found: list[str], seconds: float) -> None:
    """All that machine 2 had is elsewhere, once."""
    print(f"\n{seconds:.3f} s: {found}")
    assert found == ["2", "5", "False", "1"]
    assert seconds < BOUND_S
    assert cast.lines(place.log).count("made") == 2
    assert place.births() == 2


def test_a_node_whose_cable_is_out_is_replaced_and_returns_under_a_new_incarnation(
    place: Place,
) -> None:
    place.network.down(2)
    assert_replaced(place, *place.go_on())
    assert not place.is_back()
    place.network.up(2)
    eventually(place.is_back, 15.0, "it has joined anew")


@pytest.mark.parametrize("way", ["to", "from"])
def test_a_node_that_is_cut_one_way_is_replaced(place: Place, way: str) -> None:
    for other in (0, 1):
        place.network.cut(*((other, 2) if way == "to" else (2, other)))
    assert_replaced(place, *place.go_on())
    place.network.heal()
    eventually(place.is_back, 15.0, "it has joined anew")


@pytest.mark.parametrize("ways", [[(1, 2), (2, 1)], [(2, 1)]], ids=["both ways", "one way"])
def test_of_two_nodes_that_lose_each_other_the_one_without_a_driver_goes(
    place: Place, ways: list[tuple[int, int]]
) -> None:
    """The head reaches both, and nobody is silent; it waits at the door until the cut is mended."""
    for way in ways:
        place.network.cut(*way)
    found, seconds = place.go_on()
    assert_replaced(place, found, seconds)
    assert seconds < GAP_S
    assert not place.is_back()
    place.network.heal()
    eventually(place.is_back, 15.0, "it has joined anew")


def test_a_node_that_pauses_for_long_is_replaced_and_answers_nobody_when_it_returns(
    place: Place,
) -> None:
    place.cluster.kill_node(2, signal.SIGSTOP)
    assert_replaced(place, *place.go_on())
    place.cluster.kill_node(2, signal.SIGCONT)
    eventually(place.is_back, 15.0, "it has joined anew")
    assert place.births() == 2


def test_a_short_pause_changes_nothing(place: Place) -> None:
    place.cluster.kill_node(2, signal.SIGSTOP)
    resume = time.monotonic() + UNREACHABLE_S / 4
    eventually(lambda: time.monotonic() > resume)
    place.cluster.kill_node(2, signal.SIGCONT)
    found, _ = place.go_on()
    assert found == ["2", "5", "True", "2"]
    assert cast.lines(place.log).count("made") == 1
    assert place.births() == 1


def test_a_slow_link_is_no_death(place: Place) -> None:
    place.network.limit(2, 2)  # Mbit/s: the result alone takes more than a second
    found, seconds = place.go_on()
    assert found == ["2", "5", "True", "2"]
    assert seconds > 1.0
    assert cast.lines(place.log).count("made") == 1
    assert place.births() == 1


@pytest.mark.parametrize("hosts", [[(0, 2), (1, 2)], [(1, 2)]], ids=["from all", "from the driver"])
def test_a_short_cut_changes_nothing(place: Place, hosts: list[tuple[int, int]]) -> None:
    for one, other in hosts:
        place.network.cut(one, other)
        place.network.cut(other, one)
    assert place.driver.stdin is not None
    place.driver.stdin.write("\n")
    place.driver.stdin.flush()
    mend = time.monotonic() + UNREACHABLE_S / 4
    eventually(lambda: time.monotonic() > mend)
    place.network.heal()
    *found, seconds = line_of(place.driver).split()
    assert found == ["2", "5", "True", "2"]
    assert float(seconds) < UNREACHABLE_S
    assert cast.lines(place.log).count("made") == 1
