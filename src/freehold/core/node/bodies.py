"""The node's part of detached actors: one of its workers becomes each that the head wants here.

The node leases a worker to itself (``seat`` is the holder), has it become the actor (BECOME), and
tells the head by questions to the directory, which survive the head (``node.relay``): it lives; or
its constructor failed; or the process died; or it cannot be here.  On the way out of the cluster
(RECLAIM) an actor that may be made again ends here, to be made elsewhere.

Who asks this node for a detached actor's reference is told where it lives (REBORN) as soon as the
head knows; that is how handles find it, at first and after each restart.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.ids import job_of
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED
from freehold.core.node.members import Members
from freehold.core.node.scheduler import HOPS_MAX, Scheduler
from freehold.core.node.trusts import Trusts
from freehold.core.node.workers import Workers

KILLED = "it was killed by freehold.kill()"


class Body:
    """An incarnation that is to live here, or does."""

    __slots__ = ("actor", "gpus", "lease", "number", "plan", "request", "restarts", "worker")

    def __init__(
        self, actor: bytes, number: int, restarts: int, plan: list[Any], request: int
    ) -> None:
        self.actor = actor
        self.number = number
        self.restarts = restarts
        self.plan = plan
        self.request = request
        self.gpus: list[int] = []
        self.lease = 0
        self.worker: Peer | None = None


class Bodies:
    """Those of one node."""

    def __init__(
        self,
        machine: Machine,
        workers: Workers,
        scheduler: Scheduler,
        members: Members,
        trusts: Trusts,
    ) -> None:
        self.machine = machine
        self.workers = workers
        self.scheduler = scheduler
        self.relay = members.relay
        self.trusts = trusts
        self.seat = Peer(b"bodies", "", "seat")  # which holds the leases
        self.bodies: dict[bytes, Body] = {}
        self.numbers: dict[bytes, int] = {}  # actor -> the last incarnation that was wanted here
        self.askers: dict[bytes, list[Peer]] = {}  # actor -> who wants to know where it lives
        self._requests = 0
        trusts.estates.locate = self.locate
        trusts.confirm = self._confirm
        machine.on(
            {
                m.EMBODY: self.on_embody,
                m.ENDED: self.on_ended,
                m.BORN: self.on_born,
            }
        )

    @property
    def actors(self) -> list[bytes]:
        """The actors with which this node has to do."""
        return sorted({*self.numbers, *self.trusts.held})

    # -- lives ------------------------------------------------------------------------------------
    def on_embody(
        self,
        peer: Peer,
        now: float,
        actor: bytes,
        number: int,
        cpus: float,
        resources: dict[str, float],
        where: list[Any],
        restarts: int,
        plan: list[Any],
    ) -> None:
        if self.numbers.get(actor, 0) >= number:
            return  # the head has told it before, and is told what comes of it, or what has come
        self.numbers[actor] = number
        known = self.bodies.get(actor)
        if known is not None:
            self._end(known, now, "it has been made again")
        self._requests += 1
        self.bodies[actor] = Body(actor, number, restarts, plan, self._requests)
        what = (cpus, actor, resources, where, HOPS_MAX, [job_of(actor), ""])
        self.scheduler.on_lease(self.seat, now, self._requests, *what)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Take what has been said to the holder of the leases."""
        while self.seat.outbox:
            frames, self.seat.outbox = self.seat.outbox, []
            for op, number, *fields in frames:
                if op == m.RECLAIM:
                    self._reclaimed(number, now)
                    continue
                body = next((b for b in self.bodies.values() if b.request == number), None)
                if op == m.GRANT:
                    self._granted(body, now, *fields)
                elif body is not None and op == m.GPUS:
                    body.gpus = fields[0]
                elif body is not None:  # denied, or sent elsewhere, which is for the head to say
                    del self.bodies[body.actor]
                    why = fields[0] if op == m.DENIED else "it would be better elsewhere"
                    self._report(body, "refused", ["Unschedulable", why])

    def _granted(
        self, body: Body | None, now: float, lease: int, proc: bytes, address: str
    ) -> None:
        if body is None:
            self.workers.on_return(self.seat, now, lease, False)
            return
        body.lease = lease
        worker = body.worker = self.machine.peers[proc]
        if body.gpus:
            self.machine.send(worker, m.LEASED, body.gpus)
        self.machine.send(worker, m.BECOME, body.actor, body.plan)

    def _reclaimed(self, lease: int, now: float) -> None:
        """The node leaves: what may be made again is made elsewhere."""
        for body in self.bodies.values():
            if body.lease == lease and body.restarts:
                self.workers.on_return(self.seat, now, lease, False)
                body.lease = 0

    def on_born(self, peer: Peer, now: float, actor: bytes, error: list[Any]) -> None:
        body = self.bodies.get(actor)
        if body is None or body.worker is not peer:
            return
        if error:
            del self.bodies[actor]
            self._end(body, now, "")
            self._report(body, "failed", error)
        else:
            self._report(body, "alive", [])

    def _report(self, body: Body, state: str, error: list[Any]) -> None:
        worker = body.worker
        where = (b"", "") if worker is None else (worker.id, worker.address)
        names = ("actor", "number", "state", "proc", "address", "error")
        values = (body.actor, body.number, state, *where, error)
        self.relay.inquire("incarnation", dict(zip(names, values, strict=True)))

    def on_death(self, proc: bytes, reason: str) -> None:
        """A worker of this node has died; perhaps it was an actor's."""
        for body in list(self.bodies.values()):
            if body.worker is not None and body.worker.id == proc:
                del self.bodies[body.actor]
                self._report(body, "died", ["ActorDied", f"the actor's process died: {reason}"])

    # -- ends -------------------------------------------------------------------------------------
    def on_ended(self, peer: Peer, now: float, actor: bytes) -> None:
        self.trusts.end(actor, now)
        self.numbers.pop(actor, None)
        body = self.bodies.pop(actor, None)
        if body is not None:
            self._end(body, now, KILLED)
        self.scheduler.on_death(job_of(actor), now)

    def on_refused(self, now: float, why: str) -> None:
        """This node is given up: whatever lived here is made elsewhere, or has been."""
        for actor in self.actors:
            self.trusts.end(actor, now)
        bodies, self.bodies = self.bodies, {}
        self.numbers.clear()
        for body in bodies.values():
            self._end(body, now, why)

    def _end(self, body: Body, now: float, why: str) -> None:
        """End the incarnation's process, or never begin it."""
        lease = self.workers.leases.get(body.lease)
        if body.worker is None:
            self.scheduler.on_cancel(self.seat, now, body.request)
        elif lease is not None and lease.holder is self.seat:
            if why and lease.worker is not None:
                self.workers.kill(lease.worker, why)
            else:
                self.workers.on_return(self.seat, now, body.lease, False)

    # -- where they live --------------------------------------------------------------------------
    def locate(self, peer: Peer, actor: bytes) -> None:
        """Tell that process where the actor lives, as soon as it does."""
        askers = self.askers.setdefault(actor, [])
        askers.append(peer)
        if len(askers) > 1:
            return

        def told(error: list[Any], fields: dict[str, Any], now: float) -> None:
            for asker in self.askers.pop(actor, ()):
                if error:
                    self.machine.send(asker, m.VALUE, actor, FAILED, error, [])
                else:
                    self.machine.send(asker, m.REBORN, actor, fields["proc"], fields["address"])

        self.relay.inquire("locate", {"actor": actor}, told)

    def _confirm(self, actor: bytes) -> None:
        """Something was entrusted for the actor, perhaps after ENDED: see whether it is there."""

        def told(error: list[Any], fields: dict[str, Any], now: float) -> None:
            if error:
                self.trusts.end(actor, now)

        self.relay.inquire("locate", {"actor": actor}, told)

    # -- people -----------------------------------------------------------------------------------
    def check(self) -> None:
        """Whoever has a worker here has it for a lease of the seat's."""
        for actor, body in self.bodies.items():
            assert body.actor == actor
            assert body.number == self.numbers[actor]
            lease = self.workers.leases.get(body.lease)
            assert not body.lease or lease is None or lease.holder is self.seat
