"""Inquiries after a node's status: its processes are asked for their counts before it answers.

Who has not answered after ``STATUS_WAIT`` is left out, as is who dies meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer

STATUS_WAIT = 0.5  # seconds for the processes to answer
Counts = dict[bytes, dict[str, Any]]  # process -> what it says of its tables


class Inquiry:
    """One that waits for the processes' answers."""

    __slots__ = ("asker", "counts", "request", "until", "waiting")

    def __init__(self, asker: Peer, request: int, waiting: set[bytes], until: float) -> None:
        self.asker = asker
        self.request = request
        self.waiting = waiting
        self.until = until
        self.counts: Counts = {}


class Inquiries:
    """The inquiries of one node that are not answered yet."""

    def __init__(
        self,
        machine: Machine,
        processes: Callable[[], list[Peer]],
        describe: Callable[[Counts], dict[str, Any]],
    ) -> None:
        self.machine = machine
        self.processes = processes  # of this node
        self.describe = describe  # the node's tables
        self.open: list[Inquiry] = []
        machine.on({m.STATUS: self.on_status, m.STATUS_REPLY: self.on_status_reply})

    def on_status(self, peer: Peer, now: float, request: int) -> None:
        processes = self.processes()
        waiting = {process.id for process in processes}
        self.open.append(Inquiry(peer, request, waiting, now + STATUS_WAIT))
        for process in processes:
            self.machine.send(process, m.STATUS, 0)
        self.on_timer(now)

    def on_status_reply(self, peer: Peer, now: float, request: int, status: dict[str, Any]) -> None:
        for inquiry in self.open:
            inquiry.counts[peer.id] = status
            inquiry.waiting.discard(peer.id)
        self.on_timer(now)

    def forget(self, process: bytes) -> None:
        """The process is dead: it answers nothing any more."""
        for inquiry in self.open:
            inquiry.waiting.discard(process)

    def deadline(self) -> float:
        """When the first of them has waited long enough."""
        return min(
            (inquiry.until if inquiry.waiting else 0.0 for inquiry in self.open), default=NEVER
        )

    def on_timer(self, now: float) -> None:
        """Answer what waits for nobody, or has waited long enough."""
        for inquiry in list(self.open):
            if not inquiry.waiting or now >= inquiry.until:
                self.open.remove(inquiry)
                status = self.describe(inquiry.counts)
                self.machine.send(inquiry.asker, m.STATUS_REPLY, inquiry.request, status)
