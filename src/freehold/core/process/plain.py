"""The plain call, from its submission to its result: what most calls are.

A call is plain when it has one result and neither options nor references among its arguments, and
its result is small.  ``process.client`` says what calls do, and does all others; this file does the
same for these with as few steps as it can, since what their caller spends on them is what bounds
how many there can be.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.messages import INLINE, PENDING
from freehold.core.process.actors import Actors
from freehold.core.process.leases import Leases
from freehold.core.process.orphans import Orphans
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Lease, Line, Place, Row, Spec, plain_row


class Plain:
    """The plain calls of one process."""

    def __init__(
        self, machine: Machine, owner: Owner, leases: Leases, actors: Actors, orphans: Orphans
    ) -> None:
        self.machine = machine
        self.owner = owner
        self.leases = leases
        self.actors = actors
        self.orphans = orphans
        machine.on({m.DONE: self.on_done})
        machine.bulk[m.DONE] = self.take_done

    def join(self, spec: Spec, id: bytes, args: bytes) -> Row | None:
        """``submit``, if a busy worker can take the task as it took the one before; else None."""
        if not spec.room or not spec.plain:
            return None
        lease = spec.lease
        assert lease is not None
        inflight, peer = lease.inflight, lease.peer
        if not inflight or lease.shut or lease.pool.queue or peer is None:
            spec.room = 0
            return None
        spec.room -= 1
        row = self.owner.rows[id] = plain_row(spec, id, args)
        task = inflight[id] = row.task  # type: ignore[assignment]  # it has one
        task.place = lease  # type: ignore[union-attr]
        box = peer.outbox
        if not box:
            self.machine.dirty.append(peer)
        box.append((m.TASK, id, spec.digest, args))
        return row

    def submit(self, spec: Spec, id: bytes, args: bytes, now: float) -> Row:
        """Submit a task of one result whose arguments hold no references (the common case)."""
        row = self.owner.rows[id] = plain_row(spec, id, args)
        task = row.task
        assert task is not None
        pool = spec.pool
        if pool is not None and len(pool.queue) > pool.most:
            pool.queue.append(task)  # every lease that can be had is full, or asked for
        else:
            self.leases.place(task, now)
        return row

    def call(self, line: Line, spec: Spec, id: bytes, args: bytes, now: float) -> Row:
        """Call an actor's method of one result, with arguments that hold no references."""
        row = self.owner.rows[id] = plain_row(spec, id, args)
        task = row.task
        assert task is not None
        if line.peer is None or line.queue or not line.inflight or line.error is not None:
            self.actors.call(line, task, now)
        else:
            self.leases.push(task, line, now)
        return row

    def on_done(self, peer: Peer, now: float, id: bytes, value: bytes) -> None:
        row = self.owner.rows.get(id)
        task = row.task if row is not None else None
        if row is None or task is None:
            return
        place = task.place
        if place is None or place.peer is not peer:
            return  # the answer of an attempt that was given up
        del place.inflight[id]
        row.task = None
        if task.links is not None:
            self.owner.let_go(task)
        if row.waiters is None and row.more is None:
            row.state = INLINE
            row.data = value
            if not row.handles and not row.holds:
                self.owner.settle(row)
        elif row.state == PENDING:
            self.owner.resolve(row, INLINE, value)
            self.owner.settle(row)
        else:  # a run for what the value refers to, and it has none now
            self.orphans.done(task, peer)
            self.owner.unhold(row)
        if place.__class__ is Lease:
            if now > place.last or len(place.inflight) <= place.low:
                self.leases.finished(place, task.spec, now)
            else:
                place.batch += 1
        elif not place.inflight and place.__class__ is Line:
            self.actors.answered(place)

    def take_done(self, peer: Peer, now: float, messages: list[Any]) -> list[Any]:
        """``on_done`` for results that came together; what is none of them is returned."""
        get, place, done = self.owner.rows.get, peer.lease, m.DONE
        if not isinstance(place, Place):
            return messages
        inflight, lease = place.inflight, place if isinstance(place, Lease) else None
        for at, message in enumerate(messages):
            try:
                op, id, value = message
            except (TypeError, ValueError):
                return messages[at:]
            if op != done:
                return messages[at:]
            row = get(id)
            if row is None or row.waiters is not None or row.more is not None:
                self.on_done(peer, now, id, value)
                continue
            task = row.task
            if task is None or task.place is not place or task.links is not None:
                self.on_done(peer, now, id, value)
                continue
            del inflight[id]
            row.task = None
            row.state = INLINE
            row.data = value
            if not row.handles and not row.holds:
                self.owner.settle(row)
            if lease is None:
                if not inflight:
                    self.actors.answered(place)  # type: ignore[arg-type]  # it is a line
            elif now > lease.last or not inflight or (lease.low and len(inflight) <= lease.low):
                self.leases.finished(lease, task.spec, now)
            else:
                lease.batch += 1
        return []
