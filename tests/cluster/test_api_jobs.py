"""Names between programs of one cluster, and when nodes and programs die."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import freehold as fh
from cluster.api import joined, travelling
from cluster.processes import eventually
from freehold.ext.cluster import Cluster


@fh.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self) -> int:
        self.n += 1
        return self.n


OTHER = """
import sys
import freehold as fh

@fh.remote
class Counter:
    def __init__(self):
        self.n = 100

    def add(self):
        self.n += 1
        return self.n

fh.init()
mine = Counter.options(name="shared", namespace="all").remote()
hidden = Counter.options(name="own").remote()
print(fh.get(mine.add.remote()), fh.list_named_actors(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with travelling(__name__), joined(2, num_cpus=1) as made:
        yield made


def test_two_jobs_share_a_namespace_and_names_end_with_their_job(cluster: Cluster) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with cluster.machines[1].popen([sys.executable, "-c", OTHER], **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline().split() == ["101", "['own']"]
        with pytest.raises(fh.NameUnknown):
            fh.get_actor("own")
        found = fh.get_actor("shared", namespace="all")
        assert fh.get(found.add.remote(), timeout=20) == 102
        with pytest.raises(fh.NameTaken):
            Counter.options(name="shared", namespace="all").remote()
        other.kill()
        other.wait()
    eventually(lambda: fh.list_named_actors("all") == [])
    assert fh.get(found.add.remote(), timeout=20) == 103  # who holds it keeps it
    with pytest.raises(fh.NameUnknown):
        fh.get_actor("shared", namespace="all")


def test_a_name_goes_with_the_node_of_its_maker(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1, resources={"there": 1.0})

    @fh.remote(resources={"there": 0.5})
    class Maker:
        def make(self) -> None:
            self.made = Counter.options(name="gone").remote()
            fh.get(self.made.add.remote())

    maker = Maker.remote()
    fh.get(maker.make.remote(), timeout=20)
    found = fh.get_actor("gone")
    cluster.kill_node(machine.index)
    eventually(lambda: fh.list_named_actors() == [])
    with pytest.raises((fh.ActorError, fh.OwnerDied)):
        fh.get(found.add.remote(), timeout=20)
    with pytest.raises(fh.NameUnknown):
        fh.get_actor("gone")


def test_a_name_moves_with_the_actor_when_its_node_dies(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1)
    strategy = fh.NodeAffinity(machine.node, soft=True)
    made = Counter.options(
        name="moves", max_restarts=1, max_task_retries=1, scheduling_strategy=strategy
    ).remote(1)
    assert fh.get(made.add.remote(), timeout=20) == 2
    cluster.kill_node(machine.index)
    assert fh.get(fh.get_actor("moves").add.remote(), timeout=30) == 2


def test_a_group_s_bundle_is_placed_anew_when_its_node_dies(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1)
    group = fh.placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    assert group.wait(20)
    actors = [
        Counter.options(
            placement_group=group, bundle_index=i, max_restarts=-1, max_task_retries=-1
        ).remote()
        for i in range(3)
    ]
    assert fh.get([each.add.remote() for each in actors], timeout=30) == [1] * 3
    cluster.kill_node(machine.index)
    pending = [each.add.remote() for each in actors]
    eventually(lambda: not group.wait(0))
    cluster.add_node(num_cpus=1)
    assert group.wait(30)
    assert sorted(fh.get(pending, timeout=30)) == [1, 2, 2]
    fh.remove_placement_group(group)


def test_groups_go_with_their_job(cluster: Cluster) -> None:
    code = "import freehold as fh; fh.init(); g = fh.placement_group([{'CPU': 1}]); print(g.wait())"
    with cluster.machines[1].popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.communicate()[0] == "True\n"
    total = fh.cluster_resources()
    eventually(lambda: fh.available_resources() == total, tell=fh.available_resources)
