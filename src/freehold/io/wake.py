"""Waking a thread that sleeps in a selector."""

from __future__ import annotations

import contextlib
import os


class Waker:
    """A descriptor that ``wake`` makes readable and ``clear`` makes quiet again."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        """Callable from any thread and from a signal handler."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Take the wake-ups back."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
