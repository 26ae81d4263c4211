"""How long what has failed rests before it is tried again.

The first retry is made at once; then each rest is twice as long as the one before, up to a longest
one.  What has lived for ``STEADY`` seconds has not failed in a row: its count begins anew.
"""

from __future__ import annotations

REST = 0.05  # seconds before the second retry
REST_MAX = 5.0
STEADY = 10.0
DOUBLINGS_MAX = 60  # beyond that a number of seconds says nothing


def rest_after(failures: int, rest: float = REST, rest_max: float = REST_MAX) -> float:
    """Seconds to rest after so many failures in a row."""
    if failures <= 1:
        return 0.0
    return min(rest * 2.0 ** min(failures - 2, DOUBLINGS_MAX), rest_max)
