"""The systems that are compared, each with a real cluster on this machine.

They have the same names for the same things (``remote``, ``options``, ``get``, ``put``), so every
experiment is written once.  What differs stands here: how nodes start and die, and where the head
is.  Each node offers the resource ``node-N``, by which tasks are sent to it; the driver is on node
0, and shares its memory.
"""

from __future__ import annotations

import importlib
import signal
import tempfile
from typing import Any

import processes

STORE_BYTES = 1 << 30  # of each of Ray's nodes
INLINE_MAX = 64 << 20  # by value: the largest that freehold allows


def place(index: int) -> dict[str, float]:
    """Resources that a task asks for which is to run on that node."""
    return {f"node-{index}": 0.001}


def _offered(index: int) -> dict[str, float]:
    return {f"node-{index}": 1.0}


class Freehold:
    """Nodes as ``freehold start`` makes them, with TLS between them, as it is by default."""

    package = "freehold"

    def __init__(self, places: dict[str, list[str]], inline_bytes_max: int = 0) -> None:
        self.copies_values = inline_bytes_max > 0
        self.places = places  # as a Cluster takes them; none: the loopback device
        self.api = importlib.import_module("freehold")
        self.inline = {"inline_bytes_max": inline_bytes_max} if inline_bytes_max else {}
        self.cpus: list[float] = []

    def start(self, *cpus: float) -> None:
        """Start nodes with so many CPUs each, and join on the first one."""
        local = importlib.import_module("freehold.ext.cluster")
        self.cpus = list(cpus)
        env = {f"FREEHOLD_{name.upper()}": str(value) for name, value in self.inline.items()}
        self.cluster = local.Cluster(
            1, num_cpus=cpus[0], resources=_offered(0), env=env, **self.places
        )
        self.cluster.start()
        for index, count in enumerate(cpus[1:], 1):
            where = {"namespace": "namespaces", "host": "hosts"}
            there = {name: self.places[of][index] for name, of in where.items() if self.places}
            self.cluster.add_node(num_cpus=count, resources=_offered(index), **there)
        tempfile.tempdir = self.cluster.machines[0].directory  # this program runs there
        self.api.init(address=self.cluster.address, token=self.cluster.token, **self.inline)
        processes.settle()

    def kill(self, index: int) -> None:
        """All that runs on the node is killed."""
        self.cluster.kill_node(index, signal.SIGKILL)

    def start_again(self, index: int) -> None:
        """A new node in its stead."""
        self.cluster.restart(index)

    def dead(self) -> int:
        """How many nodes this program's node knows to be dead."""
        return int(self.api.status()["members"]["dead"])

    def head(self) -> int:
        """The process that knows the nodes."""
        return int(self.cluster.machines[0].pids("freehold-head")[0])

    def stop(self) -> None:
        """End it all."""
        self.api.shutdown()
        self.cluster.stop()


class Ray:
    """Nodes of ``ray.cluster_utils.Cluster``, on the loopback device; settings are Ray's own."""

    package = "ray"
    copies_values = False

    def __init__(self, places: dict[str, list[str]]) -> None:
        assert not places
        self.api = importlib.import_module("ray")
        self.cpus: list[float] = []
        self.nodes: list[Any] = []

    def start(self, *cpus: float) -> None:
        """Start nodes with so many CPUs each, and join on the first one."""
        utils = importlib.import_module("ray.cluster_utils")
        self.cpus = list(cpus)
        self.cluster = utils.Cluster(initialize_head=True, head_node_args=self._arguments(0))
        self.nodes.append(self.cluster.head_node)
        for index in range(1, len(cpus)):
            self.nodes.append(self.cluster.add_node(**self._arguments(index)))
        self.api.init(address=self.cluster.address, log_to_driver=False)
        self.cluster.wait_for_nodes()
        processes.settle()

    def _arguments(self, index: int) -> dict[str, Any]:
        return {
            "num_cpus": self.cpus[index],
            "resources": _offered(index),
            "object_store_memory": STORE_BYTES,
        }

    def kill(self, index: int) -> None:
        """All that runs on the node is killed."""
        self.cluster.remove_node(self.nodes[index], allow_graceful=False)

    def start_again(self, index: int) -> None:
        """A new node in its stead."""
        self.nodes[index] = self.cluster.add_node(**self._arguments(index))

    def dead(self) -> int:
        """How many nodes are known to be dead."""
        return sum(not node["Alive"] for node in self.api.nodes())

    def head(self) -> int:
        """The process that knows the nodes."""
        return int(self.cluster.head_node.all_processes["gcs_server"][0].process.pid)

    def stop(self) -> None:
        """End it all."""
        self.api.shutdown()
        self.cluster.shutdown()


class HeadCounters:
    """What the head has done since it was last asked: CPU seconds, messages and bytes."""

    def __init__(self, system: Any) -> None:
        self.pid = system.head()
        self.last = self._now()

    def _now(self) -> tuple[float, int, int]:
        return (processes.cpu_of(self.pid), *processes.traffic_of(self.pid))

    def since(self) -> tuple[float, int, int]:
        """The differences."""
        before, self.last = self.last, self._now()
        seconds, messages, size = (b - a for a, b in zip(before, self.last, strict=True))
        return seconds, int(messages), int(size)


SYSTEMS = {
    "freehold": Freehold,
    "freehold by value": lambda places: Freehold(places, INLINE_MAX),
    "ray": Ray,
}
