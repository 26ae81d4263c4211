"""Placement groups for programs: all bundles or none, tasks and actors in them, and their end."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import freehold as fh
from cluster.api import anywhere
from cluster.processes import eventually

__all__ = ["anywhere"]
ONE: dict[str, float] = {"CPU": 1}


@fh.remote
def node() -> int:
    return os.getppid()  # a node's workers have one parent


@fh.remote
def inner(x: int) -> int:
    return x + 1


@fh.remote
def outer(group: fh.PlacementGroup, x: int) -> int:
    return fh.get(inner.options(placement_group=group).remote(x)) * 10


@fh.remote
def for_ever(path: str) -> None:
    open(path, "w").close()
    threading.Event().wait()


@fh.remote
class Actor:
    def node(self) -> int:
        return os.getppid()


@pytest.fixture(autouse=True)
def all_free(anywhere: str) -> Iterator[None]:
    """Each test gives back what it has set aside."""
    yield
    total = fh.cluster_resources()
    eventually(lambda: fh.available_resources() == total, tell=fh.available_resources)


@pytest.fixture
def group(anywhere: str) -> Iterator[fh.PlacementGroup]:
    made = fh.placement_group([ONE, {"CPU": 1, "GPU": 1}], strategy="SPREAD", name="pair")
    assert made.wait(20)
    yield made
    fh.remove_placement_group(made)


def test_a_group_is_set_aside_and_given_back(group: fh.PlacementGroup) -> None:
    assert fh.get(group.ready(), timeout=20) == group
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 1, "GPU": 1}]
    assert pickle.loads(pickle.dumps(group)) == group
    eventually(lambda: fh.available_resources() == {"CPU": 0, "GPU": 1})
    assert fh.cluster_resources() == {"CPU": 2, "GPU": 2}


def test_tasks_run_in_their_bundle(group: fh.PlacementGroup, anywhere: str) -> None:
    first, second = (
        set(
            fh.get(
                [node.options(placement_group=group, bundle_index=i).remote() for _ in range(5)],
                timeout=20,
            )
        )
        for i in (0, 1)
    )
    assert len(first) == len(second) == 1
    assert (first != second) == (anywhere == "cluster")
    gpu = node.options(placement_group=group, num_gpus=1)
    assert fh.get(gpu.remote(), timeout=20) in second


def test_actors_run_in_their_bundle_even_if_they_need_nothing(group: fh.PlacementGroup) -> None:
    where = [
        fh.get(node.options(placement_group=group, bundle_index=i).remote(), timeout=20)
        for i in (0, 1)
    ]
    actors = [Actor.options(placement_group=group, bundle_index=i).remote() for i in (0, 1, 0, 1)]
    found = fh.get([actor.node.remote() for actor in actors], timeout=20)
    assert found == where * 2


def test_a_task_lends_its_bundle_s_cpu_to_those_it_waits_for(anywhere: str) -> None:
    group = fh.placement_group([ONE])
    wanted = outer.options(placement_group=group).remote(group, 1)
    assert fh.get(wanted, timeout=20) == 20
    fh.remove_placement_group(group)


def test_what_is_not_placed_yet_waits(group: fh.PlacementGroup) -> None:
    second = fh.placement_group([ONE], strategy="STRICT_PACK")
    ready, task = second.ready(), inner.options(placement_group=second).remote(1)
    assert not second.wait(0.05)
    assert fh.wait([ready, task], num_returns=2, timeout=0.05)[0] == []
    fh.remove_placement_group(group)
    assert second.wait(20)
    assert fh.get([task], timeout=20) == [2]
    assert fh.get(ready, timeout=20) == second
    fh.remove_placement_group(second)


def test_the_end_of_a_group_ends_what_runs_in_it_and_what_waits(
    group: fh.PlacementGroup, tmp_path: Any
) -> None:
    path = f"{tmp_path}/runs"
    actor = Actor.options(placement_group=group, max_restarts=-1).remote()
    fh.get(actor.node.remote(), timeout=20)
    runs = for_ever.options(placement_group=group, bundle_index=0, max_retries=-1).remote(path)
    eventually(lambda: os.path.exists(path))
    second = fh.placement_group([ONE] * 2)
    waits, ready = inner.options(placement_group=second).remote(1), second.ready()
    fh.remove_placement_group(second)
    for ref in (waits, ready):
        with pytest.raises(fh.GroupRemoved):
            fh.get(ref, timeout=20)
    fh.remove_placement_group(group)
    with pytest.raises(fh.GroupRemoved):
        fh.get(runs, timeout=20)
    with pytest.raises((fh.ActorError, fh.GroupRemoved)):
        fh.get(actor.node.remote(), timeout=20)
    with pytest.raises(fh.GroupRemoved):
        fh.get(inner.options(placement_group=group).remote(1), timeout=20)
    with pytest.raises(fh.GroupRemoved):
        group.wait(20)
    with pytest.raises(fh.GroupRemoved):
        fh.get(group.ready(), timeout=20)
    fh.remove_placement_group(group)  # twice does not matter


def test_a_reference_to_a_group_that_nobody_holds_leaves_nothing(anywhere: str) -> None:
    group = fh.placement_group([ONE] * 2)
    blocked = fh.placement_group([ONE])
    blocked.ready()
    fh.remove_placement_group(blocked)
    fh.remove_placement_group(group)


def test_what_can_never_be_placed_is_refused_at_once(anywhere: str) -> None:
    with pytest.raises(fh.Unschedulable, match="5 CPU"):
        fh.placement_group([{"CPU": 5}])
    with pytest.raises(fh.Unschedulable):
        fh.placement_group([ONE] * 3)
    with pytest.raises(fh.Unschedulable):
        fh.placement_group([ONE] * 3, strategy="STRICT_SPREAD")
    if anywhere == "cluster":
        with pytest.raises(fh.Unschedulable):
            fh.placement_group([ONE] * 2, strategy="STRICT_PACK")


def test_mistakes_are_refused_at_once(group: fh.PlacementGroup) -> None:
    bad: list[Any] = [[], {}, [{}], [{"CPU": 0}], [{"CPU": -1}], [{"a/b": 1}], [{"CPU": "1"}], [1]]
    for bundles in bad:
        with pytest.raises(ValueError):
            fh.placement_group(bundles)
    with pytest.raises(ValueError, match="strategy"):
        fh.placement_group([ONE], strategy="TIGHT")
    with pytest.raises(TypeError):
        fh.remove_placement_group("group")  # type: ignore[arg-type]
    for options in (
        {"bundle_index": 0},
        {"placement_group": "group"},
        {"placement_group": group, "bundle_index": 2},
        {"placement_group": group, "bundle_index": -2},
        {"placement_group": group, "num_cpus": 2},
        {"placement_group": group, "bundle_index": 0, "num_gpus": 1},
        {"placement_group": group, "resources": {"strange": 1}},
        {"placement_group": group, "scheduling_strategy": "SPREAD"},
    ):
        with pytest.raises(ValueError):
            inner.options(**options)
    with pytest.raises(ValueError):
        group.wait(-1)
