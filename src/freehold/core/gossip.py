"""What the head passes on of the nodes' reports: to all, what has changed, now and then.

It goes out every ``gossip_s``, and less often the more nodes there are beyond ``CROWD``, since what
it costs grows with their square.
"""

from __future__ import annotations

import math

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.member import MEMBER, NOTHING, TOTAL, Standing

CROWD = 100  # nodes up to which gossip goes out every gossip_s


class Gossip:
    """Of whom there is news, and when it goes out."""

    def __init__(self, machine: Machine, nodes: dict[bytes, Standing], gossip_s: float) -> None:
        self.machine = machine
        self.nodes = nodes
        self.gossip_s = gossip_s
        self.news: dict[bytes, Standing] = {}
        self.due = NEVER
        self._sent = -math.inf  # when

    def tell(self, node: Standing, news: int) -> None:
        """There is news of the node, for the next GOSSIP."""
        node.news = max(node.news, news)
        self.news[node.id] = node

    def forget(self, node: Standing) -> None:
        """The node is gone."""
        self.news.pop(node.id, None)

    def settle(self, now: float) -> None:
        """Plan the next GOSSIP, if there is news."""
        if self.news and self.due == NEVER:
            every = self.gossip_s * max(1.0, len(self.nodes) / CROWD)
            self.due = max(now, self._sent + every)

    def on_timer(self, now: float) -> None:
        """Send it, if it is time."""
        if now < self.due:
            return
        rows = [
            [
                node.id, node.free, node.waiting, node.retiring,
                node.total if node.news == TOTAL else {},
            ]
            for node in self.news.values()
            if node.phase == MEMBER
        ]  # fmt: skip
        for node in self.news.values():
            node.news = NOTHING
        self.news.clear()
        self.due, self._sent = NEVER, now
        if rows:
            self.machine.send_all(connected(self.nodes), m.GOSSIP, rows)


def connected(nodes: dict[bytes, Standing]) -> list[Peer]:
    """The members that can be written to."""
    return [node.peer for node in nodes.values() if node.peer is not None and node.phase == MEMBER]
