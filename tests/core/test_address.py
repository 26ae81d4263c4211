"""Addresses: what is made is read back, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core import address
from freehold.errors import ProtocolError

NODE = bytes(range(8))
READERS = (address.node_of, address.path_of, address.host_port_of)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((b"", "", "", 0), ""),
        ((b"", "a.sock", "", 0), "a.sock"),
        ((NODE, "a.sock", "", 0), "0001020304050607|a.sock|"),
        ((NODE, "", "10.0.0.1", 80), "0001020304050607||10.0.0.1:80"),
        ((b"", "", "10.0.0.1", 80), "||10.0.0.1:80"),
        ((NODE, "a b", "::1", 65_535), "0001020304050607|a b|[::1]:65535"),
        ((NODE, "a", "fe80::1%eth0", 1), "0001020304050607|a|[fe80::1%eth0]:1"),
    ],
)
def test_an_address_is_made_and_read(fields: tuple[bytes, str, str, int], text: str) -> None:
    node, path, host, port = fields
    assert address.make(node, path, host, port) == text
    assert address.node_of(text) == node
    assert address.path_of(text) == path
    assert address.host_port_of(text) == ((host, port) if host else None)


HOSTS = st.ip_addresses().map(str)


@given(st.sampled_from([b"", NODE, b"\xff" * 8]), st.text("ab/. é", max_size=9), HOSTS,
       st.integers(1, 65_535))  # fmt: skip
def test_every_address_comes_back(node: bytes, path: str, host: str, port: int) -> None:
    text = address.make(node, path, host, port)
    assert (address.node_of(text), address.path_of(text)) == (node, path)
    assert address.host_port_of(text) == (host, port)


GARBAGE = [
    "|", "a|b", "||||", "00|a|", "zz01020304050607|a|", "00 01 02 03 04 05 06 07|a|",
    "000102030405060G||", "0001020304050607|a|host", "0001020304050607|a|:1", "||h:", "||h:0",
    "||h:65536", "||h:-1", "||h:+1", "||h: 1", "||h:1_0", "||h:²", "||::1:80", "||[::1:80",
    "||[]:80", "||[h]:80", "||[::1]80", "||h:1\n", "|\0|h:1", f"||{'h' * 1100}:1", "||h:000001",
    "000A020304050607||h:1",
]  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_no_address(text: str) -> None:
    for read in READERS:
        with pytest.raises(ProtocolError, match="is no address"):
            read(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in READERS:
        try:
            read(text)
        except ProtocolError:
            assert "|" in text


@pytest.mark.parametrize(
    "fields",
    [
        (NODE[:3], "p", "h", 1), (NODE, "a|b", "h", 1), (NODE, "p", "h|h", 1), (NODE, "p", "h", 0),
        (NODE, "p", "h", 65_536), (NODE, "p", "h\n", 1), (NODE, "p", "[::1]", 1),
    ],
)  # fmt: skip
def test_what_could_not_be_read_is_not_made(fields: tuple[bytes, str, str, int]) -> None:
    with pytest.raises(ProtocolError):
        address.make(*fields)
