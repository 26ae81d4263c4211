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
from freehold.proc import start
from freehold.proc.questions import asking

HEARD_S = 0.7  # seconds since its last sign of life, of which there is one every half
DRIVER, OTHER = NODES, NODES + 1  # the hosts of this process, and of another program


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
        eventually(self._is_whole, 30.0, "all are members")

    def _is_whole(self) -> bool:
        """Whether the head hears all nodes, and they agree on who is there.

        A node that was cut off may be given up some time after it is connected again, since what
        was on its way is sent again late.
        """
        rows = asking(start.ensure()).ask("nodes", 5.0)["nodes"]
        if any(not row["connected"] or row["silent"] > HEARD_S for row in rows):
            return False
        for machine in self.cluster.machines:
            machine.node = ground.node_of(machine)
        ids = {row["node"].hex() for row in rows}
        known = [status["members"]["nodes"] for status in self.statuses()]
        return (
            len(ids) == NODES + 1
            and known == [NODES + 1] * (NODES + 1)
            and all(machine.node in ids for machine in self.cluster.machines)
        )


@contextlib.contextmanager
def make() -> Iterator[Site]:
    """The site, and this process as its driver."""
    with (
        Network(NODES + 2) as network,
        network.inside(DRIVER),
        ground.make(**network.places()) as common,
    ):
        site = Site(common.cluster, common.files)
        site.network = network
        yield site
