"""Frames: a batch of messages as ``length (4 bytes, little-endian) + msgpack array of arrays``.

Envelopes are msgpack, never pickle, and are only parsed on authenticated connections.  User values
are byte strings here, opaque to everyone but the two user processes.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from freehold.errors import ProtocolError

FRAME_MAX = 1 << 30  # bytes; a longer frame is a broken or hostile peer
HEADER = struct.Struct("<I")

_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder().decode
_pack_into = HEADER.pack_into
_length_at = HEADER.unpack_from


def encode(messages: list[Any]) -> bytearray:
    """One frame that holds these messages."""
    buffer = bytearray(256)
    _encoder.encode_into(messages, buffer, 4)
    _pack_into(buffer, 0, len(buffer) - 4)
    return buffer


class Repeater:
    """``encode`` for a host whose machine says the same to many: it is encoded once.

    A frame is known again when its one message is the same object (``Machine.send_all``).
    """

    __slots__ = ("data", "message")

    def __init__(self) -> None:
        self.message: Any = None
        self.data = b""

    def encode(self, messages: list[Any]) -> bytes | bytearray:
        """One frame that holds these messages."""
        if len(messages) != 1:
            return encode(messages)
        if messages[0] is not self.message:
            self.data = bytes(encode(messages))
            self.message = messages[0]
        return self.data


class Reader:
    """Bytes as they arrive, cut into messages."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = bytearray()

    def feed(self, data: memoryview) -> list[Any]:
        """The messages that are complete now.  Raises ProtocolError on garbage."""
        if not self.rest:
            size = len(data)
            if size > 4:
                (length,) = _length_at(data)
                if length + 4 == size:  # the common case: exactly one frame, nothing is copied
                    return self._messages(data[4:])
        self.rest += data
        return self._cut()

    def _cut(self) -> list[Any]:
        rest = self.rest
        messages: list[Any] = []
        start, size = 0, len(rest)
        with memoryview(rest) as view:
            while size - start >= 4:
                (length,) = _length_at(view, start)
                if length > FRAME_MAX:
                    raise ProtocolError(f"a frame of {length} bytes is longer than {FRAME_MAX}")
                if size - start - 4 < length:
                    break
                messages += self._messages(view[start + 4 : start + 4 + length])
                start += 4 + length
        try:
            del rest[:start]
        except BufferError:  # a finalizer ran amid this, and what it raised holds these frames
            self.rest = rest[start:]
        return messages

    @staticmethod
    def _messages(body: memoryview) -> list[Any]:
        try:
            messages = _decode(body)
        except (msgspec.DecodeError, RecursionError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolError(f"a frame is not msgpack: {error}") from None
        if not isinstance(messages, list):
            raise ProtocolError("a frame is not an array of messages")
        return messages
