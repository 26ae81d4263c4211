"""The node daemon's machine: the authority on the processes and the arena of one machine.

It grants leases (``core.workers``) and extents (``core.store``), says who has died, and describes
itself.  It is on the path of no task once a lease is held, and it never sees inside a value.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.estates import Estates
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.members import Members
from freehold.core.neighbours import Neighbours
from freehold.core.pulls import Pulls
from freehold.core.scheduler import Scheduler
from freehold.core.store import Store
from freehold.core.workers import ENDING, SUSPECT_GRACE, Worker, Workers

STATUS_WAIT = 0.5  # seconds for the processes to answer


class Inquiry:
    """A status request that waits for the processes' answers."""

    __slots__ = ("asker", "counts", "request", "until", "waiting")

    def __init__(self, asker: Peer, request: int, waiting: set[bytes], until: float) -> None:
        self.asker = asker
        self.request = request
        self.waiting = waiting
        self.until = until
        self.counts: dict[bytes, dict[str, Any]] = {}


class Node(Machine):
    """The machine of the node daemon."""

    def __init__(
        self,
        id: bytes,
        *,
        cpus: float,
        arena_bytes: int,
        resources: dict[str, float] | None = None,
        prestart: int | None = None,
        idle_seconds: float = 2.0,
        workers_max: int = 1000,
        address: str = "",
        labels: dict[str, str] | None = None,
        standing: bool = False,
        unreachable_s: float = 2.0,
    ) -> None:
        super().__init__(id, m.OPCODES)
        self.standing = standing  # it belongs to a cluster, and outlives its drivers
        self.spawner = Peer(b"", "", "spawner")
        self.workers = Workers(
            self,
            self.spawner,
            cpus=cpus,
            resources=resources or {},
            prestart=int(cpus) if prestart is None else prestart,
            idle_seconds=idle_seconds,
            workers_max=workers_max,
        )
        self.store = Store(self, arena_bytes)
        self.estates = Estates(self, self.store)
        self.members = Members(
            self,
            address=address,
            total=self.workers.total,
            labels=labels,
            on_node_down=[self._on_node_down],
            on_change=[self._on_change],
            unreachable_s=unreachable_s,
        )
        self.scheduler = Scheduler(self, self.workers, self.members)
        self.locals: dict[bytes, Peer] = {}  # this node's processes that are connected
        self.pulls = Pulls(self, self.store)
        self.neighbours = Neighbours(
            self,
            self.store,
            self.estates,
            self.processes,
            self.scheduler.forget_holder,
            self._on_gone,
        )
        self.scheduler.heed = self.neighbours.heed
        self.pulls.address_of = lambda node: self.neighbours.nodes.get(node, "")
        self.cluster: tuple[dict[str, float], int] = ({}, 0)  # as the processes were told
        self.finished = False  # the driver that it serves has gone
        self.deaths = 0  # workers that died without being told to
        self._inquiries: list[Inquiry] = []
        self._draining: deque[tuple[Peer, int]] = deque()
        workers = self.workers
        self.on(
            {
                m.BYE: self.on_bye,
                m.LEASE_RETURN: workers.on_return,
                m.BLOCKED: workers.on_blocked,
                m.SPAWNED: workers.on_spawned,
                m.SPAWN_FAILED: workers.on_spawn_failed,
                m.STAY: workers.on_stay,
                m.EXITED: self.on_exited,
                m.KILL: self.on_kill,
                m.LABEL: self.on_label,
                m.LOG: self.on_log,
                m.DRAIN: self.on_drain,
                m.DRAINED: self.on_drained,
                m.STATUS: self.on_status,
                m.STATUS_REPLY: self.on_status_reply,
            }
        )

    def start(self, now: float) -> None:
        """Begin: start the first workers."""
        self.workers.match(now)

    @property
    def info(self) -> dict[str, Any]:
        """What a process learns from the node's HELLO."""
        return {
            **self.members.info,
            "cpus": self.workers.total["CPU"],
            "arena": self.store.extents.size,
            "standing": self.standing,
            "node": self.id,
            "bundles": [list(key) for key in self.scheduler.bundles],
        }

    def processes(self) -> list[Peer]:
        """Drivers and workers of this node that are connected."""
        return list(self.locals.values())

    # -- processes --------------------------------------------------------------------------------
    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        if peer.kind == "head":
            self.members.on_head_up(peer, now, info)
        elif peer.kind == "node":
            if peer.id in self.members.dead:
                peer.down = True
            self.members.cleared(peer.id)
        if peer.kind not in ("driver", "worker") or info.get("node", self.id) not in (b"", self.id):
            return
        self.locals[peer.id] = peer
        if self.cluster[1]:
            self.send(peer, m.CLUSTER, *self.cluster)
        for owner in self.estates.owners():  # it may yet be handed what was theirs
            self.send(peer, m.PROC_DOWN, owner, "it had died before", b"", False, [])
        if peer.kind == "worker" and not self.workers.on_worker(
            peer, now, int(info.get("slot", 0))
        ):
            peer.down = True  # its exit has been reported already
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        self.peers.pop(peer.id, None)
        self.locals.pop(peer.id, None)

    def _on_gone(self, proc: bytes, now: float) -> None:
        """A process is dead, here or elsewhere."""
        self.pulls.on_death(proc)
        if self.scheduler.jobs.pop(proc, None) is not None:
            self.workers.end_job(proc, now)

    def _on_node_down(self, node: bytes, reason: str, now: float) -> None:
        self.neighbours.node_down(node, reason, now)
        self.pulls.on_node_down(node)
        for driver, address in list(self.scheduler.jobs.items()):
            if node_of(address) == node:
                self._on_gone(driver, now)

    def _on_change(self, now: float) -> None:
        """The view of the cluster has changed."""
        view = self.members.view
        holders = [lease.holder for lease in self.workers.leases.values()]
        for id, member in view.items():
            if id != self.id and id not in self.neighbours.nodes:
                self.neighbours.node_up(id, member.address, holders)
        for id in [id for id in self.neighbours.nodes if id not in view]:
            self._on_node_down(id, "it has left the cluster", now)
        total: dict[str, float] = {}
        for member in view.values():
            for name, amount in member.total.items():
                if "/" not in name:
                    total[name] = total.get(name, 0.0) + amount
        if (total, len(view)) != self.cluster:
            self.cluster = (total, len(view))
            for process in self.processes():
                self.send(process, m.CLUSTER, *self.cluster)
        self.scheduler.on_change(now)

    def on_down(self, peer: Peer, now: float) -> None:
        """A connection is cut.  A worker's death is for the spawner to report; others' is now."""
        if peer is self.members.head:
            self.members.on_head_down(peer, now)
            return
        if peer.id not in self.locals:  # whose own node, or the head, says what became of it
            if peer.kind == "node":
                self.members.suspect(peer.id, now)
            elif peer.kind == "tool":
                self.peers.pop(peer.id, None)
            return
        if peer.kind == "driver":
            self._died(peer, now, f"the driver (pid {peer.pid}) is gone", b"")
            self.finished = not any(other.kind == "driver" for other in self.locals.values())
        else:
            worker = self.workers.by_proc.get(peer.id)
            if worker is not None and worker.peer is peer:
                worker.closed = True
                if worker.exit is not None:
                    self._ended(worker, now)
                else:
                    self.workers.suspect(worker, now, "it closed its connection to the node")

    def on_bye(self, peer: Peer, now: float) -> None:
        self.on_down(peer, now)

    def on_exited(
        self, peer: Peer, now: float, slot: int, code: int, tail: str, started: bytes
    ) -> None:
        """The process is gone, but what it sent before may still be on the way: hear it out."""
        worker = self.workers.workers.get(slot)
        if worker is None:
            return
        worker.exit = (code, tail, started)
        if worker.peer is None or worker.closed:
            self._ended(worker, now)
        else:
            worker.phase = ENDING
            worker.kill_at = now + SUSPECT_GRACE

    def _ended(self, worker: Worker, now: float) -> None:
        assert worker.exit is not None
        code, tail, started = worker.exit
        reason = _death(worker.pid, code, worker.why, tail)
        if not worker.why:
            self.deaths += 1
        gone = worker.peer
        self.workers.on_exited(worker, now)
        if gone is not None:
            self._died(gone, now, reason, started)

    def _died(self, gone: Peer, now: float, reason: str, started: bytes) -> None:
        gone.down = True
        gone.outbox.clear()
        self._forget(gone)
        self.members.relay.forget(gone)
        for inquiry in self._inquiries:
            inquiry.waiting.discard(gone.id)
        self.neighbours.died(gone.id, reason, started, now)
        self.workers.forget_holder(gone, now)

    def on_kill(
        self, peer: Peer, now: float, proc: bytes, node: bytes, reason: str, suspected: bool
    ) -> None:
        elsewhere = self.neighbours.node(node) if node else None
        if elsewhere is not None:
            self.send(elsewhere, m.KILL, proc, b"", reason, suspected)
            return
        worker = self.workers.by_proc.get(proc)
        if worker is not None and suspected:
            self.workers.suspect(worker, now, reason)
        elif worker is not None:
            self.workers.kill(worker, reason)
        elif proc not in self.peers and peer.id in self.locals and node in (b"", self.id):
            self.send(peer, m.PROC_DOWN, proc, "it had died before", b"", False, [])

    def on_label(self, peer: Peer, now: float, name: str) -> None:
        worker = self.workers.by_proc.get(peer.id)
        if worker is not None:
            worker.label = name

    def on_log(
        self, peer: Peer, now: float, pid: int, name: str, stream: str, lines: list[str]
    ) -> None:
        """A worker printed something: tell the driver for whom it works."""
        driver = b""
        for worker in self.workers.workers.values():
            if worker.pid == pid:
                name, driver = name or worker.label, worker.job
        if driver in self.scheduler.jobs:
            self.send(
                self.peer(driver, self.scheduler.jobs[driver]), m.LOG, pid, name, stream, lines
            )
            return
        for other in self.processes():
            if other.kind == "driver":
                self.send(other, m.LOG, pid, name, stream, lines)

    def on_drain(self, peer: Peer, now: float, request: int) -> None:
        self._draining.append((peer, request))
        self.send(self.spawner, m.DRAIN, request)

    def on_drained(self, peer: Peer, now: float, request: int) -> None:
        asker, number = self._draining.popleft()  # the spawner answers in order
        self.send(asker, m.DRAINED, number)

    # -- people -----------------------------------------------------------------------------------
    def on_status(self, peer: Peer, now: float, request: int) -> None:
        processes = self.processes()
        waiting = {process.id for process in processes}
        self._inquiries.append(Inquiry(peer, request, waiting, now + STATUS_WAIT))
        for process in processes:
            self.send(process, m.STATUS, 0)
        self._answer_inquiries(now)

    def on_status_reply(self, peer: Peer, now: float, request: int, status: dict[str, Any]) -> None:
        for inquiry in self._inquiries:
            inquiry.counts[peer.id] = status
            inquiry.waiting.discard(peer.id)
        self._answer_inquiries(now)

    def _answer_inquiries(self, now: float) -> None:
        for inquiry in list(self._inquiries):
            if not inquiry.waiting or now >= inquiry.until:
                self._inquiries.remove(inquiry)
                status = self.describe(inquiry.counts)
                self.send(inquiry.asker, m.STATUS_REPLY, inquiry.request, status)

    def describe(self, counts: dict[bytes, dict[str, Any]]) -> dict[str, Any]:
        """The node's tables, with the processes' own counts where they have answered."""
        workers = self.workers.snapshot()
        processes = [
            {"pid": peer.pid, "proc": peer.id.hex(), "kind": peer.kind, "state": "up", "runs": ""}
            for peer in self.processes()
            if peer.kind == "driver"
        ] + workers
        for process in processes:
            process["counts"] = counts.get(bytes.fromhex(process["proc"]), {})
        store = self.store
        return {
            "node": self.id.hex(),
            "resources": {
                name: {"total": total, "free": self.workers.free[name]}
                for name, total in self.workers.total.items()
            },
            "processes": processes,
            "objects": {
                "count": len(store.objects),
                "bytes": store.bytes,
                "peak_bytes": store.peak,
                "adopted": len(self.estates.adopted),
            },
            "arena": {
                "size": store.extents.size,
                "granted": store.extents.granted,
                "ready": store.reserved,
                "peak": store.extents.peak,
            },
            "pulls": self.pulls.snapshot(),
            "leases": len(self.workers.leases),
            "waiting": len(self.workers.queue),
            "members": self.members.snapshot(),
            "requests": self.workers.requests(),
            "references": sum(c.get("owned", 0) + c.get("borrowed", 0) for c in counts.values()),
            "queued": sum(c.get("queued", 0) for c in counts.values()),
            "retries": sum(c.get("retried", 0) for c in counts.values()),
            "deaths": self.deaths,
        }

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        soonest = min(self.workers.deadline(), self.pulls.deadline())
        if self.store.trimmed:
            soonest = min(soonest, self.store.trim_until)
        soonest = min(soonest, self.estates.deadline(), self.members.deadline())
        soonest = min(soonest, self.scheduler.deadline())
        return min([soonest, *(inquiry.until for inquiry in self._inquiries)], default=NEVER)

    def on_timer(self, now: float) -> None:
        for worker in list(self.workers.workers.values()):
            if worker.exit is not None and now >= worker.kill_at:
                self._ended(worker, now)  # another process keeps its connection open
        self.workers.on_timer(now)
        self.store.on_timer(now)
        self.estates.on_timer(now)
        self.members.on_timer(now)
        self.scheduler.on_timer(now)
        self.pulls.on_timer(now)
        self._answer_inquiries(now)

    def settle(self, now: float) -> None:
        self.pulls.settle(now)
        if self.members.joined:
            self.scheduler.report(now)

    def snapshot(self) -> dict[str, Any]:
        return self.describe({})

    def check(self) -> None:
        self.store.check()
        self.estates.check()
        self.pulls.check()
        self.workers.check()
        self.members.check()


def _death(pid: int, code: int, why: str, tail: str) -> str:
    """What is known about an exit, in one text."""
    if code >= 0:
        how = f"exited with code {code}"
    else:
        name = _SIGNALS.get(-code, "")
        how = f"was killed by signal {-code}" + (f" ({name})" if name else "")
    text = f"worker process {pid} {how}"
    if why:
        text += f", because {why}"
    elif code == -9:
        text += "; if nobody sent it, the kernel's out-of-memory killer is the likely sender"
    if tail:
        text += f".  Its last output:\n{tail}"
    return text


_SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
    9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
}  # fmt: skip
