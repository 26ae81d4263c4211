"""One run on several nodes: a head, nodes that crash, part and come back, transfers that break.

The driver's own node is spared: its end would be the session's.  When the faults are over every
node is back and connected, and then everything must end, as in ``sim.run``.
"""

from __future__ import annotations

from typing import Any

from freehold.sim import programs, rest
from freehold.sim.cluster import Disk, HeadHost
from freehold.sim.daemon import NodeHost
from freehold.sim.process import ProcessHost
from freehold.sim.run import Simulation
from freehold.sim.setup import Setup, draw_cluster
from freehold.sim.world import BOTH, IN, OUT, World

RETURN = 0.3  # seconds until a node that has crashed starts again
HEAL = 0.2  # seconds before the end of the faults: by then everything is connected again


class Fleet(Simulation):
    """A driver and several nodes."""

    def __init__(self, seed: int, setup: Setup | None = None, show: bool = False) -> None:
        self.disk = Disk()
        self.nodes: list[NodeHost] = []
        super().__init__(seed, setup, show)

    def _draw(self, seed: int, setup: Setup | None, show: bool) -> World:
        return World(seed, setup, show, draw_cluster)

    def _build(self) -> None:
        self.head = HeadHost(self.world, self.disk)
        self.nodes = [
            NodeHost(self.world, self._make_worker, number)
            for number in range(self.world.setup.nodes)
        ]
        self.node = self.nodes[0]
        self.drivers = [
            ProcessHost(
                self.world, self.ledger, "driver", number, programs.driver, self.nodes[number]
            )
            for number in range(min(self.world.setup.drivers, self.world.setup.nodes))
        ]
        self.driver = self.drivers[0]

    def _start(self) -> None:
        self.head.start()
        for node in self.nodes:
            node.start()
            node.seek_head()
        for driver in self.drivers:
            driver.client.leases.requests.job = [driver.machine.id, driver.address, []]
            self.world.at(0.05, driver.begin)

    # -- faults -----------------------------------------------------------------------------------
    def _plan_faults(self) -> None:
        super()._plan_faults()
        world, setup = self.world, self.world.setup
        for count, fault in (
            (setup.node_crashes, self._crash_node),
            (setup.partitions, self._part),
            (setup.pauses, self._pause),
            (setup.slow_links, self._slow),
            (setup.driver_crashes, self._crash_driver),
            (setup.head_crashes, self._crash_head),
        ):
            for _ in range(count):
                world.at(0.06 + world.rng.random() * setup.fault_time, fault)

    def _others(self) -> list[NodeHost]:
        """The living nodes but the driver's."""
        return [node for node in self.nodes[1:] if node.alive]

    def _crash_node(self) -> None:
        others = self._others()
        if others and not self.world.healed:
            self.world.fault("crash of a node")
            self._end_node(self.world.rng.choice(others))

    def _end_node(self, node: NodeHost) -> None:
        """The node goes down, and starts again under a new incarnation."""
        self.ledger.node_deaths += 1
        for driver in self.drivers[1:]:
            if driver.site is node:
                driver.crash(-9)
        node.crash(-9)
        self.world.listeners.pop(node.address, None)
        self.world.after(RETURN * self.world.rng.random(), self._return, node)

    def _return(self, old: NodeHost) -> None:
        node = NodeHost(self.world, self._make_worker, old.number, old.incarnation + 1)
        self.nodes[old.number] = node
        node.start()
        node.seek_head()

    def _part(self) -> None:
        others = self._others()
        if not others or self.world.healed:
            return
        node = self.world.rng.choice(others)
        way = self.world.rng.choice([BOTH, BOTH, IN, OUT])
        self.world.fault("partition" if way == BOTH else "one-way partition")
        self.ledger.away(self._living_at(node.spot))
        self.world.islands[node.spot] = way
        self._cut_from(node.spot)
        self.world.after(self.world.rng.choice([0.1, 1.0, 3.0]), self._join, node.spot)

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
                    for side in (end, end.other):
                        if side.peer is not None:
                            self.world.after(0.5, side.host.troubled, side.peer)

    def _hosts(self) -> list[Any]:
        return [self.head, *self.nodes, *self.living]

    def _living_at(self, spot: str) -> list[bytes]:
        return [host.machine.id for host in self.living if host.spot == spot]

    def _join(self, spot: str) -> None:
        self.world.islands.pop(spot, None)
        for host in self._hosts():
            for end in list(host.ends):
                if spot in (host.spot, end.other.host.spot):
                    end.resume()

    def _pause(self) -> None:
        """A machine stands still (SIGSTOP of all its processes), and goes on."""
        others = [node for node in self._others() if node.spot not in self.world.paused]
        if not others or self.world.healed:
            return
        world, spot = self.world, self.world.rng.choice(others).spot
        world.fault("pause of a node")
        self.ledger.away(self._living_at(spot))
        world.paused[spot] = world.now + world.rng.choice([0.05, 0.5, 1.5, 3.0])
        world.at(world.paused[spot], self._forget, world.paused, spot)

    def _slow(self) -> None:
        """The links of a machine are slow for a while."""
        others = self._others()
        if not others or self.world.healed:
            return
        world, spot = self.world, self.world.rng.choice(others).spot
        world.fault("slow link")
        world.slow[spot] = world.rng.choice([0.005, 0.05, 0.3])
        world.after(world.rng.choice([0.1, 1.0]), self._forget, world.slow, spot)

    def _forget(self, table: dict[str, float], spot: str) -> None:
        table.pop(spot, None)

    def _crash_driver(self) -> None:
        """A driver dies, but for the first: what was its own goes, and nothing else."""
        victims = [driver for driver in self.drivers[1:] if driver.alive]
        if victims and not self.world.healed:
            self.world.fault("crash of a driver")
            self.world.rng.choice(victims).crash(-9)

    def _crash_head(self) -> None:
        if self.world.healed or not self.head.alive:
            return
        self.world.fault("crash of the head")
        self.head.crash(-9)
        self.world.after(self.world.rng.choice([0.05, 0.5, 3.0]), self._new_head)

    def _new_head(self) -> None:
        self.head = HeadHost(self.world, self.disk)
        self.head.start()

    def _heal(self) -> None:
        super()._heal()
        for spot in sorted(self.world.islands):
            self._join(spot)

    def _look_after(self) -> None:
        """A node whose identity was declared dead starts again, as its daemon would."""
        for node in self._others():
            if node.node.members.refused:
                self.world.note(f"{node} is refused: {node.node.members.refused}")
                self._end_node(node)

    # -- the end ----------------------------------------------------------------------------------
    def _left(self) -> list[str]:
        if any(host.kept for host in self.living):
            return ["kept references"]
        left = rest.processes_at_rest(self.living)
        for node in self.nodes:
            if node.alive:
                left += rest.node_at_rest(node, self.living)
        return left
