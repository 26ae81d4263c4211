"""Requests for leases: which node has been asked for what, and has not answered.

A request goes to the process's own node, and from there to whatever node that one names (REDIRECT);
each step is noted before it is made.  When a node dies, what had been asked there is asked at home.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Pool, Shape, Task, Where

Wanted = Pool | Task  # a lease for the pool, or a worker for an actor: its constructor


class Request:
    """One that is open."""

    __slots__ = ("hops", "node", "wanted")

    def __init__(self, wanted: Wanted, node: Peer) -> None:
        self.wanted = wanted
        self.node = node  # that has it
        self.hops = 0  # nodes that had it before

    @property
    def shape(self) -> Shape:
        """What is asked for."""
        wanted = self.wanted
        return wanted.shape if isinstance(wanted, Pool) else wanted.spec.shape


class Requests:
    """The open requests of one process."""

    def __init__(self, machine: Machine, owner: Owner) -> None:
        self.machine = machine
        self.owner = owner
        self.open: dict[int, Request] = {}
        self.job: list[Any] = []  # driver, its address, where it finds its modules
        self.gpus: dict[int, list[int]] = {}  # request -> of the lease that is about to be granted
        self._count = 0
        machine.on({m.REDIRECT: self.on_redirect, m.GPUS: self.on_gpus})

    def ask(self, wanted: Wanted) -> int:
        """Ask the node for one worker; the request's number."""
        self._count += 1
        request = self.open[self._count] = Request(wanted, self._home())
        self._send(self._count, request)
        return self._count

    def _home(self) -> Peer:
        assert self.owner.node is not None
        return self.owner.node

    def _send(self, number: int, request: Request) -> None:
        cpus, resources, where = request.shape
        actor = request.wanted.id if isinstance(request.wanted, Task) else b""
        what = (number, cpus, actor, dict(resources), fields_of(where))
        self.machine.send(request.node, m.LEASE, *what, request.hops, self.job[:2])

    def on_redirect(self, peer: Peer, now: float, number: int, node: bytes, address: str) -> None:
        request = self.open.get(number)
        if request is None or request.node is not peer:
            return  # it was cancelled meanwhile
        target = self.machine.peer(node, address)
        target.kind = "node"
        if target.down:  # the news of its death has come first
            target = self._home()
        request.node = target
        request.hops += 1
        self._send(number, request)

    def name(self, number: int) -> str:
        """The task, one of those, for which that request is open; empty if there is none."""
        request = self.open.get(number)
        wanted = None if request is None else request.wanted
        if isinstance(wanted, Pool):
            wanted = wanted.queue[0] if wanted.queue else None
        return "" if wanted is None else wanted.spec.name

    def answered(self, number: int) -> Wanted | None:
        """Forget the request; what it was for, None if that is not wanted any more."""
        request = self.open.pop(number, None)
        return None if request is None else request.wanted

    def withdraw(self, number: int) -> None:
        """It is needed no longer."""
        self.gpus.pop(number, None)
        self.machine.send(self.open.pop(number).node, m.LEASE_CANCEL, number)

    def cancel(self, task: Task) -> None:
        """The actor that the task is to construct is not wanted any more."""
        for number, request in list(self.open.items()):
            if request.wanted is task:
                self.withdraw(number)

    def node_died(self, node: Peer) -> None:
        """What had been asked there is asked at home."""
        for number, request in list(self.open.items()):
            if request.node is node:
                request.node = self._home()
                self._send(number, request)

    def on_gpus(self, peer: Peer, now: float, request: int, gpus: list[int]) -> None:
        if request in self.open:
            self.gpus[request] = gpus

    def brief(self, worker: Peer, request: int) -> None:
        """Before it gets the first task of a lease: tell the worker which GPUs it may use."""
        gpus = self.gpus.pop(request, [])
        if gpus:
            self.machine.send(worker, m.LEASED, gpus)

    @property
    def driver(self) -> bytes:
        """The driver for which this process works; empty in an embedded session."""
        return self.job[0] if self.job else b""


def fields_of(where: Where) -> list[Any]:
    """A strategy, as it is sent."""
    return [where[0], dict(where[1])] if where[:1] == ("labels",) else list(where)
