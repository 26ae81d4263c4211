"""The table of references of one process, and what a change to one row does to others.

A row is freed as soon as its handles, holds and tickets are all gone (``settle``), and then lets go
of what its value contains.  When its value becomes known (``resolve``) it tells those who wait:
threads, tasks that take it as an argument, borrowers that have asked for it, and callers of the
actor that it stands for.  What must be done about it elsewhere is left in lists (``ready``,
``woken``, ``freed``, ``moved``, ``ended``) for the process to collect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.machine import Machine, Peer
from freehold.core.messages import COLLECTED, FAILED, INLINE, PENDING, SHARED
from freehold.core.process.rows import Links, Row, Task, Waiter
from freehold.core.process.twins import Twins


class Recipes(Protocol):
    """What this file needs of ``process.lineage``."""

    recipes: dict[bytes, Task]

    def is_kept(self, task: Task) -> bool:
        """Whether the task is a recipe."""

    def loosen(self, links: Links) -> None:
        """Hold as lineage what can be made again."""

    def dropped(self, row: Row) -> None:
        """The row is freed."""

    def revive(self, row: Row) -> None:
        """Make the value again."""

    def unreadable(self, row: Row, place: list[Any]) -> None:
        """Somebody could not read it there."""


class References:
    """The rows of one process; see the file's first paragraph."""

    def __init__(self, machine: Machine, address: str = "") -> None:
        self.machine = machine
        self.address = address
        self.rows: dict[bytes, Row] = {}
        self.node: Peer | None = None
        self.ready: list[Task] = []  # tasks whose last missing dependency has come
        self.woken: list[Waiter] = []  # waiters with a port whose count has reached zero
        self.freed: list[tuple[bytes, Any]] = []  # shared objects to give back: id, place
        self.moved: list[Row] = []  # actors whose address, or death, has become known
        self.ended: list[Row] = []  # actors that nobody here refers to any more
        self.unpinned: list[tuple[Row, Any]] = []  # the copy here that it needs no longer
        self.lineage: Recipes  # set by process.lineage
        self.twins: Twins  # set by process.owner
        self.failures = 0  # how many rows have ever resolved to an error

    def put(self, id: bytes, state: int, data: Any, contains: Iterable[Row] = ()) -> Row:
        """Record a value that this process made; the caller sets its handles or holds."""
        row = self.rows[id] = Row(id, None)
        self.contain(row, contains)
        row.state = state
        row.data = data
        return row

    def put_small(self, id: bytes, data: bytes) -> Row:
        """Record a small value without references inside, with one handle (the common case)."""
        row = self.rows[id] = Row(id, None)
        row.state = INLINE
        row.data = data
        row.handles = 1
        return row

    def contain(self, row: Row, contains: Iterable[Row]) -> None:
        """The value of ``row`` refers to these rows: hold them as long as it lives."""
        for inner in contains:
            inner.holds += 1
            row.extend().contains.append(inner)

    def drop(self, row: Row) -> None:
        """A handle or a view is gone."""
        row.handles -= 1
        if row.handles == 0 and row.holds == 0:
            self.settle(row)

    def drop_all(self, dropped: deque[Row]) -> None:
        """``drop`` for each; others may append to it meanwhile."""
        rows, next_one = self.rows, dropped.popleft
        while dropped:
            row = next_one()
            row.handles -= 1
            if row.handles == 0 and row.holds == 0:
                if row.more is None and row.state == INLINE and row.owner is None:
                    rows.pop(row.id, None)  # the common case, without a call
                else:
                    self.settle(row)

    def unhold(self, row: Row) -> None:
        """One protocol hold is gone."""
        row.holds -= 1
        if row.holds == 0 and row.handles == 0:
            self.settle(row)

    def settle(self, row: Row) -> None:
        """Free the row if nothing needs it, then what its value referred to, however deep."""
        inner = self._free(row)
        while inner:
            row = inner.pop()
            row.holds -= 1
            inner += self._free(row)

    def _free(self, row: Row) -> list[Row]:
        """Free the row if nothing needs it; the rows that its value held until now."""
        more = row.more
        if row.handles or row.holds or (more is not None and more.tickets):
            return []
        key = row.id
        if self.rows.get(key) is not row:
            key = self.twins.key_of(row)
            if not key:  # a run's own, beside another of that id
                self._unpin(row)
                return []
        if row.state == PENDING and row.owner is None and row.task is not None:
            return []  # its task still runs; the result settles it
        if more is not None and more.lineage:
            return self._collect(row)
        del self.rows[key]
        if row.owner is not None:
            if more is not None and more.mine:
                pairs = [[row.id, ticket] for ticket in more.mine]
                more.mine = []
                self.machine.send(row.owner, m.RELEASE, pairs)
        elif row.state == SHARED:
            self._free_memory(row)
        if more is None:
            return []
        self._unpin(row)
        if more.actor:
            self.ended.append(row)
        if more.recipe is not None:
            self.lineage.dropped(row)
        contains, more.contains = more.contains, []
        return contains

    def _collect(self, row: Row) -> list[Row]:
        """Only recipes need the row: free its value, if it can be made again."""
        more = row.more
        assert more is not None
        if row.state != SHARED or more.recipe is None:
            return []
        self._free_memory(row)
        row.state, row.data = COLLECTED, None
        self._unpin(row)
        contains, more.contains = more.contains, []
        return contains

    def _unpin(self, row: Row) -> None:
        """The row reads no copy of this node's any more."""
        if row.more is not None and row.more.here is not None:
            self.unpinned.append((row, row.more.here))
            row.more.here = None

    def _free_memory(self, row: Row) -> None:
        self.freed.append((row.id, row.data))
        if row.more is not None:
            self.freed += [(row.id, place) for place in row.more.copies]
            row.more.copies = []

    def let_go(self, task: Task) -> None:
        """The task is over: it needs its arguments no longer."""
        links = task.links
        if links is None:
            return
        if self.lineage.recipes and self.lineage.is_kept(task):
            self.lineage.loosen(links)
            return
        task.links = None
        for row in links.held:
            self.unhold(row)
        for row in links.lineage:
            assert row.more is not None
            row.more.lineage -= 1
            self.settle(row)

    def unpin(self, task: Task) -> None:
        """One reason to keep the references of a task that is over is gone."""
        links = task.links
        if links is not None:
            links.settling -= 1
            if links.settling == 0 and task.row.task is not task:  # else it is tried again
                self.let_go(task)

    def home_of(self, peer: Peer | None) -> bytes:
        """The node on which the peer, or this process, lives; empty if there is only one."""
        where = b"" if peer is None else node_of(peer.address)
        return where if where or self.node is None else self.node.id

    def lost_outputs(self, task: Task, worker: Peer) -> None:
        """The worker died before it could say where it had put the task's results."""
        for row in task.rows:
            self.freed.append((row.id, [worker.id, 0, 0, self.home_of(worker)]))

    def resolve(self, row: Row, state: int, data: Any) -> None:
        """The row's value, place or error is known; tell everybody who waits for it."""
        row.state = state
        row.data = data
        if state == FAILED:
            self.failures += 1
        waiters = row.waiters
        if waiters is not None:
            row.waiters = None
            for waiter in waiters:
                waiter.left -= 1
                if waiter.left == 0 and waiter.port is not None:
                    self.woken.append(waiter)
        more = row.more
        if more is None:
            return
        if more.actor:
            self.moved.append(row)
        if more.dependents:
            dependents, more.dependents = more.dependents, []
            for task in dependents:
                links = task.links
                if links is not None:
                    links.missing -= 1
                    if links.missing == 0:
                        self.ready.append(task)
        if more.pullers:
            pullers, more.pullers = more.pullers, []
            for peer in pullers:
                self.answer(peer, row)
        if more.twins:
            twins, more.twins = more.twins, []
            for twin in twins:
                if twin.state == PENDING:
                    self.resolve(twin, state, data)

    def fail(self, row: Row, kind: str, text: str) -> None:
        """Resolve the row to an error of that class (see ``errors.from_wire``)."""
        self.resolve(row, FAILED, [kind, text])

    def want(self, row: Row) -> None:
        """Ask the owner for a borrowed row's value, once; make one's own again if it is gone."""
        if row.state == COLLECTED:
            self.lineage.revive(row)
        if row.state != PENDING or row.owner is None:
            return
        if self.rows.get(row.id) is not row and self.twins.serve(row):
            return
        more = row.extend()
        if not more.pulled:
            more.pulled = True
            self.machine.send(row.owner, m.PULL, [row.id])

    def forget_value(self, row: Row) -> None:
        """A borrowed value cannot be read where it was: it is to be asked for again."""
        row.state, row.data = PENDING, None
        row.extend().pulled = False

    def answer(self, peer: Peer, row: Row) -> None:
        """Send the row's value to a borrower; the owner says how."""
        raise NotImplementedError

    def check(self) -> None:
        """Invariants of the table (simulator only)."""
        for id, row in self.rows.items():
            assert id == self.twins.key_of(row), row
            assert id == row.id or row.owner is not None, row
            assert row.handles >= 0, row
            assert row.holds >= 0, row
            idle = not row.needed and (row.state != PENDING or row.owner is not None)
            assert not idle, f"nothing needs {row}, yet it is in the table"
