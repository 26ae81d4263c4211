"""Which node a lease comes from: the node that is asked grants it, queues it, or names another.

The node decides by its own state and by what the others have gossiped (``core.policy``).  What it
queues it looks at again whenever that changes, and sends on what would start elsewhere at once.
Each REDIRECT is a hop; after ``HOPS_MAX`` a request stays where it is, if it can ever run there.

Placement groups are resources: what is set aside for a bundle is taken from what is free, and given
out under the group's names once the head says that the whole group is placed (``BUNDLE``).  Who
asks for a group that no node has waits (``parked``) while the head says that there is one.

What no node can ever run is denied at once; but what a node could that has died within the last
``RETURN_S`` seconds waits as well: it may be back, as another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.head.groups import extras
from freehold.core.machine import Machine, Peer
from freehold.core.member import Resources, fits
from freehold.core.node.grants import Grant
from freehold.core.node.members import Members
from freehold.core.node.workers import Workers, are_at_most
from freehold.core.policy import LATER, NEVER, NOW, UNKNOWN, Choice, choose, flaw_of_strategy

HOPS_MAX = 8
REQUESTS_SHOWN = 100
RETURN_S = 60.0  # seconds


class Scheduler:
    """The part of a node that lets leases come from the right node."""

    def __init__(self, machine: Machine, workers: Workers, members: Members) -> None:
        self.machine = machine
        self.workers = workers
        self.members = members
        self.parked: list[Grant] = []  # for a placement group that no node has (yet)
        self.bundles: dict[tuple[bytes, int], tuple[Resources, bool]] = {}  # resources, committed
        self.asked: set[bytes] = set()  # groups of which the head was asked whether they are there
        self.heed: Callable[[Peer], bool]  # a holder, whose death is to be heard of
        self.jobs: dict[bytes, str] = {}  # drivers that have leased here -> where they are
        self.redirected = 0
        self._turn = 0
        self._stirred = False
        machine.on(
            {
                m.LEASE: self.on_lease,
                m.LEASE_CANCEL: self.on_cancel,
                m.BUNDLE: self.on_bundle,
            }
        )

    @property
    def alone(self) -> bool:
        """Whether there is no cluster to speak of."""
        return len(self.members.view) <= 1 and not self.members.me.retiring

    # -- requests ---------------------------------------------------------------------------------
    def on_lease(
        self,
        peer: Peer,
        now: float,
        request: int,
        cpus: float,
        actor: bytes,
        resources: dict[str, float],
        where: list[Any],
        hops: int,
        job: list[Any],
    ) -> None:
        grant = Grant(peer, request, cpus, actor, resources, where, hops, job)
        flaw = flaw_of_strategy(where)
        if not self.heed(peer):
            return
        if job:
            self.jobs[job[0]] = job[1]
        if flaw:
            self.machine.send(peer, m.DENIED, request, flaw)
        elif self.members.view:
            self._decide(grant, now)
        else:
            self.workers.ask(grant, now)

    def _decide(self, grant: Grant, now: float) -> None:
        choice = self._choose(grant)
        if choice.verdict == NEVER and self._may_return(grant, now):
            self.parked.append(grant)
        elif choice.verdict == NEVER:
            self.machine.send(grant.holder, m.DENIED, grant.request, choice.reason)
        elif choice.verdict == UNKNOWN:
            self._park(grant, choice.reason)
        elif choice.node == self.machine.id or not self._redirect(grant, choice.node):
            self.workers.ask(grant, now)

    def _may_return(self, grant: Grant, now: float) -> bool:
        """Whether a node that has died lately could have run it."""
        if grant.where[:1] == ["node"] and not grant.where[2]:
            return False  # a dead identity never returns
        fallen = {node.id: node for at, node in self.members.fallen if now < at + RETURN_S}
        return choose(dict(grant.needs), grant.where, fallen, b"").verdict in (NOW, LATER)

    def deadline(self) -> float:
        """When the first dead node is not waited for any more."""
        fallen = self.members.fallen
        return fallen[0][0] + RETURN_S if fallen else math.inf

    def on_timer(self, now: float) -> None:
        """Deny what only nodes could run that have been dead for long."""
        if now >= self.deadline():
            self.members.fallen = [one for one in self.members.fallen if now < one[0] + RETURN_S]
            self.on_change(now)

    def _park(self, grant: Grant, reason: str) -> None:
        """It is for a placement group that no node has: wait, if there is such a group."""
        group = group_of(grant)
        if group is None:
            self.machine.send(grant.holder, m.DENIED, grant.request, reason)
            return
        self.parked.append(grant)
        if group in self.asked:
            return
        self.asked.add(group)

        def told(error: list[Any], fields: dict[str, Any], now: float) -> None:
            self.asked.discard(group)
            if error:
                self._deny(group, f"its placement group was removed ({group.hex()})")

        self.members.relay.inquire("placed", {"group": group}, told)

    def _deny(self, group: bytes, reason: str) -> None:
        """Those that wait for that group wait in vain."""
        parked, self.parked = self.parked, []
        for grant in parked:
            if group_of(grant) == group:
                self.machine.send(grant.holder, m.DENIED, grant.request, reason)
            else:
                self.parked.append(grant)

    def _choose(self, grant: Grant) -> Choice:
        """By what is free here beside what those in the queue will take."""
        free = dict(self.workers.free)
        for other in self.workers.queue:
            if other is not grant:
                for name, amount in other.needs:
                    free[name] = free.get(name, 0.0) - amount
        me = self.members.me
        told, me.free, me.total = me.free, free, self.workers.total
        self._turn += 1
        needs = dict(grant.needs)
        choice = choose(needs, grant.where, self.members.view, self.machine.id, self._turn)
        me.free = told
        return choice

    def _redirect(self, grant: Grant, node: bytes) -> bool:
        """Send the request on; False if it has been sent on often enough, or can only run here."""
        if grant.hops >= HOPS_MAX and fits(dict(grant.needs), self.workers.total):
            return False
        member = self.members.view[node]
        for name, amount in grant.needs:  # until it reports again
            if name in member.free:
                member.free[name] -= amount
        member.waiting += 1
        self.redirected += 1
        self.machine.send(grant.holder, m.REDIRECT, grant.request, node, member.address)
        return True

    def on_cancel(self, peer: Peer, now: float, request: int) -> None:
        self.parked = [
            grant for grant in self.parked if grant.holder is not peer or grant.request != request
        ]
        self.workers.on_cancel(peer, now, request)

    def forget_holder(self, peer: Peer, now: float) -> None:
        """A process that asked for leases, or holds some, is dead."""
        self.parked = [grant for grant in self.parked if grant.holder is not peer]
        self.workers.forget_holder(peer, now)

    def on_death(self, proc: bytes, now: float) -> None:
        """A process is dead, here or elsewhere; if it was a driver, so is its job."""
        if self.jobs.pop(proc, None) is not None:
            self.workers.end_job(proc, now)

    def on_node_death(self, node: bytes, now: float) -> None:
        """A node is dead, with the drivers that lived there."""
        for driver in [driver for driver, at in self.jobs.items() if node_of(at) == node]:
            self.on_death(driver, now)

    # -- the view ---------------------------------------------------------------------------------
    def on_change(self, now: float) -> None:
        """What is known of other nodes has changed: see who could start elsewhere."""
        parked, self.parked = self.parked, []
        for grant in parked:
            self._decide(grant, now)
        for grant in list(self.workers.queue):
            fits_here = grant.fits(self.workers.free, self.workers.devices)
            if fits_here and not self.members.me.retiring:
                continue
            choice = self._choose(grant)
            elsewhere = choice.node not in (b"", self.machine.id)
            if elsewhere and (choice.verdict == NOW or self.members.me.retiring):
                if self._redirect(grant, choice.node):
                    self.workers.queue.remove(grant)
            elif choice.verdict == NEVER and grant.where[:1] == ["node"]:
                self.workers.queue.remove(grant)
                self.machine.send(grant.holder, m.DENIED, grant.request, choice.reason)

    def report(self, now: float) -> None:
        """Tell the head what is free."""
        waiting = len(self.workers.queue) + len(self.parked)
        self.members.report(self.workers.free, waiting, now)

    # -- bundles ----------------------------------------------------------------------------------
    def on_bundle(
        self, peer: Peer, now: float, group: bytes, index: int, step: str, resources: Resources
    ) -> None:
        key = (group, index)
        held = self.bundles.get(key)
        done = True
        if step == "prepare":
            if held is None:
                done = fits(resources, self.workers.free)
                if done:
                    self.bundles[key] = (resources, False)
                    self.workers.change(resources, -1.0, total=False)
        elif step == "commit":
            if held is None:  # a head that has restarted, and a node too
                done = fits(resources, self.workers.free)
                if done:
                    self.workers.change(resources, -1.0, total=False)
            if done and (held is None or not held[1]):
                self.bundles[key] = (resources, True)
                self.workers.change(extras(group, index, resources), 1.0, total=True)
        elif held is not None:
            del self.bundles[key]
            if held[1]:
                self.workers.end_users(group, now)
                self.workers.change(extras(group, index, held[0]), -1.0, total=True)
            self.workers.change(held[0], 1.0, total=False)
            self._requeue(group, now)
        self.machine.send(peer, m.BUNDLED, group, index, step, done)
        self.workers.match(now)

    def requests(self) -> list[dict[str, Any]]:
        """Who waits for a lease, and for what: the first of them, for people."""
        free = self.workers.free
        more = ["a worker process (workers_max)"] if are_at_most(self.workers) else []
        return [
            {
                "pid": grant.holder.pid,
                "needs": dict(grant.needs),
                "lacks": [name for name, amount in grant.needs if amount > free.get(name, 0.0)]
                + more,
            }
            for grant in [*self.workers.queue, *self.parked][:REQUESTS_SHOWN]
        ]

    def _requeue(self, group: bytes, now: float) -> None:
        """A bundle of the group has gone: those in the queue for it may wait in vain here."""
        for grant in [grant for grant in self.workers.queue if group_of(grant) == group]:
            if not fits(dict(grant.needs), self.workers.total):
                self.workers.queue.remove(grant)
                self._decide(grant, now)


def group_of(grant: Grant) -> bytes | None:
    """The placement group whose resources it needs, if it does."""
    for name in grant.resources:
        _, slash, rest = name.partition("/")
        if slash:
            try:
                return bytes.fromhex(rest.partition("/")[0])
            except ValueError:
                return None
    return None
