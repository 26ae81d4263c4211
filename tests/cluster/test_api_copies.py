"""``put(value, copies=n)``: so many copies on different nodes, also after one of them has died."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import freehold as fh
from cluster.api import joined, travelling
from cluster.processes import eventually
from freehold.ext.cluster import Cluster
from freehold.proc import session

SIZE = 300_000  # bytes: in shared memory


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with travelling(__name__), joined(2, num_cpus=1) as made:
        yield made


def nodes_of(ref: fh.Ref[Any]) -> set[str]:
    """Where the value lies, as its owner knows."""
    row = ref._row
    return {place[3].hex() for place in [row.data, *row.more.copies]}


@fh.remote
def length(value: bytes) -> int:
    return len(value)


def test_copies_are_on_different_nodes_when_put_returns(cluster: Cluster) -> None:
    two, three = fh.put(bytes(SIZE), copies=2), fh.put(bytes(SIZE), copies=3)
    assert len(nodes_of(two)) == 2
    assert len(nodes_of(three)) == 3
    assert fh.get([length.remote(two), length.remote(three)], timeout=30) == [SIZE] * 2
    assert fh.get(two) == bytes(SIZE)


def test_a_copy_that_is_lost_is_made_again_elsewhere(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1)
    everywhere = fh.put(bytes(SIZE), copies=4)
    assert machine.node in nodes_of(everywhere)
    pairs = [fh.put(bytes(SIZE), copies=2) for _ in range(6)]
    assert any(machine.node in nodes_of(pair) for pair in pairs)
    cluster.kill_node(machine.index)
    eventually(lambda: all(len(nodes_of(pair) - {machine.node}) == 2 for pair in pairs), 30)
    assert len(nodes_of(everywhere) - {machine.node}) == 3
    extra = cluster.add_node(num_cpus=1)
    eventually(lambda: extra.node in nodes_of(everywhere), 30)
    assert fh.get([length.remote(pair) for pair in pairs], timeout=30) == [SIZE] * 6


def test_copies_go_with_the_reference(cluster: Cluster) -> None:
    kept = fh.put(bytes(SIZE), copies=2)
    keeping = session.current_runtime.process.keeping
    id = kept.binary()
    assert id in keeping.rows
    del kept
    eventually(lambda: id not in keeping.rows)

    def copies() -> int:
        return sum(count_copies(machine) for machine in cluster.machines if machine.alive)

    eventually(lambda: copies() == 0, tell=copies)


def count_copies(machine: Any) -> int:
    """How many copies that node has."""
    affinity = fh.NodeAffinity(machine.node)
    found = fh.get(pulls.options(scheduling_strategy=affinity).remote(), timeout=30)
    return int(found["pins"])


@fh.remote(num_cpus=0)
def pulls() -> dict[str, Any]:
    found: dict[str, Any] = fh.status()["pulls"]
    return found


def test_too_few_nodes_are_said_at_once(cluster: Cluster) -> None:
    many = len(fh.nodes()) + 1
    with pytest.raises(fh.Unschedulable, match=f"{many} copies"):
        fh.put(bytes(SIZE), copies=many)
    with pytest.raises(ValueError, match="copies"):
        fh.put(b"", copies=many)
    for wrong in (0, -1, 2.0, "2"):
        with pytest.raises(ValueError, match="copies"):
            fh.put(1, copies=wrong)  # type: ignore[arg-type]


@fh.remote
class Putter:
    def put(self) -> list[fh.Ref[bytes]]:
        self.mine = fh.put(bytes(SIZE), copies=2)
        return [self.mine]


def test_copies_outlive_their_owner_s_node(cluster: Cluster) -> None:
    machine = cluster.add_node(num_cpus=1)
    putter = Putter.options(scheduling_strategy=fh.NodeAffinity(machine.node)).remote()
    (ref,) = fh.get(putter.put.remote(), timeout=30)
    cluster.kill_node(machine.index)
    assert fh.get(ref, timeout=30) == bytes(SIZE)
    assert fh.get(length.remote(ref), timeout=30) == SIZE


def test_copies_outlive_their_owner(cluster: Cluster) -> None:
    putter = Putter.remote()
    (ref,) = fh.get(putter.put.remote(), timeout=30)
    fh.kill(putter)
    assert fh.get(ref, timeout=30) == bytes(SIZE)
    del ref, putter
