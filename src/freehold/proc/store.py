"""The head's store: the near peer that answers STORE with STORED once the entries are on disk.

It writes in a thread of its own.  A write waits for the disk, for milliseconds or, when the disk is
busy, for seconds; a head that stood still meanwhile would not hear its nodes' signs of life.  What
the machine writes in one turn becomes durable together; the answers come in the order of the
requests, each after the end of its transaction.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.errors import FreeholdError
from freehold.io.control import ControlStore
from freehold.proc.host import Host

CLOSE_TIMEOUT = 10.0  # seconds
PAGE = 1000
Write = tuple[int, list[Any], list[Any]]  # request, checks, entries


class StoreThread:
    """The store of a head's host.

    Attributes:
        error: why nothing can be written any more, once that is so; the head must end.
    """

    def __init__(self, host: Host, peer: Peer, disk: ControlStore) -> None:
        self.error: Exception | None = None
        self._host = host
        self._peer = peer
        self._disk = disk
        self._writes: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        self._done: deque[tuple[int, int]] = deque()  # request, revision
        self._thread = threading.Thread(target=self._run, name="freehold-store", daemon=True)
        self._thread.start()

    def take(self) -> None:
        """Hand what the machine has written to the thread; called before each flush."""
        if self._peer.outbox:
            frames, self._peer.outbox = self._peer.outbox, []
            self._writes.put([(request, checks, entries) for _, request, checks, entries in frames])

    def _run(self) -> None:
        while (writes := self._writes.get()) is not None:
            try:
                revisions = self._disk.txns((checks, entries) for _, checks, entries in writes)
            except Exception as error:  # a full or broken disk: nothing may be acknowledged
                self.error = error
                self._host.waker.wake()
                return
            self._done.extend((write[0], at) for write, at in zip(writes, revisions, strict=True))
            self._host.waker.wake()
        self._disk.close()

    def deliver(self, now: float) -> None:
        """Give the machine the answers that there are; called, locked, after each wake-up."""
        stored = self._host.machine.handlers[m.STORED]
        while self._done:
            stored(self._peer, now, *self._done.popleft())

    def close(self) -> None:
        """Write what is left, and close the file.  Raises FreeholdError when it takes too long."""
        self._writes.put(None)
        self._thread.join(CLOSE_TIMEOUT)
        if self._thread.is_alive():
            raise FreeholdError("the disk does not take what the head has written")


def entries(disk: ControlStore) -> list[tuple[bytes, bytes, int]]:
    """All that the store holds: key, value, revision."""
    found: list[tuple[bytes, bytes, int]] = []
    while True:
        page, _ = disk.range(b"", after=found[-1][0] if found else b"", limit=PAGE)
        found += [(entry.key, entry.value, entry.revision) for entry in page]
        if len(page) < PAGE:
            return found
