"""A node that is a member of a cluster: ``core.node`` with ``core.members`` beside it.

This file joins the two machines' parts and nothing else: who comes and goes is told to the members,
what is free is reported, what the head decides is done by the host (``refused``, ``retiring``).
"""

from __future__ import annotations

from typing import Any

from freehold.core.machine import Peer
from freehold.core.members import Members
from freehold.core.node import Node


class MemberNode(Node):
    """The machine of a node daemon in a cluster."""

    def __init__(self, id: bytes, *, address: str, labels: dict[str, str], **node: Any) -> None:
        super().__init__(id, **node)
        self.members = Members(self, address=address, total=self.workers.total, labels=labels)

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, **self.members.info}

    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        if peer.kind == "head":
            self.members.on_head_up(peer, now, info)
        super().on_up(peer, now, info)

    def on_down(self, peer: Peer, now: float) -> None:
        self.members.relay.forget(peer)
        self.members.on_head_down(peer, now)
        if peer.kind == "node":
            self.members.suspect(peer.id, now)
        super().on_down(peer, now)

    def settle(self, now: float) -> None:
        super().settle(now)
        self.members.report(self.workers.free, len(self.workers.queue), now)

    def deadline(self) -> float:
        return min(super().deadline(), self.members.deadline())

    def on_timer(self, now: float) -> None:
        super().on_timer(now)
        self.members.on_timer(now)
