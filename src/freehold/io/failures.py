"""What went wrong lately: errors that nobody waits for, kept for whoever asks.

An error knows the frames in which it was raised, and they know their callers'.  Whoever pumps is
often a user's ``get``; so an error that is kept as it is would keep what that one has read.
"""

from __future__ import annotations

from collections import deque

from freehold.errors import FreeholdError

FAILURES_MAX = 100  # the oldest are forgotten


class Failures(deque[FreeholdError]):
    """The last errors, without their frames."""

    def __init__(self) -> None:
        super().__init__(maxlen=FAILURES_MAX)

    def append(self, error: FreeholdError) -> None:
        one: BaseException | None = error
        while one is not None:
            one.__traceback__ = None
            one = one.__cause__ or one.__context__
        super().append(error)
