"""Every message of the control protocol: its opcode, its fields, who sends it to whom, and why.

A frame on the wire is a msgpack array of messages; a message is the array ``[opcode, *fields]``.
``docs/protocol.md`` is generated from ``MESSAGES``; the receiving handler's signature is the schema
that is enforced.  To add a message: append a row to one of the two files imported here, handle it
in a core machine, and raise ``VERSION`` when an older peer could misread the change.

States of a value, as sent: ``PENDING``, ``INLINE`` (``data`` is the serialized value), ``SHARED``
(``data`` is its place in the arena, ``[holder, offset, size, node]``) and ``FAILED`` (``data`` is a
serialized exception, or ``[class name, text]`` where a daemon or a core machine made it).
``COLLECTED`` (its recipe is kept, its value is not) is its owner's affair and is never sent.
A *ref* field is ``[id, owner, owner address, ticket]``.
"""

from __future__ import annotations

from freehold.core.messages_cluster import *  # noqa: F403 (in the order of the opcodes)
from freehold.core.messages_process import *  # noqa: F403 (the table in one name space)
from freehold.core.opcodes import (
    COLLECTED,
    FAILED,
    INLINE,
    MESSAGES,
    PENDING,
    SHARED,
    STATES,
    VERSION,
    Message,
)

__all__ = [
    "COLLECTED",
    "FAILED",
    "INLINE",
    "MESSAGES",
    "NAMES",
    "OPCODES",
    "PENDING",
    "SHARED",
    "STATES",
    "VERSION",
    "Message",
]

OPCODES = len(MESSAGES)
NAMES = tuple(message.name for message in MESSAGES)
