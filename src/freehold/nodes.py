"""The cluster's nodes and what they have, as a program sees them."""

from __future__ import annotations

from typing import Any

from freehold.proc import start

TIMEOUT = 30.0  # seconds for the directory's answer


def nodes() -> list[dict[str, Any]]:
    """The members of the cluster; a session of its own has one.

    A node's row has these fields:

    * ``id``: in hex, as ``NodeAffinity`` takes it;
    * ``address``: where it is dialled;
    * ``total`` and ``free``: resources, name -> amount; ``free`` is as it last reported;
    * ``labels``;
    * ``alive``: whether its connection to the head is there;
    * ``retiring``: whether it takes no more tasks, and leaves when its own are done.

    Dead nodes are not listed.

    Raises:
        FreeholdError: the cluster's head does not answer.
    """
    return [
        {
            "id": row["node"].hex(),
            "address": row["address"],
            "total": _plain(row["total"]),
            "free": _plain(row["free"]),
            "labels": row["labels"],
            "alive": bool(row["connected"]),
            "retiring": row["state"] == "retiring",
        }
        for row in _rows()
    ]


def cluster_resources() -> dict[str, float]:
    """What all nodes have together, name -> amount.  Raises as :func:`nodes`."""
    return _sum("total")


def available_resources() -> dict[str, float]:
    """What of that is free, as the nodes last reported.  Raises as :func:`nodes`."""
    return _sum("free")


def _rows() -> list[dict[str, Any]]:
    from freehold.proc.questions import asking  # here, so that `import freehold` is fast

    rows: list[dict[str, Any]] = asking(start.ensure()).ask("nodes", TIMEOUT)["nodes"]
    return rows


def _plain(resources: dict[str, float]) -> dict[str, float]:
    """Without those of placement groups, which are parts of the others."""
    return {name: amount for name, amount in resources.items() if "/" not in name}


def _sum(field: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in _rows():
        for name, amount in _plain(row[field]).items():
            found[name] = found.get(name, 0.0) + amount
    return found
