"""Nodes, resources, GPUs and affinity, as a program sees them."""

from __future__ import annotations

import os

import pytest

import freehold as fh
from cluster.api import anywhere
from cluster.processes import eventually

__all__ = ["anywhere"]


@fh.remote(num_cpus=0, num_gpus=1)
def seen() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


@fh.remote(num_gpus=0.5)
class Sharer:
    def seen(self) -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]


def test_nodes_are_listed_with_what_they_have(anywhere: str) -> None:
    rows = fh.nodes()
    fields = {"id", "address", "total", "free", "labels", "alive", "retiring"}
    assert all(set(row) == fields for row in rows)
    assert all(row["alive"] and not row["retiring"] for row in rows)
    workers = [row for row in rows if row["total"]["CPU"]]
    assert len(workers) == (2 if anywhere == "cluster" else 1)
    assert sum(row["total"]["GPU"] for row in workers) == 2


def test_resources_are_summed_and_come_back(anywhere: str) -> None:
    total = fh.cluster_resources()
    assert (total["CPU"], total["GPU"]) == (2, 2)
    eventually(lambda: fh.available_resources() == total)
    holder = Sharer.options(num_gpus=1, num_cpus=1).remote()
    fh.get(holder.seen.remote(), timeout=20)
    eventually(lambda: fh.available_resources() == {**total, "CPU": 1, "GPU": 1})
    del holder
    eventually(lambda: fh.available_resources() == total)


def test_whole_gpus_are_one_lease_s_own(anywhere: str) -> None:
    actors = [Sharer.options(num_gpus=1).remote() for _ in range(2)]
    found = sorted(fh.get([actor.seen.remote() for actor in actors], timeout=20))
    assert found == (["0", "0"] if anywhere == "cluster" else ["0", "1"])
    waits = seen.remote()
    assert fh.wait([waits], timeout=0.1) == ([], [waits])
    del actors
    assert fh.get(waits, timeout=20) in ("0", "1")


def test_parts_of_gpus_are_shared(anywhere: str) -> None:
    actors = [Sharer.remote() for _ in range(4)]
    found = sorted(fh.get([actor.seen.remote() for actor in actors], timeout=20))
    assert found == (["0"] * 4 if anywhere == "cluster" else ["0", "0", "1", "1"])


def test_a_task_without_gpus_never_runs_where_one_had_some(anywhere: str) -> None:
    assert fh.get([seen.remote() for _ in range(4)], timeout=20)

    @fh.remote
    def plain() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    eventually(lambda: fh.available_resources()["GPU"] == 2)
    assert set(fh.get([plain.remote() for _ in range(20)], timeout=20)) == {None}


def test_two_gpus_are_two_numbers(anywhere: str) -> None:
    both = seen.options(num_gpus=2)
    if anywhere == "cluster":  # where each node has one
        with pytest.raises(fh.Unschedulable, match="2 GPU"):
            fh.get(both.remote(), timeout=20)
    else:
        assert fh.get(both.remote(), timeout=20) == "0,1"


def test_impossible_amounts_are_refused_at_once() -> None:
    for amount in (1.5, -1, float("inf"), "1"):
        with pytest.raises(ValueError, match="num_gpus"):
            seen.options(num_gpus=amount)


def test_node_affinity_by_the_ids_that_nodes_lists(anywhere: str) -> None:
    @fh.remote(num_cpus=0.5)
    def parent() -> int:
        return os.getppid()

    nodes = [row["id"] for row in fh.nodes() if row["total"]["CPU"]]
    there = [
        set(
            fh.get(
                [
                    parent.options(scheduling_strategy=fh.NodeAffinity(node)).remote()
                    for _ in range(4)
                ],
                timeout=20,
            )
        )
        for node in nodes
    ]
    assert all(len(one) == 1 for one in there)  # a node's workers have one parent
    assert len(set.union(*there)) == len(nodes)
    with pytest.raises(fh.Unschedulable, match="dead"):
        fh.get(parent.options(scheduling_strategy=fh.NodeAffinity("ab" * 8)).remote(), timeout=20)
