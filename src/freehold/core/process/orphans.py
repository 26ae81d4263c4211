"""References whose owner is dead: found again where the task that had made them has run again.

A task's re-run makes the same ids, owned by the process that runs it now.  So what a dead worker
owned can come back if its *parent* task can: the owner of that task runs it again, sees in its
result who owns the references now, and says so (REBORN) to the heir, which tells all who ask.

1. With HELD, a process tells the heir which of the references it could have made again: those
   inside results that it owns and has the recipe of; and the contexts of tasks that were running on
   the dead and will be run again anyway.
2. When somebody asks the heir for the value of one of these, it asks that process for it (REVIVE).
3. The worker of the new run is asked, too (``settle``): it says who owns the id as soon as that is
   made.  The run may need somebody who waits for that, and would else never be over.
4. Whoever sees an id that it knows as an orphan come with a living owner attaches its row to that
   one (``Owner.attach``).
"""

from __future__ import annotations

from freehold.core import messages as m
from freehold.core.ids import CONTEXT_BYTES, context_of
from freehold.core.machine import Machine, Peer
from freehold.core.messages import PENDING
from freehold.core.process.lineage import Lineage
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Lease, Task

DUE_MAX = 1000  # ids of which it is remembered who wants to know when they are made


class Orphans:
    """The part of a process that has orphans made again, for itself and for others."""

    def __init__(self, machine: Machine, owner: Owner, lineage: Lineage) -> None:
        self.machine = machine
        self.owner = owner
        self.lineage = lineage
        self.wanted: dict[bytes, dict[bytes, Peer]] = {}  # task -> ids to tell of, and whom
        self.passed: dict[bytes, Peer] = {}  # task -> the worker that has been asked
        self.due: dict[bytes, Peer] = {}  # id that a run here is to make -> whom to tell
        machine.on({m.REVIVE: self.on_revive, m.REBORN: self.on_reborn})

    # -- what can be made again -------------------------------------------------------------------
    def revivable(self, dead: Peer) -> set[bytes]:
        """The references of the dead process that a task owned here could make again."""
        found: set[bytes] = set()
        for row in self.owner.rows.values():
            more = row.more
            if more is not None and more.recipe is not None and more.recipe.tries != 0:
                found.update(inner.id for inner in more.contains if inner.owner is dead)
        return found

    def contexts(self, dead: Peer) -> list[bytes]:
        """The contexts of tasks that the dead process ran, and that will be run again."""
        place = dead.lease
        if not isinstance(place, Lease):
            return []
        tasks = [task for task in place.inflight.values() if task.tries != 0]
        return [context_of(task.id) for task in tasks]

    # -- as the one who can make it again ---------------------------------------------------------
    def on_revive(self, peer: Peer, now: float, id: bytes, proc: bytes) -> None:
        row = self.owner.rows.get(id)
        if row is not None and row.owner is None:  # the task has run again in this very process
            self.machine.send(peer, m.REBORN, id, self.machine.id, self.owner.address)
            return
        if row is not None and row.owner is not None and not self.owner.is_orphan(row):
            self.machine.send(peer, m.REBORN, id, row.owner.id, row.owner.address)
            return
        if peer is not self.owner.node:  # who has given this process the task
            self.due[id] = peer
            if len(self.due) > DUE_MAX:
                del self.due[next(iter(self.due))]
            return
        task = self._parent(id)
        if task is None:
            self.machine.send(peer, m.REBORN, id, b"", "")
        else:
            self.wanted.setdefault(task.id, {})[id] = peer

    def _parent(self, id: bytes) -> Task | None:
        """The task whose run makes that reference; it is started again if it is over."""
        for row in self.owner.rows.values():
            more = row.more
            if more is None or more.recipe is None:
                continue
            if any(inner.id == id for inner in more.contains):
                return more.recipe if self.lineage.run_again(more.recipe) else None
        for row in self.owner.rows.values():
            if row.task is not None and context_of(row.task.id) == id[:CONTEXT_BYTES]:
                return row.task
        return None

    def settle(self) -> None:
        """Ask the workers of what is run again; tell whose runs have made here what they make."""
        rows = self.owner.rows
        for first, ids in list(self.wanted.items()):
            task = rows[first].task if first in rows else None
            if task is None:  # its result was a plain one
                self._over(first, self.passed.get(first))
                continue
            worker = None if task.place is None else task.place.peer
            if worker is not None and self.passed.get(first) is not worker:
                self.passed[first] = worker
                for id in ids:
                    if id[:CONTEXT_BYTES] == context_of(first):
                        self.machine.send(worker, m.REVIVE, id, worker.id)
        for id, peer in list(self.due.items()):
            if id in rows and rows[id].owner is None:
                self.machine.send(peer, m.REBORN, id, self.machine.id, self.owner.address)
                del self.due[id]
            elif peer.down:
                del self.due[id]

    def done(self, task: Task, worker: Peer | None) -> None:
        """A task is over: say who owns now what was asked for."""
        if task.id in self.wanted:
            self._over(task.id, worker)

    def _over(self, first: bytes, worker: Peer | None) -> None:
        self.passed.pop(first, None)
        for id, peer in self.wanted.pop(first).items():
            row = self.owner.rows.get(id)
            if row is not None and row.owner is not None and not self.owner.is_orphan(row):
                self.machine.send(peer, m.REBORN, id, row.owner.id, row.owner.address)
            elif worker is not None and context_of(first) == id[:CONTEXT_BYTES]:
                self.machine.send(peer, m.REBORN, id, worker.id, worker.address)
            else:
                self.machine.send(peer, m.REBORN, id, b"", "")

    # -- as a holder ------------------------------------------------------------------------------
    def on_reborn(self, peer: Peer, now: float, id: bytes, owner: bytes, address: str) -> None:
        row = self.owner.twins.borrowed(id)
        if row is not None and self.owner.is_orphan(row) and row.state == PENDING:
            self.owner.attach(row, owner, address)
        for ids in self.wanted.values() if owner else ():
            if id in ids:
                self.machine.send(ids.pop(id), m.REBORN, id, owner, address)
