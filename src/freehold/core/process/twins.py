"""Two rows of one id in one process: its own, and one that it has borrowed.

A task's re-run makes the same ids (``process.orphans``).  When it runs in a process that holds what
an earlier run had made, somewhere else, that process comes to own the ids of references that it has
borrowed from that run's process, or from whoever owns in its stead.  The rules:

1. The table has the own row under the id and the borrowed one, its *twin*, under another key
   (``twin``).  A twin is borrowed like any row: its owner dies, answers and is told of its end.
2. A twin steps aside when the run makes its first reference (``begin``): its context is its own
   from then on, and what is borrowed of it later is a twin at once.
3. A twin whose owner has died is reborn in this very process: it gets the value of the own row, and
   holds that row, until it is freed itself.  If it is an actor, its calls are the own one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from freehold.core.ids import CONTEXT_BYTES, CONTEXTS_MAX
from freehold.core.messages import COLLECTED, PENDING
from freehold.core.process.rows import Row


class Table(Protocol):
    """What this file needs of ``process.owner``."""

    rows: dict[bytes, Row]

    def contain(self, row: Row, contains: Iterable[Row]) -> None:
        """The value of the row refers to these."""

    def resolve(self, row: Row, state: int, data: Any) -> None:
        """The row's value is known."""

    def fail(self, row: Row, kind: str, text: str) -> None:
        """It is an error."""

    def want(self, row: Row) -> None:
        """Have the value sent, or made again."""

    def is_orphan(self, row: Row) -> bool:
        """Whether the row's owner is dead."""


def twin(id: bytes) -> bytes:
    """The key of the borrowed row of an id that the process has made itself."""
    return id + b"twin"


class Twins:
    """What one process knows of contexts: whose ids it has borrowed, whose it makes itself."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.foreign: dict[bytes, None] = {}  # contexts of what has been borrowed
        self.begun: dict[bytes, None] = {}  # contexts of this process's own runs

    def begin(self, context: bytes) -> None:
        """A run here makes its first reference."""
        self.begun[context] = None
        if len(self.begun) > CONTEXTS_MAX:
            del self.begun[next(iter(self.begun))]
        if context in self.foreign:
            rows = self.table.rows
            for id in [id for id in rows if id[:CONTEXT_BYTES] == context]:
                row = rows[id]
                if row.owner is not None and row.id == id:
                    del rows[id]
                    rows[twin(id)] = row

    def key(self, id: bytes) -> bytes:
        """Under which key a reference that is borrowed now goes into the table."""
        context = id[:CONTEXT_BYTES]
        if context in self.begun:
            return twin(id)
        if len(self.foreign) > CONTEXTS_MAX + 2 * len(self.table.rows):
            rows = self.table.rows.values()
            self.foreign = dict.fromkeys(row.id[:CONTEXT_BYTES] for row in rows)
        self.foreign[context] = None
        return id

    def key_of(self, row: Row) -> bytes:
        """Where the row is in the table; empty if it is not."""
        rows = self.table.rows
        if rows.get(row.id) is row:
            return row.id
        key = twin(row.id)
        return key if rows.get(key) is row else b""

    def borrowed(self, id: bytes) -> Row | None:
        """The row of that id that is not this process's own, if there is one."""
        row = self.table.rows.get(id)
        if row is None or row.owner is None:
            return self.table.rows.get(twin(id), row)
        return row

    def serve(self, row: Row) -> bool:
        """Its value is wanted, and it is not first of its id; whether there is nobody to ask."""
        if not self.key_of(row):  # a run's own, which is in no table
            text = f"object {row.id.hex()} was made again by this process"
            self.table.fail(row, "ObjectFreed", text)
            return True
        return self.table.is_orphan(row) and self.reborn(row)

    def own(self, row: Row) -> Row | None:
        """The own row from which a twin has its value, if it was reborn here."""
        own = self.table.rows.get(row.id)
        if own is None or own is row or row.more is None or own not in row.more.contains:
            return None
        return own

    def reborn(self, row: Row) -> bool:
        """Give a twin the value of the own row; False if there is none."""
        own = self.table.rows.get(row.id)
        if own is None or own is row or own.owner is not None:
            return False
        if own not in row.extend().contains:
            self.table.contain(row, [own])
        if own.state == COLLECTED:
            self.table.want(own)
        if own.state == PENDING:
            own.extend().twins.append(row)
        else:
            self.table.resolve(row, own.state, own.data)
        return True
