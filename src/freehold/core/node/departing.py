"""The node's part of copies that are kept, and how it leaves the cluster when it has drained.

A node that drains (RETIRE) asks for its leases back: running tasks finish, actors that may restart
do so elsewhere, and other actors keep the node as long as they live.  When nothing runs here any
more, and no driver is left that reads in place, the owner of each object is told (DEPART): it has
the object kept by another node and frees it here (``process.keeping``).  Idle workers end
(DISMISS), unless others need what they own, or tasks and actors live by them.  With the last object
and the last worker the node goes.  What this node itself owns in the stead of the dead, and nobody
could adopt after it, is waited for as well.

A copy that is kept is one that a process of this node's own (``KEEPER``) has pinned; it goes when
its owner frees it.
"""

from __future__ import annotations

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.machine import Machine, Peer
from freehold.core.messages import SHARED
from freehold.core.node.copies import KEEPER
from freehold.core.node.grants import ENDING, IDLE
from freehold.core.node.members import Members
from freehold.core.node.neighbours import Neighbours
from freehold.core.node.pulls import ARGUMENT, Pulls
from freehold.core.node.store import Store
from freehold.core.node.workers import Workers
from freehold.core.places import Place

LEAVING = "its node leaves"  # why a worker has ended
NOBODY = "no other node can keep a copy"
AGAIN = 1.0  # seconds between two DEPARTs of one object


class Departing:
    """What one node keeps for others, and what it has others keep."""

    def __init__(
        self,
        machine: Machine,
        workers: Workers,
        store: Store,
        pulls: Pulls,
        members: Members,
        neighbours: Neighbours,
    ) -> None:
        self.machine = machine
        self.workers = workers
        self.store = store
        self.pulls = pulls
        self.members = members
        self.neighbours = neighbours
        self.keeper = Peer(KEEPER, "", "keeper")  # which asks for the copies
        pulls.kept = self.on_kept
        self.waiting: dict[tuple[bytes, bytes, int], Peer] = {}  # RefId, source -> owner
        self.told: dict[tuple[bytes, bytes], float] = {}  # RefId, owner -> when DEPART was sent
        self._turn = 0
        machine.on(
            {
                m.COPY: self.on_copy,
                m.KEEP: self.on_keep,
                m.DEPART: self.on_depart,
            }
        )

    # -- keeping ----------------------------------------------------------------------------------
    def on_copy(self, peer: Peer, now: float, id: bytes, place: Place, others: list[bytes]) -> None:
        node = self._choose(others)
        if not node:
            self.machine.send(peer, m.KEPT, id, b"", [], NOBODY)
        elif node == self.machine.id:
            self.on_keep(peer, now, id, place, peer.id, peer.address)
        else:
            target = self.neighbours.node(node)
            assert target is not None
            self.neighbours.meets(peer.id, node)  # of which the owner does not know yet
            self.machine.send(target, m.KEEP, id, place, peer.id, peer.address)

    def _choose(self, others: list[bytes]) -> bytes:
        """A node that is none of these, and stays; in turn, those that run tasks before others."""
        view = self.members.view.values()
        fit = [node for node in view if node.id not in others and not node.retiring]
        fit = [node for node in fit if node.id == self.machine.id or self.neighbours.node(node.id)]
        best = [node for node in fit if node.total.get("CPU", 0.0) > 0] or fit
        self._turn += 1
        return best[self._turn % len(best)].id if best else b""

    def on_keep(
        self, peer: Peer, now: float, id: bytes, place: Place, owner: bytes, address: str
    ) -> None:
        home = node_of(address)
        if {owner, home} & self.store.gone:
            return
        self.neighbours.watch(home)  # to hear of the owner's death
        whose = peer if peer.id == owner else self.machine.peer(owner, address)
        self.waiting[id, place[0], place[1]] = whose
        self.pulls.on_fetch(self.keeper, now, id, place, owner, address, ARGUMENT)

    def on_kept(self, id: bytes, source: Place, place: Place, reason: str) -> None:
        """The copy has come, or cannot: tell the owner."""
        owner = self.waiting.pop((id, source[0], source[1]), None)
        if owner is not None and not owner.down:
            self.machine.send(owner, m.KEPT, id, self.machine.id, place, reason)

    # -- leaving ----------------------------------------------------------------------------------
    def _reclaim(self) -> None:
        """Ask for all leases back."""
        for lease in self.workers.leases.values():
            if not lease.reclaimed:
                lease.reclaimed = True
                self.machine.send(lease.holder, m.RECLAIM, lease.id)

    def on_depart(self, peer: Peer, now: float, owner: bytes, id: bytes, place: Place) -> None:
        """For a process of this node."""
        process = self.machine.peers.get(owner)
        if process is not None:
            self.machine.send(process, m.DEPART, owner, id, place)

    def settle(self, now: float) -> None:
        """On the way out, have moved what is here."""
        if not self.members.me.retiring:
            return
        self._reclaim()
        self.workers.prestart = self.workers.spares = 0
        if self._is_quiet():
            self._dismiss(now)
            for stored in list(self.store.objects.values()):
                if stored.home != self.machine.id:
                    home = self.neighbours.node(stored.home)
                    self._tell(home, now, stored.owner, stored.id, stored.place)
            for copy in list(self.pulls.copies.pinned.get(KEEPER, ())):
                peer = self.machine.peer(copy.owner, copy.address)
                self._tell(peer, now, copy.owner, copy.id, self.pulls.copies.place(copy))

    def _dismiss(self, now: float) -> None:
        """Have idle workers end, and ask those again that stay."""
        for worker in self.workers.workers.values():
            if worker.phase != IDLE or worker.peer is None:
                continue
            key = (b"", worker.peer.id)
            if now >= self.told.get(key, -AGAIN) + AGAIN:
                self.told[key] = now
                worker.phase, worker.why = ENDING, LEAVING
                self.machine.send(worker.peer, m.DISMISS)

    def _tell(self, peer: Peer | None, now: float, owner: bytes, id: bytes, place: Place) -> None:
        """Tell the owner, and again if it did not know of the object yet, or had nowhere to go."""
        if peer is not None and now >= self.told.get((id, owner), -AGAIN) + AGAIN:
            self.told[id, owner] = now
            self.machine.send(peer, m.DEPART, owner, id, place)

    def _is_quiet(self) -> bool:
        """Whether nobody reads in place what is here."""
        drivers = any(process.kind == "driver" for process in self.neighbours.processes())
        return not self.workers.leases and not drivers

    @property
    def departed(self) -> bool:
        """Whether nothing keeps this node any more, now that it drains."""
        if not self._is_quiet() or self.workers.workers or self.store.objects:
            return False
        if self.pulls.copies.pinned.get(KEEPER) or self.neighbours.estates.open:
            return False
        return not any(
            entry.tickets and entry.state != SHARED
            for entry in self.neighbours.estates.adopted.values()
        )
