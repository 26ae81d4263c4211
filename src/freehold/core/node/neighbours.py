"""What a node does about other nodes' processes: deaths are passed on, and some messages are.

A node that has to do with processes elsewhere watches their nodes (WATCH), and hears from each who
has died there, past and future (PROC_DOWN); it tells its own processes.  What a process has to say
to another node about an object or a process goes by way of its own node (FREE, KILL), so that
processes need no connections to nodes, but for those that grant them leases.

Who is told of a death is one question, who is *asked* what it holds of the dead is another: a node
whose WATCH is still on its way, over a link that is only being made, may hold or store something.
But whatever a process has elsewhere it has through somebody of whom it knows, and it has its own
node watch that one's node *before* it gives anything to it or confirms anything (``Process.heed``).
So a node knows the *contacts* of each of its processes without asking, and when one dies, asks all
of them, whether they watch or not.  Decision 016 says why these are all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.machine import Machine, Peer
from freehold.core.member import Member, Resources
from freehold.core.node.estates import Estates, adopter_of
from freehold.core.node.pulls import Pulls
from freehold.core.node.scheduler import Scheduler
from freehold.core.node.store import Store
from freehold.core.node.strangers import Strangers

DEATHS_MAX = 10_000  # remembered of each node, for those who come to watch it later


class Neighbours:
    """The part of a node's machine that deals with other nodes about processes and objects."""

    def __init__(
        self,
        machine: Machine,
        store: Store,
        estates: Estates,
        pulls: Pulls,
        scheduler: Scheduler,
        processes: Callable[[], list[Peer]],
    ) -> None:
        self.machine = machine
        self.store = store
        self.estates = estates
        self.pulls = pulls
        self.scheduler = scheduler
        self.processes = processes  # of this node
        self.standing = False  # others may come, and ask who has died here; set by the node
        self.cluster: tuple[Resources, int] = ({}, 0)  # as the processes were told
        self.watchers: dict[bytes, Peer] = {}  # nodes that are told of deaths here
        # process of this node -> nodes that it has had to do with
        self.contacts: dict[bytes, dict[bytes, None]] = {}
        self.deaths: list[tuple[Any, ...]] = []  # PROC_DOWN of this node's dead
        self.watching: dict[bytes, list[tuple[Any, ...]]] = {}  # node -> PROC_DOWN of its dead
        self.unsent: dict[bytes, list[tuple[Any, ...]]] = {}  # to nodes that are not known yet
        self.nodes: dict[bytes, str] = {}  # living nodes -> where they are dialled
        self.lost: dict[bytes, tuple[str, list[Any]]] = {}  # dead nodes -> why, and who adopts
        self.late_news: Callable[[bytes, Peer | None], None]  # of a death, and the heir
        self.claimed: Callable[..., None]  # by an owner: tickets in the name of this node
        scheduler.heed = self.heed
        pulls.address_of = lambda node: self.nodes.get(node, "")
        self.strangers = Strangers(machine, pulls, self.is_unknown)
        estates.watch, estates.tell, estates.claim = self.watch, self.tell, self.claim
        machine.on(
            {
                m.WATCH: self.on_watch,
                m.PROC_DOWN: self.on_proc_down,
                m.CLAIM: self.on_claim,
                m.FREE: self.on_free,
                m.FREE_FOR: self.on_free_for,
            }
        )

    def node(self, id: bytes) -> Peer | None:
        """The peer that is that living node."""
        address = self.nodes.get(id)
        if address is None or id == self.machine.id:
            return None
        peer = self.machine.peer(id, address)
        peer.kind = "node"
        return peer

    def heir_of(self, node: bytes) -> Peer | None:
        """Who owns in the stead of a dead node's processes; None: this node."""
        heir = self.lost[node][1] if node in self.lost else []
        return self.machine.peer(*heir) if heir else None

    def is_unknown(self, node: bytes) -> bool:
        """Whether the head has yet to tell of that node."""
        return node != self.machine.id and node not in self.nodes and node not in self.lost

    # -- watching ---------------------------------------------------------------------------------
    def on_watch(self, peer: Peer, now: float, node: bytes) -> None:
        if peer.kind == "node":
            self.watchers[peer.id] = peer
            for frame in [*self.unsent.pop(peer.id, ()), *self.deaths]:  # first, what it is asked
                self.machine.send(peer, *frame)
            return
        self.meets(peer.id, node)
        if node in self.lost:
            reason, adopter = self.lost[node]
            self.machine.send(peer, m.NODE_LOST, node, reason, False, adopter)
        elif not self.watch(node):
            for frame in self.watching.get(node, ()):
                self.machine.send(peer, *frame)

    def meets(self, process: bytes, node: bytes) -> None:
        """A process of this node may have something on that node from now on."""
        if node != self.machine.id and node not in self.lost:
            self.contacts.setdefault(process, {})[node] = None

    def heed(self, holder: Peer) -> bool:
        """A process asks for a lease: hear of its death; False if it is dead already."""
        node = node_of(holder.address)
        self.watch(node)
        return not {holder.id, node} & self.store.gone

    def watch(self, node: bytes) -> bool:
        """Watch that node; False if this is so already, or it is not known (yet)."""
        if not node or node in self.watching or node == self.machine.id:
            return False
        peer = self.node(node)
        if peer is None:
            self.strangers.seek(node)  # the news of it is still to come
            return False
        self.watching[node] = []
        self.machine.send(peer, m.WATCH, node)
        return True

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
        """A process of the node that the peer is has died.

        That node may ask what is here of the dead before this one has come to watch it.
        """
        known = proc in self.store.gone or peer.id in self.lost
        if known or not (orphans or peer.id in self.watching):
            return
        self.watch(peer.id)
        heard = self.watching.get(peer.id, [])
        heir = [peer.id, self.nodes.get(peer.id, peer.address)]
        frame = (m.PROC_DOWN, proc, reason, started, orphans, heir)
        heard.append((m.PROC_DOWN, proc, reason, started, False, heir))
        del heard[:-DEATHS_MAX]
        living = self.processes()
        for process in living:
            self.machine.send(process, *frame)
        gone = self.machine.peers.pop(proc, None)
        self.store.on_death(proc)
        self.estates.on_death(proc)
        self.pulls.on_death(proc)
        self.scheduler.on_death(proc, now)
        if gone is not None:
            gone.down = True
            self.scheduler.forget_holder(gone, now)
        if orphans:
            self.estates.begin(proc, {process.id for process in living}, set(), peer)
        else:  # it died before this node watched: the adopter never heard of what is stored here
            self.late_news(proc, peer)
            self.estates.forget(proc)

    def died(self, proc: bytes, reason: str, started: bytes, now: float) -> None:
        """A process of this node has died: tell everybody, and collect its estate."""
        living = self.processes()
        self.store.on_death(proc)
        self.estates.on_death(proc)
        self.pulls.on_death(proc)
        self.scheduler.on_death(proc, now)
        met = self.contacts.pop(proc, {})
        others = [node for node in met if node not in self.watchers]
        asked = {*self.watchers, *others}
        self.estates.begin(proc, {process.id for process in living}, asked)
        for peer in (*living, *self.watchers.values()):
            self.machine.send(peer, m.PROC_DOWN, proc, reason, started, True, [])
        for node in others:
            self.tell(node, m.PROC_DOWN, proc, reason, started, True, [])
        if self.standing:
            self.deaths.append((m.PROC_DOWN, proc, reason, started, False, []))
            del self.deaths[:-DEATHS_MAX]

    # -- nodes ------------------------------------------------------------------------------------
    def on_change(self, view: dict[bytes, Member], holders: list[Peer], now: float) -> None:
        """The view of the cluster has changed: who has come, who has gone, what all have."""
        for id, member in view.items():
            if id != self.machine.id and id not in self.nodes:
                self.node_up(id, member.address, holders)
        for id in [id for id in self.nodes if id not in view]:
            self.node_down(id, "it has left the cluster", now)
        self.strangers.retry(now)
        total: Resources = {}
        for member in view.values():
            for name, amount in member.total.items():
                if "/" not in name:
                    total[name] = total.get(name, 0.0) + amount
        if (total, len(view)) != self.cluster:
            self.cluster = (total, len(view))
            for process in self.processes():
                self.machine.send(process, m.CLUSTER, *self.cluster)

    def welcome(self, process: Peer) -> None:
        """Tell a process of this node that has just come what the others know."""
        if self.cluster[1]:
            self.machine.send(process, m.CLUSTER, *self.cluster)
        open = [
            dead
            for dead, estate in self.estates.open.items()
            if estate.adopter is None and dead not in self.lost
        ]
        for owner in [*self.estates.owners(), *open]:  # it may yet be handed what was theirs
            self.machine.send(process, m.PROC_DOWN, owner, "it had died before", b"", False, [])

    def node_up(self, node: bytes, address: str, holders: Iterable[Peer]) -> None:
        """A node is a member of the cluster; watch it if its processes hold leases here."""
        self.nodes[node] = address
        wanted = self.strangers.sought.pop(node, None)
        if wanted is not None or any(node_of(holder.address) == node for holder in holders):
            self.watch(node)
        for frame in self.unsent.pop(node, ()):
            self.tell(node, *frame)

    def node_down(self, node: bytes, reason: str, now: float, fresh: bool = True) -> None:
        """A node is dead: tell this node's processes, and collect its processes' estates.

        If it is not ``fresh``, it died before this node came: that was done without it.
        """
        self.nodes.pop(node, None)
        self.watchers.pop(node, None)
        self.watching.pop(node, None)
        self.unsent.pop(node, None)
        for met in self.contacts.values():
            met.pop(node, None)
        heir = adopter_of(node, [*self.nodes, self.machine.id])
        mine = heir == self.machine.id
        adopter = [] if mine else [heir, self.nodes[heir]]
        self.lost[node] = (reason, adopter)
        gone = [peer for peer in self.machine.peers.values() if node_of(peer.address) == node]
        procs = [*(peer.id for peer in gone), *self.estates.revivals.living_on(node)]
        self.store.gone.add(node)
        for proc in procs:  # also those that this node has only heard of
            if proc != node:
                self.store.on_death(proc)
        for peer in gone:
            peer.down = True
            self.machine.peers.pop(peer.id, None)
            if peer.id != node:
                self.estates.on_death(peer.id)
                self.scheduler.forget_holder(peer, now)
        self.estates.on_node_death(node)
        living = self.processes()
        for process in living:
            self.machine.send(process, m.NODE_LOST, node, reason, fresh, adopter)
        others = set(self.nodes) - {self.machine.id} if mine else set[bytes]()
        asked = {process.id for process in living}
        if fresh:
            self.estates.begin(node, asked, others, None if mine else self.node(heir), procs)
        else:
            self.late_news(node, self.heir_of(node))
            self.estates.forget(node, procs)
        self.pulls.on_node_down(node)
        self.scheduler.on_node_death(node, now)

    # -- what processes have to say to other nodes ------------------------------------------------
    def on_free(self, peer: Peer, now: float, objects: list[list[bytes]]) -> None:
        elsewhere: dict[bytes, list[list[bytes]]] = {}
        mine = []
        for id, holder, node in objects:
            if node == self.machine.id or not node:
                mine.append([id, holder])
            else:
                elsewhere.setdefault(node, []).append([id, holder])
        if mine:
            self.store.on_free(peer, now, mine)
        for node, freed in elsewhere.items():
            self.tell(node, m.FREE_FOR, peer.id, freed)

    def on_claim(
        self, peer: Peer, now: float, borrower: bytes, home: bytes, giver: bytes, owner: bytes,
        address: str, tickets: list[list[bytes]],
    ) -> None:  # fmt: skip
        self.claim(borrower, home, giver, owner, address, tickets)

    def claim(self, borrower: bytes, home: bytes, *fields: Any) -> None:
        """Ask a process here or elsewhere whether it has heard of its tickets."""
        if home not in (b"", self.machine.id):
            self.tell(home, m.CLAIM, borrower, home, *fields)
        elif borrower == self.machine.id:
            self.claimed(*fields)
        elif borrower in self.machine.peers:
            self.machine.send(self.machine.peers[borrower], m.CLAIM, borrower, home, *fields)

    def tell(self, node: bytes, *frame: Any) -> None:
        """Send this to another node; if it is not known yet, when it is."""
        target = self.node(node)
        if target is not None:
            self.machine.send(target, *frame)
        elif self.is_unknown(node):
            self.strangers.seek(node)
            self.unsent.setdefault(node, []).append(frame)

    def on_free_for(self, peer: Peer, now: float, owner: bytes, objects: list[list[bytes]]) -> None:
        values = [one for one in objects if not self.estates.abandoned.end(one[0], owner)]
        self.store.free_for(owner, values)
