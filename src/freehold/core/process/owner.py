"""Ownership: who needs which value, and until when.

The owner of a reference is the process that asked for it.  Its writes are local and synchronous; no
daemon is asked.  The rules of this file:

1. A row is freed when its handles, holds and tickets are all gone (``settle``).
2. *Whoever hands a reference to another process registers that process with the owner and keeps its
   own hold until the owner confirms* (``hand_over``).  If the owner hands it on itself, that is one
   dictionary entry.  So no message can overtake the count; what a crash between two messages leaves
   is cleared by ``process.claims``.
3. References inside the arguments of a running task need no registration: the caller holds them
   until the task is done, and then takes over what the worker says it kept (``take_kept``).
4. When a process dies its tickets go, and nobody registers it again: process ids never return.
   When an *owner* dies, a node owns in its stead what others hold (``node.estates``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.ids import PROC_ID_BYTES, pack_index
from freehold.core.machine import Machine, Peer
from freehold.core.messages import COLLECTED, FAILED, PENDING, SHARED
from freehold.core.process.references import References
from freehold.core.process.rows import Row, Task
from freehold.core.process.twins import Twins

RefFields = list[Any]  # [id, owner, owner address, ticket]


class Owner(References):
    """The reference table of one process; see the file's first paragraph."""

    def __init__(self, machine: Machine, address: str = "") -> None:
        super().__init__(machine, address)
        self.twins = Twins(self)
        self.dead: dict[bytes, Peer] = {}  # processes -> who owns in their stead
        self.homes: dict[bytes, bytes] = {}  # of borrowers on other nodes
        self.void: dict[bytes, None] = {}  # givers whose tickets are worth nothing any more
        self.claim: Callable[[bytes, bytes, list[list[bytes]]], None]  # set by process.claims
        self.heed: Callable[[bytes], bool] = lambda node: True  # hear of deaths there; False: dead
        # ticket -> what awaits REGISTERED, and for whom; None: this process
        self._handed: dict[bytes, tuple[Row, Task | None, Peer | None]] = {}
        self._tickets = 0
        machine.on(
            {
                m.REGISTER: self.on_register,
                m.REGISTERED: self.on_registered,
                m.RELEASE: self.on_release,
                m.PULL: self.on_pull,
                m.VALUE: self.on_value,
            }
        )

    # -- rows -----------------------------------------------------------------------------------
    def hold(self, id: bytes, owner: bytes, address: str) -> Row:
        """The row of a reference that has just been deserialized here, with one more handle."""
        row = self._row(id, owner, address)
        row.handles += 1
        return row

    def _row(self, id: bytes, owner: bytes, address: str) -> Row:
        key = self.twins.key(id)
        row = self.rows.get(id) or self.rows.get(key)
        if row is not None and not _is_stale(row, owner, self.dead):
            if row.state == PENDING and self.is_orphan(row) and self._lives(owner, address):
                self.attach(row, owner, address)
            return row
        if owner == self.machine.id:
            row = Row(id, None)  # not in the table: it was released, and ids are not reused
            self.fail(row, "ObjectFreed", f"object {id.hex()} was released by its owner")
            return row
        peer = self.machine.peer(owner, address)  # which may turn out to be dead
        if owner in self.dead:
            peer = self.dead[owner]  # which has adopted it, or knows that it is lost
        row = self.rows[key] = Row(id, None, peer)
        if owner in self.dead:
            self.enlist(row)
        return row

    def _lives(self, owner: bytes, address: str) -> bool:
        """Whether that process lives, as far as is known: else it says nothing new of an orphan.

        The name of an owner inside of a value is as old as the value.
        """
        if owner == self.machine.id:
            return True
        self.machine.peer(owner, address)  # which may turn out to be dead
        return owner not in self.dead

    def meet(self, id: bytes, owner: bytes, address: str) -> Row:
        """The row of a reference that nobody has handed to this process, with one more handle.

        This process registers itself; until the owner has confirmed that, the row is *uncertain*.
        """
        row = self.hold(id, owner, address)
        if row.owner is not None and not (row.more is not None and row.more.sure):
            self.enlist(row)
        return row

    def is_uncertain(self, row: Row) -> bool:
        """Whether a hand-over of it has not been confirmed, and may fail yet."""
        return any(handed is row for handed, _, _ in self._handed.values())

    # -- values -------------------------------------------------------------------------------

    def on_pull(self, peer: Peer, now: float, ids: list[bytes]) -> None:
        for id in ids:
            row = self.rows.get(id)
            if row is None:
                text = f"object {id.hex()} was released by its owner"
                self.machine.send(peer, m.VALUE, id, FAILED, ["ObjectFreed", text], [])
            elif row.state in (PENDING, COLLECTED):
                row.extend().pullers.append(peer)
                self.want(row)
            else:
                self.answer(peer, row)

    def answer(self, peer: Peer, row: Row) -> None:
        if peer.down:
            return
        contains: list[RefFields] = []
        if row.more is not None:
            contains = [self.hand_over(inner, peer) for inner in row.more.contains]
        self.machine.send(peer, m.VALUE, row.id, row.state, row.data, contains)

    def on_value(
        self, peer: Peer, now: float, id: bytes, state: int, data: Any, contains: list[RefFields]
    ) -> None:
        inner = self.receive(contains)
        row = self.twins.borrowed(id)
        owner = None if row is None else row.owner
        if (
            row is not None
            and owner is not None
            and row.state == PENDING
            and (
                state != SHARED or owner is peer  # of a place, only who owns it now can tell
            )
        ):
            self.contain(row, inner)
            self.resolve(row, state, data)
        for ref in inner:
            self.settle(ref)

    # -- hand-over and release ----------------------------------------------------------------
    def ticket(self) -> bytes:
        """A name for one hand-over, unique because it begins with this process's id."""
        self._tickets += 1
        return self.machine.id + pack_index(self._tickets)

    def hand_over(self, row: Row, receiver: Peer) -> RefFields:
        """Hand the reference to ``receiver``: the fields to send, registered in its name."""
        ticket = self.ticket()
        owner = row.owner
        if owner is None:
            if not receiver.down:
                row.extend().tickets[ticket] = receiver.id
            return [row.id, self.machine.id, self.address, ticket]
        if owner is not receiver and not receiver.down:
            self.register(row.id, receiver, ticket, row, None)
        return [row.id, owner.id, owner.address, ticket]

    def register(
        self, id: bytes, borrower: Peer | None, ticket: bytes, row: Row, task: Task | None
    ) -> None:
        """Have the owner record a borrower: that process, or this one."""
        owner = row.owner
        assert owner is not None
        if owner.down:
            return  # nobody will confirm it; whoever gets the reference asks the node
        row.holds += 1
        if task is not None:
            assert task.links is not None
            task.links.settling += 1
        self._handed[ticket] = (row, task, borrower)
        who = self.machine.id if borrower is None else borrower.id
        self.machine.send(owner, m.REGISTER, id, who, ticket, self.home_of(borrower))

    def enlist(self, row: Row) -> None:
        """Have the owner record this process, which relies on nobody else's word for that."""
        ticket = self.ticket()
        more = row.extend()
        more.mine.append(ticket)
        more.sure = True
        self.register(row.id, None, ticket, row, None)

    def receive(self, refs: list[RefFields]) -> list[Row]:
        """Rows of references that were handed to this process, each with its ticket."""
        rows = []
        for id, owner, address, ticket in refs:
            row = self._row(id, owner, address)
            whose = self.machine.id if row.owner is None else row.owner.id
            if whose != owner:  # a re-run has made the id again: this process has the other one
                self.machine.send(self.machine.peer(owner, address), m.RELEASE, [[id, ticket]])
            elif row.owner is not None and ticket[:PROC_ID_BYTES] in self.void:
                self.enlist(row)
            elif row.owner is not None:
                row.extend().mine.append(ticket)
            elif row.more is not None:
                row.more.tickets.pop(ticket, None)  # a worker that leased itself handed it on
            rows.append(row)
        return rows

    def keep(self, row: Row) -> RefFields:
        """This process keeps a reference that came with a task: a new ticket, for the caller."""
        ticket = self.ticket()
        row.extend().mine.append(ticket)
        owner = row.owner
        assert owner is not None
        return [row.id, owner.id, owner.address, ticket]

    def take_kept(self, kept: list[RefFields], worker: Peer, task: Task) -> None:
        """Register what the worker kept of a task's arguments, before the arguments are let go."""
        for id, owner, address, ticket in kept:
            row = self._row(id, owner, address)
            whose = self.machine.id if row.owner is None else row.owner.id
            if whose != owner and (row.owner is None or self.dead.get(owner) is not row.owner):
                # Of another run than the worker's, which lets go of its own; and if its owner is
                # dead, the worker will hear of that.
                if owner != self.machine.id and owner not in self.dead:
                    there, home = self.machine.peer(owner, address), self.home_of(worker)
                    self.machine.send(there, m.REGISTER, id, worker.id, ticket, home)
                continue
            if row.owner is None:
                if not worker.down and self.rows.get(id) is row:
                    self._add_ticket(row, worker.id, ticket)
            elif row.owner is worker:
                pass  # it owns the object itself
            else:
                self.register(id, worker, ticket, row, task)
                if row.owner.id != owner:
                    home = self.home_of(worker)
                    _ask(self.machine, worker, home, owner, row.owner, [id, ticket])

    def on_register(
        self, peer: Peer, now: float, id: bytes, borrower: bytes, ticket: bytes, home: bytes
    ) -> None:
        row = self.rows.get(id)
        if row is not None and borrower not in self.dead and self.heed(home):
            if home != self.home_of(None):
                self.homes[borrower] = home
            self._add_ticket(row, borrower, ticket)
            if ticket[:PROC_ID_BYTES] in self.dead:
                self.claim(ticket[:PROC_ID_BYTES], borrower, [[id, ticket]])
        elif row is None and borrower == peer.id:  # it has found the reference by a name
            text = f"object {id.hex()} was released by its owner"
            self.machine.send(peer, m.VALUE, id, FAILED, ["ObjectFreed", text], [])
        self.machine.send(peer, m.REGISTERED, ticket)

    def _add_ticket(self, row: Row, borrower: bytes, ticket: bytes) -> None:
        more = row.extend()
        if ticket in more.early:
            more.early.remove(ticket)
            self.settle(row)
        else:
            more.tickets[ticket] = borrower

    def on_registered(self, peer: Peer, now: float, ticket: bytes) -> None:
        handed = self._handed.pop(ticket, None)
        if handed is not None:
            self._confirmed(*handed[:2])

    def _confirmed(self, row: Row, task: Task | None) -> None:
        if task is not None:
            self.unpin(task)
        self.unhold(row)

    def on_release(self, peer: Peer, now: float, tickets: list[list[bytes]]) -> None:
        for id, ticket in tickets:
            row = self.rows.get(id)
            if row is None:
                continue
            more = row.extend()
            if more.tickets.pop(ticket, None) is not None:
                self.settle(row)
            elif ticket[:PROC_ID_BYTES] not in self.dead:  # if it comes still, it will be claimed
                more.early.add(ticket)

    # -- deaths -------------------------------------------------------------------------------
    def on_death(self, dead: Peer, heir: Peer) -> None:
        """A process died, and ``heir`` owns in its stead; for the rest see ``process.shares``."""
        for other in [other for other, whose in self.dead.items() if whose is dead]:
            self.dead[other] = heir  # what the dead one had adopted is part of its estate
        self.dead[dead.id] = heir
        self.homes.pop(dead.id, None)
        for ticket, (row, task, borrower) in list(self._handed.items()):
            if row.owner is not dead:
                continue
            if borrower is not None and _may_hear(borrower) and row.may_outlive:
                self._hand_over_again(row, ticket, borrower, heir)
            else:  # nobody is to confirm it any more
                del self._handed[ticket]
                self._confirmed(row, task)

    def _hand_over_again(self, row: Row, ticket: bytes, borrower: Peer, heir: Peer) -> None:
        """The owner died before it has confirmed a hand-over: its heir is to do it in its stead.

        The node of the dead may never have heard of the borrower.
        """
        dead, home = row.owner, self.home_of(borrower)
        assert dead is not None
        self.machine.send(heir, m.REGISTER, row.id, borrower.id, ticket, home)
        _ask(self.machine, borrower, home, dead.id, heir, [row.id, ticket])

    def is_orphan(self, row: Row) -> bool:
        """Whether a node owns the reference, in the stead of somebody who is dead."""
        owner = row.owner
        if owner is None:
            return False
        return owner is self.node or node_of(owner.address) == owner.id

    def attach(self, row: Row, owner: bytes, address: str) -> None:
        """An orphan has been made again: borrow it from its new owner."""
        known = row.owner
        if owner == self.machine.id:
            if not self.twins.reborn(row):
                self.fail(row, "ObjectFreed", f"object {row.id.hex()} was released by its owner")
            return
        if not owner or known is None or owner == known.id:
            return
        more = row.extend()
        peer = self.machine.peer(owner, address)  # which may turn out to be dead, too
        peer = self.dead.get(owner, peer)
        if peer is not known:
            if more.mine:
                self.machine.send(known, m.RELEASE, [[row.id, ticket] for ticket in more.mine])
            row.owner = peer
            more.mine = []
            self.enlist(row)
        if more.pulled:
            self.machine.send(peer, m.PULL, [row.id])


def _ask(
    machine: Machine, borrower: Peer, home: bytes, dead: bytes, heir: Peer, ticket: list[bytes]
) -> None:
    """Ask for a ticket of which the heir knows: the borrower may have released it to the dead.

    It is asked on the link on which it was told of the ticket.
    """
    whose = (dead, heir.id, heir.address)
    machine.send(borrower, m.CLAIM, borrower.id, home, *whose, [ticket])


def _may_hear(borrower: Peer) -> bool:
    """Whether it is a living process: what a node holds in trust it tells the heir itself."""
    return not borrower.down and node_of(borrower.address) != borrower.id


def _is_stale(row: Row, owner: bytes, dead: dict[bytes, Peer]) -> bool:
    """Whether the row's owner died and a re-run of its creator has made the id again."""
    known = row.owner
    return known is not None and known.id != owner and known.id in dead
