"""Reading what lies on another node: one's own node is asked for a copy, which it keeps pinned.

A process reads shared memory only where it is mapped, on its own node, and a copy (also one that
was there before) only while it is pinned.  ``here`` says where a value can be read, or asks for a
copy (FETCH) and says None; the answer (FETCHED) wakes the runs that wait for it.  A value that
could not be read at its place is reported (LOST) to its owner, which has it read elsewhere or made
again; a copy for which this node has no room is refused.

A re-run may make the same id again with other bytes, and both may be read here at a time.  So what
is asked for has a name for its bytes, the place where they were said to be (a ``Source``); and what
is here goes by its own place: UNPIN says which copy it means.

A copy that nobody reads any more *lingers*: it is given back a moment later, or when anything else
is asked for.  So calls that follow each other with the same argument find it where it is.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.messages import PENDING, SHARED
from freehold.core.places import Place, is_at_hand
from freehold.core.process.executor import Executor, Run
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Row

GET, ARGUMENT = range(2)  # what a copy is for: those for a `get` come first
LINGER = 0.05  # seconds
Source = tuple[Any, ...]  # RefId, and the place that was asked for


class Fetches:
    """The copies that one process has asked for, or uses."""

    def __init__(self, machine: Machine, owner: Owner, executor: Executor) -> None:
        self.machine = machine
        self.owner = owner
        self.executor = executor
        self.pending: dict[Source, list[Row]] = {}  # asked for, not answered
        self.users: dict[int, int] = {}  # offset -> rows that read that copy, which has one pin
        self.found: dict[int, Source] = {}  # offset -> as what that copy was asked for last
        self.lingering: dict[int, Place] = {}  # offset -> a copy that nobody reads
        self.again: dict[Source, Place] = {}  # the same, by what was asked for
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
        if more.here is None and not more.refused and not more.asked:
            key = (row.id, *row.data)
            waiting = self.pending.get(key)
            if key in self.again:
                self._read(row, key, self.again[key])
            elif waiting is None:
                self.pending[key] = [row]
                more.asked = True
                self._ask(node, row, kind)
            else:
                waiting.append(row)
                more.asked = True
        return more.here  # type: ignore[no-any-return]

    def _read(self, row: Row, key: Source, place: Place) -> None:
        """The row reads that copy from now on."""
        row.extend().here = place
        offset = place[1]
        if self.lingering.pop(offset, None) is not None:
            self.again.pop(self.found[offset], None)
        self.users[offset] = self.users.get(offset, 0) + 1
        self.found[offset] = key

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
        key = (id, *source)
        asked = self.pending.pop(key, [])
        for row in asked:
            row.extend().asked = False
        rows = [row for row in asked if row.needed]
        if place:
            rows = [row for row in rows if self._may_take(row, source)]
        if self.lingering:
            self.until = min(self.until, now + LINGER)
        if not rows and place and place[1] not in self.found:
            self._unpin(place)
        for row in rows:
            if place:
                self._read(row, key, place)
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
        unpinned, self.owner.unpinned = self.owner.unpinned, []
        for row, place in unpinned:
            offset = place[1]
            if offset not in self.users or self.found[offset][0] != row.id:
                continue  # it is of a session that has ended
            self.users[offset] -= 1
            if not self.users[offset]:
                del self.users[offset]
                self.lingering[offset] = self.again[self.found[offset]] = place
                self.until = self.machine.now + LINGER
                if row.owner is None:  # it is freed
                    self.give_back()

    def give_back(self) -> None:
        """Tell the node which copies nobody here reads any more.

        What it has been asked for once more, by whatever name, is kept for the answer, which may
        say that it is here.
        """
        self.until = NEVER
        if not self.lingering:
            return
        wanted = {id for id, *_ in self.pending}
        back = [at for at in self.lingering if self.found[at][0] not in wanted]
        self._unpin(*(self.lingering.pop(at) for at in back))
        for at in back:
            self.again.pop(self.found.pop(at), None)

    def _unpin(self, *places: Place) -> None:
        if places and self.owner.node is not None:
            offsets = [place[1] for place in places]
            self.machine.send(self.owner.node, m.UNPIN, offsets)

    def missing(self, run: Run) -> int:
        """How many of the shared values that the run reads are still on their way."""
        assert run.full is not None
        for row in run.full.guards:
            self.forgive(row)  # what had no room for an earlier reader may have it now
        return sum(self.here(row, ARGUMENT) is None for row in run.full.guards)
