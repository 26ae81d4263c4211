"""The ground of failure tests: a cluster, a driver on it, and the way back to order after a test.

One cluster serves the tests of a module.  A test kills what it likes; after it the dead machines
come back, and nothing may be left of the test: no object, no reference, no lease.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import freehold as fh
from cluster import cast
from cluster.processes import eventually
from freehold.errors import FreeholdError
from freehold.ext.cluster import Cluster, Machine
from freehold.proc import tool
from sessions import SOURCE

TESTS = str(Path(__file__).resolve().parents[1])
NODES = 3


class Ground:
    """A cluster, and what tests do with it."""

    def __init__(self, cluster: Cluster, files: str) -> None:
        self.cluster = cluster
        self.files = files
        self.serial = 0
        self.failed = 0  # tests of the session so far

    # --- places -----------------------------------------------------------------------------------

    def node(self, index: int) -> str:
        """The id of a machine's node now."""
        return self.cluster.machines[index].node

    def on(self, index: int, soft: bool = True) -> dict[str, Any]:
        """The option that places a task or an actor there."""
        return cast.there(self.node(index), soft)

    def keeper(self, index: int, **options: Any) -> Any:
        """A new ``Keeper`` on that machine, which runs."""
        made = cast.Keeper.options(**self.on(index), **options).remote()
        assert fh.get(made.whoami.remote(), timeout=20)[0] == index
        return made

    def path(self, name: str) -> str:
        """A file name that no other test has."""
        self.serial += 1
        return f"{self.files}/{name}-{self.serial}"

    # --- faults -----------------------------------------------------------------------------------

    def kill_process(self, pid: int) -> None:
        """SIGKILL; it is gone when this returns."""
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not _runs(pid), what=f"process {pid} has ended")

    def workers(self, index: int) -> list[int]:
        """The worker processes of a machine."""
        return self.cluster.machines[index].pids("freehold-worker")

    def restore(self) -> None:
        """Bring back what was killed."""
        cluster = self.cluster
        if not cluster.machines[0].alive:
            cluster.restart(0)
        elif not cluster.machines[0].pids("freehold-head"):
            cluster.restart_head()
        for machine in cluster.machines[1:]:
            if not machine.alive:
                cluster.restart(machine.index)

    # --- what is left -----------------------------------------------------------------------------

    def statuses(self) -> list[dict[str, Any]]:
        """The tables of each machine's node, and of the driver's own."""
        found = [fh.status()] if fh.is_initialized() else []
        for machine in self.cluster.machines:
            found += statuses_of(machine)
        return found

    def left(self) -> list[str]:
        """What remains of a test's objects, references and leases."""
        gc.collect()
        found = []
        for status in self.statuses():
            name = f"node {status['node'][:6]}"
            counts = {
                "objects": status["objects"]["count"],
                "adopted": status["objects"]["adopted"],
                "copies": status["pulls"]["copies"],
                "pins": status["pulls"]["pins"],
                "leases": status["leases"],
                "waiting": status["waiting"],
                "references": status["references"],
            }
            found += [f"{name}: {count} {what}" for what, count in counts.items() if count]
            found += [
                f"{name}: process {process['pid']} ({process['kind']}) {process['counts']}"
                for process in status["processes"]
                if process["counts"].get("owned") or process["counts"].get("borrowed")
            ]
        return found

    def assert_all_freed(self, within: float = 10.0) -> None:
        """Wait until nothing is left of the test."""
        eventually(lambda: not self.left(), within, "all is freed", lambda: "\n".join(self.left()))


def statuses_of(machine: Machine) -> list[dict[str, Any]]:
    """The tables of the nodes on a machine (a driver may have one of its own), as they answer."""
    found = []
    for entry in sorted(Path(machine.directory).glob("freehold-*")):
        with contextlib.suppress(FreeholdError, FileNotFoundError):
            if (entry / "node.sock").exists():
                found.append(tool.status(str(entry)))
    return found


def node_of(machine: Machine) -> str:
    """The id of the node that stands on the machine now, once it is a member; else empty."""
    for status in statuses_of(machine):
        if status["members"]["head"]:
            return str(status["node"])
    return ""


def _runs(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What the action returns, and the seconds that it took."""
    start = time.monotonic()
    value = action()
    return value, time.monotonic() - start


@contextlib.contextmanager
def make(**options: Any) -> Iterator[Ground]:
    """A cluster of three nodes with a store, and this process as its driver."""
    environment = {"PYTHONPATH": os.pathsep.join([SOURCE, TESTS])}
    settings = {"nodes": NODES, "num_cpus": 1, "store": True, "env": environment, **options}
    with tempfile.TemporaryDirectory() as files, Cluster(**settings) as cluster:
        fh.init(address=cluster.address, token=cluster.token, log_to_driver=False)
        try:
            yield Ground(cluster, files)
        finally:
            fh.shutdown()
