"""The node daemon's machine: the authority on the processes and the arena of one machine.

This file joins its parts, and says who of its processes has died.  The parts grant leases
(``node.workers``, ``node.scheduler``) and extents (``node.store``), bring objects from other nodes
(``node.pulls``), own what the dead have left (``node.estates``), and deal with other nodes
(``node.neighbours``) and the head (``node.members``).  A node is on the path of no task once a
lease is held, and it never sees inside a value.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.node.bodies import Bodies
from freehold.core.node.delays import Delays
from freehold.core.node.departing import Departing
from freehold.core.node.estates import Estates
from freehold.core.node.grants import ENDING, SUSPECT_GRACE, Worker
from freehold.core.node.inquiries import Inquiries
from freehold.core.node.logs import Logs
from freehold.core.node.members import Members
from freehold.core.node.neighbours import Neighbours
from freehold.core.node.pulls import Pulls
from freehold.core.node.scheduler import Scheduler
from freehold.core.node.store import Store
from freehold.core.node.trusts import Trusts
from freehold.core.node.workers import Workers


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
        self.estates = Estates(self, self.store, self.workers)
        self.members = Members(
            self,
            address=address,
            total=self.workers.total,
            labels=labels,
            on_node_down=[self._on_node_down],
            on_refused=[self._on_refused],
            on_change=[self._on_change],
            unreachable_s=unreachable_s,
        )
        self.scheduler = Scheduler(self, self.workers, self.members)
        self.delays = Delays(self, self.workers, self.scheduler)
        self.locals: dict[bytes, Peer] = {}  # this node's processes that are connected
        self.pulls = Pulls(self, self.store, on_trouble=self.members.suspects.add)
        self.estates.copies = self.pulls.copies
        self.neighbours = Neighbours(
            self, self.store, self.estates, self.pulls, self.scheduler, self.processes
        )
        self.neighbours.standing = standing
        self.neighbours.strangers.give_up = self._on_stranger
        self.departing = Departing(
            self, self.workers, self.store, self.pulls, self.members, self.neighbours
        )
        self.trusts = Trusts(self, self.store, self.estates, self.neighbours)
        self.bodies = Bodies(self, self.workers, self.scheduler, self.members, self.trusts)
        self.finished = False  # the driver that it serves has gone
        self.deaths = 0  # workers that died without being told to
        self.inquiries = Inquiries(self, self.processes, self.describe)
        self.logs = Logs(self, self.scheduler, self.processes)
        self.on({m.BYE: self.on_down, m.EXITED: self.on_exited, m.KILL: self.on_kill})

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
            "actors": self.bodies.actors,
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
            self.members.suspects.clear(peer.id)
        if peer.kind not in ("driver", "worker") or info.get("node", self.id) not in (b"", self.id):
            return
        self.locals[peer.id] = peer
        self.neighbours.welcome(peer)
        if peer.kind == "worker" and not self.workers.on_worker(
            peer, now, int(info.get("slot", 0))
        ):
            peer.down = True  # its exit has been reported already
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        self.peers.pop(peer.id, None)
        self.locals.pop(peer.id, None)

    def _on_node_down(self, node: bytes, reason: str, now: float) -> None:
        self.neighbours.node_down(node, reason, now)

    def _on_stranger(self, node: bytes, now: float) -> bool:
        """A node of which the head has not told in time; False if there has been no head."""
        if not self.members.joined:
            return False
        self.members.dead.add(node)
        self.neighbours.node_down(node, "it died before this node joined", now, fresh=False)
        return True

    def _on_refused(self, reason: str, now: float) -> None:
        for process in self.processes():
            self.send(process, m.OUSTED, reason)
        self.bodies.on_refused(now, f"its node is no member any more: {reason}")

    def _on_change(self, now: float) -> None:
        """The view of the cluster has changed."""
        holders = [lease.holder for lease in self.workers.leases.values()]
        self.neighbours.on_change(self.members.view, holders, now)
        self.scheduler.on_change(now)

    def on_down(self, peer: Peer, now: float) -> None:
        """A connection is cut.  A worker's death is for the spawner to report; others' is now."""
        if peer is self.members.head:
            self.members.on_head_down(peer, now)
            return
        if peer.id not in self.locals:  # whose own node, or the head, says what became of it
            if peer.kind == "node":
                self.members.suspects.add(peer.id, now)
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
                    worker.suspect(now, "it closed its connection to the node")

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
        self.inquiries.forget(gone.id)
        self.bodies.on_death(gone.id, reason)
        self.scheduler.forget_holder(gone, now)
        self.neighbours.died(gone.id, reason, started, now)

    def on_kill(
        self, peer: Peer, now: float, proc: bytes, node: bytes, reason: str, suspected: bool
    ) -> None:
        if node and node != self.id and node not in self.neighbours.lost:
            self.neighbours.tell(node, m.KILL, proc, b"", reason, suspected)
            return
        worker = self.workers.by_proc.get(proc)
        if worker is not None and suspected:
            worker.suspect(now, reason)
        elif worker is not None:
            self.workers.kill(worker, reason)
        elif proc not in self.peers and peer.id in self.locals and node in (b"", self.id):
            self.send(peer, m.PROC_DOWN, proc, "it had died before", b"", False, [])

    # -- people -----------------------------------------------------------------------------------
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
            "requests": self.scheduler.requests(),
            "references": sum(c.get("owned", 0) + c.get("borrowed", 0) for c in counts.values()),
            "queued": sum(c.get("queued", 0) for c in counts.values()),
            "retries": sum(c.get("retried", 0) for c in counts.values()),
            "deaths": self.deaths,
        }

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        soonest = min(self.workers.deadline(), self.pulls.deadline(), self.store.look_at)
        soonest = min(soonest, self.estates.deadline(), self.members.deadline())
        soonest = min(soonest, self.scheduler.deadline(), self.delays.deadline())
        soonest = min(soonest, self.inquiries.deadline(), self.trusts.deadline())
        return min(soonest, self.neighbours.strangers.deadline())

    def on_timer(self, now: float) -> None:
        for worker in list(self.workers.workers.values()):
            if worker.exit is not None and now >= worker.kill_at:
                self._ended(worker, now)  # another process keeps its connection open
        self.workers.on_timer(now)
        self.store.on_timer(now)
        self.estates.on_timer(now)
        self.members.on_timer(now)
        self.scheduler.on_timer(now)
        self.delays.on_timer(now)
        self.pulls.on_timer(now)
        self.inquiries.on_timer(now)
        self.trusts.on_timer(now)
        self.neighbours.strangers.retry(now)

    def settle(self, now: float) -> None:
        self.pulls.settle(now)
        self.departing.settle(now)
        self.bodies.settle(now)
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
        self.bodies.check()


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
