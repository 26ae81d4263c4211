"""What only a dead node could run waits for it to come back; what none ever could is denied."""

from __future__ import annotations

import pytest

import freehold as fh
from cluster.processes import eventually
from freehold.ext.cluster import Cluster


def test_work_waits_for_the_only_node_that_could_do_it(home: str) -> None:
    with Cluster(2, num_cpus=0, resources={}) as cluster:
        machine = cluster.add_node(num_cpus=1)
        fh.init(address=cluster.address, token=cluster.token)
        try:
            add = fh.remote(sum)
            assert fh.get(add.remote([1, 2]), timeout=20) == 3
            dead = fh.status()["members"]["dead"]
            cluster.kill_node(machine.index)
            eventually(lambda: fh.status()["members"]["dead"] == dead + 1)
            late = add.remote([3, 4])
            assert fh.wait([late], timeout=0.2) == ([], [late])
            with pytest.raises(fh.Unschedulable, match="2 CPU"):
                fh.get(add.options(num_cpus=2).remote([5]), timeout=20)
            cluster.restart(machine.index)
            assert fh.get(late, timeout=20) == 7
        finally:
            fh.shutdown()
