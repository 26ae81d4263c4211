"""One run: faults first, then heal, then everything must end, and nothing may be left."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from freehold.core.machine import Peer
from freehold.sim import programs, rest
from freehold.sim.daemon import NodeHost
from freehold.sim.ledger import Ledger
from freehold.sim.links import End
from freehold.sim.process import Body, ProcessHost
from freehold.sim.setup import Setup, draw
from freehold.sim.values import Violation
from freehold.sim.world import World

PATIENCE = 60.0  # virtual seconds after the last fault in which everything must have ended
REST = 20.0  # virtual seconds in which leases, workers and memory must have come back
EVENTS_MAX = 400_000


class Outcome(NamedTuple):
    """What a run was."""

    seed: int
    events: int
    frames: int
    tasks: int
    values: int
    faults: dict[str, int]
    errors: dict[str, int]
    trace_hash: str


class Simulation:
    """A driver, a node and its workers."""

    worker_body: Body = staticmethod(programs.task)

    def __init__(self, seed: int, setup: Setup | None = None, show: bool = False) -> None:
        self.world = self._draw(seed, setup, show)
        self.ledger = self._keep_ledger()
        self.workers: list[ProcessHost] = []
        self.drivers: list[ProcessHost] = []
        self._build()

    def _draw(self, seed: int, setup: Setup | None, show: bool) -> World:
        return World(seed, setup, show, draw)

    def _keep_ledger(self) -> Ledger:
        return Ledger(self.world.faults)

    def _build(self) -> None:
        self.node = NodeHost(self.world, self._make_worker)
        self.driver = ProcessHost(self.world, self.ledger, "driver", 0, programs.driver, self.node)
        self.drivers = [self.driver]

    def _start(self) -> None:
        self.node.start()
        self.driver.begin()

    def _make_worker(self, home: NodeHost, slot: int) -> ProcessHost:
        worker = ProcessHost(self.world, self.ledger, "worker", slot, self.worker_body, home)
        worker.on_exit = home.spawner.exited
        self.workers.append(worker)
        return worker

    @property
    def living(self) -> list[ProcessHost]:
        """The processes that run."""
        self.workers = [worker for worker in self.workers if worker.alive]
        return [host for host in (*self.drivers, *self.workers) if host.alive]

    def run(self) -> Outcome:
        """Run to the end.  Raises Violation, or whatever a machine raises."""
        world = self.world
        world.note(f"{world.setup}")
        self._start()
        self._plan_faults()
        world.at(world.setup.fault_time, self._heal)
        self._until(lambda: world.healed and self._idle(), world.setup.fault_time + PATIENCE)
        if not self._idle():
            raise Violation("hang:\n" + "\n".join(rest.stuck(host) for host in self.living))
        limit = world.now + REST
        self._let_go()
        while not self._until(lambda: not self._let_go() and not self._left(), limit):
            if not self._let_go():
                break
        left = self._left()
        if left:
            raise Violation("left over:\n  " + "\n  ".join(left))
        return self._outcome()

    def _outcome(self) -> Outcome:
        world, ledger = self.world, self.ledger
        return Outcome(
            world.seed, world.events, world.frames, len(ledger.tries), ledger.values,
            world.faults, ledger.errors, world.trace_hash,
        )  # fmt: skip

    def _until(self, done: Callable[[], bool], limit: float) -> bool:
        """Step until ``done()``, looked at now and then; False if the time, or all, is over."""
        world = self.world
        count = 0
        while world.next_time is not None and world.next_time <= limit:
            world.step()
            count += 1
            if count % 64 == 0:
                self._look_after()
                if done():
                    return True
            if world.events > EVENTS_MAX:
                raise Violation(f"no end after {EVENTS_MAX} events")
        return False

    def _look_after(self) -> None:
        """What happens outside the simulated processes."""

    def _idle(self) -> bool:
        """Whether no program runs or waits to run."""
        return not any(host.executions or host.executor.queue for host in self.living)

    def _let_go(self) -> bool:
        """Drop what programs have kept; whether there was anything."""
        found = False
        for host in self.living:
            found = found or bool(host.kept)
            for ref in host.kept:
                host.drops.append(ref.row)
            host.kept.clear()
            host.finish()
        return found

    def _left(self) -> list[str]:
        if any(host.kept for host in self.living):
            return ["kept references"]
        return rest.processes_at_rest(self.living) + rest.node_at_rest(self.node, self.living)

    # -- faults -----------------------------------------------------------------------------------
    def _plan_faults(self) -> None:
        world, setup = self.world, self.world.setup
        for _ in range(setup.crashes):
            world.at(world.rng.random() * setup.fault_time, self._crash_one)
        for _ in range(setup.cuts):
            world.at(world.rng.random() * setup.fault_time, self._cut_one)

    def _heal(self) -> None:
        self.world.note("healed")
        self.world.healed = True

    def _crash_one(self) -> None:
        victims = [host for host in self.living if host.kind == "worker"]
        if not victims:
            return
        busy = [worker for worker in victims if worker.executions]
        victim = self.world.rng.choice(busy or victims)
        self.world.fault("crash")
        victim.crash(-9)

    def _cut_one(self) -> None:
        """Cut a link of a living worker; the driver's to its node is the session's end."""
        ends: list[End] = []
        for host in self.living:
            ends += [end for end in host.ends if self._may_cut(host, end.other.host, end.peer)]
        if not ends:
            return
        self.world.fault("cut link")
        end = self.world.rng.choice(ends)
        if end.other.host.kind == "node":  # a local socket: nothing that was sent is lost
            self.world.after(self.world.latency(), end.shut)
        else:
            end.cut()

    def _may_cut(self, one: ProcessHost, other: object, peer: Peer | None) -> bool:
        if getattr(other, "kind", "") == "node":
            return one.kind == "worker" and getattr(other, "spot", "") == one.spot
        return peer is not None
