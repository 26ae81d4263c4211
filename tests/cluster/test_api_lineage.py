"""``lineage_bytes_max``: what may be made again when it is lost; the error of the rest says so."""

from __future__ import annotations

import pytest

import freehold as fh
from cluster.api import travelling
from freehold.core.process.lineage import ROW_BYTES
from freehold.errors import ObjectLost
from freehold.ext.cluster import Cluster
from freehold.options import NodeAffinity

SIZE = 300_000  # bytes: in shared memory


@fh.remote
def made(tag: int) -> bytes:
    return bytes([tag]) * SIZE


def test_recipes_within_the_budget_are_run_again_and_the_others_say_so() -> None:
    with travelling(__name__), Cluster(nodes=2, num_cpus=1) as cluster:
        budget = 3 * ROW_BYTES  # the code of the function counts, too
        fh.init(address=cluster.address, token=cluster.token, lineage_bytes_max=budget)
        try:
            machine = cluster.machines[1]
            there = made.options(scheduling_strategy=NodeAffinity(machine.node, True))
            refs = [there.remote(tag) for tag in range(6)]
            fh.wait(refs, num_returns=len(refs), timeout=30)
            cluster.kill_node(machine.index)
            with pytest.raises(ObjectLost, match="lineage_bytes_max"):
                fh.get(refs[0], timeout=30)
            assert fh.get(refs[-1], timeout=30) == bytes([5]) * SIZE
        finally:
            fh.shutdown()


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="lineage_bytes_max"):
        fh.init(lineage_bytes_max=-1)
