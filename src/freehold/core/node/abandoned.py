"""Actors of dead drivers: they live on as long as other programs hold them.

A handle is a reference like any other, and what others hold outlives its owner.  The worker of such
an actor is to its node what the memory of an object is: it is *stored* here, and whoever collects
the driver's estate (``node.estates``) owns it if somebody holds it, and else has it ended.
"""

from __future__ import annotations

from freehold.core.address import node_of
from freehold.core.node.workers import Workers
from freehold.core.places import Place

ACTOR_SIZE = -1  # in the place of an actor, which is [process, address, this, node]


class Abandoned:
    """Those of one node."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def of(self, key: bytes) -> list[tuple[bytes, bytes, Place]]:
        """What a dead driver, or those of a dead node, have left: actor, owner, place."""
        found = []
        for lease in self.workers.leases.values():
            holder = lease.holder
            if lease.orphan and key in (holder.id, node_of(holder.address)):
                assert lease.worker is not None
                peer = lease.worker.peer
                assert peer is not None
                place = [peer.id, peer.address, ACTOR_SIZE, self.workers.machine.id]
                found.append((lease.actor, holder.id, place))
        return found

    def end(self, actor: bytes, owner: bytes) -> bool:
        """Nobody holds that actor: end it; False if there is none."""
        for lease in list(self.workers.leases.values()):
            if lease.orphan and (lease.actor, lease.holder.id) == (actor, owner):
                worker = self.workers.release(lease)
                self.workers.kill(worker, "the process that had leased it died")
                self.workers.match(self.workers.machine.now)
                return True
        return False


def is_actor(place: Place) -> bool:
    """Whether an actor lives there."""
    return bool(place) and place[2] == ACTOR_SIZE
