"""Frames: whatever way they are cut, and whatever else arrives."""

from __future__ import annotations

import itertools
import struct
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.messages import MESSAGES, NAMES
from freehold.errors import ProtocolError
from freehold.wire import codec, schema
from freehold.wire.codec import FRAME_MAX, Reader, Repeater, encode

fields = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
messages = st.lists(
    st.tuples(st.integers(0, 60), st.lists(fields, max_size=5)).map(lambda m: [m[0], *m[1]]),
    max_size=5,
)


def feed(reader: Reader, data: bytes) -> list[Any]:
    return reader.feed(memoryview(data))


@given(st.lists(messages, max_size=4))
def test_what_is_encoded_is_read(batches: list[list[Any]]) -> None:
    reader = Reader()
    for batch in batches:
        assert feed(reader, bytes(encode(batch))) == batch
    joined = b"".join(bytes(encode(batch)) for batch in batches)
    assert feed(Reader(), joined) == [message for batch in batches for message in batch]


def test_frames_may_be_split_at_every_byte() -> None:
    batches = [[[1, b"x" * 300]], [], [[2, "é", [None, 1.5]], [3]]]
    data = b"".join(bytes(encode(batch)) for batch in batches)
    expected = [message for batch in batches for message in batch]
    for cut in range(len(data) + 1):
        reader = Reader()
        assert feed(reader, data[:cut]) + feed(reader, data[cut:]) == expected
        assert not reader.rest
    reader = Reader()
    assert [m for at in range(len(data)) for m in feed(reader, data[at : at + 1])] == expected


@given(messages, st.lists(st.integers(0, 2000), max_size=6))
def test_frames_may_be_split_anywhere(batch: list[Any], cuts: list[int]) -> None:
    data = bytes(encode(batch)) * 2
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = Reader()
    read = [m for a, b in itertools.pairwise(edges) for m in feed(reader, data[a:b])]
    assert read == batch * 2


def test_what_was_read_does_not_change_with_the_buffer() -> None:
    buffer = bytearray(encode([[1, b"abc"]]))
    (message,) = Reader().feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert message == [1, b"abc"]


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_is_a_protocol_error_or_nothing(chunks: list[bytes]) -> None:
    reader = Reader()
    for chunk in chunks:
        try:
            got = feed(reader, chunk)
        except ProtocolError:
            break
        assert isinstance(got, list)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_a_frame_of_garbage_is_a_protocol_error_or_messages(body: bytes) -> None:
    data = struct.pack("<I", len(body)) + body
    for parts in ([data], [data[:3], data[3:]]):
        reader = Reader()
        try:
            got = [m for part in parts for m in feed(reader, part)]
        except ProtocolError:
            continue
        assert isinstance(got, list)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x01",
        b"\x80",
        b"\x91" * 100_000 + b"\x90",
        b"\x91\x92\x01\xc7\x05\xffabcde",
        b"\x91\x92\x01\xd6\xff\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91\x92\x01\xa2\xff\xfe",
        b"\x91\x91\x01junk",
    ],
    ids=lambda body: body[:12].hex() or "empty",
)
def test_a_broken_frame(body: bytes) -> None:
    data = struct.pack("<I", len(body)) + body
    for parts in ([data], [data[:5], data[5:]]):
        reader = Reader()
        try:
            got = [m for part in parts for m in feed(reader, part)]
        except ProtocolError:
            continue
        assert body[:2] == b"\x91\x92" or not body, got


def test_a_frame_over_the_limit_is_refused_before_it_comes() -> None:
    with pytest.raises(ProtocolError, match=f"longer than {FRAME_MAX}"):
        feed(Reader(), struct.pack("<I", FRAME_MAX + 1) + b"x")
    assert feed(Reader(), struct.pack("<I", FRAME_MAX) + b"x") == []


def test_a_large_frame_in_pieces() -> None:
    data = bytes(encode([[1, bytes(3_000_000)]]))
    reader = Reader()
    got = [m for at in range(0, len(data), 65_536) for m in feed(reader, data[at : at + 65_536])]
    assert got == [[1, bytes(3_000_000)]]


def test_the_length_is_four_bytes_little_endian() -> None:
    frame = encode([[5]])
    assert struct.unpack("<I", frame[: codec.HEADER.size])[0] == len(frame) - 4


def test_the_schema_knows_every_message() -> None:
    samples = {
        "int": 1,
        "float": 1.5,
        "bytes": b"b",
        "str": "s",
        "bool": True,
        "list": [],
        "map": {},
    }
    for message in MESSAGES:
        fields = []
        for text, types in zip(message.fields, schema.FIELDS[message.op], strict=True):
            name = next((n for n, kinds in schema._TYPES.items() if kinds == types), "int")
            fields.append(samples[name])
            assert ":" in text
        schema.check([message.op, *fields])
        with pytest.raises(ProtocolError, match=f"{message.name} has"):
            schema.check([message.op, *fields, 1])
        for at, types in enumerate(schema.FIELDS[message.op]):
            if types:
                wrong = [*fields[:at], object(), *fields[at + 1 :]]
                with pytest.raises(ProtocolError, match=message.name):
                    schema.check([message.op, *wrong])
    for message in ([], 5, None, b"\x05abc", {0: 1}, "text"):
        with pytest.raises(ProtocolError, match="is no message"):
            schema.check(message)  # type: ignore[arg-type]
    for op in (-1, len(NAMES), "0", None, 1.0, True):
        with pytest.raises(ProtocolError, match="no opcode"):
            schema.check([op])


def test_the_same_message_to_many_is_encoded_once() -> None:
    repeater, message, other = Repeater(), (1, ["x"]), (2, "y")
    first = repeater.encode([message])
    assert first == encode([message])
    assert repeater.encode([message]) is first
    assert repeater.encode([message, other]) == encode([message, other])
    assert repeater.encode([other]) == encode([other])
    assert repeater.encode([(1, ["x"])]) == first


def test_frames_may_be_looked_at_for_longer() -> None:
    """As an exception's traceback does, if a finalizer raises it while a frame is decoded."""

    class Keeping(Reader):
        kept: ClassVar[list[memoryview]] = []

        @staticmethod
        def _messages(body: memoryview) -> list[Any]:
            Keeping.kept.append(body)
            return Reader._messages(body)

    reader = Keeping()
    frames = b"".join(bytes(encode([(1, str(n))])) for n in range(10))
    found = [message for at in range(0, len(frames), 7)
             for message in reader.feed(memoryview(frames[at : at + 7]))]  # fmt: skip
    assert found == [[1, str(n)] for n in range(10)]
    assert len(Keeping.kept) == 10
