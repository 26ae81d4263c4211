"""The caller's leases: where its tasks run, how many are in flight there, and when to ask for more.

A lease is one worker, held for one resource shape and reused for any task of that shape; once it is
held, no daemon is on a task's path.  The rules:

* An idle lease takes the next task at once, unless the task is tiny and a busy lease has room
  (``TINY``).  A busy one takes more, up to a depth that follows the measured duration: many short
  tasks in flight, long ones one at a time (``_depth``).
* While tasks queue, leases are requested (``process.requests``), as many as all nodes together
  could ever grant at a time.
* Tasks stuck behind a long one are recalled as soon as another lease could run them
  (``rebalance``).
* A lease that has been idle for a while is returned.  One that the node reclaims, since others
  wait, goes as soon as it is idle, or has been used for ``slice`` seconds and its tasks are done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from freehold.core import messages as m
from freehold.core.backoff import REST, REST_MAX
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.process.owner import Owner
from freehold.core.process.requests import Requests
from freehold.core.process.rows import (
    BLOCKED,
    BROKEN,
    DRAINING,
    GONE,
    STALLED,
    Lease,
    Place,
    Pool,
    Shape,
    Spec,
    Task,
)

TINY = 20e-6  # seconds: joining a busy worker is cheaper than waking an idle one for less
Push = Callable[[Task, Place, float], None]
Fail = Callable[[Task, str, str], None]


class Limits(NamedTuple):
    """Numbers that the host (or the simulator) chooses; seconds and counts."""

    depth_max: int = 512  # tasks in flight on one lease
    ahead: float = 0.002  # seconds of work to keep in flight on one lease
    stall: float = 0.002  # a lease that is silent for so long may have its queue recalled
    keep: float = 4e-4  # seconds for which a busy worker keeps results back, to send many at once
    idle: float = 0.2  # an unused lease is returned after that many seconds
    slice: float = 5e-3  # seconds for which a lease may be used although others wait for it
    leases_max: int = 64  # leases requested at a time, whatever the node's size
    lineage_bytes_max: int = 64 << 20  # recipes kept to make lost values again
    retry_rest: float = REST  # seconds before a task's second retry; twice that before the third
    retry_rest_max: float = REST_MAX
    remake: float = 1.0  # seconds of work after which a large value is kept twice; 0: never


class Leases:
    """The part of a process that turns ready tasks into TASK messages on leased workers."""

    def __init__(
        self, machine: Machine, owner: Owner, push: Push, fail: Fail, limits: Limits
    ) -> None:
        self.machine = machine
        self.owner = owner
        self.push = push
        self.fail = fail
        self.limits = limits
        self.pools: dict[Shape, Pool] = {}
        self.requests = Requests(machine, owner)
        self.cpus = 1.0  # of all nodes
        self.home: tuple[bytes, float] = (b"", 1.0)  # this process's node, and its CPUs
        self.nodes = 1
        self.lost = ""  # why there is no node any more
        self.again: Callable[[Task], bool] = bool  # whether a task's arguments are (still) there
        self.reclaim_actor: Callable[[Peer, int], None]  # an actor's lease is wanted back
        self.lone = False  # a task was sent to a worker that had none: do not keep it waiting
        machine.on(
            {
                m.UNBLOCKED: self.on_unblocked,
                m.RECLAIM: self.on_reclaim,
            }
        )

    def pool(self, spec: Spec) -> Pool:
        """The pool of the spec's shape."""
        pool = spec.pool = self.pool_of((spec.cpus, spec.resources, spec.where))
        return pool

    def pool_of(self, shape: Shape) -> Pool:
        """The pool of that shape."""
        pool = self.pools.get(shape)
        if pool is None:
            pool = self.pools[shape] = Pool(shape, self._most(shape))
        return pool

    def _most(self, shape: Shape) -> int:
        """Leases of that shape that the cluster, or this node, could ever grant at a time."""
        cpus, _, where = shape
        home, own = self.home
        there = own if where[:2] == ("node", home) else self.cpus
        most = int(there / cpus) if cpus > 0 else int(4 * there)
        return max(1, min(most, self.limits.leases_max))

    def on_cluster(self, peer: Peer, now: float, total: dict[str, float], nodes: int) -> None:
        self.cpus, self.nodes = total.get("CPU", 0.0), nodes
        for pool in self.pools.values():
            pool.most = self._most(pool.shape)
            if pool.queue:
                self.want(pool)

    # -- placing tasks --------------------------------------------------------------------------
    def place(self, task: Task, now: float, near: bytes = b"") -> None:
        """Send a ready task to a worker, on node ``near`` if possible; or queue it."""
        spec = task.spec
        pool = spec.pool or self.pool(spec)
        if near and not spec.where:
            here = next((lease for lease in pool.idle if lease.node.id == near), None)
            if here is None:
                shape = (spec.cpus, spec.resources, ("node", near, True))
                self._place(task, self.pool_of(shape), now)
            else:
                pool.idle.remove(here)
                here.last = now
                self.lone = True
                self.push(task, here, now)
            return
        if spec.room:
            busy = spec.lease
            assert busy is not None
            if busy.inflight and not busy.shut and not pool.queue:
                spec.room -= 1
                self.push(task, busy, now)
                return
            spec.room = 0
        self._place(task, pool, now)

    def _place(self, task: Task, pool: Pool, now: float) -> None:
        if not pool.queue:
            pace = task.spec.pace
            joined = False
            if not pool.idle or (pace is not None and pace < TINY):
                joined = self._join(task, pool, now)
            if joined:
                return
            if pool.idle:
                lease = pool.idle.pop()
                lease.last = now
                self.lone = True
                self.push(task, lease, now)
                return
        if not pool.queue:
            for lease in pool.leases:
                lease.low = len(lease.inflight) >> 1
        pool.queue.append(task)
        self.want(pool)

    def _join(self, task: Task, pool: Pool, now: float) -> bool:
        """Send the task to a worker that has others already; False if none has room."""
        pace = task.spec.pace
        if pace is None:
            return False
        spec = task.spec
        depth = self._depth(spec)
        for lease in pool.leases:
            count = len(lease.inflight)
            if 0 < count < depth and not lease.shut:
                self.push(task, lease, now)
                if pace < TINY:  # those that follow need not ask
                    spec.lease, spec.room = lease, depth - count - 1
                return True
        return False

    def _depth(self, spec: Spec) -> int:
        pace = spec.pace
        if pace is None:
            return 1
        ahead, most = self.limits.ahead, self.limits.depth_max
        return most if pace < TINY else min(most, 1 + int(ahead / pace))

    def dispatch(self, pool: Pool, now: float) -> None:
        """Send what is queued to whatever lease has room."""
        while pool.queue and pool.idle:
            task = pool.queue.popleft()
            if task.links is None or self.again(task):
                lease = pool.idle.pop()
                lease.last = now
                self.push(task, lease, now)
        for lease in list(pool.leases):  # a refill may give it back
            if pool.queue or not lease.inflight:
                self.refill(lease, now)
        if pool.queue:
            self.want(pool)

    def refill(self, lease: Lease, now: float) -> None:
        """Top up one lease, or declare it idle."""
        if now >= lease.due or (lease.due != NEVER and not (lease.inflight or lease.pool.queue)):
            lease.shut |= DRAINING
        if lease.shut:
            if lease.shut & DRAINING and not lease.inflight and not lease.shut & BROKEN:
                self.give_back(lease)
                if lease.pool.queue:
                    self.want(lease.pool)
            return
        self._top_up(lease, now)
        if not lease.inflight and lease not in lease.pool.idle:
            lease.last = now
            lease.pool.idle.append(lease)
            if len(lease.pool.leases) > 1:
                self.rebalance(lease.pool, now)

    def _top_up(self, lease: Lease, now: float) -> None:
        queue, inflight, push = lease.pool.queue, lease.inflight, self.push
        spec, depth = None, 0
        while queue:
            if queue[0].spec is not spec:
                spec = queue[0].spec
                depth = self._depth(spec)
            if len(inflight) >= depth:
                break
            task = queue.popleft()
            if task.links is None or self.again(task):
                push(task, lease, now)
        if lease.due == NEVER:
            lease.low = len(inflight) >> 1 if queue else 0

    def finished(self, lease: Lease, spec: Spec, now: float) -> None:
        """A result came from the lease: learn the pace and send the next tasks.

        A lease is topped up when half of what it may have in flight is done, so that tasks travel
        in batches.
        """
        if now > lease.last:  # the first of a batch
            took = now - lease.last
            if lease.batch > 1:  # they took a worker no longer than it keeps results back
                took = min(took, self.limits.keep) / lease.batch
            lease.last, lease.batch = now, 1
            lease.shut &= ~STALLED
            pace = spec.pace
            if pace is None:
                spec.pace = took
            else:
                spec.pace = pace + (took - pace) * (0.3 if took < pace else 0.1)
        else:
            lease.batch += 1
        if len(lease.inflight) <= lease.low:
            self.refill(lease, now)

    def rebalance(self, pool: Pool, now: float) -> None:
        """Call back what waits behind a slow task, if it could run elsewhere."""
        if not pool.idle and not self._can_grow(pool):
            return
        for lease in pool.leases:
            behind = len(lease.inflight) - 1
            if behind <= 0 or lease.recalled or lease.shut & BROKEN:
                continue
            pace = next(reversed(lease.inflight.values())).spec.pace or 0.0
            stalled = now - lease.last >= self.limits.stall
            uneven = pace > TINY and behind * pace > self.limits.ahead / 2
            if stalled or (pool.idle and uneven):
                lease.recalled = True
                if stalled:
                    lease.shut |= STALLED  # until its next result
                assert lease.peer is not None
                count = behind if stalled else (behind + 1) // 2
                self.machine.send(lease.peer, m.RECALL, count)

    def _can_grow(self, pool: Pool) -> bool:
        """Whether the node might grant the pool another lease."""
        return len(pool.leases) + len(pool.requests) < pool.most

    # -- asking for leases ------------------------------------------------------------------------
    def want(self, pool: Pool) -> None:
        """Request leases for what is queued."""
        if self.lost:
            while pool.queue:
                self.fail(pool.queue.popleft(), "NodeDied", self.lost)
            return
        working = sum(1 for lease in pool.leases if not lease.shut)
        asked = len(pool.requests)
        while asked < len(pool.queue) and asked + working < pool.most:
            pool.requests.add(self.requests.ask(pool))
            asked += 1

    def granted(self, pool: Pool, request: int, lease: Lease, now: float) -> None:
        """A node granted a request of ``pool``."""
        pool.requests.discard(request)
        peer = lease.peer
        assert peer is not None
        peer.lease = lease
        pool.leases.append(lease)
        pool.idle.append(lease)
        self.dispatch(pool, now)
        if pool.idle:
            self.rebalance(pool, now)

    def give_back(self, lease: Lease, reuse: bool = True) -> None:
        """End a lease that has nothing in flight."""
        self.forget(lease)
        self.machine.send(lease.node, m.LEASE_RETURN, lease.id, reuse)

    def forget(self, lease: Lease) -> None:
        """Take the lease out of its pool."""
        pool = lease.pool
        lease.shut |= GONE
        if lease in pool.leases:
            pool.leases.remove(lease)
        if lease in pool.idle:
            pool.idle.remove(lease)
        if lease.peer is not None and lease.peer.lease is lease:
            lease.peer.lease = None

    def node_died(self, reason: str) -> None:
        """There is nobody to run anything: what is placed from now on fails."""
        self.lost = reason
        for pool in self.pools.values():
            for lease in list(pool.leases):
                self.forget(lease)
            pool.requests.clear()
            self.want(pool)

    # -- what workers and the node say ------------------------------------------------------------
    def returned(self, lease: Lease, tasks: list[bytes], blocked: bool, now: float) -> None:
        """A worker gave tasks back."""
        lease.recalled = False
        if blocked:
            lease.shut |= BLOCKED
        for id in reversed(tasks):
            task = lease.inflight.pop(id, None)
            if task is not None:
                task.place = None
                if self.again(task):
                    lease.pool.queue.appendleft(task)
        if blocked and lease in lease.pool.idle:
            lease.pool.idle.remove(lease)
        self.dispatch(lease.pool, now)

    def on_unblocked(self, peer: Peer, now: float) -> None:
        lease = peer.lease
        if isinstance(lease, Lease):
            lease.shut &= ~BLOCKED
            self.refill(lease, now)

    def on_reclaim(self, peer: Peer, now: float, id: int) -> None:
        for pool in self.pools.values():
            for lease in pool.leases:
                if lease.id == id and lease.node is peer:
                    lease.due = lease.since + self.limits.slice
                    lease.low = self.limits.depth_max  # so that it is looked at soon
                    self.refill(lease, now)
                    return
        self.reclaim_actor(peer, id)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """The next idle return or stall check."""
        soonest = NEVER
        for pool in self.pools.values():
            if pool.idle:
                soonest = min(soonest, pool.idle[0].last + self.limits.idle)
            if pool.idle or self._can_grow(pool):
                for lease in pool.leases:
                    told = lease.recalled or lease.shut & (STALLED | BROKEN)
                    if len(lease.inflight) > 1 and not told:
                        soonest = min(soonest, lease.last + self.limits.stall)
            elif pool.requests and not pool.queue:
                soonest = min(soonest, self.machine.now + self.limits.idle)
        return soonest

    def on_timer(self, now: float) -> None:
        """Return idle leases, cancel needless requests, recall stalled queues."""
        for pool in self.pools.values():
            self.rebalance(pool, now)
            while pool.idle and pool.idle[0].last + self.limits.idle <= now:
                self.give_back(pool.idle[0])
            if not pool.queue:
                for request in sorted(pool.requests):
                    self.requests.withdraw(request)
                pool.requests.clear()
