"""Placement groups at the head: bundles of resources that are set aside together, or not at all.

A group is recorded, and waits until its bundles can be placed (``head.placing``).  Then, in two
phases: every node concerned is asked to set its bundles aside (*prepare*); when all have, the
placement is recorded, and they are told that the bundles are the group's (*commit*).  If one
cannot, because what the head knew was old, all give back and the group waits for another try.

A committed bundle i of group g with ``{"CPU": 2}`` is on its node the resources
``{"CPU/g/i": 2, "CPU/g": 2}`` (``extras``), which leases ask for like any others.  It is also
``{"bundle/g/i": 1000, "bundle/g": 1000}``, of which every lease in it takes ``SHARE``: so those
that need nothing else come to the right node too.

When a node dies its bundles, and only they, are placed anew.  A node that connects again, to this
head or the next, says which bundles it has: each step is idempotent and is sent again, and what
the head knows nothing of is dropped.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.gossip import Gossip
from freehold.core.head.placing import STRATEGIES, place, taking, usable
from freehold.core.head.tables import RECORD_BYTES_MAX, Tables
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.member import (
    MEMBER,
    TOTAL,
    Resources,
    Standing,
    fits,
    flaw_of_resources,
    text_of,
)
from freehold.core.records import decode, encode

PREFIX = b"group/"
BUNDLES_MAX = 1000
ROOM = 1000.0  # of the resource that stands for a bundle itself
SHARE = 0.001  # of that, what each lease in the bundle takes
RETRY = 0.1  # seconds until a group that found no room is tried again, doubled up to RETRY_MAX
RETRY_MAX = 1.0
UNPLACED, ASKED, HELD, RECORDED, PLACED = range(5)
STEPS = ("unplaced", "asked", "held", "recorded", "placed")
Asker = tuple[Peer, int]


class Bundle:
    """One bundle, and how far it is."""

    __slots__ = ("node", "resources", "step")

    def __init__(self, resources: Resources, node: bytes = b"") -> None:
        self.resources = resources
        self.node = node
        self.step = RECORDED if node else UNPLACED


class Group:
    """A placement group."""

    __slots__ = ("bundles", "failed", "id", "job", "name", "retry", "strategy", "wait", "waiters")

    def __init__(
        self, id: bytes, name: str, strategy: str, job: bytes, bundles: list[Bundle]
    ) -> None:
        self.id = id
        self.name = name
        self.strategy = strategy
        self.job = job
        self.bundles = bundles
        self.waiters: list[Asker] = []  # who wants to know when it is placed
        self.retry = 0.0  # not to be tried before
        self.wait = RETRY
        self.failed = False  # a node of this round has refused

    @property
    def state(self) -> str:
        """What people are told of it."""
        steps = [bundle.step for bundle in self.bundles]
        if all(step == PLACED for step in steps):
            return "placed"
        return "pending" if UNPLACED in steps else "placing"

    @property
    def idle(self) -> bool:
        """Whether bundles are to be placed, and no round is under way."""
        steps = [bundle.step for bundle in self.bundles]
        return UNPLACED in steps and ASKED not in steps and HELD not in steps

    def record(self) -> bytes:
        """As it is stored."""
        bundles = [
            [bundle.resources, bundle.node if bundle.step >= RECORDED else b""]
            for bundle in self.bundles
        ]
        return encode([self.name, self.strategy, self.job, bundles])


def extras(group: bytes, index: int, resources: Resources) -> Resources:
    """What a committed bundle adds to the resources of its node."""
    name = group.hex()
    made: Resources = {}
    for resource, amount in {**resources, "bundle": ROOM}.items():
        made[f"{resource}/{name}/{index}"] = amount
        made[f"{resource}/{name}"] = amount
    return made


class Groups:
    """The head's table of groups."""

    def __init__(
        self,
        machine: Machine,
        tables: Tables,
        nodes: dict[bytes, Standing],
        gossip: Gossip,
    ) -> None:
        self.machine = machine
        self.tables = tables
        self.nodes = nodes
        self.gossip = gossip
        self.groups: dict[bytes, Group] = {}
        self.stirred = False  # something has changed since the pending ones were tried
        machine.on({m.BUNDLED: self.on_bundled})

    def recover(self, id: bytes, record: bytes) -> None:
        """Take a record of the store."""
        name, strategy, job, bundles = decode(record)
        listed = [Bundle(resources, node) for resources, node in bundles]
        self.groups[id] = Group(id, name, strategy, job, listed)

    # -- requests ---------------------------------------------------------------------------------
    def make(self, now: float, asker: Asker, fields: dict[str, Any]) -> list[str]:
        """Make a group; the error, or [] and then, if it is to, the answer comes when placed."""
        known = self.groups.get(fields["group"])
        if known is None:
            error = self._make(now, fields)
            if error:
                return error
            known = self.groups[fields["group"]]
        return self.wait(now, asker, known.id) if fields.get("wait", True) else []

    def wait(self, now: float, asker: Asker, id: bytes) -> list[str]:
        """Tell the asker when the group is placed; the error if there is no such group."""
        group = self.groups.get(id)
        if group is None:
            return _removed(id)
        if asker not in group.waiters:
            group.waiters.append(asker)
        self.tables.after(now, self._tell, group)
        return []

    def _make(self, now: float, fields: dict[str, Any]) -> list[str]:
        strategy, wanted = fields.get("strategy", "PACK"), fields["bundles"]
        flaw = flaw_of_bundles(wanted)
        if flaw or strategy not in STRATEGIES:
            text = flaw or f"the strategy is one of {', '.join(STRATEGIES)}, not {strategy!r:.50}"
            return ["ProtocolError", text]
        members = [node for node in self.nodes.values() if node.phase == MEMBER]
        if place(wanted, strategy, usable(list(members), totals=True)) is None:
            return ["Unschedulable", _why_never(wanted, strategy, members)]
        id = fields["group"]
        bundles = [Bundle(dict(resources)) for resources in wanted]
        group = Group(id, fields.get("name", ""), strategy, fields.get("job", b""), bundles)
        record = group.record()
        if len(record) > RECORD_BYTES_MAX:
            return ["LimitExceeded", f"the group's record is larger than {RECORD_BYTES_MAX} bytes"]
        self.groups[id] = group
        self.tables.write((PREFIX + id, record))
        self.stirred = True
        return []

    def _tell(self, now: float, group: Group) -> None:
        """Answer those who wait, if it is placed."""
        if group.state != "placed" or self.groups.get(group.id) is not group:
            return
        waiters, group.waiters = group.waiters, []
        fields = {"nodes": [bundle.node for bundle in group.bundles]}
        for peer, request in waiters:
            self.machine.send(peer, m.ENTRY, request, [], fields)

    def remove(self, now: float, id: bytes) -> bool:
        """Give a group's resources back; False if there is no such group."""
        group = self.groups.pop(id, None)
        if group is None:
            return False
        self.tables.write((PREFIX + id, b""))
        self.tables.after(now, self._removed, group)
        return True

    def _removed(self, now: float, group: Group) -> None:
        for index, bundle in enumerate(group.bundles):
            self._give_back(group, index, bundle)
        for peer, request in group.waiters:
            self.machine.send(peer, m.ENTRY, request, _removed(group.id), {})
        self.stirred = True

    def remove_of(self, now: float, job: bytes) -> None:
        """A job has ended, and its groups with it."""
        for group in list(self.groups.values()):
            if group.job == job:
                self.remove(now, group.id)

    def forget(self, asker: Peer) -> None:
        """Who asked is gone; a node asks again when it is back."""
        for group in self.groups.values():
            group.waiters = [waiter for waiter in group.waiters if waiter[0] is not asker]

    def describe(self) -> list[dict[str, Any]]:
        """A line for each group."""
        return [
            {
                "group": group.id,
                "name": group.name,
                "strategy": group.strategy,
                "job": group.job,
                "state": group.state,
                "bundles": [[bundle.resources, bundle.node] for bundle in group.bundles],
            }
            for group in self.groups.values()
        ]

    # -- two phases -------------------------------------------------------------------------------
    def settle(self, now: float) -> None:
        """Try to place those that wait, first come first; one that finds no room holds up none."""
        if not self.stirred:
            return
        self.stirred = False
        due = [group for group in self.groups.values() if group.idle and now >= group.retry]
        if not due:
            return
        members = [
            node for node in self.nodes.values() if node.phase == MEMBER and node.peer is not None
        ]
        free = usable(list(members))
        for group in self.groups.values():  # asked for, but not in the nodes' reports yet
            for bundle in group.bundles:
                if bundle.step == ASKED and bundle.node in free:
                    free[bundle.node] = taking(free[bundle.node], bundle.resources)
        for group in due:
            self._place(group, free, now)

    def _place(self, group: Group, free: dict[bytes, Resources], now: float) -> None:
        missing = [bundle for bundle in group.bundles if bundle.step == UNPLACED]
        taken = [bundle.node for bundle in group.bundles if bundle.step != UNPLACED]
        wanted = [bundle.resources for bundle in missing]
        where = place(wanted, group.strategy, free, taken)
        if where is None:
            self._wait(group, now)
            return
        group.failed = False
        for bundle, node in zip(missing, where, strict=True):
            bundle.node, bundle.step = node, ASKED
            free[node] = taking(free[node], bundle.resources)
        for index, bundle in enumerate(group.bundles):
            if bundle.step == ASKED:
                self._send(group, index, "prepare")

    def _wait(self, group: Group, now: float) -> None:
        group.retry = now + group.wait
        group.wait = min(2 * group.wait, RETRY_MAX)

    def _send(self, group: Group, index: int, step: str) -> None:
        bundle = group.bundles[index]
        node = self.nodes.get(bundle.node)
        if node is not None and node.peer is not None:
            self.machine.send(node.peer, m.BUNDLE, group.id, index, step, bundle.resources)

    def _give_back(self, group: Group, index: int, bundle: Bundle) -> None:
        node = bundle.node
        if bundle.step != UNPLACED:
            self._send(group, index, "drop")
        _set_step(bundle, UNPLACED)
        self._changed(node)

    def on_bundled(
        self, peer: Peer, now: float, id: bytes, index: int, step: str, done: bool
    ) -> None:
        group = self.groups.get(id)
        bundles = group.bundles if group is not None else []
        if group is None or not 0 <= index < len(bundles) or bundles[index].node != peer.id:
            if done and step != "drop":  # an answer to what was asked twice: it lies elsewhere now
                self.machine.send(peer, m.BUNDLE, id, index, "drop", {})
            return
        bundle = bundles[index]
        if step == "prepare" and bundle.step == ASKED:
            group.failed |= not done
            _set_step(bundle, HELD if done else UNPLACED)
            self._voted(group, now)
        elif step == "commit" and bundle.step == RECORDED:
            _set_step(bundle, PLACED if done else UNPLACED)
            self._changed(peer.id)
            group.wait = RETRY
            self.stirred |= not done
            self._tell(now, group)

    def _voted(self, group: Group, now: float) -> None:
        """All nodes of the round have answered, or died: record the placement, or give it up."""
        steps = [bundle.step for bundle in group.bundles]
        if ASKED in steps:
            return
        if group.failed:
            for index, bundle in enumerate(group.bundles):
                if bundle.step == HELD:
                    self._give_back(group, index, bundle)
            self._wait(group, now)
            self.stirred = True
        elif HELD in steps:
            held = [bundle for bundle in group.bundles if bundle.step == HELD]
            for bundle in held:
                bundle.step = RECORDED
            self.tables.write((PREFIX + group.id, group.record()))
            self.tables.after(now, self._commit, group, held)

    def _commit(self, now: float, group: Group, held: list[Bundle]) -> None:
        if self.groups.get(group.id) is not group:
            return  # removed meanwhile, and given back
        for index, bundle in enumerate(group.bundles):
            if bundle in held and bundle.step == RECORDED:
                self._send(group, index, "commit")

    # -- nodes ------------------------------------------------------------------------------------
    def on_node(self, node: Standing, now: float, has: list[list[Any]]) -> None:
        """A node is there (again): bring what it has set aside to what it should have."""
        assert node.peer is not None
        for id, index in has:
            group = self.groups.get(id)
            bundles = group.bundles if group is not None else []
            if not 0 <= index < len(bundles) or bundles[index].node != node.id:
                self.machine.send(node.peer, m.BUNDLE, id, index, "drop", {})
        for group in self.groups.values():
            for index, bundle in enumerate(group.bundles):
                if bundle.node != node.id:
                    continue
                if bundle.step in (RECORDED, PLACED):
                    bundle.step = RECORDED
                    self.tables.after(now, self._commit, group, [bundle])
                elif bundle.step == ASKED:
                    self._send(group, index, "prepare")
        self.stirred = True

    def on_node_gone(self, id: bytes, now: float) -> None:
        """A node has died or left: its bundles are to be placed anew."""
        for group in self.groups.values():
            lost = [bundle for bundle in group.bundles if bundle.node == id]
            if not lost:
                continue
            for bundle in lost:
                group.failed |= bundle.step in (ASKED, HELD)
                _set_step(bundle, UNPLACED)
            group.retry = 0.0
            if any(bundle.step == HELD for bundle in group.bundles):
                self._voted(group, now)
            self.tables.write((PREFIX + group.id, group.record()))
            self.stirred = True

    def _changed(self, id: bytes) -> None:
        """What the node has in all is what it came with and its placed bundles."""
        node = self.nodes.get(id)
        if node is None:
            return
        total = dict(node.base)
        for group in self.groups.values():
            for index, bundle in enumerate(group.bundles):
                if bundle.node == id and bundle.step == PLACED:
                    for name, amount in extras(group.id, index, bundle.resources).items():
                        total[name] = total.get(name, 0.0) + amount
        if total != node.total:
            node.total = total
            self.gossip.tell(node, TOTAL)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """When to try again those that found no room."""
        waiting = [group.retry for group in self.groups.values() if group.retry and group.idle]
        return min(waiting, default=NEVER)

    def on_timer(self, now: float) -> None:
        self.stirred |= now >= self.deadline()

    def check(self) -> None:
        """Bundles lie on nodes that are known, and strictly so where that was asked for."""
        for group in self.groups.values():
            where = [bundle.node for bundle in group.bundles if bundle.step != UNPLACED]
            assert all(id in self.nodes for id in where), "a bundle lies on a node that is gone"
            if group.strategy == "STRICT_SPREAD":
                assert len(set(where)) == len(where)
            elif group.strategy == "STRICT_PACK":
                assert len(set(where)) <= 1
            for bundle in group.bundles:
                assert bool(bundle.node) == (bundle.step != UNPLACED)


