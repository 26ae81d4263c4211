"""The node's part of the membership: its head, its view of the others, its judgement without one.

What the head says holds.  While it is away nothing stops: leases go on by what was gossiped last,
questions to the directory wait (``node.relay``), and the node judges deaths by itself
(``node.suspects``).  What it declares so it cannot take back: it tells the head that comes, which
makes it so for all (see ``head.head``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.member import Member, Resources
from freehold.core.node.relay import Relay
from freehold.core.node.suspects import Suspects
from freehold.errors import ProtocolError

OnNodeDown = Callable[[bytes, str, float], None]
OnJoined = Callable[[float], None]
OnRefused = Callable[[str, float], None]


class Members:
    """The cluster as one node sees it.

    Args:
        machine: the node.
        address: where it is dialled.
        total: what it has.
        labels: what its administrator says of it.
        on_node_down: called with a node that is dead, why, and the time.
        on_joined: called when this node is a member (again).
        on_refused: called when it is none any more: end the workers, and join under a new id.
        on_change: called when the view has changed.
        on_retire: called when this node is to drain and leave.
        heartbeat_s: seconds between two REPORTs when nothing changes.
        report_s: seconds between two REPORTs at least.
        unreachable_s: seconds of silence after which a node is dead, while there is no head.

    Attributes:
        head: the connection to the head, None while there is none.
        joined: the head has said that this node is a member, over this connection.
        view: the members, this node included once it has joined.
        epoch: of the last change of the membership that is known here.
        dead: nodes that have died since this one started.
        fallen: those of them that did not mean to leave, as they were, and when they died.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        address: str,
        total: Resources,
        labels: dict[str, str] | None = None,
        on_node_down: list[OnNodeDown] | None = None,
        on_joined: list[OnJoined] | None = None,
        on_refused: list[OnRefused] | None = None,
        on_change: list[OnJoined] | None = None,
        on_retire: list[OnJoined] | None = None,
        heartbeat_s: float = 0.5,
        report_s: float = 0.1,
        unreachable_s: float = 2.0,
    ) -> None:
        self.machine = machine
        self.base = dict(total)  # without the resources of bundles
        self.me = Member(machine.id, address, dict(total), labels or {}, dict(total))
        self.on_node_down_calls = on_node_down or []
        self.on_joined_calls = on_joined or []
        self.on_refused_calls = on_refused or []
        self.on_change_calls = on_change or []
        self.on_retire_calls = on_retire or []
        self.heartbeat_s = heartbeat_s
        self.report_s = report_s
        self.head: Peer | None = None
        self.cluster = ""  # the name of the cluster, once it is known
        self.joined = False
        self.refused = ""  # why this node is no member, and never will be
        self.view: dict[bytes, Member] = {}
        self.epoch = 0
        self.dead: set[bytes] = set()
        self.fallen: list[tuple[float, Member]] = []
        self.declared: dict[bytes, str] = {}  # dead by this node's own judgement -> why
        self.suspects = Suspects(
            machine, self.view, declare=self._declare, unreachable_s=unreachable_s
        )
        self.relay = Relay(machine)
        self._changed = True  # since the last REPORT
        self._reported = 0.0
        machine.on(
            {
                m.JOINED: self.on_joined,
                m.REFUSED: self.on_refused,
                m.NODE_UP: self.on_node_up,
                m.NODE_DOWN: self.on_node_down,
                m.GOSSIP: self.on_gossip,
                m.RETIRE: self.on_retire,
            }
        )

    @property
    def info(self) -> dict[str, Any]:
        """What this node's HELLO tells the head; whoever keeps the bundles adds them."""
        return {"total": self.base, "labels": self.me.labels, "retiring": self.me.retiring}

    # -- the head ---------------------------------------------------------------------------------
    def on_head_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        """A head has said hello.  It answers this node's HELLO by JOINED or REFUSED.

        Raises:
            ProtocolError: it is another cluster's head.
        """
        cluster = str(info.get("cluster", ""))
        if self.cluster and cluster != self.cluster:
            raise ProtocolError(f"this is the head of cluster {cluster}, not of {self.cluster}")
        self.cluster = cluster
        self.head, self.joined = peer, False
        self._stop(now)

    def on_head_down(self, peer: Peer, now: float) -> None:
        """The connection to the head is closed; it is for the host to dial it again."""
        if peer is self.head:
            self.head, self.joined = None, False
            self._stop(now)

    def _stop(self, now: float) -> None:
        self.relay.stop()
        self.suspects.stop(now)

    def _check_head(self, peer: Peer) -> None:
        if peer is not self.head:
            raise ProtocolError(f"{peer!r} is not this node's head")

    def on_joined(self, peer: Peer, now: float, epoch: int, nodes: list[list[Any]]) -> None:
        self._check_head(peer)
        if epoch < self.epoch:
            raise ProtocolError(f"the head is at epoch {epoch}, and had told {self.epoch} before")
        self.epoch, self.joined = epoch, True
        before = dict(self.view)
        self.view.clear()
        for id, address, total, labels, free, waiting, retiring in nodes:
            member = Member(id, address, total, labels, free)
            if id == self.machine.id:
                member, member.total = self.me, total
                retiring |= member.retiring
            else:
                member.waiting = waiting
            member.retiring = retiring
            if id not in self.dead:
                self.view[id] = member
        members = {row[0] for row in nodes}  # the others it has buried itself
        self.declared = {id: why for id, why in self.declared.items() if id in members}
        for id, reason in self.declared.items():
            self.machine.send(peer, m.NODE_DOWN, epoch, id, reason)
        for id in before:
            if id not in self.view and id not in self.dead:
                self._died(id, "it died or left while this node had no head", now)
        self.relay.start(peer)
        self.suspects.start(peer)
        self._report(now)
        for call in self.on_joined_calls:
            call(now)
        self._notify(now)

    def on_refused(self, peer: Peer, now: float, reason: str) -> None:
        self._check_head(peer)
        self.refused = reason
        self.head, self.joined = None, False
        self.suspects.end()
        self.relay.end(f"this node is no member of the cluster any more: {reason}")
        for call in self.on_refused_calls:
            call(reason, now)

    # -- the view ---------------------------------------------------------------------------------
    def on_node_up(
        self,
        peer: Peer,
        now: float,
        epoch: int,
        node: bytes,
        address: str,
        total: Resources,
        labels: dict[str, str],
    ) -> None:
        self._check_head(peer)
        self.epoch = max(self.epoch, epoch)
        if node not in self.dead:
            self.view[node] = Member(node, address, total, labels, dict(total))
            self._notify(now)

    def on_node_down(self, peer: Peer, now: float, epoch: int, node: bytes, reason: str) -> None:
        self._check_head(peer)
        self.epoch = max(self.epoch, epoch)
        self.declared.pop(node, None)  # it is known to all now
        if node not in self.dead:
            self._died(node, reason, now)
            self._notify(now)

    def _died(self, id: bytes, reason: str, now: float) -> None:
        self.dead.add(id)
        member = self.view.pop(id, None)
        if member is not None and not member.retiring:
            self.fallen.append((now, member))
        self.suspects.open.pop(id, None)
        for call in self.on_node_down_calls:
            call(id, reason, now)

    def on_gossip(self, peer: Peer, now: float, nodes: list[list[Any]]) -> None:
        self._check_head(peer)
        for id, free, waiting, retiring, total in nodes:
            member = self.view.get(id)
            if member is None:
                continue
            if total:
                member.total = total
            member.retiring = retiring
            if member is not self.me:  # of itself the node knows better
                member.free, member.waiting = free, waiting
        self._notify(now)

    def _notify(self, now: float) -> None:
        for call in self.on_change_calls:
            call(now)

    def on_retire(self, peer: Peer, now: float, node: bytes) -> None:
        self._check_head(peer)
        if node == self.machine.id and not self.me.retiring:
            self.me.retiring = True
            for call in self.on_retire_calls:
                call(now)

    def leave(self) -> None:
        """The node has drained: it asks to be let go, and is when REFUSED comes."""
        if self.head is not None:
            self.machine.send(self.head, m.LEAVE)

    # -- reports ----------------------------------------------------------------------------------
    def report(self, free: Resources, waiting: int, now: float) -> None:
        """Say what is free; the head is told at once, or as soon as it may be again."""
        me = self.me
        if me.free != free or me.waiting != waiting:
            me.free, me.waiting = dict(free), waiting
            self._changed = True
        if self._changed and now >= self._reported + self.report_s:
            self._report(now)

    @property
    def _report_at(self) -> float:
        return self._reported + (self.report_s if self._changed else self.heartbeat_s)

    def _report(self, now: float) -> None:
        if self.joined and self.head is not None:
            self.machine.send(self.head, m.REPORT, self.me.free, self.me.waiting)
            self._changed = False
            self._reported = now

    # -- without a head ---------------------------------------------------------------------------
    def _declare(self, id: bytes, reason: str, now: float) -> None:
        self.declared[id] = reason
        self._died(id, reason, now)
        self._notify(now)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """The next REPORT, dialling or death."""
        due = self.suspects.deadline()
        return min(due, self._report_at) if self.joined else due

    def on_timer(self, now: float) -> None:
        """Report; see to those that cannot be reached."""
        if self.joined and now >= self._report_at:
            self._report(now)
        self.suspects.on_timer(now)

    def snapshot(self) -> dict[str, Any]:
        """Counts, for people."""
        return {
            "head": self.joined,
            "epoch": self.epoch,
            "nodes": len(self.view),
            "dead": len(self.dead),
            "questions": len(self.relay.questions),
            "suspects": len(self.suspects.open),
        }

    def check(self) -> None:
        """Nobody is both dead and a member."""
        assert not any(id in self.dead for id in self.view)
        self.suspects.check()
        assert all(id in self.dead for id in self.declared)
        assert not self.joined or self.head is not None
        assert self.view.get(self.machine.id, self.me) is self.me
