"""The node's host and its near peers: the spawner, which starts and reaps workers; the arena."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.machine import Peer
from freehold.core.node.departing import LEAVING
from freehold.core.node.node import Node
from freehold.sim.cluster import HEAD_ADDRESS, Mover, Prober
from freehold.sim.hosts import Host, Near
from freehold.sim.links import End, connect
from freehold.sim.process import ProcessHost
from freehold.sim.values import Memory, PoisonExtents
from freehold.sim.world import World
from freehold.wire.codec import Reader

MakeWorker = Callable[["NodeHost", int], ProcessHost]


class NodeHost(Host):
    """The host of the node's machine."""

    node: Node

    def __init__(
        self, world: World, make_worker: MakeWorker, number: int = 0, incarnation: int = 0
    ) -> None:
        setup = world.setup
        id = world.rng.randbytes(8)
        self.number = number
        self.incarnation = incarnation
        again = "'" * incarnation
        self.prefix = f"n{number}{again}" if setup.nodes > 1 else ""
        self.where = id.hex() if setup.nodes > 1 else ""
        self.memory = Memory()
        name = f"{self.prefix or 'node'}"
        node = self.node = Node(
            id,
            cpus=float(setup.cpus),
            arena_bytes=setup.arena_bytes,
            resources={"gpu": 2.0},
            prestart=setup.prestart,
            idle_seconds=setup.worker_idle,
            workers_max=setup.workers_max,
            address=self.address_of(name),
            labels={"zone": str(number % 2)},
            standing=setup.nodes > 1,
        )
        node.store.extents = PoisonExtents(self.memory, setup.arena_bytes)
        node.pulls.patience = setup.patience
        super().__init__(world, node, "node", name, self.address_of(name))
        node.estates.address = self.address
        self.info = node.info
        self.home = id
        self.spot = self.where and f"m{number}"
        world.node_ids[self.spot] = id
        self.dialled: End | None = None  # the link to the head
        self.spawner = Spawner(self, node.spawner, make_worker)
        self.arena = ArenaPeer(self, node.store.arena)
        self.mover = Mover(self, node.pulls.mover, self)
        self._witness = Peer(b"witness.", "", "witness")  # in whose name a job's end is told
        self._told: Peer | None = None  # the head that knows that this node has drained
        self.prober = Prober(self, node.members.suspects.prober)

    def address_of(self, name: str) -> str:
        """Where a process of that name listens."""
        return f"{self.where}|{name}.sock|m{self.number}:1" if self.where else f"{name}.sock"

    def hello(self, to: bytes = b"") -> bytearray:
        """With what this node has now."""
        self.info = self.node.info
        return super().hello(to)

    def seek_head(self) -> None:
        """Be connected to the head, if there is one, and look again later."""
        if not self.alive:
            return
        self.world.after(0.2, self.seek_head)
        target = self.world.listeners.get(HEAD_ADDRESS)
        if self.node.members.head is not None or target is None or not target.alive:
            return
        if self.world.parted(self, target):
            return
        if self.dialled is None or not self.dialled.open:
            peer = Peer(b"", HEAD_ADDRESS, "head")
            self.dialled = peer.port = connect(self, peer, target)

    def on_end(self, end: End) -> None:
        here = self.alive and end in self.ends and not self.world.paused.get(self.spot)
        super().on_end(end)
        peer = end.peer
        driver = here and self.where and peer is not None and peer.kind == "driver"
        if driver and peer is not None and node_of(peer.address) == self.home:
            fields = {"job": peer.id, "info": {}, "alive": False}
            self.node.handlers[m.DIRECTORY](self._witness, self.world.now, 0, "job", fields)
            self.finish()

    @property
    def departed(self) -> bool:
        """Whether it was retired, and nothing keeps it any more."""
        return self.node.members.me.retiring and self.node.departing.departed

    def after(self) -> None:
        members = self.node.members
        if self.departed and members.head is not None and self._told is not members.head:
            self._told = members.head
            members.leave()
            self.flush()

    def crash(self, code: int) -> None:
        """The machine goes down, or the daemon is killed: its workers die with it."""
        if not self.alive:
            return
        self.mover.host_died()
        for child in list(self.spawner.children.values()):
            child.on_exit = lambda host, code: None
            child.crash(code)
        super().crash(code)

    def start(self) -> None:
        """Start the first workers."""
        self.node.start(self.world.now)
        self.finish()


class Spawner(Near):
    """Starts workers, signals them, and says how they ended.

    Its answers are in order, as on the one socket of the real fork server; whether an EXITED comes
    before or after the end of the dead worker's own links is chance.
    """

    def __init__(self, host: NodeHost, peer: Peer, make: MakeWorker) -> None:
        super().__init__(host, peer)
        self.site = host
        self.make = make
        self.children: dict[int, ProcessHost] = {}

    def on_message(self, op: int, fields: list[Any]) -> None:
        slot = fields[0]
        if op == m.SPAWN:
            if self.world.chance(self.world.setup.spawn_fails):
                self.world.fault("failed spawn")
                self.answer(m.SPAWN_FAILED, slot, "no more processes")
                return
            child = self.children[slot] = self.make(self.site, slot)
            self.answer(m.SPAWNED, slot, child.pid)
            self.world.after(self.world.rng.expovariate(500.0), child.begin)
        elif op == m.SIGNAL and slot in self.children:
            self.children[slot].crash(-fields[1])

    def exited(self, child: ProcessHost, code: int) -> None:
        """A worker has ended."""
        worker = self.site.node.workers.workers.get(child.slot)
        if worker is not None and worker.why == LEAVING and code == 0:
            child.ledger.dismissed.add(child.machine.id)
        del self.children[child.slot]
        self.answer(m.EXITED, child.slot, code, "", child.process.executor.started)


class ArenaPeer(Near):
    """Allocates the arena's pages, or has none left."""

    def __init__(self, home: NodeHost, peer: Peer) -> None:
        super().__init__(home, peer)
        self.site = home

    def take(self, data: bytearray) -> None:
        if self.world.setup.arena_async:
            super().take(data)
            return
        self.world.frame(self.host.name, self.peer.kind, data)
        for _, end in Reader().feed(memoryview(data)):
            reason = self._reserve(end)
            self.host.machine.handlers[m.RESERVED](self.peer, self.world.now, end, reason)

    def on_message(self, op: int, fields: list[Any]) -> None:
        self.answer(m.RESERVED, fields[0], self._reserve(fields[0]))

    def _reserve(self, end: int) -> str:
        if self.world.chance(self.world.setup.arena_fails):
            self.world.fault("no pages")
            return "the machine has no memory left"
        memory = self.site.memory
        memory.reserved = max(memory.reserved, end)
        return ""
