"""Places in shared memory, [holder, offset, size, node], and who may read what lies there.

A value lies in an extent of the process that has made it, the holder, until its owner frees it:
every process of that node may read it there.  A *copy* lies in an extent of the node itself, which
may let it go at any time, even if it is the only place that is left: who reads it asks the node
first (``process.fetches``), and thereby pins it.
"""

from __future__ import annotations

from typing import Any

Place = list[Any]


def is_copy(place: Place) -> bool:
    """Whether a node keeps it there in an extent of its own."""
    return bool(place[0] == place[3])


def is_at_hand(place: Place, node: bytes) -> bool:
    """Whether processes of that node may read there without asking."""
    return bool(place[3] == node != place[0])
