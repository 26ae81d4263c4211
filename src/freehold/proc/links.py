"""Connections: sockets on one side, a machine's peers on the other.

A peer is dialled when the machine first writes to it.  Frames written before the handshake is over
wait.  When both sides dial at the same time there are two connections; each side goes on sending
over the one that it had first, so that order is kept.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.ids import PROC_ID_BYTES
from freehold.core.machine import Machine, Peer
from freehold.errors import AuthenticationError, FreeholdError, ProtocolError
from freehold.io import clock, net
from freehold.io.link import Link
from freehold.wire import schema
from freehold.wire.auth import NONCE_BYTES, Handshake
from freehold.wire.codec import Reader, encode

HELLO_TYPES = (bytes, str, int, str, dict)
READ, WRITE = select.EPOLLIN, select.EPOLLOUT

now = clock.now


class Port:
    """A connection and what the host knows about it."""

    __slots__ = ("handshake", "link", "peer", "reader", "waiting")

    def __init__(self, link: Link, handshake: Handshake | None, peer: Peer | None) -> None:
        self.link = link
        self.handshake = handshake
        self.peer = peer
        self.reader = Reader()
        self.waiting: list[bytearray] = []  # frames written before the handshake was over


class Links:
    """The connections of one process."""

    def __init__(self, machine: Machine, secret: bytes, kind: str, address: str = "") -> None:
        self.machine = machine
        self.secret = secret
        self.kind = kind
        self.address = address
        self.info: dict[str, Any] = {}  # sent with HELLO
        self.epoll = select.epoll()
        self.ports: dict[int, Callable[[int, float], None]] = {}
        self.errors: deque[FreeholdError] = deque(maxlen=100)  # what peers did wrong
        self.forgiving = False  # outlive a message whose handler fails: only its sender goes
        self.unflushed = 0
        self._listener: socket.socket | None = None
        self._open_ports: set[Port] = set()

    def watch(self, fd: int, on_event: Callable[[int, float], None]) -> None:
        """Call ``on_event(mask, now)``, locked, when the descriptor is readable."""
        self.ports[fd] = on_event
        self.epoll.register(fd, READ)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        if self.ports.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self.epoll.unregister(fd)

    def listen(self, path: str) -> None:
        """Accept connections at ``path``, which becomes this process's address."""
        self._listener = net.listen(path)
        self.address = path
        self.watch(self._listener.fileno(), self._on_accept)

    def _on_accept(self, mask: int, now: float) -> None:
        assert self._listener is not None
        while (sock := net.accept(self._listener)) is not None:
            nonce = clock.random_bytes(NONCE_BYTES)
            self._open(Link(sock), Handshake(self.secret, nonce, dialler=False), None)

    def dial(self, peer: Peer) -> None:
        """Connect to a peer by its address; it is told to the machine if that fails."""
        try:
            link = Link(net.dial(peer.address))
        except OSError:
            self.machine.on_down(peer, now())
            return
        handshake = Handshake(self.secret, clock.random_bytes(NONCE_BYTES), dialler=True)
        peer.port = self._open(link, handshake, peer)

    def attach(self, sock: socket.socket, peer: Peer) -> None:
        """Use a connected socket that needs no authentication: one made before a fork."""
        peer.port = self._open(Link(sock), None, peer)

    def _open(self, link: Link, handshake: Handshake | None, peer: Peer | None) -> Port:
        port = Port(link, handshake, peer)
        self._open_ports.add(port)
        self.watch(link.fd, lambda mask, when: self._on_port(port, mask, when))
        if handshake is not None:
            self._send(port, handshake.take())
        return port

    def _close(self, port: Port, when: float) -> None:
        self.unwatch(port.link.fd)
        port.link.close()
        self._open_ports.discard(port)
        peer = port.peer
        if peer is not None:  # of two connections to it, either may have held what is lost
            if peer.port is port:
                peer.port = None
            self.machine.on_down(peer, when)

    def _hello(self) -> bytearray:
        hello = (m.HELLO, self.machine.id, self.kind, clock.pid(), self.address, self.info)
        return encode([hello])

    # -- frames in --------------------------------------------------------------------------------
    def _on_port(self, port: Port, mask: int, when: float) -> None:
        try:
            if mask & WRITE and port.link.drain():
                self.epoll.modify(port.link.fd, READ)
            data = port.link.receive()
            if data is None:
                return
            if not data:
                self._close(port, when)
            elif port.handshake is not None:
                self._shake(port, bytes(data), when)
            else:
                self._take(port, data, when)
        except OSError:
            self._close(port, when)
        except ProtocolError as error:
            self.errors.append(error)
            self._close(port, when)
        except Exception as error:
            if not self.forgiving and not self._is_garbage(error):
                raise
            self.errors.append(ProtocolError(f"{port.peer!r} sent a malformed message: {error!r}"))
            self._close(port, when)

    @staticmethod
    def _is_garbage(error: Exception) -> bool:
        """Whether a handler was called with fields that it does not take: no bug of its own."""
        frames = error.__traceback__
        depth = 0
        while frames is not None:
            depth += 1
            frames = frames.tb_next
        return depth <= 2 and isinstance(error, (TypeError, IndexError))

    def _shake(self, port: Port, data: bytes, when: float) -> None:
        handshake = port.handshake
        assert handshake is not None
        try:
            rest = handshake.feed(data)
        except ProtocolError as error:
            self._send(port, handshake.take())
            if port.peer is not None and not isinstance(error, AuthenticationError):
                self.errors.append(error)
            raise
        self._send(port, handshake.take())
        if handshake.done:
            port.handshake = None
            self._send(port, self._hello())
            waiting, port.waiting = port.waiting, []
            for frame in waiting:
                self._send(port, frame)
            if rest:
                self._take(port, memoryview(rest), when)

    def _take(self, port: Port, data: memoryview, when: float) -> None:
        handlers = self.machine.handlers
        peer = port.peer
        messages = port.reader.feed(data)
        if messages and messages[0][0] == m.HELLO:
            peer = self._on_hello(port, messages.pop(0), when)
        if peer is None:
            raise ProtocolError("a peer spoke before it said hello")
        self.machine.now = when
        if self.forgiving:
            for message in messages:
                schema.check(message)
        for message in messages:
            handlers[message[0]](peer, when, *message[1:])

    def _on_hello(self, port: Port, hello: list[Any], when: float) -> Peer:
        if (
            tuple(type(field) for field in hello[1:]) != HELLO_TYPES
            or len(hello[1]) != PROC_ID_BYTES
        ):
            raise ProtocolError("a peer sent a malformed HELLO")
        _, proc, kind, pid, address, info = hello
        peer = port.peer
        if peer is None or (peer.id and peer.id != proc):
            peer = self.machine.peer(proc, address)
        if not peer.id:
            peer.id = proc
            self.machine.peers[proc] = peer
        peer.kind, peer.pid = kind, pid
        if address:
            peer.address = address
        port.peer = peer
        if peer.port is None:
            peer.port = port
        self.machine.on_up(peer, when, info)
        return peer

    # -- frames out -------------------------------------------------------------------------------
    def flush(self) -> None:
        """Send what the machine has written; call it locked."""
        self.unflushed = 0
        machine = self.machine
        while machine.dirty:
            dirty, machine.dirty = machine.dirty, []
            for peer in dirty:
                box = peer.outbox
                if not box:
                    continue
                port = peer.port
                if port is None:
                    if peer.down or not peer.address:
                        box.clear()
                        continue
                    self.dial(peer)
                    port = peer.port
                    if port is None:
                        box.clear()
                        continue
                peer.outbox = []
                frame = encode(box)
                if port.handshake is not None:
                    port.waiting.append(frame)
                else:
                    self._send(port, frame)

    def _send(self, port: Port, data: bytes | bytearray) -> None:
        if not data:
            return
        try:
            if not port.link.send(data):
                self.epoll.modify(port.link.fd, READ | WRITE)
        except (OSError, ValueError):
            self._close(port, now())

    def close_links(self) -> None:
        """Close every connection.  The machine is not told."""
        if self._listener is not None:
            self._listener.close()
        for port in list(self._open_ports):
            port.link.close()
            if port.peer is not None:
                port.peer.port = None
        self._open_ports.clear()
        self.epoll.close()
