"""Reading what lies on another node: one's own node is asked for a copy, which it keeps pinned.

A process reads shared memory only where it is mapped, on its own node, and a copy (also one that
was there before) only while it is pinned.  ``here`` says where a value can be read, or asks for a
copy (FETCH) and says None; the answer (FETCHED) wakes the runs that wait for it.  A value that
could not be read at its place is reported (LOST) to its owner, which has it read elsewhere or made
again; a copy for which this node has no room is refused.

A copy that nobody reads any more *lingers*: it is given back a moment later, or when anything else
is asked for.  So calls that follow each other with the same argument find it where it is.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.executor import Executor, Run
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.messages import PENDING, SHARED
from freehold.core.owner import Owner
from freehold.core.places import Place, is_at_hand
from freehold.core.rows import Row

GET, ARGUMENT = range(2)  # what a copy is for: those for a `get` come first
LINGER = 0.05  # seconds


class Fetches:
    """The copies that one process has asked for, or uses."""

    def __init__(self, machine: Machine, owner: Owner, executor: Executor) -> None:
        self.machine = machine
        self.owner = owner
        self.executor = executor
        self.pending: dict[bytes, list[Row]] = {}  # by RefId: asked for, not answered
        self.users: dict[bytes, int] = {}  # rows that read the copy, which has one pin for all
        self.found: dict[bytes, tuple[Place, Place]] = {}  # by RefId: where it was, and is here
        self.lingering: dict[bytes, tuple[Place, Place]] = {}  # the same, read by nobody
        self.until = NEVER  # they linger
        self.home = b""  # the node of this process
        self.answers = 0  # FETCHED that have come
        executor.fetches = self
        machine.on({m.FETCHED: self.on_fetched})

    def here(self, row: Row, kind: int = GET) -> list[Any] | None:
        """The place where this process can read the value, or None: it is on its way."""
        node = self.owner.node
        if row.state == SHARED and (node is None or is_at_hand(row.data, node.id)):
            return row.data  # type: ignore[no-any-return]
        more = row.extend()
        if row.state != SHARED or node is None:  # it was lost since it was looked at
            return more.here  # type: ignore[no-any-return]
        if more.here is None and not more.refused and not self._take_again(row):
            waiting = self.pending.get(row.id)
            if waiting is None:
                self.pending[row.id] = [row]
                self._ask(node, row, kind)
            elif row not in waiting:
                waiting.append(row)
        return more.here  # type: ignore[no-any-return]

    def _take_again(self, row: Row) -> bool:
        """Whether the copy lingers here: then the row reads it."""
        found = self.lingering.get(row.id)
        if found is None or found[0] != row.data:
            return False
        self.found[row.id] = self.lingering.pop(row.id)
        row.extend().here = found[1]
        self.users[row.id] = 1
        return True

    def _ask(self, node: Peer, row: Row, kind: int) -> None:
        self.give_back()  # there may be no room beside what nobody reads
        owner = row.owner
        whose = self.machine.id if owner is None else owner.id
        address = self.owner.address if owner is None else owner.address
        self.machine.send(node, m.FETCH, row.id, row.data, whose, address, kind)

    def on_fetched(
        self, peer: Peer, now: float, id: bytes, source: list[Any], place: list[Any], reason: str
    ) -> None:
        self.answers += 1
        rows = [row for row in self.pending.pop(id, ()) if row.needed]
        if place:
            rows = [row for row in rows if self._may_take(row, source)]
        if not rows and place and not self.users.get(id):
            self.machine.send(peer, m.UNPIN, [id])
        for row in rows:
            if place:
                row.extend().here = place
                self.users[id] = self.users.get(id, 0) + 1
                self.found[id] = (source, place)
                if row.state == PENDING and row.owner is not None:  # its source has died since
                    self.owner.resolve(row, SHARED, place)
                self.executor.fetched(row)
            elif row.state == SHARED and row.data != source:
                self.here(row)  # it lies elsewhere now
            elif reason == "lost":
                self.executor.lost(row, source)
                if row.state == SHARED and row.needed:  # else the callers have been told
                    self.owner.lineage.unreadable(row, source)
            else:
                row.extend().refused = reason
                self.executor.refused(row, reason)

    def _may_take(self, row: Row, source: list[Any]) -> bool:
        """Whether a copy that has come is (still) the row's value."""
        if row.state == SHARED or (row.state == PENDING and row.owner is not None):
            return True
        self.executor.lost(row, source)  # it is made again; the copy was freed with its source
        return False

    def is_settled(self, row: Row) -> bool:
        """Whether nothing is to be waited for: the value is here, has failed, or was refused."""
        if row.state != SHARED:
            return True
        node = self.owner.node
        if node is None or is_at_hand(row.data, node.id):
            return True
        more = row.more
        return more is not None and (more.here is not None or bool(more.refused))

    def forgive(self, row: Row) -> None:
        """Let a copy that was refused be asked for again."""
        if row.more is not None:
            row.more.refused = ""

    def release(self) -> None:
        """Some rows do not read their copies any more."""
        rows, self.owner.unpinned = self.owner.unpinned, []
        for row in [row for row in rows if row.id in self.users]:  # others: of a session that ended
            id = row.id
            self.users[id] -= 1
            if not self.users[id]:
                del self.users[id]
                found = self.found.pop(id)
                if id not in self.pending:  # else its answer says what to do
                    self.lingering[id] = found
                    self.until = self.machine.now + LINGER
                    if row.owner is None:  # it is freed
                        self.give_back()

    def give_back(self) -> None:
        """Tell the node which copies nobody here reads any more."""
        if self.lingering and self.owner.node is not None:
            self.machine.send(self.owner.node, m.UNPIN, list(self.lingering))
            self.lingering.clear()
        self.until = NEVER

    def missing(self, run: Run) -> int:
        """How many of the shared values that the run reads are still on their way."""
        assert run.full is not None
        for row in run.full.guards:
            self.forgive(row)  # what had no room for an earlier reader may have it now
        return sum(self.here(row, ARGUMENT) is None for row in run.full.guards)
