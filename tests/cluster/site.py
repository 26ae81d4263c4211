"""The ground of the failure table: machines in network namespaces, the driver on one more.

So each machine can be cut off from the others, and from the driver, while its processes run.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from cluster import ground
from cluster.ground import NODES, Ground
from cluster.netns import Network
from cluster.processes import eventually

DRIVER = NODES  # the host of this process


class Site(Ground):
    """A cluster on a network."""

    network: Network

    def restore(self) -> None:
        """Mend the network, let all processes run, and bring back what was killed."""
        self.network.heal()
        for index in range(NODES):
            self.network.limit(index, None)
            self.network.delay(index, 0.0)
            self.cluster.kill_node(index, signal.SIGCONT)
        super().restore()
        for machine in self.cluster.machines:
            eventually(lambda machine=machine: ground.node_of(machine), 20.0, f"{machine} is back")
            machine.node = ground.node_of(machine)
        eventually(self._is_whole, 20.0, "all are members")

    def _is_whole(self) -> bool:
        return [status["members"]["nodes"] for status in self.statuses()] == [NODES + 1] * 4


@contextlib.contextmanager
def make() -> Iterator[Site]:
    """The site, and this process as its driver."""
    with Network(NODES + 1) as network, network.inside(DRIVER):
        hosts = list(network.hosts)[:NODES]
        with ground.make(
            namespaces=[network.namespace(host) for host in hosts],
            hosts=[network.address(host) for host in hosts],
        ) as common:
            site = Site(common.cluster, common.files)
            site.network = network
            yield site