def _set_step(bundle: Bundle, step: int) -> None:
    bundle.step = step
    if step == UNPLACED:
        bundle.node = b""


def _removed(id: bytes) -> list[str]:
    return ["GroupRemoved", f"placement group {id.hex()} was removed"]


def flaw_of_bundles(bundles: Any) -> str:
    """What is wrong with the bundles that are asked for, '' if nothing is."""
    if not isinstance(bundles, list) or not 0 < len(bundles) <= BUNDLES_MAX:
        return f"a group has 1 to {BUNDLES_MAX} bundles"
    for resources in bundles:
        flaw = flaw_of_resources(resources)
        if flaw or not any(resources.values()):
            return flaw or "a bundle asks for nothing"
        if any("/" in name for name in resources):
            return "a bundle cannot be made of another group's resources"
        if "bundle" in resources:
            return "'bundle' is the name of no resource"
    return ""


def _why_never(bundles: list[Resources], strategy: str, nodes: list[Standing]) -> str:
    """Why not even an empty cluster has room, naming the first bundle that fits no node."""
    text = f"no placement of {len(bundles)} bundles ({strategy}) fits the cluster"
    for bundle in bundles:
        if not any(fits(bundle, node.base) for node in nodes):
            return f"{text}: no node has {text_of(bundle.items())}"
    return f"{text}, even when it is empty: it has {len(nodes)} nodes"
