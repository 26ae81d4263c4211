"""Placement groups, from the public face to the cluster's directory (``core.head.groups``)."""

from __future__ import annotations

from typing import Any

from freehold.core.head.groups import SHARE
from freehold.core.messages import FAILED, INLINE, PENDING
from freehold.core.process.rows import Row
from freehold.io import clock
from freehold.proc.questions import asking
from freehold.proc.runtime import Runtime
from freehold.wire import serial

ID_BYTES = 12
TIMEOUT = 30.0  # seconds for the directory's answer; while the head is away, new groups wait
NEVER = float("inf")


def make(here: Runtime, bundles: list[dict[str, float]], strategy: str, name: str) -> str:
    """Make a group; its id.

    Raises:
        Unschedulable: it fits no placement even if all nodes were empty.
        FreeholdError: the directory does not answer, or cannot take it.
    """
    id = clock.random_bytes(ID_BYTES)
    fields: dict[str, Any] = {"group": id, "bundles": bundles, "strategy": strategy, "wait": False}
    if name:
        fields["name"] = name
    if here.client.leases.requests.driver:
        fields["job"] = here.client.leases.requests.driver
    asking(here).ask("group", TIMEOUT, **fields)
    return id.hex()


def remove(here: Runtime, id: str) -> None:
    """Give its resources back; what runs there ends."""
    asking(here).ask("ungroup", TIMEOUT, group=bytes.fromhex(id))


def wait(here: Runtime, id: str, timeout: float | None) -> bool:
    """Wait until it is placed; False when the time is over.  Raises GroupRemoved."""
    questions = asking(here)
    number = questions.start("placed", group=bytes.fromhex(id))
    return questions.answer(number, NEVER if timeout is None else timeout) is not None


def ready(here: Runtime, id: str, value: Any) -> Row:
    """A row, with one handle, that resolves to the value when the group is placed."""
    packed = serial.dumps(value)
    assert isinstance(packed, bytes)

    def placed(error: list[str]) -> None:
        if here.owner.rows.get(row.id) is row and row.state == PENDING:
            here.owner.resolve(row, FAILED if error else INLINE, error or packed)
            here.owner.settle(row)

    with here.lock:
        here.check_alive()
        row = here.owner.put(here.context().next_id(), PENDING, None)
        row.handles = 1
        asking(here).start("placed", placed, group=bytes.fromhex(id))
    return row


def demand_of(id: str, wanted: dict[str, float], index: int) -> tuple[tuple[str, float], ...]:
    """The group's resources that a lease in that bundle takes; -1: in any."""
    made = {}
    for name, amount in {**wanted, "bundle": SHARE}.items():
        made[f"{name}/{id}"] = amount
        if index >= 0:
            made[f"{name}/{id}/{index}"] = amount
    return tuple(sorted(made.items()))
