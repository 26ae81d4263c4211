"""Nodes of which this node has not heard yet: who names one waits for the news.

Processes may tell of a place or of a process faster than the head does of its node.  An object that
lies on a node that is unknown for longer than ``WAIT`` is lost for who asks.  A node may also have
died before this one joined: then nobody will ever tell.  So a node that is to be watched and
remains unknown for ``SOUGHT_MAX``, though the head would have told of it, is taken for dead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node.pulls import Pulls, check_place

WAIT = 2.0  # seconds
SOUGHT_MAX = 4.0  # seconds: the head loses its members if they are silent for half of that


class Strangers:
    """What stands before the pulls of one node."""

    def __init__(self, machine: Machine, pulls: Pulls, is_unknown: Callable[[bytes], bool]) -> None:
        self.machine = machine
        self.pulls = pulls
        self.is_unknown = is_unknown  # whether a node is neither alive nor dead
        self.give_up: Callable[[bytes, float], bool]  # the node is dead; False: who knows
        self.sought: dict[bytes, float] = {}  # to watch as soon as they are known -> until when
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

    def seek(self, node: bytes) -> None:
        """That node is to be watched."""
        self.sought.setdefault(node, self.machine.now + SOUGHT_MAX)

    def retry(self, now: float) -> None:
        """The view has changed, or time has passed: go on with what is known now, or never."""
        for node in [node for node, until in self.sought.items() if now >= until]:
            if not self.is_unknown(node) or self.give_up(node, now):
                self.sought.pop(node, None)
            else:
                self.sought[node] = now + SOUGHT_MAX
        waiting, self.waiting = self.waiting, []
        for until, peer, fields in waiting:
            if now < until and self.is_unknown(fields[1][3]):
                self.waiting.append((until, peer, fields))
            elif not peer.down:
                self.pulls.on_fetch(peer, now, *fields)

    def deadline(self) -> float:
        """When the first of them has waited long enough."""
        first = min((until for until, _, _ in self.waiting), default=NEVER)
        return min(first, min(self.sought.values(), default=NEVER))
