"""What a message must look like, read off ``core.messages``: its opcode and its fields' types.

Daemons check every message that they get, so that nothing half-understood changes their tables.
Between the two user processes of a call, which trust each other's code anyway, nobody spends the
time.
"""

from __future__ import annotations

from typing import Any

from freehold.core.messages import MESSAGES
from freehold.errors import ProtocolError

_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "bytes": (bytes,),
    "float": (float, int),
    "int": (int,),
    "list": (list,),
    "map": (dict,),
    "str": (str,),
}


def _types(field: str) -> tuple[type, ...]:
    """The types of a field that is described as ``name: type — meaning``."""
    words = field.partition(":")[2].partition("—")[0].split()
    return _TYPES.get(words[0], ()) if len(words) == 1 else ()


FIELDS = [tuple(_types(field) for field in message.fields) for message in MESSAGES]


def check(message: list[Any]) -> None:
    """Raises ProtocolError when the message is none of the protocol's."""
    if type(message) is not list or not message:
        raise ProtocolError(f"{message!r:.50} is no message")
    op = message[0]
    if type(op) is not int or not 0 <= op < len(FIELDS):
        raise ProtocolError(f"there is no opcode {op!r:.50}")
    fields = FIELDS[op]
    if len(fields) != len(message) - 1:
        raise ProtocolError(f"{MESSAGES[op].name} has {len(fields)} fields, not {len(message) - 1}")
    for types, value, text in zip(fields, message[1:], MESSAGES[op].fields, strict=True):
        if types and type(value) not in types:
            raise ProtocolError(f"{MESSAGES[op].name}: {value!r:.50} is no {text}")
