"""The token: what a machine must have to join a cluster, in one word.

It holds the cluster's id and its secret, whether it uses TLS, and a checksum, so that a word that
was cut short is told from a wrong one.  It is looked for in this order: what was given;
``FREEHOLD_TOKEN``; the file that was given, or ``FREEHOLD_TOKEN_FILE`` (only this user may read
it); the session directory of a daemon on this machine that belongs to the cluster.
"""

from __future__ import annotations

import binascii
import os
import zlib
from typing import NamedTuple

from freehold.errors import AuthenticationError
from freehold.io import clock, net, sessions
from freehold.wire.auth import SECRET_BYTES

MARK = "fh1-"
CLUSTER_BYTES = 8
CHECK_BYTES = 4
_TO_WORD, _FROM_WORD = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


class Token(NamedTuple):
    """A cluster's id and secret, and whether its machines speak TLS with each other."""

    cluster: bytes
    secret: bytes
    tls: bool

    @classmethod
    def make(cls, tls: bool) -> Token:
        """A new cluster's."""
        return cls(clock.random_bytes(CLUSTER_BYTES), clock.random_bytes(SECRET_BYTES), tls)

    @classmethod
    def parse(cls, text: str) -> Token:
        """The token of that text.  Raises AuthenticationError when it is none."""
        text = text.strip()
        try:
            if not text.startswith(MARK):
                raise ValueError
            word = text.removeprefix(MARK).encode().translate(_FROM_WORD)
            data = binascii.a2b_base64(word + b"=" * (-len(word) % 4), strict_mode=True)
        except ValueError:
            raise AuthenticationError(f"this is no token: it should begin with {MARK}") from None
        data, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
        if len(data) != 1 + CLUSTER_BYTES + SECRET_BYTES or check != _check(data):
            raise AuthenticationError("the token is damaged: perhaps it was cut short")
        return cls(data[1 : 1 + CLUSTER_BYTES], data[1 + CLUSTER_BYTES :], bool(data[0]))

    @property
    def text(self) -> str:
        """As people see it: one word of letters, digits, ``-`` and ``_``."""
        data = bytes([self.tls]) + self.cluster + self.secret
        word = binascii.b2a_base64(data + _check(data), newline=False)
        return MARK + word.translate(_TO_WORD).rstrip(b"=").decode()


def _check(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECK_BYTES, "big")


def read(path: str) -> Token:
    """The token in a file.  Raises AuthenticationError when others may read it, or it is none."""
    try:
        if not net.is_private(path):
            raise AuthenticationError(f"others may read {path}: chmod 600 it, and make a new token")
        return Token.parse(net.read_file(path).decode("ascii", "replace"))
    except OSError as error:
        raise AuthenticationError(f"no token can be read there: {error}") from None


def find(text: str | None, path: str | None, address: str) -> Token | None:
    """The token to use for the cluster at that address; None when there is none anywhere.

    Raises:
        AuthenticationError: what was found is no token.
    """
    text = text or os.environ.get("FREEHOLD_TOKEN")
    if text:
        return Token.parse(text)
    path = path or os.environ.get("FREEHOLD_TOKEN_FILE")
    if path:
        return read(path)
    for record in sessions.standing():
        if address and record.cluster == address:
            return Token.parse(record.token)
    return None


def demand(text: str | None, path: str | None, address: str) -> Token:
    """The same.  Raises AuthenticationError if there is none."""
    found = find(text, path, address)
    if found is None:
        raise AuthenticationError(
            f"no token for the cluster at {address}: give the one that `freehold start --head` has "
            "printed, by FREEHOLD_TOKEN, FREEHOLD_TOKEN_FILE, or an option"
        )
    return found
