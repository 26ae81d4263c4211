"""What the head writes to its store: MessagePack, in the widest form of each type.

The core imports no codec and a store keeps bytes, hence these few lines; any MessagePack reader
shows the records.  ``decode`` reads what ``encode`` writes and nothing else, so that a damaged
record is found when the head starts, not when it is used.
"""

from __future__ import annotations

import struct
from typing import Any

from freehold.errors import ProtocolError

_INT = struct.Struct(">q")
_FLOAT = struct.Struct(">d")
_SIZE = struct.Struct(">I")
_PLAIN: dict[int, bool | None] = {0xC0: None, 0xC2: False, 0xC3: True}
DEPTH_MAX = 16


def encode(value: Any) -> bytes:
    """The value as bytes: None, bool, int (64 bits), float, str, bytes, and lists and maps of such.

    Raises:
        ValueError: it holds something else, or is nested too deeply.
    """
    parts: list[bytes] = []
    _encode(value, parts, 0)
    return b"".join(parts)


def _encode(value: Any, parts: list[bytes], depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} deep")
    if value is None or value is True or value is False:
        parts.append(b"\xc0" if value is None else b"\xc3" if value else b"\xc2")
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{value} does not fit into 64 bits")
        parts.append(b"\xd3" + _INT.pack(value))
    elif isinstance(value, float):
        parts.append(b"\xcb" + _FLOAT.pack(value))
    elif isinstance(value, str):
        data = value.encode()
        parts += (b"\xdb" + _SIZE.pack(len(data)), data)
    elif isinstance(value, bytes):
        parts += (b"\xc6" + _SIZE.pack(len(value)), value)
    elif isinstance(value, (list, tuple)):
        parts.append(b"\xdd" + _SIZE.pack(len(value)))
        for item in value:
            _encode(item, parts, depth + 1)
    elif isinstance(value, dict):
        parts.append(b"\xdf" + _SIZE.pack(len(value)))
        for key, item in value.items():
            _encode(key, parts, depth + 1)
            _encode(item, parts, depth + 1)
    else:
        raise ValueError(f"a {type(value).__name__} cannot be recorded")


def decode(data: bytes) -> Any:
    """The value that ``encode`` made these bytes of.

    Raises:
        ProtocolError: it made no such bytes; the store is damaged or not a head's.
    """
    try:
        value, end = _decode(data, 0)
    except (struct.error, IndexError, UnicodeDecodeError, TypeError) as error:
        raise ProtocolError(f"a record of the store is damaged: {error}") from None
    if end != len(data):
        raise ProtocolError("a record of the store is damaged: it has a tail")
    return value


def _decode(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at]
    at += 1
    if kind in _PLAIN:
        return _PLAIN[kind], at
    if kind == 0xD3:
        return _INT.unpack_from(data, at)[0], at + 8
    if kind == 0xCB:
        return _FLOAT.unpack_from(data, at)[0], at + 8
    (size,) = _SIZE.unpack_from(data, at)
    at += 4
    if kind in (0xDB, 0xC6):
        part = data[at : at + size]
        if len(part) < size:
            raise IndexError("it is cut short")
        return (part.decode() if kind == 0xDB else part), at + size
    if kind == 0xDD:
        items = []
        for _ in range(size):
            item, at = _decode(data, at)
            items.append(item)
        return items, at
    if kind == 0xDF:
        pairs = {}
        for _ in range(size):
            key, at = _decode(data, at)
            pairs[key], at = _decode(data, at)
        return pairs, at
    raise TypeError(f"type {kind:#x} is not known")
