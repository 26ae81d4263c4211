"""The mechanism of the table of messages: ``message`` adds a row and gives it the next opcode.

``core.messages_process`` and ``core.messages_cluster`` hold the rows, in this order, and
``core.messages`` all of them together.
"""

from __future__ import annotations

from typing import NamedTuple

VERSION = 2

PENDING, INLINE, SHARED, FAILED, COLLECTED = range(5)
STATES = ("pending", "inline", "shared", "failed", "collected")


class Message(NamedTuple):
    """One row of the protocol: see the module's docstring."""

    op: int
    name: str
    sender: str
    receiver: str
    fields: tuple[str, ...]
    doc: str


MESSAGES: list[Message] = []


def message(name: str, sender: str, receiver: str, doc: str, *fields: str) -> int:
    """Add a row to the table; its opcode."""
    op = len(MESSAGES)
    MESSAGES.append(Message(op, name, sender, receiver, fields, doc))
    return op
