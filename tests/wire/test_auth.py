"""The handshake: both know the secret, or nothing is parsed."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.messages import VERSION
from freehold.errors import AuthenticationError, ProtocolError, VersionMismatch
from freehold.wire.auth import MAGIC, NONCE_BYTES, PROOF_BYTES, Handshake

SECRET = b"s" * 32
TLS = (b"\x15\x03", b"\x16\x03")
GREETING = len(MAGIC) + 2 + NONCE_BYTES


def pair(
    first: bytes = SECRET, second: bytes = SECRET, seen: bytes = b"", own: bytes = b""
) -> tuple[Handshake, Handshake]:
    return (
        Handshake(first, os.urandom(NONCE_BYTES), dialler=True, binding=seen),
        Handshake(second, os.urandom(NONCE_BYTES), dialler=False, binding=own),
    )


def test_two_who_know_the_secret() -> None:
    dialler, acceptor = pair()
    assert acceptor.take() == b""
    assert acceptor.feed(dialler.take()) == b""
    assert dialler.feed(acceptor.take()) == b""
    assert not dialler.done
    assert acceptor.feed(dialler.take() + b"more") == b"more"
    assert acceptor.done
    assert dialler.feed(acceptor.take() + b"rest") == b"rest"
    assert dialler.done


@given(st.lists(st.integers(1, 20), min_size=1, max_size=10))
def test_bytes_may_come_in_any_pieces(sizes: list[int]) -> None:
    dialler, acceptor = pair()
    rest = b""
    for _ in range(4):
        for source, target in ((dialler, acceptor), (acceptor, dialler)):
            data, at = source.take(), 0
            while at < len(data):
                for size in sizes:
                    rest += target.feed(data[at : at + size])
                    at += size
    assert dialler.done
    assert acceptor.done
    assert rest == b""


def test_a_wrong_secret_is_found_by_either_side() -> None:
    for first, second in ((b"x" * 32, SECRET), (SECRET, b"x" * 32), (b"", SECRET)):
        dialler, acceptor = pair(first, second)
        acceptor.feed(dialler.take())
        dialler.feed(acceptor.take())
        with pytest.raises(AuthenticationError, match="does not know this session's secret"):
            acceptor.feed(dialler.take())
        assert not acceptor.done
        assert not acceptor.take()  # an impostor gets no proof to learn from
    dialler, acceptor = pair()
    dialler.feed(GREETING_OF(acceptor, dialler))
    with pytest.raises(AuthenticationError):
        dialler.feed(bytes(PROOF_BYTES))


def GREETING_OF(acceptor: Handshake, dialler: Handshake) -> bytes:  # noqa: N802 (reads as a name)
    acceptor.feed(dialler.take())
    return acceptor.take()


def test_a_proof_cannot_be_reflected() -> None:
    victim = Handshake(SECRET, os.urandom(NONCE_BYTES), dialler=True)
    greeting = victim.take()
    victim.feed(greeting)  # the attacker sends back what it gets
    proof = victim.take()
    with pytest.raises(AuthenticationError):
        victim.feed(proof)
    acceptor = Handshake(SECRET, os.urandom(NONCE_BYTES), dialler=False)
    acceptor.feed(greeting)
    answer = acceptor.take()
    with pytest.raises(AuthenticationError):
        acceptor.feed(answer[-PROOF_BYTES:])


def test_both_must_have_seen_the_same_certificate() -> None:
    one, other = b"1" * 32, b"2" * 32
    for seen, own in ((one, other), (one, b""), (b"", one)):
        dialler, acceptor = pair(seen=seen, own=own)
        acceptor.feed(dialler.take())
        dialler.feed(acceptor.take())
        with pytest.raises(AuthenticationError, match="between" if own else "does not know"):
            acceptor.feed(dialler.take())
        assert not acceptor.take()
        assert isinstance(dialler.hung_up(), AuthenticationError)
    dialler, acceptor = pair()
    greeting = dialler.take()
    dialler.binding = acceptor.binding = one  # known only when the first bytes have come
    acceptor.feed(greeting)
    dialler.feed(acceptor.take())
    acceptor.feed(dialler.take())
    dialler.feed(acceptor.take())
    assert dialler.done
    assert acceptor.done


def test_tls_where_none_is_meant_is_named() -> None:
    for record in (b"\x16\x03\x01\x02\x00", b"\x15\x03\x03"):
        dialler, acceptor = pair()
        dialler.take()
        for side in (dialler, acceptor):
            with pytest.raises(ProtocolError, match="speaks TLS, this process does not"):
                side.feed(record)
        assert not dialler.take()
        assert acceptor.take()[: len(MAGIC)] == MAGIC  # which no TLS takes for its own


def test_what_a_hang_up_means_depends_on_when_it_comes() -> None:
    dialler, acceptor = pair()
    acceptor.feed(dialler.take())
    for side in (dialler, acceptor):
        assert not isinstance(side.hung_up(), AuthenticationError)
    dialler.feed(acceptor.take())
    assert "another secret" in str(dialler.hung_up())


def test_a_proof_of_another_conversation_is_worth_nothing() -> None:
    dialler, acceptor = pair()
    acceptor.feed(dialler.take())
    dialler.feed(acceptor.take())
    proof = dialler.take()
    acceptor.feed(proof)
    assert acceptor.done
    _, later = pair()
    stranger = Handshake(b"?" * 32, os.urandom(NONCE_BYTES), dialler=True)
    later.feed(stranger.take())
    later.take()
    with pytest.raises(AuthenticationError):
        later.feed(proof)


@pytest.mark.parametrize("version", [0, VERSION - 1, VERSION + 1, 65_535])
def test_another_version_is_named_by_both(version: int) -> None:
    for dialler in (True, False):
        side = Handshake(SECRET, os.urandom(NONCE_BYTES), dialler=dialler)
        with pytest.raises(VersionMismatch, match=f"version {version}, this process {VERSION}"):
            side.feed(MAGIC + version.to_bytes(2, "little") + bytes(NONCE_BYTES))
        out = side.take()
        assert out[: len(MAGIC) + 2] == MAGIC + VERSION.to_bytes(2, "little")
        assert len(out) == GREETING  # no proof for one who cannot use it


@given(st.binary(min_size=1, max_size=80))
def test_garbage_is_refused_at_its_first_wrong_byte(data: bytes) -> None:
    for dialler in (True, False):
        side = Handshake(SECRET, os.urandom(NONCE_BYTES), dialler=dialler)
        if MAGIC.startswith(data[: len(MAGIC)]) or data[:2] in TLS:
            continue
        with pytest.raises(ProtocolError, match="does not speak freehold"):
            side.feed(data)


def test_half_a_handshake_waits() -> None:
    dialler, acceptor = pair()
    greeting = dialler.take()
    for cut in range(len(greeting)):
        half = Handshake(SECRET, os.urandom(NONCE_BYTES), dialler=False)
        assert half.feed(greeting[:cut]) == b""
        assert not half.done
        assert half.take() == b""
    acceptor.feed(greeting)
    dialler.feed(acceptor.take())
    proof = dialler.take()
    assert acceptor.feed(proof[:-1]) == b""
    assert not acceptor.done
    assert acceptor.feed(proof[-1:]) == b""
    assert acceptor.done
