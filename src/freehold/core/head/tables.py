"""What the head has written down: durable before anybody is told, and fenced.

Whoever changes a table changes it in memory first, ``write``s the records, and has the answer sent
``after``: when everything written so far is on disk.  Answers to questions wait in the same way,
so that nobody is told what a crash could take back.

*Fencing.*  The key ``head`` belongs to the head that wrote it last.  A head takes it before
anything else, and every later write checks that it is still there at that revision.  So when two
heads run on one store, the store itself refuses the older one, which then says nothing any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer

HEAD = b"head"
ENTRIES_MAX = 60  # of one transaction; stores take 64
RECORD_BYTES_MAX = 256 * 1024
Then = Callable[..., None]


class Tables:
    """The way to the store, for the parts of the head."""

    def __init__(self, machine: Machine, store: Peer, revision: int) -> None:
        self.machine = machine
        self.store = store
        self.fenced = False  # the store is another head's now
        self.revision = 0  # of the key ``head``, once it is ours
        self.written = 1  # requests made, the claim included
        self.durable = 0  # requests answered
        self._held: list[list[list[Any]]] = []  # transactions that wait until the store is ours
        self._after: deque[tuple[int, Then, tuple[Any, ...]]] = deque()
        self._claim = revision
        machine.on({m.STORED: self.on_stored})

    def claim(self) -> None:
        """Take the store: the first thing to do."""
        claim = [[HEAD, self._claim]], [[HEAD, self.machine.id]]
        self.machine.send(self.store, m.STORE, 1, *claim)

    def write(self, *entries: tuple[bytes, bytes]) -> None:
        """Write these records together if they are few; an empty value deletes."""
        listed = [list(entry) for entry in entries]
        for start in range(0, len(listed), ENTRIES_MAX):
            self.written += 1
            self._held.append(listed[start : start + ENTRIES_MAX])
        self._send()

    def _send(self) -> None:
        if not self.revision or self.fenced:
            return
        held, self._held = self._held, []
        checks = [[HEAD, self.revision]]
        for number, entries in enumerate(held, self.written - len(held) + 1):
            self.machine.send(self.store, m.STORE, number, checks, entries)

    def after(self, now: float, then: Then, *args: Any) -> None:
        """Call ``then(now, *args)`` when all that has been written is durable."""
        if self.fenced:
            return
        if self.durable == self.written and not self._after:
            then(now, *args)
        else:
            self._after.append((self.written, then, args))

    def on_stored(self, peer: Peer, now: float, request: int, revision: int) -> None:
        if self.fenced:
            return
        if not revision:
            self.fenced = True
            self._after.clear()
            self._held.clear()
            return
        assert request == self.durable + 1, "the store answers in order"
        self.durable = request
        if not self.revision:
            self.revision = revision
            self._send()
        while self._after and self._after[0][0] <= request:
            _, then, args = self._after.popleft()
            then(now, *args)

    def check(self) -> None:
        """What is awaited has been written."""
        assert self.durable <= self.written
        assert all(self.durable < number <= self.written for number, *_ in self._after)
