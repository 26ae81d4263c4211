"""The head's store: the near peer that answers STORE with STORED once the entries are on disk.

It writes in a thread of its own.  A write waits for the disk, for milliseconds or, when the disk is
busy, for seconds; a head that stood still meanwhile would not hear its nodes' signs of life.  The
thread takes whatever has come since its last write, and answers in the order of the requests; what
is acknowledged is durable, since the answer is only made after the transaction's end.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Any, Protocol

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.errors import FreeholdError
from freehold.proc.host import Host

Write = tuple[int, list[Any], list[Any]]  # request, checks, entries


class Disk(Protocol):
    """Where entries are kept (``freehold.io.control``)."""

    def write(self, checks: list[Any], entries: list[Any]) -> int:
        """Write all or none; the revision, 0 when a check failed."""

    def close(self) -> None:
        """Close the file."""


class StoreThread:
    """The store of a head's host.

    Attributes:
        error: why nothing can be written any more, once that is so; the head must end.
    """

    def __init__(self, host: Host, peer: Peer, disk: Disk) -> None:
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
            for request, checks, entries in writes:
                try:
                    revision = self._disk.write(checks, entries)
                except Exception as error:  # a full or broken disk: nothing may be acknowledged
                    self.error = error
                    self._host.waker.wake()
                    return
                self._done.append((request, revision))
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


CLOSE_TIMEOUT = 10.0  # seconds
