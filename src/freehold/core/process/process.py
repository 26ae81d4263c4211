"""A process of the system, driver or worker: owner, client, heap and (in a worker) executor in one.

This file joins the parts and speaks with the node daemon about everything that is not a task: arena
extents, deaths, the counts of its tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.arena import Heap
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED, PENDING, SHARED, STATES
from freehold.core.process.claims import Claims
from freehold.core.process.client import Client
from freehold.core.process.embodying import Embodying
from freehold.core.process.executor import Executor
from freehold.core.process.fetches import Fetches
from freehold.core.process.heirs import ask_heir, bequest, by_owner
from freehold.core.process.keeping import Keeping
from freehold.core.process.leases import Limits
from freehold.core.process.owner import Owner
from freehold.core.process.questions import Questions
from freehold.core.process.rows import BROKEN, Lease, Row
from freehold.core.process.shares import Share, entrusted, last_heir

HEAP_RESERVE = 256 * 1024 * 1024  # bytes of empty extents that a process keeps warm for itself


class Process(Machine):
    """The machine of a driver or a worker."""

    def __init__(
        self,
        id: bytes,
        address: str,
        *,
        limits: Limits | None = None,
        heap_reserve: int = HEAP_RESERVE,
    ) -> None:
        super().__init__(id, m.OPCODES)
        self.owner = Owner(self, address)
        self.owner.heed = self.heed
        self.client = Client(self, self.owner, limits or Limits())
        self.executor = Executor(self, self.owner)
        self.fetches = Fetches(self, self.owner, self.executor)
        self.questions = Questions(self, self.owner, self.client.leases.requests)
        self.keeping = Keeping(self, self.owner)
        self.embodying = Embodying(self, self.owner, self.client)
        savepoints = self.client.lineage.savepoints
        savepoints.copy, savepoints.forget = self.keeping.want, self.keeping.forget
        self.keeping.settled = savepoints.settled
        self.claims = Claims(self, self.owner)
        self.heap = Heap(heap_reserve)
        self.node_info: dict[str, Any] = {}
        self.extents: dict[int, str | None] = {}  # request -> None while pending, "" or a refusal
        self.home = b""  # the id of its node
        self.exiting = False
        self.hired = False  # whether it is known for which job this process works, if for one
        self.watched: set[bytes] = set()  # nodes of whose deaths this process is told
        self.dead_nodes: dict[bytes, Peer] = {}  # -> who owns in their processes' stead
        self.died_on: dict[bytes, bytes] = {}  # processes -> the node with which they died
        self._requests = 0
        self.trims: list[int] = []  # rounds in which the node has asked for the heap's reserve
        self.on(
            {
                m.EXTENT_GRANT: self.on_extent_grant,
                m.FREED: self.on_freed,
                m.TRIM: self.on_trim,
                m.PROC_DOWN: self.on_proc_down,
                m.NODE_LOST: self.on_node_lost,
                m.STATUS: self.on_status,
                m.EXIT: self.on_exit,
                m.DISMISS: self.on_dismiss,
                m.CLUSTER: self.on_cluster,
            }
        )

    # -- the host's calls -------------------------------------------------------------------------
    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        if self.silent or peer.id in self.owner.dead or node_of(peer.address) in self.dead_nodes:
            peer.down = True  # its hello has been overtaken by the news of its death
        elif peer.kind != "node":
            self._work_for(info)
        elif self.owner.node is None:
            self.owner.node = peer
            self.home = self.fetches.home = peer.id
            self.node_info = info
            cpus = float(info.get("cpus", 1.0))
            self.client.leases.cpus, self.client.leases.home = cpus, (peer.id, cpus)
            self.client.lineage.active = bool(info.get("standing", False))

    def _work_for(self, info: dict[str, Any]) -> None:
        """A worker's job is that of who leases it: the first process that it meets.

        Whom it meets later may work for another, as a detached actor does that it calls.
        """
        requests = self.client.leases.requests
        if not (self.hired or requests.job):
            requests.job = info.get("job", [])  # none in an embedded session
        self.hired = True

    def on_down(self, peer: Peer, now: float) -> None:
        """A connection is cut.  Only the node says who is dead; until then, nothing is decided."""
        node = self.owner.node
        if peer.kind == "node" and node is not None and peer is not node:
            return  # another node: whether it is dead is for the head to say
        if peer is node or peer.kind == "node":  # perhaps before it ever said hello
            self.client.deaths.node_died()
            self.fall_silent()  # what a lone process says would be wrong
            peer.down = True  # it may have had no id yet
            peer.outbox.clear()
        elif not peer.down and node is not None:
            if isinstance(peer.lease, Lease):
                peer.lease.shut |= BROKEN
            where = node_of(peer.address)
            self.send(node, m.KILL, peer.id, where, "its connection was lost", True)
            peer.down = True  # what was under way may be lost, so it is not mended: one will end

    def deadline(self) -> float:
        client = self.client
        first = min(client.leases.deadline(), client.deaths.rests.deadline())
        return min(first, self.fetches.until, self.claims.deadline())

    def on_timer(self, now: float) -> None:
        if self.owner.node is not None and not self.owner.node.down:
            self.client.leases.on_timer(now)
            self.claims.on_timer(now)
            self.client.deaths.on_timer(now)
            if now >= self.fetches.until:
                self.fetches.give_back()

    def settle(self, now: float) -> None:
        owner = self.owner
        if self.embodying.me is not None:
            self.embodying.settle(now)
        if owner.ready or owner.moved or owner.ended:
            self.client.advance(now)
            if self.embodying.me is not None:
                self.embodying.settle(now)
        orphans = self.client.orphans
        if orphans.wanted or orphans.due:
            orphans.settle()
        if owner.freed:
            self._release_memory()
        if self.trims:
            self._trim()
        if owner.unpinned:
            self.fetches.release()

    def on_cluster(self, peer: Peer, now: float, total: dict[str, float], nodes: int) -> None:
        self.client.leases.on_cluster(peer, now, total, nodes)
        self.client.lineage.savepoints.alone = nodes < 2
        self.keeping.retry()

    # -- memory -----------------------------------------------------------------------------------
    def request_extent(self, size: int, least: bool = False) -> int:
        """Ask for arena space for an object of ``size`` bytes; see ``extents`` for the answer.

        With ``least`` there was no room for more than the object needs.
        """
        assert self.owner.node is not None
        self._requests += 1
        self.extents[self._requests] = None
        wanted = self.heap.least_size(size) if least else self.heap.request_size(size)
        self.send(self.owner.node, m.EXTENT, self._requests, wanted)
        return self._requests

    def on_extent_grant(
        self, peer: Peer, now: float, request: int, offset: int, size: int, warm: bool, reason: str
    ) -> None:
        if size:
            self.heap.add(offset, size, warm)
        self.extents[request] = "" if size else reason

    def seal(
        self, id: bytes, owner: bytes, offset: int, size: int, inside: Sequence[Row] = ()
    ) -> list[Any]:
        """An object is complete in this process's heap, for another if need be; its place.

        ``inside`` are the references in it, so that nobody needs to unpickle it to know them.
        """
        node = self.owner.node
        assert node is not None
        whose = self.peers.get(owner)
        home = self.died_on.get(owner, b"") if whose is None else node_of(whose.address)
        names = by_owner(self.owner, inside) if inside else []
        self.send(node, m.SEAL, id, owner, home, offset, size, names)
        self.flush_first(node)  # a crash amid the flush must not leave a place, but no object
        return [self.id, offset, size, node.id]

    def _release_memory(self) -> None:
        freed, self.owner.freed = self.owner.freed, []
        if self.client.lost:
            return  # others may still read it; it goes with this process
        objects, mine = [], []
        for id, (holder, offset, _, node) in freed:
            objects.append([id, holder, node])
            if holder == self.id:
                mine.append(offset)
            self.keeping.forget(id)
        if self.owner.node is not None:
            self.on_freed(self.owner.node, self.now, mine)
            self.send(self.owner.node, m.FREE, objects)

    def on_freed(self, peer: Peer, now: float, offsets: list[int]) -> None:
        for offset in offsets:
            for extent in self.heap.free(offset):
                self.send(peer, m.EXTENT_BACK, extent)

    def on_trim(self, peer: Peer, now: float, round: int) -> None:
        self.trims.append(round)  # to be answered when all is released that is no longer held

    def _trim(self) -> None:
        rounds, self.trims = self.trims, []
        node = self.owner.node
        assert node is not None
        for extent in self.heap.trim(0):
            self.send(node, m.EXTENT_BACK, extent)
        for round in rounds:
            self.send(node, m.TRIMMED, round)

    # -- deaths -----------------------------------------------------------------------------------
    def on_proc_down(
        self,
        peer: Peer,
        now: float,
        proc: bytes,
        reason: str,
        started: bytes,
        orphans: bool,
        adopter: list[Any],
    ) -> None:
        dead = self.peer(proc)
        if dead.down and proc in self.owner.dead:  # this process knows, and has said what it had to
            if orphans:
                self.send(peer, m.HELD, proc, [], [], [], [])
            return
        dead.down = True
        heir = last_heir(self.peer(*adopter) if adopter else peer, self.dead_nodes)
        again = self.client.orphans.revivable(dead)
        contexts = self.client.orphans.contexts(dead)
        share = Share(self.owner, heir, orphans, self.client.leases.requests.driver)
        self.claims.giver_died(proc)  # before the heir is lent what the dead one held itself
        share.of_process(dead, entrusted(dead))
        share.send(peer, proc, again, contexts, self.home)
        ask_heir(self.owner, heir)
        self.executor.on_death(dead)
        self.client.deaths.on_death(dead, now, reason, started)
        del self.peers[proc]

    def on_node_lost(
        self, peer: Peer, now: float, node: bytes, reason: str, orphans: bool, adopter: list[Any]
    ) -> None:
        """Another node is dead, with all its processes and what lay there."""
        heir = last_heir(self.peer(*adopter) if adopter else peer, self.dead_nodes)
        for past in [past for past, whose in self.dead_nodes.items() if whose.id == node]:
            self.dead_nodes[past] = heir
        self.dead_nodes[node] = heir
        self.client.lineage.node_died(node)
        share = Share(self.owner, heir, orphans, self.client.leases.requests.driver)
        share.of_borrowers(node)
        self.keeping.retry()
        gone = [other for other in self.peers.values() if node_of(other.address) == node]
        again: set[bytes] = set()
        contexts: list[bytes] = []
        for other in gone:
            other.down = True
            other.outbox.clear()
            again |= self.client.orphans.revivable(other)
            contexts += self.client.orphans.contexts(other)
            self.claims.giver_died(other.id)
            share.of_process(other, entrusted(other))
        share.send(peer, node, again, contexts, self.home)
        ask_heir(self.owner, heir)
        for other in gone:
            self.executor.on_death(other)
            self.client.deaths.on_death(other, now, reason, None)
            if other.id == node:
                self.client.leases.requests.node_died(other)
            self.died_on[other.id] = node
            del self.peers[other.id]

    def peer(self, id: bytes, address: str = "") -> Peer:
        known = self.peers.get(id)
        if known is not None and (known.address or not address):
            return known
        made = super().peer(id, address)
        if id in self.owner.dead:  # the news of its death has overtaken what names it
            made.down = True
            del self.peers[id]
        elif not self.heed(node_of(made.address)):
            made.down = True
            self.owner.on_death(made, self.dead_nodes[node_of(made.address)])
        return made

    def heed(self, where: bytes) -> bool:
        """Hear of deaths on that node; False if it is dead itself.

        This tells the node, too, whom to ask when this process dies (``node.neighbours``), before
        anybody there gets anything from it.
        """
        node = self.owner.node
        if where in self.dead_nodes:
            return False
        if where and node is not None and where != node.id and where not in self.watched:
            self.watched.add(where)
            self.send(node, m.WATCH, where)
            self.flush_first(node)
        return True

    def bequeath(self) -> None:
        """This process ends in good order: leave to the node what others hold of it."""
        node = self.owner.node
        if node is not None and not self.client.lost and not node.down:
            rows = bequest(self.owner)
            if rows:
                self.send(node, m.BEQUEST, rows)

    def on_exit(self, peer: Peer, now: float, idle: bool) -> None:
        if idle and (self.owner.rows or self.executor.queue):
            self.send(peer, m.STAY)
        else:
            self.exiting = True

    def on_dismiss(self, peer: Peer, now: float) -> None:
        owner = self.owner
        handing = [row for row in owner.rows.values() if row.holds and owner.is_uncertain(row)]
        if handing or self.executor.queue or any(map(_is_needed, owner.rows.values())):
            self.send(peer, m.STAY)
        else:
            self.exiting = True

    # -- people -----------------------------------------------------------------------------------
    def on_status(self, peer: Peer, now: float, request: int) -> None:
        self.send(peer, m.STATUS_REPLY, request, self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """Counts of this process's tables."""
        states = dict.fromkeys(STATES, 0)
        borrowed = shared_bytes = 0
        for row in self.owner.rows.values():
            if row.owner is None:
                states[STATES[row.state]] += 1
            else:
                borrowed += 1
            if row.state == SHARED:
                shared_bytes += row.data[2]
        pools = self.client.leases.pools.values()
        return {
            "owned": sum(states.values()),
            "borrowed": borrowed,
            "pending": states[STATES[PENDING]],
            "failed": states[STATES[FAILED]],
            "shared": states[STATES[SHARED]],
            "shared_bytes": shared_bytes,
            "queued": sum(len(pool.queue) for pool in pools) + len(self.client.deaths.rests.tasks),
            "leases": sum(len(pool.leases) for pool in pools),
            "inflight": sum(len(lease.inflight) for pool in pools for lease in pool.leases),
            "actors": len(self.client.actors.lines),
            "to_run": len(self.executor.queue),
            "retried": self.client.deaths.retried,
            "heap_used": self.heap.used,
            "heap_empty": self.heap.empty,
        }

    def check(self) -> None:
        self.owner.check()
        self.heap.check()


def _is_needed(row: Row) -> bool:
    """Whether others need an own row of this process, or an actor or a task that lives by it."""
    if row.owner is not None:
        return False
    more = row.more
    return row.task is not None or (more is not None and bool(more.tickets or more.actor))
