"""Where a lease is asked for: pure functions of the needs, the strategy and the view of the nodes.

Every node decides by itself, by what the others have gossiped; a wrong guess costs one more hop,
never more, since the node that is asked decides again by what it knows of itself.  Strategies, as
they are on the wire:

* ``[]``: here if it fits now; else where it fits now and most is free; else where it could ever
  fit and the queue is shortest.
* ``["spread"]``: the least loaded of those where it fits now; else as before.
* ``["node", id, soft]``: that node and no other; if soft, any other when it cannot be that one.
* ``["labels", {name: value}]``: as ``[]``, among the nodes with these labels.

A need of a placement group that nobody has is not yet *never*: news of a bundle may still be on
its way.  Whoever asked waits for the view to change, as long as the group exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from freehold.core.member import Member, Resources, fits, load, text_of

NOW, LATER, NEVER, UNKNOWN = range(4)
VERDICTS = ("now", "later", "never", "unknown")
View = dict[bytes, Member]


class Choice(NamedTuple):
    """What was decided.

    Attributes:
        verdict: it fits there NOW, or LATER; NEVER and nowhere; or UNKNOWN, because it names a
            placement group's resources which no node has, yet or any more.
        node: the chosen node, empty for NEVER and UNKNOWN.
        reason: why it is NEVER or UNKNOWN.
    """

    verdict: int
    node: bytes
    reason: str


def choose(
    needs: Resources, strategy: list[Any], view: View, local: bytes, turn: int = 0
) -> Choice:
    """Choose a node.

    Args:
        needs: resource -> amount.
        strategy: see the module.
        view: the members, this node included.
        local: this node's id.
        turn: a number that differs from call to call; equals are taken in turn by it.
    """
    nodes = rotated([member for member in view.values() if not member.retiring], turn)
    kind = strategy[0] if strategy else ""
    if kind == "node":
        chosen = _one(needs, strategy[1], view)
        if chosen.verdict not in (NEVER, UNKNOWN) or not strategy[2]:
            return chosen
    elif kind == "labels":
        wanted = strategy[1].items()
        nodes = [
            member
            for member in nodes
            if all(member.labels.get(name) == value for name, value in wanted)
        ]
        if not nodes:
            text = ", ".join(f"{name}={value}" for name, value in wanted)
            return Choice(NEVER, b"", f"no node has the labels {text}")
    elif kind not in ("", "spread"):
        return Choice(NEVER, b"", f"there is no scheduling strategy {kind!r:.50}")
    return _best(needs, nodes, b"" if kind == "spread" else local, local)


def flaw_of_strategy(strategy: list[Any]) -> str:
    """What is wrong with a strategy that came over the wire, '' if nothing is."""
    kinds = [type(part) for part in strategy[1:]]
    shapes: dict[Any, list[type]] = {"spread": [], "node": [bytes, bool], "labels": [dict]}
    kind = strategy[0] if strategy else ""
    if strategy and (not isinstance(kind, str) or shapes.get(kind) != kinds):
        return f"{strategy!r:.100} is no scheduling strategy"
    return ""


def rotated(nodes: list[Member], turn: int) -> list[Member]:
    """The same in the same order, but begun elsewhere."""
    start = turn % len(nodes) if nodes else 0
    return nodes[start:] + nodes[:start]


def _one(needs: Resources, id: bytes, view: View) -> Choice:
    """That node and no other."""
    member = view.get(id)
    if member is None:
        return Choice(NEVER, b"", f"node {id.hex()[:8]} is dead, or was never a member")
    if member.retiring:
        return Choice(NEVER, b"", f"node {id.hex()[:8]} is retiring")
    return _best(needs, [member], id, id)


def _best(needs: Resources, nodes: list[Member], preferred: bytes, local: bytes) -> Choice:
    now = [member for member in nodes if fits(needs, member.free)]
    for member in now:
        if member.id == preferred:
            return Choice(NOW, member.id, "")
    if now:
        return Choice(NOW, min(now, key=lambda member: (load(member), member.waiting)).id, "")
    ever = [member for member in nodes if fits(needs, member.total)]
    if not ever:
        return _nowhere(needs, nodes)
    chosen = min(ever, key=lambda member: (member.waiting, member.id != local, load(member)))
    return Choice(LATER, chosen.id, "")


def _nowhere(needs: Resources, nodes: list[Member]) -> Choice:
    strange = [
        name
        for name, amount in needs.items()
        if amount and "/" in name and not any(name in member.total for member in nodes)
    ]
    if strange:
        text = f"no node has {strange[0]}: the placement group is not there, or has no such bundle"
        return Choice(UNKNOWN, b"", text)
    return Choice(NEVER, b"", why_never(needs, nodes))


def why_never(needs: Resources, nodes: Iterable[Member]) -> str:
    """Why these needs fit no node, naming the one that comes nearest."""
    wanted = [(name, amount) for name, amount in needs.items() if amount]

    def share(member: Member) -> float:
        return sum(min(1.0, member.total.get(name, 0.0) / amount) for name, amount in wanted)

    largest = max(nodes, key=share, default=None)
    text = f"no node can ever provide {text_of(wanted)}"
    if largest is None:
        return f"{text}: there is none"
    has = text_of((name, largest.total.get(name, 0.0)) for name, _ in wanted)
    return f"{text}; the largest, {largest.id.hex()[:8]}, has {has}"
