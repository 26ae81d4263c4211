"""TLS 1.3 on a non-blocking socket, and the certificates for it.

TLS works on two memory buffers here, one for each direction, and only this file moves bytes between
them and the socket.  So what TLS wants never mixes with what epoll reports: the socket is read
whenever it is readable, and watched for writing exactly while encrypted bytes wait for it.  Before
the TLS handshake is over, plain bytes are kept; they wait for the peer then, not for the socket.
Nothing is left behind in TLS's own buffers: each ``receive`` decrypts every complete record.

Certificates are self-signed, new for each start of a node, and not checked: whoever speaks proves
that it knows the cluster's secret *and* has seen the same certificate (``freehold.wire.auth``).
"""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
from typing import NamedTuple

from freehold.errors import ProtocolError
from freehold.io import net
from freehold.io.link import CHUNK, TURN, Buffer, Link

RECORD_MAX = 1 << 14  # bytes of plain text in a record
HANDSHAKE, ALERT = 22, 21  # the first byte of records of these kinds
NO_TLS = b"\x15\x03\x03\x00\x02\x02\x46"  # a fatal alert: protocol_version (RFC 8446, 6)
LIFETIME_DAYS = 3650
NAME = "freehold"


class Side(NamedTuple):
    """What one side of a connection needs: its settings, and its certificate's digest."""

    context: ssl.SSLContext
    binding: bytes = b""  # of an acceptor; a dialler takes what it is shown


def make_certificate(path: str) -> None:
    """Write a new key and its self-signed certificate as a file of mode 0600."""
    from cryptography import x509  # here: only a node of a cluster needs it
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=LIFETIME_DAYS))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    net.write_private(path, private + certificate.public_bytes(pem))


def acceptor(path: str) -> Side:
    """The accepting side, with the key and certificate in that file.  Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # sessions are never resumed
    context.load_cert_chain(path)
    pem = net.read_file(path).decode("ascii")
    shown = ssl.PEM_cert_to_DER_cert(pem[pem.index(ssl.PEM_HEADER) :])
    return Side(context, hashlib.sha256(shown).digest())


def dialler() -> Side:
    """The dialling side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the binding takes its place
    return Side(context)


class TlsLink(Link):
    """A connection like ``Link``, encrypted.  ``binding`` is known when the first bytes arrive."""

    __slots__ = ("_arrived", "_begun", "_leaving", "_ready", "_tls", "_wire", "binding")

    _plain = memoryview(bytearray(CHUNK + 2 * RECORD_MAX))  # shared, like the inbox

    def __init__(self, sock: socket.socket, side: Side, *, dialler: bool) -> None:
        super().__init__(sock)
        self.binding = side.binding
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = side.context.wrap_bio(self._arrived, self._leaving, server_side=not dialler)
        self._begun = self._ready = False  # TLS's handshake: the first bytes are there; it is over
        self._wire = memoryview(b"")  # encrypted, and not yet taken by the socket

    @property
    def backlog(self) -> bool:
        return bool(self._out) or self.blocked

    @property
    def blocked(self) -> bool:
        """Whether encrypted bytes wait for the socket to be writable."""
        return len(self._wire) > 0

    def send(self, data: Buffer) -> bool:
        """Send or keep; returns whether nothing waits for the socket to be writable."""
        self._out.append(memoryview(data))
        self.unsent += len(data)
        if self._wire:
            return False
        return self.drain()

    def drain(self) -> bool:
        """Encrypt and send what the socket takes; returns whether nothing waits for it."""
        if not self._ready:
            self._shake()
        wire = self._wire
        most = self.drained + TURN
        while wire or self._encrypt():
            wire = self._wire
            if self.drained > most:  # so that something is left on the wire: it is ``blocked``
                return False
            try:
                sent = self.sock.send(wire)
            except BlockingIOError:
                return False
            wire = self._wire = wire[sent:]
        return True

    def _encrypt(self) -> bool:
        """Fill the wire; False if there is nothing to fill it with."""
        out, write = self._out, self._tls.write
        room = CHUNK if self._ready else 0
        while out and room > 0:
            part = out[0]
            done = write(part[:room])
            room -= done
            self.unsent -= done
            self.drained += done
            if done == len(part):
                out.popleft()
            else:
                out[0] = part[done:]
        self._wire = memoryview(self._leaving.read())
        return self.blocked

    def receive(self) -> memoryview | None:
        """What has arrived, decrypted; see ``Link.receive``.

        Raises OSError on a reset, ProtocolError when it is no TLS, or was changed on its way.
        """
        inbox = Link._inbox
        try:
            count = self.sock.recv_into(inbox)
        except BlockingIOError:
            return None
        if not count:
            return inbox[:0]
        if not self._begun:
            self._check(inbox[0])
        self._arrived.write(inbox[:count])
        if not self._ready:
            self.drain()
        return self._decrypt() if self._ready else None

    def _decrypt(self) -> memoryview | None:
        plain, arrived, read = TlsLink._plain, self._arrived, self._tls.read
        total = 0
        try:
            while arrived.pending:
                count = read(
                    RECORD_MAX, plain[total:]
                )  # typeshed: bytes; with a buffer, their number
                total += count  # type: ignore[operator]
                if not count:  # it says that it will send no more: the stream ends here
                    self.sock.shutdown(socket.SHUT_RD)
                    break
        except ssl.SSLWantReadError:  # the rest of a record has yet to arrive
            pass
        except ssl.SSLError as error:
            raise ProtocolError(f"what arrived is not what was sent: {error.reason}") from None
        if self._leaving.pending and not self._wire:  # TLS itself had to answer
            self.drain()
        return plain[:total] if total else None

    def _check(self, first: int) -> None:
        """See that the first bytes are TLS's, so that its absence gets its own name."""
        self._begun = True
        if first in (HANDSHAKE, ALERT):
            return
        if self._tls.server_side:
            self.sock.send(NO_TLS)
        raise ProtocolError("the peer does not speak TLS: it is on or off on both sides")

    def _shake(self) -> None:
        """Advance TLS's handshake."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            if self._leaving.pending:  # an alert that tells the peer
                self.sock.send(self._leaving.read())
            raise ProtocolError(f"the TLS handshake failed: {error.reason}") from None
        self._ready = True
        if not self._tls.server_side:
            shown = self._tls.getpeercert(True)
            assert shown is not None
            self.binding = hashlib.sha256(shown).digest()
