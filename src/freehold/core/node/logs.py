"""What workers print, on its way from the spawner to the drivers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.node.scheduler import Scheduler


class Logs:
    """The part of a node that passes printed lines on."""

    def __init__(
        self, machine: Machine, scheduler: Scheduler, processes: Callable[[], list[Peer]]
    ) -> None:
        self.machine = machine
        self.scheduler = scheduler
        self.workers = scheduler.workers
        self.processes = processes  # of this node
        self._draining: deque[tuple[Peer, int]] = deque()
        machine.on(
            {
                m.LABEL: self.on_label,
                m.LOG: self.on_log,
                m.DRAIN: self.on_drain,
                m.DRAINED: self.on_drained,
            }
        )

    def on_label(self, peer: Peer, now: float, name: str) -> None:
        worker = self.workers.by_proc.get(peer.id)
        if worker is not None:
            worker.label = name

    def on_log(
        self, peer: Peer, now: float, pid: int, name: str, stream: str, lines: list[str]
    ) -> None:
        """A worker printed something: tell the driver for whom it works."""
        job = b""
        for worker in self.workers.workers.values():
            if worker.pid == pid:
                name, job = name or worker.label, worker.job or b""
        jobs = self.scheduler.jobs
        if job in jobs:
            self.machine.send(self.machine.peer(job, jobs[job]), m.LOG, pid, name, stream, lines)
            return
        for driver in self.processes():
            if driver.kind == "driver":
                self.machine.send(driver, m.LOG, pid, name, stream, lines)

    def on_drain(self, peer: Peer, now: float, request: int) -> None:
        self._draining.append((peer, request))
        self.machine.send(self.workers.spawner, m.DRAIN, request)

    def on_drained(self, peer: Peer, now: float, request: int) -> None:
        asker, number = self._draining.popleft()  # the spawner answers in order
        self.machine.send(asker, m.DRAINED, number)
