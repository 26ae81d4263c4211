"""What becomes of references when a process dies, in each process that had to do with it.

Everyone who is asked says to the heir of the dead, by way of its own node (HELD):

* what it holds of the dead one's own (``held``): the heir owns it now, or knows that it is lost;
* what the dead held of its own (``lent``), and what it had let the dead use for it: the heir is the
  holder now, until it knows what is inside of what it adopts, and to whom the dead had handed what;
* what the dead has handed to it of others' (``given``): the dead may have died before it could say
  so to the owner; the heir says it, before it lets go of the dead one's own share.

So nothing is freed because its holder died that is still in the hands of somebody who has got it.
If nobody asks (the estate has been collected before this process came to have to do with it), the
tickets of the dead go at once, and what it had given is registered from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from freehold.core import messages as m
from freehold.core.ids import PROC_ID_BYTES
from freehold.core.machine import Peer
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Place, Row


def last_heir(heir: Peer, dead_nodes: dict[bytes, Peer]) -> Peer:
    """The heir that was named, or its own if it has died meanwhile."""
    while heir.id in dead_nodes:
        heir = dead_nodes[heir.id]
    return heir


def entrusted(peer: Peer) -> list[Row]:
    """References in the arguments of what that process runs for this one."""
    place = peer.lease
    tasks = place.inflight.values() if isinstance(place, Place) else ()
    rows = [row for task in tasks if task.links is not None for row in task.links.held]
    return list({row.id: row for row in rows}.values())


class Share:
    """One process's answer about a dead process, or all of a dead node."""

    def __init__(self, owner: Owner, heir: Peer, asked: bool, driver: bytes) -> None:
        self.owner = owner
        self.driver = driver  # of the program that this process works for
        self.heir = heir
        self.asked = asked
        self.taker = heir if asked and self._may_hold(heir) else None
        self.held: list[list[Any]] = []  # [id, ticket, whether of another program than the dead]
        self.lent: list[list[Any]] = []  # [id, owner, address, ticket]
        self.given: list[list[Any]] = []  # the same

    def _may_hold(self, heir: Peer) -> bool:
        """Whether that node can be a borrower: this process must hear of its death."""
        owner = self.owner
        if heir is not owner.node:
            if not owner.heed(heir.id):
                return False
            owner.homes[heir.id] = heir.id
        return True

    def of_process(self, dead: Peer, entrusted: Iterable[Row]) -> None:
        """It died; ``entrusted`` are arguments of what it ran for this process."""
        owner = self.owner
        owner.on_death(dead, self.heir)
        for row in [row for row in owner.rows.values() if row.more is not None]:
            self._forget_borrower(row, dead.id)
            self._reaffirm(row, dead)
        for row in entrusted:
            self._lend(row)
        for row in [row for row in owner.rows.values() if row.owner is dead]:
            row.owner = self.heir
            if row.may_outlive:
                ticket = owner.ticket()
                row.extend().mine.append(ticket)
                row.extend().sure = True
                self.held.append([row.id, ticket, self.driver != dead.id])

    def of_borrowers(self, node: bytes) -> None:
        """Borrowers on that node are dead with whom this process had nothing else to do."""
        owner = self.owner
        dead = {borrower for borrower, home in owner.homes.items() if home == node}
        owner.homes = {who: home for who, home in owner.homes.items() if home != node}
        for row in [row for row in owner.rows.values() if row.more is not None]:
            assert row.more is not None
            for borrower in sorted(dead.intersection(row.more.tickets.values())):
                self._forget_borrower(row, borrower)

    def _forget_borrower(self, row: Row, dead: bytes) -> None:
        """Its tickets go; or they are the heir's, until that knows whether it needs them."""
        more, owner = row.more, self.owner
        assert more is not None
        gone = [ticket for ticket, holder in more.tickets.items() if holder == dead]
        for ticket in gone:
            if self.taker is None:
                del more.tickets[ticket]
            else:
                more.tickets[ticket] = self.taker.id
                self.lent.append([row.id, owner.machine.id, owner.address, ticket])
        if gone:
            owner.settle(row)

    def _lend(self, row: Row) -> None:
        """Let the heir hold the reference until it knows who else does."""
        owner, whose, ticket = self.owner, row.owner, self.owner.ticket()
        if self.taker is None or not owner.twins.key_of(row) or whose is self.taker:
            return
        if whose is None:
            row.extend().tickets[ticket] = self.taker.id
            self.lent.append([row.id, owner.machine.id, owner.address, ticket])
        elif not whose.down:
            owner.register(row.id, self.taker, ticket, row, None)
            self.lent.append([row.id, whose.id, whose.address, ticket])

    def _reaffirm(self, row: Row, dead: Peer) -> None:
        """The tickets that the dead was to register may not have come to the (living) owner."""
        more, whose, me = row.more, row.owner, self.owner.machine.id
        if whose is None or whose is dead or more is None or more.sure:
            return
        makers = (dead.id, me)  # a caller registers what its worker has kept
        if not any(ticket[:PROC_ID_BYTES] in makers for ticket in more.mine):
            return
        if not self.asked:
            self.owner.enlist(row)
            return
        more.sure = self.heir is self.owner.node  # whose death is this process's, too
        ticket = self.owner.ticket()
        more.mine.append(ticket)
        self.given.append([row.id, whose.id, whose.address, ticket])

    def send(
        self, node: Peer, dead: bytes, again: set[bytes], contexts: list[bytes], home: bytes
    ) -> None:
        """Tell the node that has asked; else the heir, which has adopted what is to be adopted."""
        machine = self.owner.machine
        if self.asked:
            refs = [[id, ticket, id in again, other] for id, ticket, other in self.held]
            machine.send(node, m.HELD, dead, refs, contexts, self.lent, self.given)
            return
        for id, ticket, _ in self.held:
            machine.send(self.heir, m.REGISTER, id, machine.id, ticket, home)
