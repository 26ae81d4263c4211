"""The head's machine: the authority on nodes, and the cluster's directory.

It joins the parts: the roll of the nodes, the directory of names and jobs, placement groups,
detached actors, and the tables in the store that all of them write to.  It is on the path of no
task and no object; while it is away, joins, new names, new groups, new jobs, and the making of
detached actors wait, and nothing else does.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.gossip import Gossip
from freehold.core.head.detached import Detached
from freehold.core.head.directory import JOB, NAME, Answer, Directory
from freehold.core.head.groups import PREFIX as GROUP
from freehold.core.head.groups import Groups
from freehold.core.head.roll import Roll
from freehold.core.head.tables import HEAD, Tables
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.member import PHASES, Standing


class Head(Machine):
    """The machine of the head.

    Args:
        id: its process id.
        entries: what the store holds: key, value, revision.
        cluster: the store's name for the cluster, which nodes compare with what they know.
        unreachable_s: seconds of silence after which a node is dead.
        gossip_s: seconds between two GOSSIPs.
        dead_max: dead identities that are remembered; the oldest are forgotten.
    """

    def __init__(
        self,
        id: bytes,
        *,
        entries: list[tuple[bytes, bytes, int]],
        cluster: str = "",
        unreachable_s: float = 2.0,
        gossip_s: float = 0.1,
        dead_max: int = 100_000,
    ) -> None:
        super().__init__(id, m.OPCODES)
        self.cluster = cluster
        self.store = Peer(b"", "", "store")
        revisions = [revision for key, _, revision in entries if key == HEAD]
        self.tables = Tables(self, self.store, revisions[0] if revisions else 0)
        self.nodes: dict[bytes, Standing] = {}
        self.gossip = Gossip(self, self.nodes, gossip_s)
        self.groups = Groups(self, self.tables, self.nodes, self.gossip)
        self.directory = Directory(self, self.tables, self.groups)
        self.roll = Roll(
            self,
            self.tables,
            self.groups,
            self.directory,
            unreachable_s=unreachable_s,
            dead_max=dead_max,
        )
        self.detached = Detached(self, self.tables, self.nodes, self.groups, self.directory)
        self.roll.detached = self.detached
        self.prober = self.roll.prober
        self.directory.verbs["nodes"] = self._describe_nodes
        self.directory.verbs["retire"] = self.roll.retire
        self._recover(entries)

    @property
    def info(self) -> dict[str, Any]:
        """What a node learns from the head's HELLO."""
        return {"cluster": self.cluster}

    @property
    def fenced(self) -> bool:
        """Whether another head has taken the store: this one must end."""
        return self.tables.fenced

    def _recover(self, entries: list[tuple[bytes, bytes, int]]) -> None:
        self.roll.recover(entries)
        for key, value, _ in entries:
            if key.startswith((NAME, JOB)):
                self.directory.recover(key, value)
            elif key.startswith(GROUP):
                self.groups.recover(key.removeprefix(GROUP), value)
        self.detached.recover(entries)

    def start(self, now: float) -> None:
        """Begin: take the store, and wait for the members that it names."""
        self.tables.claim()
        self.roll.start(now)
        self.directory.start(now)
        self.detached.start(now)

    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        if peer.kind == "node" and not self.fenced:
            self.roll.join(peer, now, info)

    def on_down(self, peer: Peer, now: float) -> None:
        peer.down = True
        peer.outbox.clear()
        if self.peers.get(peer.id) is peer:
            del self.peers[peer.id]
        self.groups.forget(peer)
        self.detached.forget(peer)
        self.roll.on_down(peer, now)

    # -- time -------------------------------------------------------------------------------------
    def settle(self, now: float) -> None:
        if not self.fenced:
            self.groups.settle(now)
            self.gossip.settle(now)

    def deadline(self) -> float:
        if self.fenced:
            return NEVER
        due = min(self.gossip.due, self.detached.due)
        return min(self.roll.deadline(), self.groups.deadline(), due)

    def on_timer(self, now: float) -> None:
        if not self.fenced:
            self.roll.on_timer(now)
            self.gossip.on_timer(now)
            self.groups.on_timer(now)
            self.detached.on_timer(now)
            self.settle(now)

    # -- people -----------------------------------------------------------------------------------
    def _describe_nodes(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        rows = [
            {
                "node": node.id,
                "address": node.address,
                "state": "retiring" if node.retiring else PHASES[node.phase],
                "connected": node.peer is not None,
                "silent": now - node.seen,
                "total": node.total,
                "free": node.free,
                "waiting": node.waiting,
                "labels": node.labels,
            }
            for node in self.roll.nodes.values()
        ]
        return [], {"epoch": self.roll.told, "nodes": rows, "dead": len(self.roll.dead)}

    def snapshot(self) -> dict[str, Any]:
        return {
            "head": self.id.hex(),
            "epoch": self.roll.epoch,
            "nodes": {node.id.hex(): PHASES[node.phase] for node in self.roll.nodes.values()},
            "dead": len(self.roll.dead),
            "names": sum(len(names) for names in self.directory.names.values()),
            "jobs": sum(job.alive for job in self.directory.jobs.values()),
            "groups": {group.id.hex(): group.state for group in self.groups.groups.values()},
            "detached": len(self.detached.actors),
            "unwritten": self.tables.written - self.tables.durable,
        }

    def check(self) -> None:
        self.roll.check()
        self.tables.check()
        self.groups.check()
        self.directory.check()
        self.detached.check()
