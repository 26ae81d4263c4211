"""A node as others know it: what it has, what of it is free, and how long its queue is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from freehold.core.machine import NEVER, Peer

EPSILON = 1e-9
RESOURCES_MAX = 1000  # names in one map of resources
TEXT_MAX = 1000  # characters of a name or a label
Resources = dict[str, float]


class Member:
    """A member of the cluster.

    Attributes:
        id: its daemon's process id.
        address: where it is dialled.
        total: what it has, the resources of its placement groups' bundles included.
        free: what of that is free, as it last reported.
        waiting: lease requests in its queue, as it last reported.
        labels: what its administrator says of it.
        retiring: it takes no more leases.
    """

    __slots__ = ("address", "free", "id", "labels", "retiring", "total", "waiting")

    def __init__(
        self, id: bytes, address: str, total: Resources, labels: dict[str, str], free: Resources
    ) -> None:
        self.id = id
        self.address = address
        self.total = total
        self.labels = labels
        self.free = free
        self.waiting = 0
        self.retiring = False

    def __repr__(self) -> str:
        return f"<node {self.id.hex()[:8]}>"


JOINING, MEMBER, LEAVING = range(3)  # a Standing's phases
PHASES = ("joining", "member", "leaving")
NOTHING, FREE, TOTAL = range(3)  # a Standing's news


class Standing(Member):
    """A member as the head knows it.

    Attributes:
        base: what it has without the resources of bundles.
        peer: its connection, None while there is none.
        phase: its record is being written (JOINING), is durable, or is being deleted (LEAVING).
        seen: when it last gave a sign of life.
        until: when it is given up unless there is another.
        probed: since its connection was lost it has been dialled.
        hellos: how often it has said hello to this head.
        news: what there is to gossip: NOTHING, what is FREE, or its TOTAL too.
    """

    __slots__ = ("base", "hellos", "news", "peer", "phase", "probed", "seen", "until")

    def __init__(self, id: bytes, address: str, total: Resources, labels: dict[str, str]) -> None:
        super().__init__(id, address, dict(total), labels, dict(total))
        self.base = total
        self.peer: Peer | None = None
        self.phase = JOINING
        self.seen = 0.0
        self.until = NEVER
        self.probed = False
        self.hellos = 0
        self.news = NOTHING


def fits(needs: Resources, have: Resources) -> bool:
    """Whether all that is needed is there."""
    return all(amount <= have.get(name, 0.0) + EPSILON for name, amount in needs.items() if amount)


def load(member: Member) -> float:
    """How much of its scarcest resource is in use, 0 to 1; those of bundles do not count."""
    used = [
        1.0 - member.free.get(name, 0.0) / total
        for name, total in member.total.items()
        if total > 0 and "/" not in name
    ]
    return max(used, default=0.0)


def text_of(needs: Iterable[tuple[str, float]]) -> str:
    """Resources for people: ``4 CPU and 1 GPU``."""
    return " and ".join(f"{amount:g} {name}" for name, amount in needs) or "nothing"


def flaw_of_resources(resources: Any) -> str:
    """What is wrong with a map of resources, '' if nothing is."""
    if not isinstance(resources, dict) or len(resources) > RESOURCES_MAX:
        return f"resources are a map of at most {RESOURCES_MAX} names to amounts"
    for name, amount in resources.items():
        if not isinstance(name, str) or not 0 < len(name) <= TEXT_MAX:
            return f"{name!r:.50} is no name of a resource"
        if type(amount) not in (int, float) or not 0 <= amount < math.inf:
            return f"{amount!r:.50} is no amount of {name:.50}"
    return ""


def flaw_of_labels(labels: Any) -> str:
    """What is wrong with a map of labels, '' if nothing is."""
    if not isinstance(labels, dict) or len(labels) > RESOURCES_MAX:
        return f"labels are a map of at most {RESOURCES_MAX} names to texts"
    for name, value in labels.items():
        for text in (name, value):
            if not isinstance(text, str) or len(text) > TEXT_MAX:
                return f"{text!r:.50} is no label"
    return ""
