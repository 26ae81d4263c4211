"""Requests for leases, and the leases that come of them; and whose turn it is when they are short.

A process asks for as many leases as all nodes could ever grant it, so if requests were served as
they come, the first of several processes would have them all, and the others those that it lets
go.  The rules:

1. Whoever has fewer leases of the shape that it asks for comes first; equals come in the order in
   which they have asked.  So a large request, of which its holder has none, is not overtaken for
   ever by small ones.  Actors are for good: they count as none, and wait as they come; nor does a
   lease count whose CPUs are lent while its task waits.
2. A lease is reclaimed for a request if it is of another shape, or if its holder has more of that
   shape than the one who asks: leases are shared evenly, and stay where they are when they are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from freehold.core.machine import NEVER, Peer
from freehold.core.node.gpus import Devices, gpus_in

STARTING, IDLE, LEASED, ENDING = range(4)
PHASES = ("starting", "idle", "leased", "ending")
SUSPECT_GRACE = 0.1  # seconds for an exit to be reported after a connection broke
EPSILON = 1e-9
Kind = tuple[Any, ...]  # a holder and a shape


class Worker:
    """One worker process, from its spawning to its end."""

    __slots__ = (
        "actor", "closed", "exit", "job", "kill_at", "label", "lease", "lent", "peer", "phase",
        "pid", "since", "slot", "suspicion", "why",
    )  # fmt: skip

    def __init__(self, slot: int, now: float) -> None:
        self.slot = slot
        self.pid = 0
        self.peer: Peer | None = None
        self.phase = STARTING
        self.lease: Grant | None = None
        self.since = now
        self.kill_at = NEVER
        self.label = ""  # what it runs
        self.actor = False
        self.job: bytes | None = None  # for which it has run anything: it runs for no other
        self.lent = False  # its CPUs are lent on while its task waits
        self.why = ""  # why it was told to end
        self.suspicion = ""  # why it will be, unless it has died by itself
        self.closed = False  # its connection to the node has ended
        self.exit: tuple[int, str, bytes] | None = None  # code, tail, started: it has exited

    def suspect(self, now: float, why: str) -> None:
        """A connection to it broke: kill it, unless its exit is reported in a moment."""
        self.suspicion = why
        self.kill_at = min(self.kill_at, now + SUSPECT_GRACE)


class Grant:
    """A request for a lease, and then the lease."""

    __slots__ = (
        "actor", "cpus", "gpu", "gpus", "holder", "hops", "id", "job", "orphan", "reclaimed",
        "request", "resources", "where", "worker",
    )  # fmt: skip

    def __init__(
        self,
        holder: Peer,
        request: int,
        cpus: float,
        actor: bytes,
        resources: dict[str, float],
        where: list[Any],
        hops: int,
        job: list[Any],
    ) -> None:
        self.holder = holder
        self.request = request
        self.cpus = cpus
        self.actor = actor
        self.resources = resources
        self.where = where  # the strategy
        self.hops = hops  # nodes that have sent it on
        self.gpu = gpus_in(resources) if resources else 0.0  # how many GPUs it uses
        self.gpus: list[int] = []  # and which
        self.job: bytes = job[0] if job else b""
        self.id = 0
        self.worker: Worker | None = None
        self.reclaimed = False
        self.orphan = False  # the driver that held it is dead, and others may hold the actor

    @property
    def needs(self) -> list[tuple[str, float]]:
        """What it occupies."""
        return [("CPU", self.cpus), *self.resources.items()]

    def is_like(self, other: Grant) -> bool:
        """Whether both are for tasks of one shape."""
        mine = (self.cpus, self.resources, self.where)
        return mine == (other.cpus, other.resources, other.where)

    def lacks(self, free: dict[str, float], devices: Devices) -> list[str]:
        """Of what there is not enough for it."""
        names = [
            name for name, amount in self.needs if amount and amount > free.get(name, 0.0) + EPSILON
        ]
        if self.gpu and not names and devices.find(self.gpu) is None:
            names = [name for name, _ in self.resources.items() if "GPU" in name]
        return names

    def fits(self, free: dict[str, float], devices: Devices) -> bool:
        """Whether what it needs is free."""
        return not self.lacks(free, devices)

    @property
    def kind(self) -> Kind:
        """Who holds it, and its shape; one of its own for an actor's."""
        if self.actor:
            return (self.holder.id, self.request)
        resources = tuple(sorted(self.resources.items()))
        return (self.holder.id, self.cpus, resources, repr(self.where))


def in_turn(queue: Collection[Grant], leases: Collection[Grant]) -> Iterator[Grant]:
    """The requests, each in its turn; those that are granted meanwhile count."""
    if len(queue) < 2:
        yield from list(queue)
        return
    held = _count(leases)
    lines: dict[Kind, deque[tuple[int, Grant]]] = {}
    for number, grant in enumerate(queue):
        lines.setdefault(grant.kind, deque()).append((number, grant))
    heap = [(held[kind], line[0][0], kind) for kind, line in lines.items()]
    heapify(heap)
    while heap:
        _, _, kind = heappop(heap)
        line = lines[kind]
        _, grant = line.popleft()
        yield grant
        held[kind] += grant.id > 0  # it has been granted meanwhile
        if line:
            heappush(heap, (held[kind], line[0][0], kind))


def to_reclaim(
    waiting: Collection[Grant], leases: Collection[Grant], free: float
) -> Iterator[Grant]:
    """The leases to be asked back for those who wait, with so many CPUs free."""
    held = _count(leases)
    coming = free
    able = []
    for lease in leases:
        if lease.actor or lease.worker is None or lease.worker.lent:
            continue
        if lease.reclaimed:
            coming += lease.cpus
            held[lease.kind] -= 1
        else:
            able.append(lease)
    needed = 0.0
    for grant in in_turn(waiting, leases):
        needed += grant.cpus
        while coming < needed - EPSILON:
            found = next((each for each in able if _may_take(grant, each, held)), None)
            if found is None:
                return
            able.remove(found)
            held[found.kind] -= 1
            coming += found.cpus
            yield found
        held[grant.kind] += 1


def _may_take(grant: Grant, lease: Grant, held: Counter[Kind]) -> bool:
    if not lease.is_like(grant):
        return True
    return lease.holder is not grant.holder and held[lease.kind] > held[grant.kind]


def _count(leases: Collection[Grant]) -> Counter[Kind]:
    """How many leases of each kind are in use: what is lent while a task waits is not."""
    used = [lease for lease in leases if lease.worker is not None and not lease.worker.lent]
    return Counter(lease.kind for lease in used if not lease.actor)
