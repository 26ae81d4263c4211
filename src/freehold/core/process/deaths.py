"""What the death of a worker, or of the node, means for the tasks that were out there.

A worker runs its tasks in the order they were sent, and the node knows the last one that it had
started.  So a death costs a try only of those that had started; the rest simply go elsewhere, and a
task with no tries is never run twice.  What has failed before rests before it runs again
(``process.rests``).
"""

from __future__ import annotations

from typing import Protocol

from freehold.core.machine import Peer
from freehold.core.messages import PENDING
from freehold.core.process.actors import Actors
from freehold.core.process.leases import Leases, Limits
from freehold.core.process.owner import Owner
from freehold.core.process.rests import Rests
from freehold.core.process.rows import Lease, Task

GONE = "the node daemon is gone, and with it every worker and object"


class Caller(Protocol):
    """What this file needs of ``process.client``."""

    owner: Owner
    leases: Leases
    actors: Actors
    lost: str

    def restart(self, task: Task, now: float) -> None:
        """Run a task of which it is not known whether its dependencies are (still) there."""

    def fail(self, task: Task, kind: str, text: str) -> None:
        """End the task with an error."""


class Deaths:
    """The retries of one process."""

    def __init__(self, caller: Caller, limits: Limits) -> None:
        self.caller = caller
        self.rests = Rests(limits.retry_rest, limits.retry_rest_max)
        self.retried = 0  # tasks run again because a worker died
        self.ousted = ""  # why the node ends, if it has said so

    def retry(self, task: Task, failures: int, now: float) -> None:
        """Run a task again that has failed so often, now or after a rest."""
        if not self.rests.begin(task, failures, now):
            self.caller.restart(task, now)

    def on_timer(self, now: float) -> None:
        """Run those again that have rested."""
        for task in self.rests.over(now):
            self.caller.restart(task, now)

    def on_death(self, peer: Peer, now: float, reason: str, started: bytes | None) -> None:
        """The worker died: what it had started costs a try; what it had not goes elsewhere.

        ``started`` is None when nobody knows, since its node has died too.
        """
        place = peer.lease
        peer.down = True
        peer.outbox.clear()
        if isinstance(place, Lease):
            self._lease_died(place, now, reason, started)
        self.caller.actors.on_death(peer, now, reason)

    def _lease_died(self, lease: Lease, now: float, reason: str, started: bytes | None) -> None:
        leases, owner = self.caller.leases, self.caller.owner
        leases.forget(lease)
        tasks = list(lease.inflight.values())
        lease.inflight.clear()
        ids = [task.id for task in tasks]
        if started is None:
            first_unstarted = len(ids)
        else:
            first_unstarted = ids.index(started) + 1 if started in ids else 0
        for task in reversed(tasks[first_unstarted:]):
            task.place = None
            lease.pool.queue.appendleft(task)
        for task in tasks[:first_unstarted]:
            task.place = None
            assert lease.peer is not None
            owner.lost_outputs(task, lease.peer)
            if task.tries == 0:
                self.caller.fail(task, "WorkerDied", f"{task.spec.name}: {reason}")
            else:
                task.tries -= 1
                self.retried += 1
                self.retry(task, task.spec.retries - task.tries, now)
        leases.dispatch(lease.pool, now)

    def on_ousted(self, peer: Peer, now: float, reason: str) -> None:
        self.ousted = f"this node is no member of the cluster any more: {reason}"

    def node_died(self, reason: str = "") -> None:
        """The node daemon is gone: nothing that is pending will ever come."""
        caller, reason = self.caller, reason or self.ousted or GONE
        caller.lost = reason
        self.rests.clear()
        for row in list(caller.owner.rows.values()):
            if row.state == PENDING:
                if row.task is not None:
                    caller.fail(row.task, "NodeDied", reason)
                else:
                    caller.owner.fail(row, "NodeDied", reason)
        caller.leases.node_died(reason)
        for line in list(caller.actors.lines.values()):
            caller.actors.died(line, ["NodeDied", reason])
