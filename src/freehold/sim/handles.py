"""What user code holds in the simulator: handles of references, and views into the arena.

Each ``Ref`` is one handle; ``load`` makes them, ``drop`` ends them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold.core.messages import FAILED
from freehold.core.process.rows import Row
from freehold.sim.ledger import Failure
from freehold.sim.process import Execution, ProcessHost
from freehold.sim.values import Value, Violation, load


class Ref:
    """One handle of a reference."""

    __slots__ = ("actor", "risky", "row")

    def __init__(self, row: Row, actor: int = 0, risky: bool = False) -> None:
        self.row = row
        self.actor = actor  # of an actor: how often it may be made, else 0
        self.risky = risky  # user code that waited for it might wait for itself


class View:
    """A live view into the arena: it pins its row, and its bytes must not change."""

    __slots__ = ("data", "place", "row")

    def __init__(self, row: Row, data: bytes, place: list[Any]) -> None:
        self.row = row
        self.data = data
        self.place = place  # in this node's arena


class Handles:
    """The handles and views of one execution."""

    def __init__(self, host: ProcessHost, execution: Execution) -> None:
        self.host = host
        self.world = host.world
        self.ledger = host.ledger
        self.execution = execution
        self.refs: list[Ref] = []  # values that the program holds
        self.actors: list[Ref] = []
        self.views: list[View] = []

    # -- references -------------------------------------------------------------------------------
    def export(self, refs: Sequence[Ref]) -> list[list[Any]]:
        """What travels of references; raises Failure for one whose value was freed."""
        fields = []
        for ref in refs:
            row = ref.row
            if not self.host.owner.twins.key_of(row):
                self._check_detached(row)
                raise Failure(row.data)
            owner = row.owner
            whose = [self.host.machine.id, self.host.address] if owner is None else []
            if owner is not None:
                whose = [owner.id, owner.address]
            fields.append([row.id, *whose, ref.actor, ref.risky])
        return fields

    def _check_detached(self, row: Row) -> None:
        """A row leaves the table under a handle only if it failed, or was made again."""
        if row.state != FAILED and row.id not in self.host.owner.rows:
            raise Violation(f"{self.host}: {row!r} is freed while it has a handle")
        if row.state == FAILED:
            self.ledger.judge(row.data, row.id)
        else:
            row.data = ["ObjectFreed", f"object {row.id.hex()} was made again by another"]
            row.state = FAILED

    def load(self, data: bytes, met: list[Row] | None = None) -> tuple[Value, list[Ref]]:
        """Deserialize: the value, and a handle for each reference inside."""
        value = load(data)
        refs = []
        for id, owner, address, actor, risky in value.refs:
            row = self.host.owner.hold(id, owner, address)
            self.ledger.holds(id, self.host.machine.id)
            refs.append(Ref(row, actor, risky))
            if met is not None:
                met.append(row)
        return value, refs

    def drop(self, ref: Ref) -> None:
        """A handle dies; the process notices later."""
        self.host.drops.append(ref.row)

    def drop_view(self, view: View) -> None:
        """A view dies; it must still read what it read."""
        if self.host.site.memory.read(view.place[1], view.place[2]) != view.data:
            raise Violation(f"{self.host}: a view of {view.row!r} has changed")
        self.host.drops.append(view.row)

    def _read(self, row: Row) -> bytes:
        """The bytes of a value in shared memory that can be read here."""
        place = self.host.process.fetches.here(row)
        if place is None:
            raise Violation(f"{self.host}: {row!r} is read before it is here")
        _, offset, size, _ = place
        return self.host.site.memory.read(offset, size)

    def _view(self, row: Row, data: bytes) -> View:
        place = self.host.process.fetches.here(row)
        assert place is not None
        return View(row, data, place)

    def let_go(self) -> None:
        """The program ends: what it holds is dropped."""
        for ref in self.refs + self.actors:
            self.drop(ref)
        for view in self.views:
            self.drop_view(view)
        self.refs, self.actors, self.views = [], [], []
