"""Requests for leases that have waited for long: whoever asked is told on what.

A look is taken every ``after`` seconds while anything waits.  Who waited at the last look, too, is
told (DELAYED), and again after twice as many looks, four times as many, and so on; of equal
requests of one process only one.  Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine
from freehold.core.member import text_of
from freehold.core.node.grants import Grant
from freehold.core.node.scheduler import Scheduler, group_of
from freehold.core.node.workers import Workers, are_at_most

AFTER_S = 5.0  # seconds
USERS_SHOWN = 5


class Delays:
    """The looks of one node."""

    def __init__(self, machine: Machine, workers: Workers, scheduler: Scheduler) -> None:
        self.machine = machine
        self.workers = workers
        self.scheduler = scheduler
        self.after = AFTER_S
        self.look_at = NEVER
        self._looks: dict[tuple[bytes, int], int] = {}  # holder, request -> looks that found it

    def _waiting(self) -> list[Grant]:
        return [*self.workers.queue, *self.scheduler.parked]

    def deadline(self) -> float:
        """When the next look is due."""
        if self.look_at == NEVER and (self.workers.queue or self.scheduler.parked):
            self.look_at = self.machine.now + self.after
        return self.look_at

    def on_timer(self, now: float) -> None:
        """Take a look, if it is time."""
        if now < self.look_at:
            return
        before, self._looks = self._looks, {}
        told: set[tuple[bytes, str]] = set()
        for grant in self._waiting():
            key = grant.holder.id, grant.request
            looks = self._looks[key] = before.get(key, 0) + 1
            waits = looks - 1  # whole spans between two looks
            reason = self._reason(grant) if waits and not waits & (waits - 1) else ""
            if reason and (grant.holder.id, reason) not in told:
                told.add((grant.holder.id, reason))
                self.machine.send(
                    grant.holder, m.DELAYED, grant.request, waits * self.after, reason
                )
        self.look_at = now + self.after if self._looks else NEVER

    def _reason(self, grant: Grant) -> str:
        """On what it waits, for people."""
        needs = [(name, amount) for name, amount in grant.needs if amount]
        wanted = text_of(needs) if needs else "a worker"
        if grant in self.scheduler.parked:
            what = "its placement group" if group_of(grant) else "a node that could run it"
            return f"it needs {wanted}, and waits for {what}"
        where = f"node {self.machine.id.hex()[:8]}"
        free, total = self.workers.free, self.workers.total
        lacking = [name for name, amount in grant.needs if amount > free.get(name, 0.0)]
        if not lacking and are_at_most(self.workers):
            most = self.workers.workers_max
            users = self._users()
            return f"it needs {wanted}: {where} runs no more than workers_max={most}: {users}"
        if not lacking:
            return f"it needs {wanted}: {where} has that, but others come first"
        has = " and ".join(f"{free[name]:g} of {total[name]:g} {name} free" for name in lacking)
        return f"it needs {wanted}: {where} has {has}, the rest is in use by {self._users(lacking)}"

    def _users(self, names: Sequence[str] = ()) -> str:
        """Who has these resources, or any worker, the most frequent first."""
        counts: dict[str, int] = {}
        for lease in self.workers.leases.values():
            worker = lease.worker
            has = any(amount and name in names for name, amount in lease.needs)
            if worker is None or (names and not has):
                continue
            what = worker.label or "a worker that has run nothing yet"
            label = f"{'actor ' if lease.actor else ''}{what}"
            counts[label] = counts.get(label, 0) + 1
        users = sorted(counts, key=lambda label: (-counts[label], label))
        shown = [f"{counts[label]} x {label}" for label in users[:USERS_SHOWN]]
        more = len(users) - len(shown)
        return ", ".join(shown + ([f"{more} more"] if more else [])) or "a placement group"
