"""One run on several nodes: a head, and everything of ``sim.faults`` that can go wrong.

When the faults are over every node is back and connected, and then everything must end, as in
``sim.run``.
"""

from __future__ import annotations

import functools

from freehold.sim import clusterprograms, detached, rest
from freehold.sim.cluster import Disk, HeadHost
from freehold.sim.clusterledger import ClusterLedger
from freehold.sim.daemon import NodeHost
from freehold.sim.faults import Faults
from freehold.sim.heirlooms import Heirlooms
from freehold.sim.ledger import Ledger
from freehold.sim.process import Body, ProcessHost
from freehold.sim.run import Outcome, Simulation
from freehold.sim.setup import Setup, draw_cluster, draw_fault
from freehold.sim.values import Violation
from freehold.sim.world import World

RETURN = 0.3  # seconds until a node that has crashed starts again


class Fleet(Simulation):
    """A driver and several nodes.

    Args:
        seed: of all chance.
        setup: what else would be drawn.
        show: print every frame.
        fault: the one kind of ``sim.faults`` that goes wrong; "": what chance picks of all.
    """

    ledger: ClusterLedger
    worker_body: Body = staticmethod(clusterprograms.task)

    def __init__(
        self, seed: int, setup: Setup | None = None, show: bool = False, fault: str = ""
    ) -> None:
        self.disk = Disk()
        self.nodes: list[NodeHost] = []
        self.fault = fault
        self._ended: list[ProcessHost] = []  # drivers whose jobs are over
        self._declared: set[bytes] = set()  # nodes, by heads and nodes that may be gone too
        self._left_nodes: set[bytes] = set()  # in good order
        self._justly: set[bytes] = set()  # by those who should know: heads, and who was not away
        super().__init__(seed, setup, show)
        self.faults = Faults(self)

    def _draw(self, seed: int, setup: Setup | None, show: bool) -> World:
        draw = functools.partial(draw_fault, self.fault) if self.fault else draw_cluster
        return World(seed, setup, show, draw)

    def _keep_ledger(self) -> Ledger:
        return ClusterLedger(self.world.faults)

    def _build(self) -> None:
        self.ledger.given_up = self._given_up
        self.ledger.hosts = lambda: self.living
        self.ledger.nodes = lambda: self.nodes
        self.ledger.heirlooms = Heirlooms(self.ledger, self.ledger.nodes, self.ledger.hosts)
        self.head = HeadHost(self.world, self.disk)
        self.nodes = [
            NodeHost(self.world, self._make_worker, number)
            for number in range(self.world.setup.nodes)
        ]
        self.node = self.nodes[0]
        self.drivers = [
            ProcessHost(
                self.world,
                self.ledger,
                "driver",
                number,
                clusterprograms.driver,
                self.nodes[number],
            )
            for number in range(min(self.world.setup.drivers, self.world.setup.nodes))
        ]
        self.driver = self.drivers[0]
        self.last: NodeHost | None = None  # where the late driver is

    def _start(self) -> None:
        self.head.start()
        for node in self.nodes:
            node.start()
            node.seek_head()
        for driver in self.drivers:
            driver.client.leases.requests.job = [driver.machine.id, driver.address, []]
            self.world.at(0.05, driver.begin)

    # -- deaths -----------------------------------------------------------------------------------
    def _plan_faults(self) -> None:
        super()._plan_faults()
        self.faults.plan()

    def end_node(self, node: NodeHost) -> None:
        """The node goes down, and starts again under a new incarnation."""
        self._given_up()  # what it had declared itself goes with it
        self.ledger.lost_nodes.add(node.machine.id)
        for driver in self.drivers:
            if driver.site is node:
                driver.crash(-9)
        node.crash(-9)
        self.world.listeners.pop(node.address, None)
        self.world.after(RETURN * self.world.rng.random(), self._return, node)

    def _leave(self, node: NodeHost) -> None:
        """The node has drained, and the head has let it go."""
        self.world.note(f"{node} leaves")
        self.ledger.leaves(node)
        self._left_nodes.add(node.machine.id)
        node.crash(0)
        self.world.listeners.pop(node.address, None)
        self.world.after(RETURN * self.world.rng.random(), self._return, node)

    def _return(self, old: NodeHost) -> None:
        node = NodeHost(self.world, self._make_worker, old.number, old.incarnation + 1)
        self.nodes[old.number] = node
        if self.world.is_apart(node.spot):
            self.ledger.away(node.machine.id)
        node.start()
        node.seek_head()

    def new_head(self) -> None:
        """A head takes the store that the last one has left."""
        self._given_up()
        self.head = HeadHost(self.world, self.disk)
        self.head.start()

    def _heal(self) -> None:
        super()._heal()
        for spot in sorted(self.world.islands):
            self.faults.join(spot)

    def _look_after(self) -> None:
        """A node whose identity was declared dead starts again, as its daemon would.

        The first one, too: its driver has been told that it is gone (OUSTED), and ends.  When every
        program is over, the late driver comes.
        """
        for node in list(self.nodes):
            if node.alive and node.node.members.refused and node.departed:
                self._leave(node)
            elif node.alive and node.node.members.refused:
                self.world.note(f"{node} is refused: {node.node.members.refused}")
                self.end_node(node)
        if self.world.healed and not self._is_late() and super()._idle():
            self._begin_late()

    def _given_up(self) -> set[bytes]:
        """The nodes that somebody has declared dead."""
        self._justly.update(self.head.head.roll.dead)
        for node in self.nodes:
            self._declared.update(node.node.members.dead)
            if node.machine.id not in self.ledger.away_nodes:
                self._justly.update(node.node.members.declared)
        self._declared.update(self._justly)
        self._declared -= self._left_nodes
        return self._declared

    def _is_late(self) -> bool:
        """Whether the late driver has come, and has left nothing: its node may be given up."""
        left = self.head.head.detached.actors
        return self.last is not None and not self.last.node.members.refused and not left

    def _begin_late(self) -> None:
        """On a member that stays: one that drains would wait for it, and it does not end.

        One that is to drain may not know it yet: while there is no head, RETIRE waits.
        """
        for node in self.nodes:
            stays = node.machine.id not in self.faults.drained
            if node.alive and node.node.members.joined and stays:
                self.last = node
                late = ProcessHost(
                    self.world, self.ledger, "driver", 99, detached.late, node, "late"
                )
                late.client.leases.requests.job = [late.machine.id, late.address, []]
                self.drivers.append(late)
                late.begin()
                return

    def _idle(self) -> bool:
        return self._is_late() and super()._idle()

    # -- the end ----------------------------------------------------------------------------------
    def _let_go(self) -> bool:
        """The jobs end, too: what tasks that died have made for them goes with them.

        Another late driver may have come just now, and runs: its job ends with its program.
        """
        found = super()._let_go()
        self.faults.gaps.close()  # without a driver, the first node is like any other
        for driver in self.drivers:
            if driver.alive and driver not in self._ended and not driver.executions:
                self._ended.append(driver)
                fields = {"job": driver.machine.id, "info": {}, "alive": False}
                driver.process.questions.ask_directory("job", fields)
                driver.finish()
        return found

    def _left(self) -> list[str]:
        if any(host.kept for host in self.living):
            return ["kept references"]
        if any(driver.alive and driver not in self._ended for driver in self.drivers):
            return ["a driver's job"]
        left = rest.processes_at_rest(self.living)
        left += [f"head: actor {actor.name}" for actor in self.head.head.detached.actors.values()]
        for node in self.nodes:
            if node.alive:
                left += rest.node_at_rest(node, self.living)
        return left + rest.head_at_rest(self.head.head)

    def _outcome(self) -> Outcome:
        self._given_up()
        excused = self._left_nodes | self.ledger.lost_nodes | self.ledger.away_nodes
        blameless = self._justly - excused
        if blameless:
            named = ", ".join(node.hex() for node in sorted(blameless))
            raise Violation(f"declared dead, and was never away: {named}")
        return super()._outcome()
