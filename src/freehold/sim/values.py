"""Model values and model memory: what user code and the arena are in real life.

A serialized value is ``msgpack [token, meta, refs, padding]``.  The token of a value is the id of
the reference that it belongs to, so whoever reads a value can tell whether it got the right one.
The shared memory is a dictionary of what has been written; whatever is freed is forgotten, so
that a read of freed memory is found at once, and so is a write over something that is still in
use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from freehold.core.arena import Extents, Heap


class Violation(AssertionError):
    """The run broke a promise of the system."""


class Value(NamedTuple):
    """A value: whose it is, numbers, references with their owners, bytes of padding."""

    token: bytes
    meta: list[Any]
    refs: list[list[Any]]
    padding: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def dump(value: Value) -> bytes:
    """Serialize."""
    return _encode([value.token, value.meta, value.refs, b"." * value.padding])


def load(data: bytes) -> Value:
    """The value.  Raises Violation if the bytes are no value."""
    try:
        token, meta, refs, padding = _decode(data)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise Violation(f"bytes that are no value were read: {data[:40]!r} ({error})") from None
    return Value(token, meta, refs, len(padding))


def brief(value: Any) -> str:
    """A field, short enough to read."""
    if isinstance(value, bytes):
        return _brief_bytes(value)
    if isinstance(value, list):
        return "[" + " ".join(brief(part) for part in value) + "]"
    if isinstance(value, dict):
        return "{" + " ".join(f"{key}={brief(part)}" for key, part in value.items()) + "}"
    return str(value)


def _brief_bytes(value: bytes) -> str:
    """An id as the beginning of its first part and a number; what is no id as its length."""
    text = value.hex()
    if len(value) == 8:  # a process
        return text[:6]
    if len(value) == 12:  # a ticket
        return f"{text[:6]}#{int(text[16:], 16):x}"
    if len(value) == 16:  # a task, and its first output
        return f"{text[:6]}.{int(text[24:], 16):x}"
    if len(value) == 18:
        return f"{text[:6]}.{int(text[24:32], 16):x}/{int(text[32:], 16):x}"
    return f"<{len(value)} bytes>" if value else "-"


class Memory:
    """The arena's bytes."""

    def __init__(self) -> None:
        self.live: dict[int, tuple[int, bytes]] = {}  # offset -> size, bytes
        self.reserved = 0  # pages below this offset exist

    def write(self, offset: int, size: int, data: bytes) -> None:
        """Write an object."""
        if offset in self.live:
            raise Violation(f"memory at {offset} is written while it is in use")
        if offset + size > self.reserved:
            raise Violation(f"memory at {offset} is written before its pages are reserved")
        self.live[offset] = (size, data)

    def read(self, offset: int, size: int) -> bytes:
        """Read an object in place."""
        found = self.live.get(offset)
        if found is None:
            raise Violation(f"freed memory at {offset} is read")
        if found[0] != size:
            raise Violation(f"{size} bytes are read at {offset}, where {found[0]} were written")
        return found[1]

    def free(self, offset: int) -> None:
        """Forget one object; it may never have been written."""
        self.live.pop(offset, None)

    def free_range(self, start: int, end: int) -> None:
        """Forget every object in a range."""
        for offset in [offset for offset in self.live if start <= offset < end]:
            del self.live[offset]


class PoisonHeap(Heap):
    """A process's heap, whose frees reach the model memory."""

    def __init__(self, memory: Memory, reserve: int) -> None:
        super().__init__(reserve)
        self.memory = memory

    def free(self, start: int) -> list[int]:
        """Free one object."""
        self.memory.free(start)
        return super().free(start)


class PoisonExtents(Extents):
    """The node's extents, whose frees reach the model memory."""

    def __init__(self, memory: Memory, size: int) -> None:
        super().__init__(size)
        self.memory = memory

    def back(self, start: int) -> None:
        """Take an extent back."""
        self.memory.free_range(start, start + self.sizes[start])
        super().back(start)
