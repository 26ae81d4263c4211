"""What goes wrong in a cluster: one row for each kind, drawn in the swarm or alone.

``python -m freehold.sim --fleet --fault KIND`` draws runs in which that one goes wrong and nothing
else.  The first driver and its node are spared: their end would be the session's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from freehold.core.messages import INLINE, SHARED
from freehold.sim.daemon import NodeHost
from freehold.sim.gaps import Gaps, miss
from freehold.sim.ledger import Ledger
from freehold.sim.process import ProcessHost
from freehold.sim.world import BOTH, IN, OUT, World

STORM = ("node", "worker", "node", "owner")  # what dies in one
STORM_LASTS = 0.03  # seconds
BEGIN = 0.06  # seconds until the first fault: the cluster is there
LOOK = 0.95  # chance to look on for somebody whose death is worse
AGAIN = 5e-4  # seconds until a fault looks again for a victim that is just now what it wants
KINDS = {
    "worker": "a worker that runs something is killed",
    "owner": "a worker is killed that owns what others hold",
    "borrower": "a worker is killed while it registers, or is registered, with an owner",
    "node": "a node goes down, and comes back as another",
    "all-but-one": "all nodes go down at one moment, but for the driver's",
    "driver": "a driver is killed that is not the first",
    "head": "the head is killed, and starts again on its store",
    "partition": "a machine is cut off in both directions for a while",
    "one-way": "a machine is cut off in one direction for a while",
    "gap": "two machines do not reach each other, for a while or for good; the head reaches both",
    "pause": "a machine stands still for a while, and goes on",
    "slow": "a machine's links are slow for a while",
    "cold": "links between nodes come up late, and owners are killed that lend to others meanwhile",
    "drain": "a node is retired: it moves off what lies there, leaves, and comes back as another",
    "storm": "two nodes, a worker and an owner die almost at once: heirs die while they take over",
}


class Cluster(Protocol):
    """What faults need of the run."""

    world: World
    nodes: list[NodeHost]
    drivers: list[ProcessHost]
    head: Any

    @property
    def ledger(self) -> Ledger:
        """The evidence."""

    @property
    def living(self) -> list[ProcessHost]:
        """The processes that run."""

    def end_node(self, node: NodeHost) -> None:
        """It goes down, and comes back."""

    def new_head(self) -> None:
        """Another head takes the store."""


class Faults:
    """The faults of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.ledger = cluster.ledger
        self.gaps = Gaps(self.world, self.ledger, self._hosts)
        self.drained: set[bytes] = set()  # nodes whose drain has been asked for
        self.kinds: dict[str, Callable[[], bool]] = {
            "worker": lambda: self._kill("crash of a worker", self._busy()),
            "owner": lambda: self._kill("crash of an owner", self._owners()),
            "borrower": lambda: self._kill("crash of a borrower", self._registering()),
            "node": self._crash_node,
            "all-but-one": self._crash_most,
            "driver": self._crash_driver,
            "head": self._crash_head,
            "partition": lambda: self._part("partition", BOTH),
            "one-way": lambda: self._part("one-way partition", self.world.rng.choice([IN, OUT])),
            "gap": self._open_gap,
            "pause": self._pause,
            "slow": self._slow,
            "cold": lambda: self._kill("crash of an owner over cold links", self._creditors()),
            "drain": self._drain,
            "storm": self._storm,
        }
        assert list(self.kinds) == list(KINDS)

    def plan(self) -> None:
        """Let everything that was drawn happen in its time."""
        setup = self.world.setup
        for kind, often in setup.faults:
            for _ in range(often):
                when = BEGIN + self.world.rng.random() * setup.fault_time
                self.world.at(when, self._happen, self.kinds[kind])

    def _happen(self, fault: Callable[[], bool]) -> None:
        """Now, or as soon as there is somebody to whom it can happen."""
        if not self.world.healed and not fault():
            self.world.after(AGAIN, self._happen, fault)

    # -- processes --------------------------------------------------------------------------------
    def _kill(self, fault: str, victims: list[ProcessHost]) -> bool:
        if victims:
            self.world.fault(fault)
            self.world.rng.choice(victims).crash(-9)
        return bool(victims)

    def _workers(self) -> list[ProcessHost]:
        return [host for host in self.cluster.living if host.kind == "worker"]

    def _busy(self) -> list[ProcessHost]:
        return [host for host in self._workers() if host.executions]

    def _owners(self) -> list[ProcessHost]:
        """Those who own a value that somebody else holds."""
        return [
            host
            for host in self._workers()
            if any(
                row.owner is None
                and row.state in (INLINE, SHARED)
                and row.more is not None
                and row.more.tickets
                for row in host.owner.rows.values()
            )
        ]

    def _creditors(self) -> list[ProcessHost]:
        """Those owners of whom a process on another node holds something.

        Best of all one that has still to confirm it; now and then any.
        """
        handed = [
            row
            for host in self.cluster.living
            for row, _, to in host.owner._handed.values()
            if to is not None and row.state == SHARED
        ]
        asked = {row.owner.id for row in handed if row.owner is not None}
        owners = [host for host in self._workers() if host.machine.id in asked]
        if owners or self.world.rng.random() < LOOK:
            return owners
        return [
            owner
            for owner in self._owners()
            for holder in self.cluster.living
            if holder.home != owner.home
            and any(
                row.owner is not None and row.owner.id == owner.machine.id
                for row in holder.owner.rows.values()
            )
        ]

    def _registering(self) -> list[ProcessHost]:
        """Those who register somebody, or whom somebody registers, and who are not confirmed."""
        open = [set(host.owner._handed) for host in self.cluster.living if host.owner._handed]
        found: list[ProcessHost] = []
        if not open:
            return found
        for host in self._workers():
            mine = {
                ticket
                for row in host.owner.rows.values()
                if row.more is not None
                for ticket in row.more.mine
            }
            if host.owner._handed or any(mine & handed for handed in open):
                found.append(host)
        return found

    # -- nodes, drivers, the head -----------------------------------------------------------------
    def _others(self) -> list[NodeHost]:
        """The living nodes but the driver's."""
        return [node for node in self.cluster.nodes[1:] if node.alive]

    def _crash_node(self) -> bool:
        others = self._others()
        if others:
            self.world.fault("crash of a node")
            self.cluster.end_node(self.world.rng.choice(others))
        return bool(others)

    def _crash_most(self) -> bool:
        others = self._others()
        if others:
            self.world.fault("crash of all nodes but one")
            for node in others:
                self.cluster.end_node(node)
        return bool(others)

    def _drain(self) -> bool:
        """A driver of its own would keep it: it is to be a node that has none."""
        busy = [driver.site for driver in self.cluster.drivers if driver.alive]
        fit = [
            node
            for node in self._others()
            if node not in busy and node.node.members.joined and not node.node.members.me.retiring
        ]
        asker = self.cluster.drivers[0]
        if not asker.alive:
            return True  # its node was given up, and it has none any more
        if not fit or asker.owner.node is None:
            return False
        self.world.fault("drain")
        node = self.world.rng.choice(fit).machine.id
        self.drained.add(node)
        asker.process.questions.ask_directory("retire", {"node": node})
        asker.finish()
        return True

    def _storm(self) -> bool:
        for kind in STORM:
            when = self.world.rng.random() * STORM_LASTS
            self.world.after(when, self._happen, self.kinds[kind])
        return True

    def _crash_driver(self) -> bool:
        """What was its own goes, and nothing else."""
        victims = [driver for driver in self.cluster.drivers[1:] if driver.alive]
        if victims:
            self.world.fault("crash of a driver")
            self.world.rng.choice(victims).crash(-9)
        return True  # there may be none, and never another

    def _crash_head(self) -> bool:
        if not self.cluster.head.alive:
            return False
        self.world.fault("crash of the head")
        self.cluster.head.crash(-9)
        self.world.after(self.world.rng.choice([0.05, 0.5, 3.0]), self.cluster.new_head)
        return True

    # -- the network ------------------------------------------------------------------------------
    def _part(self, fault: str, way: str) -> bool:
        others = [node for node in self._others() if node.spot not in self.world.islands]
        if others:
            node = self.world.rng.choice(others)
            self.world.fault(fault)
            self.ledger.away(node.machine.id)
            self.world.islands[node.spot] = way
            self._cut_from(node.spot)
            self.world.after(self.world.rng.choice([0.1, 1.0, 3.0]), self.join, node.spot)
        return bool(others)

    def _cut_from(self, spot: str) -> None:
        """Across the gap, the head's connections break, and nodes miss each other."""
        for host in self._hosts():
            for end in list(host.ends):
                other = end.other.host
                if host.spot != spot or other.spot == spot:
                    continue
                if not end.lasting:
                    end.cut()
                elif host.kind == other.kind == "node":
                    miss(end)

    def _hosts(self) -> list[Any]:
        return [self.cluster.head, *self.cluster.nodes, *self.cluster.living]

    def join(self, spot: str) -> None:
        """The network is whole again there."""
        self.world.islands.pop(spot, None)
        for host in self._hosts():
            for end in list(host.ends):
                if spot in (host.spot, end.other.host.spot):
                    end.resume()

    def _open_gap(self) -> bool:
        spared = {driver.spot for driver in self.cluster.drivers if driver.alive}
        self.gaps.open(self.cluster.nodes, spared)
        return True  # there may be one already, which lasts

    def _pause(self) -> bool:
        """SIGSTOP of all its processes."""
        world = self.world
        others = [node for node in self._others() if node.spot not in world.paused]
        if others:
            node = world.rng.choice(others)
            world.fault("pause of a node")
            self.ledger.away(node.machine.id)
            world.paused[node.spot] = world.now + world.rng.choice([0.05, 0.5, 1.5, 3.0])
            world.at(world.paused[node.spot], self._forget, world.paused, node.spot)
        return bool(others)

    def _slow(self) -> bool:
        world = self.world
        others = self._others()
        if others:
            spot = world.rng.choice(others).spot
            world.fault("slow link")
            world.slow[spot] = world.rng.choice([0.005, 0.05, 0.3])
            world.after(world.rng.choice([0.1, 1.0]), self._forget, world.slow, spot)
        return bool(others)

    def _forget(self, table: dict[str, float], spot: str) -> None:
        table.pop(spot, None)
