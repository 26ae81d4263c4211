"""Objects on nodes of which this node has not heard yet: who asks for one waits for the news.

A place may be told faster by processes than its node is by the head.  What is unknown for longer
than ``WAIT`` is taken to be dead, and the asker's answer is that the object is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.pulls import Pulls, check_place

WAIT = 2.0  # seconds


class Strangers:
    """What stands before the pulls of one node."""

    def __init__(self, machine: Machine, pulls: Pulls, is_unknown: Callable[[bytes], bool]) -> None:
        self.pulls = pulls
        self.is_unknown = is_unknown  # whether a node is neither alive nor dead
        self.waiting: list[tuple[float, Peer, tuple[Any, ...]]] = []  # until when, fields of FETCH
        machine.on({m.FETCH: self.on_fetch})

    def on_fetch(
        self, peer: Peer, now: float, id: bytes, place: list[Any], owner: bytes, address: str,
        kind: int,
    ) -> None:  # fmt: skip
        check_place(place, kind)
        fields = (id, place, owner, address, kind)
        if self.is_unknown(place[3]):
            self.waiting.append((now + WAIT, peer, fields))
        else:
            self.pulls.on_fetch(peer, now, *fields)

    def retry(self, now: float) -> None:
        """The view has changed, or time has passed: go on with what is known now, or never."""
        waiting, self.waiting = self.waiting, []
        for until, peer, fields in waiting:
            if now < until and self.is_unknown(fields[1][3]):
                self.waiting.append((until, peer, fields))
            elif not peer.down:
                self.pulls.on_fetch(peer, now, *fields)

    def deadline(self) -> float:
        """When the first of them has waited long enough."""
        return min((until for until, _, _ in self.waiting), default=NEVER)
