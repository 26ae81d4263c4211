"""The roll of the nodes: who is a member, who is silent, who is dead for ever.

A node joins by saying hello; it is a member once that is recorded.  Then it reports what is free,
and the head gossips what has changed to all.

*Deaths.*  A node that is silent for ``unreachable_s`` is dead.  A closed connection says more: the
node is dialled back at once, and if nobody is there it is dead now.  A death is recorded, raises
the epoch, and is told to every member; the dead identity is refused for ever.  Of two that the head
reaches, but that do not reach each other, one is declared dead (``head.gaps``).

*Alone.*  When more than half of the members fall silent at a time, it is rather the head that is
cut off.  Then silence is a death only when it has lasted ``ALONE`` times as long, or when most are
heard again.

*A restart.*  The records say who was a member.  Each is awaited for ``unreachable_s``, then
dialled, and dead if it does not answer.  A node that had no head may have declared another dead
meanwhile; it says so when it is back (NODE_DOWN).  The other one, if it is not back yet, is dialled
at once.  If it lives, one of the two goes: which, depends on what all the others say
(``head.gaps``), and not on who was back first.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.gossip import connected
from freehold.core.head.detached import Detached
from freehold.core.head.directory import Answer, Directory
from freehold.core.head.gaps import Gaps
from freehold.core.head.groups import Groups
from freehold.core.head.tables import RECORD_BYTES_MAX, Tables
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.member import (
    FREE,
    JOINING,
    LEAVING,
    MEMBER,
    Resources,
    Standing,
    flaw_of_labels,
    flaw_of_resources,
)
from freehold.core.records import decode, encode

NODE = b"node/"
DEAD = b"dead/"
EPOCH = b"epoch"
ALONE = 5


class Roll:
    """The head's table of nodes; ``Head`` tells what its arguments are."""

    def __init__(
        self,
        machine: Machine,
        tables: Tables,
        groups: Groups,
        directory: Directory,
        *,
        unreachable_s: float,
        dead_max: int,
    ) -> None:
        self.machine = machine
        self.tables = tables
        self.groups = groups
        self.directory = directory
        self.unreachable_s = unreachable_s
        self.dead_max = dead_max
        self.detached: Detached  # set by the head
        self.prober = Peer(b"", "", "prober")
        self.nodes = groups.nodes
        self.gossip = groups.gossip
        self.dead: dict[bytes, str] = {}  # identity -> why, the oldest first
        self.epoch = 0  # of the last change that was decided
        self.told = 0  # of the last one that members were told of
        self._sweep_at = NEVER
        self.gaps = Gaps(
            machine,
            self.nodes,
            has_driver=directory.has_driver,
            bury=self._bury,
            join=self.join,
            unreachable_s=unreachable_s,
        )
        machine.on(
            {
                m.REPORT: self.on_report,
                m.LEAVE: self.on_leave,
                m.RETIRE: self.on_retire,
                m.NODE_DOWN: self.on_node_down,
                m.PROBED: self.on_probed,
            }
        )

    def recover(self, entries: list[tuple[bytes, bytes, int]]) -> None:
        """Take the records of the store."""
        buried = []
        for key, value, _ in entries:
            if key.startswith(NODE):
                *fields, retiring = decode(value)
                node = Standing(key.removeprefix(NODE), *fields)
                node.phase, node.retiring = MEMBER, retiring
                self.nodes[node.id] = node
            elif key.startswith(DEAD):
                buried.append((*decode(value), key.removeprefix(DEAD)))
            elif key == EPOCH:
                self.epoch = self.told = decode(value)
        for _, reason, id in sorted(buried):
            self.dead[id] = reason

    def start(self, now: float) -> None:
        """Wait for the members of whom the records tell; place anew what lay on others.

        The last head may have ended when it had recorded a node's death, and not yet what follows.
        """
        for node in self.nodes.values():
            self._alive(node, now)
        groups = self.groups.groups.values()
        placed = [bundle.node for group in groups for bundle in group.bundles if bundle.node]
        for id in dict.fromkeys(placed):
            if id not in self.nodes:
                self.groups.on_node_gone(id, now)

    # -- joining ----------------------------------------------------------------------------------
    def join(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        """A node has said hello."""
        if peer.id in self.dead:
            why = f"node {peer.id.hex()[:8]} may not come back: {self.dead[peer.id]}"
            self._refuse(peer, why)
            return
        flaw = _flaw_of_node(peer, info)
        if flaw:
            self._refuse(peer, flaw)
            return
        node = self.nodes.get(peer.id)
        if node is None and self.gaps.keeps_out(peer, now, info):
            return
        if node is None:
            node = Standing(peer.id, peer.address, info["total"], info["labels"])
            self.nodes[peer.id] = node
            self._change((NODE + peer.id, _record(node)))
            self.tables.after(now, self._member, node, self.epoch)
        node.peer, node.probed = peer, False
        node.hellos += 1
        self.gaps.renew(node, now)
        node.retiring |= bool(info.get("retiring"))
        self._alive(node, now)
        has = info.get("bundles", []), info.get("actors", [])
        self.tables.after(now, self._joined, node, peer, *has)

    def _refuse(self, peer: Peer, reason: str) -> None:
        self.machine.send(peer, m.REFUSED, reason)
        self.machine.peers.pop(peer.id, None)

    def _change(self, *entries: tuple[bytes, bytes]) -> None:
        """Record a change of the membership."""
        self.epoch += 1
        self.tables.write((EPOCH, encode(self.epoch)), *entries)

    def _member(self, now: float, node: Standing, epoch: int) -> None:
        """The node's record is durable: unless it has died meanwhile, it is a member."""
        self.told = epoch
        if node.phase != JOINING:
            return
        node.phase = MEMBER
        others = [peer for peer in connected(self.nodes) if peer is not node.peer]
        up = (epoch, node.id, node.address, node.total, node.labels)
        self.machine.send_all(others, m.NODE_UP, *up)

    def _joined(
        self, now: float, node: Standing, peer: Peer, bundles: list[Any], actors: list[bytes]
    ) -> None:
        if node.peer is not peer or node.phase != MEMBER:
            return
        rows = [
            [
                other.id, other.address, other.total, other.labels, other.free, other.waiting,
                other.retiring,
            ]
            for other in self.nodes.values()
            if other.phase != JOINING
        ]  # fmt: skip
        self.machine.send(peer, m.JOINED, self.told, rows)
        if node.retiring:
            self.machine.send(peer, m.RETIRE, node.id)
        self.groups.on_node(node, now, bundles)
        self.detached.on_node(node, now, actors)
        self.gossip.tell(node, FREE)

    # -- signs of life ----------------------------------------------------------------------------
    def on_report(self, peer: Peer, now: float, free: Resources, waiting: int) -> None:
        node = self.nodes.get(peer.id)
        if node is None or node.peer is not peer:
            return
        self._alive(node, now)
        if node.waiting != waiting or node.free != free:
            node.free, node.waiting = free, waiting
            self.groups.stirred = True
            self.gossip.tell(node, FREE)

    def _alive(self, node: Standing, now: float) -> None:
        node.seen = now
        node.until = now + self.unreachable_s
        self._sweep_at = min(self._sweep_at, node.until)

    # -- leaving and dying ------------------------------------------------------------------------
    def on_retire(self, peer: Peer, now: float, node: bytes) -> None:
        self.retire(peer, now, {"node": node})

    def retire(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        """The verb: tell a node to drain and leave, and everybody that it does."""
        node = self.nodes.get(fields["node"])
        if node is None or node.phase != MEMBER:
            return ["NodeDied", f"node {fields['node'].hex()[:8]} is no member"], {}
        if not node.retiring:
            node.retiring = True
            self.tables.write((NODE + node.id, _record(node)))
            self.gossip.tell(node, FREE)
        if node.peer is not None:
            self.machine.send(node.peer, m.RETIRE, node.id)
        return [], {}

    def on_leave(self, peer: Peer, now: float) -> None:
        node = self.nodes.get(peer.id)
        if node is not None and node.peer is peer:
            self._bury(node, now, "it has left in good order")

    def on_down(self, peer: Peer, now: float) -> None:
        """A connection is closed.  If it is a node's, see at once whether there still is one."""
        self.gaps.hang_up(peer)
        node = self.nodes.get(peer.id)
        if node is not None and node.peer is peer:
            node.peer = None
            if node.phase != LEAVING:
                self._probe(node)

    def _probe(self, node: Standing) -> None:
        node.probed = True
        self.machine.send(self.prober, m.PROBE, node.id, node.address)

    def on_probed(self, peer: Peer, now: float, id: bytes, answer: str) -> None:
        node = self.nodes.get(id)
        if node is None or node.peer is not None or node.phase == LEAVING:
            return
        if answer == "refused":
            self._bury(node, now, "it closed its connection, and does not listen any more")
        elif answer == "alive":
            self._alive(node, now)  # it will say hello
        elif now >= node.seen + self.unreachable_s and not self._is_patient(node, now):
            self._bury(node, now, self._silence(node, now))

    def _is_patient(self, node: Standing, now: float) -> bool:
        """Whether the silent node gets more time, since the head seems to be alone."""
        if now >= node.seen + self.unreachable_s * ALONE:
            return False
        members = [other for other in self.nodes.values() if other.phase == MEMBER]
        silent = sum(now > other.seen + self.unreachable_s / 2 for other in members)
        return silent > 1 and 2 * silent > len(members)

    def _silence(self, node: Standing, now: float) -> str:
        return f"it has been silent for {now - node.seen:.1f} s"

    def on_node_down(self, peer: Peer, now: float, epoch: int, node: bytes, reason: str) -> None:
        """A node has declared another one dead while it had no head, and cannot take that back."""
        sender, target = self.nodes.get(peer.id), self.nodes.get(node)
        if sender is None or sender.peer is not peer or target is None or target is sender:
            return
        if sender.phase == target.phase == MEMBER:
            self.gaps.on_declared(sender, target, now)
            if target.peer is None and not target.probed:
                self._probe(target)

    def _bury(self, node: Standing, now: float, reason: str) -> None:
        """The node is no member any more, and never again; tell so when it is recorded."""
        if node.phase == LEAVING:
            return
        node.phase = LEAVING
        self.dead[node.id] = reason
        record = encode([self.epoch + 1, reason])
        self._change((NODE + node.id, b""), (DEAD + node.id, record))
        self.tables.after(now, self._gone, node, reason, self.epoch)
        self.gaps.forget(node, now)
        while len(self.dead) > self.dead_max:
            oldest = next(iter(self.dead))
            del self.dead[oldest]
            self.tables.write((DEAD + oldest, b""))

    def _gone(self, now: float, node: Standing, reason: str, epoch: int) -> None:
        del self.nodes[node.id]
        self.gossip.forget(node)
        self.told = epoch
        if node.peer is not None:
            self._refuse(node.peer, reason)
        self.machine.send_all(connected(self.nodes), m.NODE_DOWN, epoch, node.id, reason)
        self.groups.on_node_gone(node.id, now)
        self.directory.on_node_gone(node.id, now, reason)
        self.detached.on_node_gone(node.id, now, reason)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """The next look for the silent, or for those that do not reach each other."""
        return min(self._sweep_at, self.gaps.deadline())

    def on_timer(self, now: float) -> None:
        """Give up the silent."""
        if now >= self._sweep_at:
            self._sweep(now)
        self.gaps.on_timer(now)

    def _sweep(self, now: float) -> None:
        """Give up those that have been silent for too long."""
        soonest = NEVER
        for node in list(self.nodes.values()):
            if node.phase == LEAVING:
                continue
            if now >= node.until:
                if node.peer is None and not node.probed:
                    self._probe(node)  # this head has never heard of it: the last chance
                    node.until = now + self.unreachable_s
                elif self._is_patient(node, now):
                    node.until = now + self.unreachable_s / 4
                else:
                    self._bury(node, now, self._silence(node, now))
                    continue
            soonest = min(soonest, node.until)
        self._sweep_at = soonest

    def check(self) -> None:
        """Nobody is both a member and dead, and nobody is forgotten who is silent."""
        assert self.told <= self.epoch
        self.gaps.check()
        for id, node in self.nodes.items():
            assert node.id == id
            assert (id in self.dead) == (node.phase == LEAVING), f"{node!r} is both"
            assert node.peer is None or not node.peer.down
            assert node.phase == LEAVING or self._sweep_at <= node.until
        assert all(id in self.nodes for id in self.gossip.news)


def _record(node: Standing) -> bytes:
    return encode([node.address, node.base, node.labels, node.retiring])


def _flaw_of_node(peer: Peer, info: dict[str, Any]) -> str:
    """What is wrong with a node's HELLO, '' if nothing is."""
    flaw = flaw_of_resources(info.get("total")) or flaw_of_labels(info.get("labels"))
    if flaw:
        return f"it cannot join: {flaw}"
    bundles = info.get("bundles", [])
    if not isinstance(bundles, list) or not all(
        isinstance(bundle, list) and [type(part) for part in bundle] == [bytes, int]
        for bundle in bundles
    ):
        return "it cannot join: bundles are a list of [group, index]"
    actors = info.get("actors", [])
    if not isinstance(actors, list) or not all(isinstance(id, bytes) for id in actors):
        return "it cannot join: actors are a list of ids"
    size = len(encode([peer.address, info["total"], info["labels"], False]))
    if size > RECORD_BYTES_MAX:
        return f"it cannot join: its record is larger than {RECORD_BYTES_MAX:,} bytes"
    return ""
