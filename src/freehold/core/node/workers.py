"""The node's workers: started ahead, leased, reused, reaped; and the CPUs that go with them.

A lease request is granted when its resources are free *and* a worker is idle; otherwise it waits,
and nobody whose turn comes later (``node.grants``) gets of what it lacks, so that a large request
is not starved by small ones.  Who needs nothing of that passes: what waits for a GPU that an actor
has holds up no task.  A worker whose task waits in ``get`` lends its CPUs back (``lend``); when it
runs again it takes them at once, and new grants wait until the node is no longer oversubscribed.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node.gpus import Devices
from freehold.core.node.grants import (
    ENDING,
    EPSILON,
    IDLE,
    LEASED,
    PHASES,
    STARTING,
    Grant,
    Worker,
    in_turn,
    to_reclaim,
)

SPAWN_TRIES = 5
SPAWN_BACKOFF = 0.05  # seconds, doubled at each failure
ACTOR_SPARE = 2  # workers kept ready while actors are being made: the next one need not wait
END_GRACE = 1.0  # seconds from EXIT to SIGKILL


class Workers:
    """The part of the node that grants leases."""

    def __init__(
        self,
        machine: Machine,
        spawner: Peer,
        *,
        cpus: float,
        resources: dict[str, float],
        prestart: int,
        idle_seconds: float,
        workers_max: int,
    ) -> None:
        self.machine = machine
        self.spawner = spawner
        self.total = {"CPU": cpus, **resources}
        self.free = dict(self.total)
        self.aside: dict[str, float] = {}  # for bundles of placement groups
        self.devices = Devices(resources.get("GPU", 0.0))
        self.prestart = prestart
        self.spares = ACTOR_SPARE
        self.idle_seconds = idle_seconds
        self.workers_max = workers_max
        self.workers: dict[int, Worker] = {}
        self.by_proc: dict[bytes, Worker] = {}
        self.queue: deque[Grant] = deque()
        self.leases: dict[int, Grant] = {}
        self._slots = self._leases = 0
        self._failures = 0
        self._spawn_at = 0.0
        self._spare_until = 0.0
        self.respawn = NEVER
        machine.on(
            {
                m.LEASE_RETURN: self.on_return,
                m.BLOCKED: self.on_blocked,
                m.SPAWNED: self.on_spawned,
                m.SPAWN_FAILED: self.on_spawn_failed,
                m.STAY: self.on_stay,
            }
        )

    # -- requests ---------------------------------------------------------------------------------
    def ask(self, grant: Grant, now: float) -> None:
        """Queue a request, unless it can never be granted here."""
        lacking = [
            f"{amount:g} {name} (the node has {self.total.get(name, 0):g})"
            for name, amount in grant.needs
            if amount > self.total.get(name, 0) + EPSILON
        ]
        if lacking:
            reason = "no node can ever provide " + " and ".join(lacking)
            self.machine.send(grant.holder, m.DENIED, grant.request, reason)
            return
        self.queue.append(grant)
        self.match(now)

    def change(self, resources: dict[str, float], sign: float, *, total: bool) -> None:
        """Resources are given to, or taken from, what the node has to lease."""
        for name, amount in resources.items():
            self.free[name] = self.free.get(name, 0.0) + sign * amount
            if not total:
                self.aside[name] = self.aside.get(name, 0.0) - sign * amount
            else:
                self.total[name] = self.total.get(name, 0.0) + sign * amount
                if self.total[name] <= EPSILON:
                    del self.total[name], self.free[name]

    def end_users(self, group: bytes, now: float) -> None:
        """A placement group is gone: end what runs in it."""
        name = "/" + group.hex()
        for lease in list(self.leases.values()):
            if lease.worker is not None and any(name in need for need, _ in lease.needs):
                worker = self.release(lease)
                self.kill(worker, "its placement group was removed")

    def on_cancel(self, peer: Peer, now: float, request: int) -> None:
        for grant in self.queue:
            if grant.holder is peer and grant.request == request:
                self.queue.remove(grant)
                self.match(now)  # it may have held up those behind it
                return

    def match(self, now: float) -> None:
        """Grant what can be granted; see to workers and CPUs for the rest."""
        idle = [worker for worker in self.workers.values() if worker.phase == IDLE]
        others = 0  # that would have to make way
        short = 0
        lacking: dict[str, None] = {}  # what those before have not got enough of
        for grant in in_turn(self.queue, self.leases.values()):
            lacks = grant.lacks(self.free, self.devices)
            lacking.update(dict.fromkeys(lacks))
            if lacks or any(amount and name in lacking for name, amount in grant.needs):
                continue
            if (worker := _fitting(idle, grant.job)) is not None:
                idle.remove(worker)
                self.queue.remove(grant)
                self._grant(grant, worker, now)
            else:
                short += 1
                others += bool(idle)
        for worker in idle[:others]:
            self.end(worker, now, "another program needs its place", idle=True)
        if "CPU" in lacking:
            self._reclaim()
        self._spawn(short, now)

    def _grant(self, grant: Grant, worker: Worker, now: float) -> None:
        assert worker.peer is not None
        self._leases += 1
        grant.id = self._leases
        grant.worker = worker
        worker.phase, worker.lease, worker.since = LEASED, grant, now
        worker.actor, worker.job = bool(grant.actor), grant.job
        if grant.actor:
            self._spare_until = now + self.idle_seconds
        for name, amount in grant.needs:
            self.free[name] -= amount
        self.leases[grant.id] = grant
        peer = worker.peer
        if grant.gpu:
            grant.gpus = self.devices.take(grant.gpu)
            self.machine.send(grant.holder, m.GPUS, grant.request, grant.gpus)
        self.machine.send(grant.holder, m.GRANT, grant.request, grant.id, peer.id, peer.address)

    def _reclaim(self) -> None:
        """Somebody waits for CPUs: ask the holders of other leases, each lease once."""
        free = self.free["CPU"]
        waiting = [grant for grant in self.queue if grant.cpus > free + EPSILON]
        for lease in to_reclaim(waiting, self.leases.values(), free):
            lease.reclaimed = True
            self.machine.send(lease.holder, m.RECLAIM, lease.id)

    def _spawn(self, short: int, now: float) -> None:
        """Keep enough workers starting for the requests that lack one, and for the next."""
        if now < self._spawn_at:
            self.respawn = self._spawn_at
            return
        starting = idle = pool = 0
        for worker in self.workers.values():
            starting += worker.phase == STARTING
            idle += worker.phase == IDLE
            pool += worker.phase != ENDING and not worker.actor
        spare = self.spares if now < self._spare_until else 0
        wanted = max(short - starting, self.prestart - pool, short + spare - starting - idle)
        for _ in range(min(wanted, self.workers_max - len(self.workers))):
            self._slots += 1
            self.workers[self._slots] = Worker(self._slots, now)
            self.machine.send(self.spawner, m.SPAWN, self._slots)

    # -- leases -----------------------------------------------------------------------------------
    def on_return(self, peer: Peer, now: float, id: int, reuse: bool) -> None:
        lease = self.leases.get(id)
        if lease is None or lease.holder is not peer:
            return
        worker = self.release(lease)
        if worker.phase == LEASED:
            worker.since = now
            if reuse and not (lease.actor or lease.gpus):  # a program keeps to its first GPUs
                worker.phase = IDLE
                worker.label = ""
            else:
                self.end(worker, now, "its lease was ended by its holder")
        self.match(now)

    def release(self, lease: Grant) -> Worker:
        """The lease is over; its worker."""
        del self.leases[lease.id]
        worker = lease.worker
        assert worker is not None
        for name, amount in lease.needs:
            if not (worker.lent and is_lent(name)):
                self.free[name] += amount
        self.devices.give(lease.gpu, lease.gpus)
        worker.lease = None
        worker.lent = False
        return worker

    def on_blocked(self, peer: Peer, now: float, blocked: bool) -> None:
        """The worker's task waits in ``get``, or runs again."""
        worker = self.by_proc.get(peer.id)
        if worker is None or worker.lease is None or worker.lent == blocked:
            return
        worker.lent = blocked
        for name, amount in worker.lease.needs:
            if is_lent(name):
                self.free[name] += amount if blocked else -amount
        self.match(now)

    # -- lives ------------------------------------------------------------------------------------
    def on_spawned(self, peer: Peer, now: float, slot: int, pid: int) -> None:
        self.workers[slot].pid = pid
        self._failures = 0

    def on_spawn_failed(self, peer: Peer, now: float, slot: int, reason: str) -> None:
        del self.workers[slot]
        self._failures += 1
        if self._failures < SPAWN_TRIES:
            self._spawn_at = now + SPAWN_BACKOFF * 2**self._failures
            self.respawn = self._spawn_at
            return
        self._failures = 0
        while self.queue:
            grant = self.queue.popleft()
            self.machine.send(
                grant.holder, m.DENIED, grant.request, f"no worker could be started: {reason}"
            )

    def on_worker(self, peer: Peer, now: float, slot: int) -> bool:
        """A worker has connected; False if there is none of that number any more."""
        worker = self.workers.get(slot)
        if worker is None:
            return False
        worker.peer = peer
        worker.phase, worker.since = IDLE, now
        self.by_proc[peer.id] = worker
        self.match(now)
        return True

    def on_stay(self, peer: Peer, now: float) -> None:
        worker = self.by_proc.get(peer.id)
        if worker is not None and worker.phase == ENDING and worker.exit is None:
            worker.phase, worker.since, worker.why = IDLE, now, ""
            self.match(now)

    def end(self, worker: Worker, now: float, why: str, idle: bool = False) -> None:
        """Tell the worker to exit; it is killed if it does not."""
        worker.phase = ENDING
        worker.why = why
        if worker.peer is not None:
            self.machine.send(worker.peer, m.EXIT, idle)
        if not idle:
            worker.kill_at = now + END_GRACE

    def kill(self, worker: Worker, why: str) -> None:
        """End the worker at once."""
        worker.phase = ENDING
        worker.why = why
        self.machine.send(self.spawner, m.SIGNAL, worker.slot, 9)

    def on_exited(self, worker: Worker, now: float) -> None:
        """The process is gone."""
        del self.workers[worker.slot]
        if worker.peer is not None:
            self.by_proc.pop(worker.peer.id, None)
        elif worker.phase == STARTING:
            self._failures += 1
            self._spawn_at = now + SPAWN_BACKOFF * 2 ** min(self._failures, SPAWN_TRIES)
            self.respawn = self._spawn_at
        if worker.lease is not None:
            self.release(worker.lease)
        self.match(now)

    def forget_holder(self, peer: Peer, now: float) -> None:
        """A holder of leases died: its workers are free, its actors end.

        Those of a driver wait until it is known who else holds them (``node.estates``).
        """
        self.queue = deque(grant for grant in self.queue if grant.holder is not peer)
        for lease in [lease for lease in self.leases.values() if lease.holder is peer]:
            if lease.actor and lease.job == peer.id:
                lease.orphan = True
                continue
            worker = self.release(lease)
            if worker.phase == LEASED:  # it may still run something for the dead: end it
                self.kill(worker, "the process that had leased it died")
        self.match(now)

    def end_job(self, driver: bytes, now: float) -> None:
        """A driver is gone: its workers run nothing any more."""
        for worker in list(self.workers.values()):
            if worker.job == driver and worker.phase == IDLE:
                self.kill(worker, "its program has ended")
        self.match(now)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """The next reaping, kill or retried spawn."""
        soonest = self.respawn
        pool = sum(1 for worker in self.workers.values() if not worker.actor)
        for worker in self.workers.values():
            soonest = min(soonest, worker.kill_at)
            if worker.phase == IDLE and pool > self.prestart:
                soonest = min(soonest, worker.since + self.idle_seconds)
        return soonest

    def on_timer(self, now: float) -> None:
        """Reap, kill, spawn."""
        if now >= self.respawn:
            self.respawn = NEVER
            self._spawn_at = 0.0
            self.match(now)
        pool = sum(1 for worker in self.workers.values() if not worker.actor)
        for worker in list(self.workers.values()):
            if worker.exit is not None:
                continue
            if now >= worker.kill_at:
                worker.kill_at = NEVER
                self.kill(worker, worker.why or worker.suspicion)
            elif (
                worker.phase == IDLE
                and pool > self.prestart
                and now >= worker.since + self.idle_seconds
            ):
                pool -= 1
                worker.since = now
                self.end(worker, now, "it was idle", idle=True)

    def snapshot(self) -> list[dict[str, Any]]:
        """A line for each worker."""
        return [
            {
                "pid": worker.pid,
                "proc": worker.peer.id.hex() if worker.peer is not None else "",
                "kind": "actor" if worker.actor else "worker",
                "state": PHASES[worker.phase],
                "runs": worker.label,
                "cpus": worker.lease.cpus if worker.lease is not None else 0.0,
                "blocked": worker.lent,
            }
            for worker in self.workers.values()
        ]

    def check(self) -> None:
        """What is leased, what is set aside and what is free add up."""
        for name, total in self.total.items():
            if "/" in name:
                continue
            used = sum(
                dict(lease.needs).get(name, 0.0)
                for lease in self.leases.values()
                if not (is_lent(name) and lease.worker is not None and lease.worker.lent)
            )
            used += self.aside.get(name, 0.0)
            assert abs(self.free[name] + used - total) < 1e-6, f"{name} does not add up"
        for lease in self.leases.values():
            assert lease.worker is not None
            assert lease.worker.lease is lease


def are_at_most(workers: Workers) -> bool:
    """Whether there are as many worker processes as there may be, and none of them is idle."""
    every = workers.workers.values()
    return len(every) >= workers.workers_max and all(worker.phase != IDLE for worker in every)


def is_lent(name: str) -> bool:
    """Whether a task that waits in ``get`` lends that resource on: CPUs, a group's included."""
    return name == "CPU" or name.startswith("CPU/")


def _fitting(idle: list[Worker], job: bytes) -> Worker | None:
    """An idle worker that has run for that job, or else for none."""
    for worker in reversed(idle):
        if worker.job == job:
            return worker
    return next((worker for worker in reversed(idle) if worker.job is None), None)
