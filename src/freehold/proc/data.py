"""Data connections between nodes: where the bytes of objects move, beside the protocol's frames.

A data connection comes to a node's one TCP port and begins with ``MAGIC``, in plain.  Then it is
encrypted if the cluster is, and both sides prove that they know the secret, as everywhere
(``wire.auth``).  All of that is done by threads, which block; what comes of it is handed to the
mover (``io.mover``).
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from freehold.core import address as addresses
from freehold.errors import ProtocolError
from freehold.io import clock, net
from freehold.proc.listening import DATA_MAGIC as MAGIC
from freehold.wire.auth import NONCE_BYTES, Handshake

if TYPE_CHECKING:
    from freehold.proc.listening import Listening
    from freehold.proc.transfers import Transfers

CONNECT_TIMEOUT = 2.0  # seconds
SHAKE_TIMEOUT = 5.0
SILENCE = 1  # second, of the kernel there, after which the bytes are awaited no longer


class DataPlane:
    """The data connections of one node."""

    def __init__(self, host: Listening) -> None:
        self.host = host
        self.transfers: Transfers | None = None

    def dial(self, address: str) -> socket.socket:
        """A connection to that node's mover; blocks, so it is for the mover's threads.

        Raises OSError when nobody is there, or who is there cannot prove itself.
        """
        place = addresses.host_port_of(address)
        if place is None:
            raise ProtocolError(f"{address} has no TCP port")
        sock = socket.create_connection(place, CONNECT_TIMEOUT)
        try:
            sock.settimeout(SHAKE_TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            net.notice_silence(sock, SILENCE)  # not the sender: its reader may be slow
            sock.sendall(MAGIC)
            binding = b""
            if self.host.tls:
                from freehold.io import tls  # here, like wherever a cluster begins

                sock = tls.dialler().context.wrap_socket(sock)
                shown = sock.getpeercert(True)
                binding = hashlib.sha256(shown or b"").digest()
            self._shake(sock, binding, dialler=True)
        except BaseException:
            sock.close()
            raise
        return sock

    def accept(self, sock: socket.socket) -> None:
        """Somebody has said ``MAGIC``: see who it is, without keeping the loop."""
        threading.Thread(
            target=self._accept, args=(sock,), name="freehold-data", daemon=True
        ).start()

    def _accept(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(SHAKE_TIMEOUT)
            sock.recv(len(MAGIC), socket.MSG_WAITALL)
            binding = b""
            side = self.host.accepting
            if side is not None:
                sock = side.context.wrap_socket(sock, server_side=True)
                binding = side.binding
            self._shake(sock, binding, dialler=False)
        except (OSError, ssl.SSLError):  # a stranger: nothing is owed to it
            with contextlib.suppress(OSError):
                sock.close()
            return
        if self.transfers is not None:
            self.transfers.accept(sock)
        else:
            sock.close()

    def _shake(self, sock: socket.socket, binding: bytes, *, dialler: bool) -> None:
        nonce = clock.random_bytes(NONCE_BYTES)
        shake = Handshake(self.host.secret, nonce, dialler=dialler, binding=binding)
        while True:
            out = shake.take()
            if out:
                sock.sendall(out)
            if shake.done:
                break
            data = sock.recv(4096)
            if not data:
                raise ProtocolError("a data connection was closed before it was proven")
            shake.feed(data)
        sock.settimeout(None)
