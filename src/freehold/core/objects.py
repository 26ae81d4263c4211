"""What a process knows about one reference: a ``Row``, and the rarely needed rest, ``More``.

One row stands for one value, owned (``owner is None``) or borrowed.  A row lives as long as something
needs it:

* ``handles``: references in the user's hands, and live views into the arena;
* ``holds``: what the protocol itself needs: pending tasks that take it as an argument, objects that
  contain it, hand-overs that are not yet confirmed;
* ``more.tickets`` (owner only): borrowers, one entry for each hand-over.

Tickets make borrowing indifferent to order: each is registered once and released once, and whichever
comes first waits for the other (``more.early``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freehold.core.messages import PENDING

if TYPE_CHECKING:
    from freehold.core.machine import Peer
    from freehold.core.tasks import Task


class Waiter:
    """Somebody who waits for rows; the host reads ``left``, the core counts it down.

    ``port`` is the host's: None for a thread that pumps for itself, else what to wake.
    """

    __slots__ = ("left", "port")

    def __init__(self, left: int, port: Any = None) -> None:
        self.left = left
        self.port = port


class More:
    """The part of a row that most rows never need."""

    __slots__ = (
        "actor", "contains", "dependents", "early", "mine", "pulled", "pullers", "site", "tickets",
    )  # fmt: skip

    def __init__(self) -> None:
        self.actor = False  # the value says where an actor is
        self.tickets: dict[bytes, bytes] = {}  # owner: ticket -> borrower's process id
        self.early: set[bytes] = set()  # owner: released before they were registered
        self.pullers: list[Peer] = []  # owner: who waits for the value
        self.contains: list[Row] = []  # rows that the value refers to; each is held
        self.dependents: list[Task] = []  # tasks that cannot start before the value is there
        self.mine: list[bytes] = []  # borrower: tickets registered in this process's name
        self.pulled = False  # borrower: the value has been asked for
        self.site = ""  # where in the user's program the reference was made


class Row:
    """One reference, as this process knows it."""

    __slots__ = (
        "data", "handles", "holds", "id", "more", "owner", "state", "task", "waiters",
    )  # fmt: skip

    def __init__(self, id: bytes, task: Task | None, owner: Peer | None = None) -> None:
        self.id = id
        self.state = PENDING
        self.data: Any = None
        self.handles = 0
        self.holds = 0
        self.task = task
        self.owner = owner
        self.more: More | None = None
        self.waiters: list[Waiter] | None = None

    def extend(self) -> More:
        """The rest of the row, made when first needed."""
        more = self.more
        if more is None:
            more = self.more = More()
        return more

    @property
    def needed(self) -> bool:
        """Whether anything keeps the row alive."""
        if self.handles or self.holds:
            return True
        return self.more is not None and bool(self.more.tickets)

    def __repr__(self) -> str:
        whose = "owned" if self.owner is None else f"of {self.owner!r}"
        return (
            f"<row {self.id.hex()} {whose} state {self.state} "
            f"handles {self.handles} holds {self.holds}>"
        )
