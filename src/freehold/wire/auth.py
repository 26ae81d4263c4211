"""Who may speak: mutual HMAC over fresh nonces, before a single byte is parsed.

The dialler and the acceptor each send a fixed-size greeting ``magic (4) version (2) nonce (32)``,
and then a proof, ``HMAC-SHA256(secret, role + own nonce + other's nonce + binding)``.  Each checks
the other's proof; neither reveals anything about the secret to one who does not know it, and a
proof cannot be reflected, since the roles differ.  The version is in the greeting, so that a
mismatch is named as such rather than as a wrong secret.

The *binding* ties the proofs to the TLS connection that carries them: it is the SHA-256 digest of
the acceptor's certificate, as each side saw it (``tls-server-end-point`` of RFC 5929), and empty
without TLS.  Somebody in between, who shows the dialler a certificate of his own, can pass on the
proofs but not make them fit; so no certificate authority is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from freehold.core.messages import VERSION
from freehold.errors import AuthenticationError, ProtocolError, VersionMismatch

MAGIC = b"FRHD"
NONCE_BYTES = 32
PROOF_BYTES = 32
_GREETING = struct.Struct(f"<4sH{NONCE_BYTES}s")
SECRET_BYTES = 32
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")  # how an alert and a handshake of TLS begin
_DOUBT = "a peer does not know this session's secret"
_DOUBT_TLS = f"{_DOUBT}, or somebody stands between it and this process"


class Handshake:
    """One side of the handshake.  ``feed`` takes bytes; ``out`` holds bytes to send.

    ``binding`` may be set until the first ``feed``: a dialler's first bytes do not depend on it.
    """

    def __init__(self, secret: bytes, nonce: bytes, *, dialler: bool, binding: bytes = b"") -> None:
        self._secret = secret
        self._nonce = nonce
        self.binding = binding
        self._role, self._other = (
            (b"dialler", b"acceptor") if dialler else (b"acceptor", b"dialler")
        )
        self._dialler = dialler
        self._theirs = b""
        self._buffer = b""
        self.done = False
        self.out = _GREETING.pack(MAGIC, VERSION, nonce) if dialler else b""

    def feed(self, data: bytes) -> bytes:
        """Advance with received bytes; returns those beyond the handshake.

        Raises ProtocolError (not freehold), VersionMismatch or AuthenticationError.
        """
        self._buffer += data
        if not self._theirs:
            self._greeted()
        if self._theirs and not self.done and len(self._buffer) >= PROOF_BYTES:
            proof, self._buffer = self._buffer[:PROOF_BYTES], self._buffer[PROOF_BYTES:]
            if not hmac.compare_digest(proof, self._proof(self._other, self._theirs, self._nonce)):
                raise AuthenticationError(_DOUBT_TLS if self.binding else _DOUBT)
            self.done = True
            if not self._dialler:
                self.out += self._proof(self._role, self._nonce, self._theirs)
        rest, self._buffer = (self._buffer, b"") if self.done else (b"", self._buffer)
        return rest

    def _greeted(self) -> None:
        head = self._buffer[: len(MAGIC)]
        if head != MAGIC[: len(head)]:
            if head[:2] in _TLS_RECORDS:
                self._refuse_tls()
            raise ProtocolError("the peer does not speak freehold's protocol")
        if len(self._buffer) < _GREETING.size:
            return
        _, version, self._theirs = _GREETING.unpack(self._buffer[: _GREETING.size])
        self._buffer = self._buffer[_GREETING.size :]
        if not self._dialler:
            self.out += _GREETING.pack(MAGIC, VERSION, self._nonce)
        if version != VERSION:
            raise VersionMismatch(
                f"the peer speaks protocol version {version}, this process {VERSION}: "
                "install the same freehold on both sides"
            )
        if self._dialler:
            self.out += self._proof(self._role, self._nonce, self._theirs)

    def _refuse_tls(self) -> None:
        if not self._dialler:
            self.out += _GREETING.pack(
                MAGIC, VERSION, self._nonce
            )  # it can tell the same from that
        raise ProtocolError(
            "the peer speaks TLS, this process does not: it is on or off on both sides"
        )

    def hung_up(self) -> ProtocolError:
        """What it means that the peer closes the connection now, before the handshake is over."""
        if self._dialler and self._theirs:  # it has seen this side's proof
            doubt = "another secret" + (", or somebody stands in between" if self.binding else "")
            return AuthenticationError(
                f"the peer hung up when it should have proven itself: it has {doubt}"
            )
        return ProtocolError("the peer hung up before it had said who it is")

    def _proof(self, role: bytes, own: bytes, other: bytes) -> bytes:
        text = role + own + other + self.binding
        return hmac.new(self._secret, text, hashlib.sha256).digest()

    def take(self) -> bytes:
        """The bytes to send now."""
        out, self.out = self.out, b""
        return out
