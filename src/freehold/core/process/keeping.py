"""An owner's copies that must not get lost: those that were asked for, and moves off leaving nodes.

``put(value, copies=2)`` is kept on two nodes, and copied again when one of them dies; so is a
value that would take long to make again (``process.savepoints``).  When a node
drains (``node.departing``), what lies there is kept on another one, whose copy takes its place; the
old one is then freed.  Both are one rule: *a row has so many places that stay, on different nodes*;
while it has fewer, this process's node is asked to find another one (COPY), and answers with KEPT.

A place stays if it lies in an extent of the process that made the value, or is a copy that a node
keeps; other copies may make room at any time.
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.messages import COLLECTED, FAILED, SHARED
from freehold.core.places import Place
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Row


class Kept:
    """One row, and what there is of it."""

    __slots__ = ("asked", "copies", "kept", "leaving", "row", "tried", "why")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.copies = 1  # places that are to stay
        self.kept: list[Place] = []  # copies that nodes keep
        self.leaving: list[Place] = []  # to be freed when there are enough others
        self.asked = False
        self.tried: list[bytes] = []  # nodes that could not
        self.why = ""  # why there are not enough; '' if there are, or may be soon


class Keeping:
    """The rows of one process of which copies are to be kept."""

    def __init__(self, machine: Machine, owner: Owner) -> None:
        self.machine = machine
        self.owner = owner
        self.rows: dict[bytes, Kept] = {}
        self.settled: Callable[[Row], None] = lambda row: None  # there are enough, or will not be
        machine.on({m.KEPT: self.on_kept, m.DEPART: self.on_depart})

    def want(self, row: Row, copies: int) -> Kept:
        """Keep the value on that many nodes."""
        entry = self._entry(row)
        entry.copies = max(entry.copies, copies)
        self._look(entry)
        return entry

    def on_depart(self, peer: Peer, now: float, owner: bytes, id: bytes, place: Place) -> None:
        row = self.owner.rows.get(id)
        if row is None or row.owner is not None or row.state != SHARED:
            return  # it is freed already, or is being made anew
        if place not in self._places(row):
            return
        entry = self._entry(row)
        if place not in entry.leaving:
            entry.leaving.append(place)
        self._look(entry)

    def on_kept(
        self, peer: Peer, now: float, id: bytes, node: bytes, place: Place, reason: str
    ) -> None:
        entry = self.rows.get(id)
        if entry is None:
            return  # it was freed, and the copy with it
        entry.asked = False
        if place and entry.row.state == SHARED:
            copies = entry.row.extend().copies
            if place in entry.kept:
                return
            if self.is_met(entry) and place != entry.row.data:  # it was asked for twice
                if place in copies:
                    copies.remove(place)
                self.owner.freed.append((id, place))
                return
            if place not in self._places(entry.row):
                copies.append(place)
            entry.kept.append(place)
            entry.tried, entry.why = [], ""
        elif node:
            entry.tried.append(node)
            entry.why = reason
        else:  # nobody is left: until the cluster changes
            entry.why = f"{reason}{'; ' if entry.why else ''}{entry.why}"
            entry.tried, entry.asked = [], True
            self.settled(entry.row)
            return
        self._look(entry)

    def retry(self) -> None:
        """The cluster has changed: look at all of them again."""
        for entry in list(self.rows.values()):
            entry.asked, entry.tried, entry.why = False, [], ""
            self._look(entry)

    def forget(self, id: bytes) -> None:
        """A value of that row has been freed, and perhaps the row with it."""
        entry = self.rows.get(id)
        if entry is None:
            return
        if self.owner.rows.get(id) is not entry.row or entry.row.state == COLLECTED:
            del self.rows[id]

    def is_met(self, entry: Kept) -> bool:
        """Whether there are as many places as are to be."""
        return len(_nodes(self._staying(entry))) >= entry.copies

    def _entry(self, row: Row) -> Kept:
        entry = self.rows.get(row.id)
        if entry is None or entry.row is not row:
            entry = self.rows[row.id] = Kept(row)
        return entry

    @staticmethod
    def _places(row: Row) -> list[Place]:
        return [row.data, *(row.more.copies if row.more is not None else ())]

    def _staying(self, entry: Kept) -> list[Place]:
        row = entry.row
        if row.state != SHARED:
            return []
        return [
            place
            for place in self._places(row)
            if place not in entry.leaving and (place[0] != place[3] or place in entry.kept)
        ]

    def _look(self, entry: Kept) -> None:
        """Ask for another copy, or give up what is to leave."""
        row, node = entry.row, self.owner.node
        if row.state != SHARED:  # lost, or being made again: then somewhere else
            if entry.copies == 1 or row.state == FAILED or self.owner.rows.get(row.id) is not row:
                self.rows.pop(row.id, None)
            return
        places = self._places(row)
        entry.kept = [place for place in entry.kept if place in places]
        entry.leaving = [place for place in entry.leaving if place in places]
        staying = self._staying(entry)
        if len(_nodes(staying)) >= entry.copies:
            self._leave(entry, staying[0])
            if entry.copies == 1:
                del self.rows[row.id]
            self.settled(row)
        elif not entry.asked and node is not None:
            entry.asked = True
            source = staying[0] if staying else row.data
            others = sorted({*_nodes(staying), *_nodes(entry.leaving), *entry.tried})
            self.machine.send(node, m.COPY, row.id, source, others)

    def _leave(self, entry: Kept, instead: Place) -> None:
        """Free what was to leave; who reads it now is told to ask again."""
        row = entry.row
        more = row.extend()
        for place in entry.leaving:
            if row.data == place:
                row.data = instead
                more.copies.remove(instead)
            else:
                more.copies.remove(place)
            self.owner.freed.append((row.id, place))
        entry.leaving = []


def _nodes(places: list[Place]) -> list[bytes]:
    """The nodes on which they are, each once."""
    return list(dict.fromkeys(place[3] for place in places))
