"""A node drains: what is there moves off, what runs there ends or moves, nothing runs again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from cluster.api import joined, travelling
from cluster.processes import eventually
from freehold.ext.cluster import Cluster, Machine

SIZE = 300_000  # bytes: in shared memory


@fh.remote
def link(before: bytes | None, log: str) -> bytes:
    with open(log, "a") as file:
        file.write("ran\n")
    return bytes(SIZE) if before is None else bytes(before) + b"x"


@fh.remote
def until_told(path: str) -> int:
    Path(path, "runs").touch()
    eventually(lambda: Path(path, "go").exists(), 60)
    return os.getppid()


@fh.remote
class Actor:
    def where(self) -> int:
        return os.getppid()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with travelling(__name__), joined(2, num_cpus=1) as made:
        yield made


def drain(machine: Machine) -> None:
    with machine.popen([sys.executable, "-m", "freehold", "drain", machine.node]) as command:
        assert command.wait(30) == 0


def left(machine: Machine) -> bool:
    return machine.node not in [row["id"] for row in fh.nodes()]


def test_a_chain_of_objects_stays_readable_and_nothing_runs_again(
    cluster: Cluster, tmp_path: Any
) -> None:
    machine, log = cluster.add_node(num_cpus=1), f"{tmp_path}/log"
    there = link.options(scheduling_strategy=fh.NodeAffinity(machine.node), max_retries=0)
    refs: list[fh.Ref[bytes]] = []
    for i in range(5):
        refs.append(there.remote(refs[-1] if i else None, log))
    fh.wait(refs, num_returns=5, timeout=30)
    drain(machine)
    eventually(lambda: left(machine), 30)
    assert not machine.alive
    assert [len(value) for value in fh.get(refs, timeout=30)] == [SIZE + i for i in range(5)]
    longer = link.remote(refs[-1], log)
    assert len(fh.get(longer, timeout=30)) == SIZE + 5
    assert Path(log).read_text() == "ran\n" * 6


def test_what_was_moved_moves_again(cluster: Cluster, tmp_path: Any) -> None:
    first, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    there = fh.NodeAffinity(first.node)
    made = link.options(scheduling_strategy=there, max_retries=0).remote(None, f"{tmp_path}/log")
    fh.wait([made], timeout=30)
    for machine in (first, second):
        drain(machine)
        eventually(lambda gone=machine: left(gone), 30)  # type: ignore[misc]
    assert fh.get(made, timeout=30) == bytes(SIZE)
    assert Path(tmp_path, "log").read_text() == "ran\n"


def test_running_tasks_finish_and_new_ones_go_elsewhere(cluster: Cluster, tmp_path: Any) -> None:
    machine = cluster.add_node(num_cpus=1)
    (daemon,) = machine.pids("freehold-node")
    where = fh.get(
        Actor.options(scheduling_strategy=fh.NodeAffinity(machine.node)).remote().where.remote(),
        timeout=30,
    )
    assert daemon
    running = until_told.options(
        scheduling_strategy=fh.NodeAffinity(machine.node), max_retries=0
    ).remote(str(tmp_path))
    eventually(lambda: Path(tmp_path, "runs").exists(), 30)
    drain(machine)
    eventually(
        lambda: [row["retiring"] for row in fh.nodes() if row["id"] == machine.node] == [True]
    )
    with pytest.raises(fh.Unschedulable, match="retiring"):
        fh.get(
            link.options(scheduling_strategy=fh.NodeAffinity(machine.node)).remote(None, "x"),
            timeout=30,
        )
    others = [link.remote(None, f"{tmp_path}/log") for _ in range(6)]
    assert len(fh.get(others, timeout=30)) == 6
    assert not left(machine)
    Path(tmp_path, "go").touch()
    assert fh.get(running, timeout=30) == where
    eventually(lambda: left(machine), 30)


def test_an_actor_that_may_restart_moves(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1)
    there = fh.NodeAffinity(machine.node, soft=True)
    moving = Actor.options(scheduling_strategy=there, max_restarts=1, max_task_retries=-1).remote()
    before = fh.get(moving.where.remote(), timeout=30)
    drain(machine)
    eventually(lambda: left(machine), 30)
    assert fh.get(moving.where.remote(), timeout=30) != before


def test_an_actor_that_may_not_restart_keeps_its_node(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1)
    staying = Actor.options(scheduling_strategy=fh.NodeAffinity(machine.node)).remote()
    before = fh.get(staying.where.remote(), timeout=30)
    drain(machine)
    eventually(lambda: any(row["retiring"] for row in fh.nodes()))
    assert fh.get(staying.where.remote(), timeout=30) == before
    assert not left(machine)
    del staying
    eventually(lambda: left(machine), 30)


def test_a_group_s_bundles_move(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    group = fh.placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    assert group.wait(30)
    drain(machine)
    eventually(lambda: left(machine), 30)
    assert group.wait(30)
    found = [
        link.options(placement_group=group, bundle_index=i).remote(None, os.devnull)
        for i in range(3)
    ]
    assert len(fh.get(found, timeout=30)) == 3
    fh.remove_placement_group(group)
