"""Frames: from sockets to a machine's handlers, and from its outboxes to sockets.

A peer is dialled when the machine first writes to it.  Frames written before the handshake is over
wait.  When both sides dial at the same time there are two connections; each side goes on sending
over the one that it had first, so that order is kept.  How connections are made, and what ends
them, is in ``proc.ports``; how links between machines outlive them, in ``proc.mending``.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.errors import ProtocolError
from freehold.io import clock
from freehold.proc.lasting import KINDS
from freehold.proc.mending import Mending
from freehold.proc.ports import READ, WRITE, Port
from freehold.wire import schema
from freehold.wire.codec import encode

now = clock.now


class Links(Mending):
    """The connections of one process."""

    def __init__(self, machine: Machine, secret: bytes, kind: str, address: str = "") -> None:
        super().__init__(machine, secret, kind, address)
        self.info: dict[str, Any] = {}  # sent with HELLO
        self.unflushed = 0

    def _hello(self, to: bytes, call: list[int] | None = None) -> bytearray:
        info = {**self.info, "node": self.home}
        if to:
            info["to"] = to
        if call is not None:
            info["call"] = call
        return encode([(m.HELLO, self.machine.id, self.kind, clock.pid(), self.address, info)])

    # -- frames in --------------------------------------------------------------------------------
    def _on_port(self, port: Port, mask: int, when: float) -> None:
        try:
            if mask & WRITE and port.link.drain():
                self.epoll.modify(port.link.fd, READ)
            data = port.link.receive()
            if data is None:
                if port.handshake is not None and port.link.blocked:  # TLS had to answer
                    self.epoll.modify(port.link.fd, READ | WRITE)
                return
            if not data:
                self._ended(port, when)
            elif port.handshake is not None:
                self._shake(port, bytes(data), when)
            else:
                self._take(port, data, when)
        except ProtocolError as error:
            self._fail(port, error, when)
        except OSError:
            self._ended(port, when)
        except Exception as error:
            self._fail(port, self.malformed(port.peer, error), when)

    def _ended(self, port: Port, when: float) -> None:
        """The other side has closed the connection, or lost it."""
        if port.handshake is not None and port.peer is not None:
            self._fail(port, port.handshake.hung_up(), when)
        else:
            self.end(port, when)

    def _shake(self, port: Port, data: bytes, when: float) -> None:
        handshake = port.handshake
        assert handshake is not None
        handshake.binding = port.link.binding
        try:
            rest = handshake.feed(data)
        finally:
            self._send(port, handshake.take())
        if handshake.done and port in self._open_ports:
            port.handshake = port.hold = None
            if port.lasting is not None:
                self._call_out(port, rest, when)
                return
            self._settle(port)
            self._send(port, self._hello(port.peer.id if port.peer is not None else b""))
            waiting, port.waiting, port.kept = port.waiting, [], 0
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
            if port.lasting is not None and messages:
                raise ProtocolError(f"{peer!r} spoke before its call was answered")
        if peer is None:
            raise ProtocolError("a peer spoke before it said hello")
        self.machine.now = when
        if self.forgiving:
            for message in messages:
                schema.check(message)
        for message in self.machine.in_bulk(peer, when, messages):
            handlers[message[0]](peer, when, *message[1:])

    def _on_hello(self, port: Port, hello: list[Any], when: float) -> Peer:
        accepted = port.peer is None
        peer = self.machine.meet(port.peer, hello)
        port.peer = peer
        if accepted and "call" in hello[-1] and self.kind in KINDS:
            self._on_call(port, peer, hello[-1], when)
            return peer
        if peer.port is None:
            peer.port = port
        self.machine.on_up(peer, when, hello[-1])
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
                if port.hold is not None:
                    port.hold(frame)
                    if port.unsent > self.unsent_max:
                        self._crowd(port)
                else:
                    self._send(port, frame)

    def _send(self, port: Port, data: bytes | bytearray) -> None:
        if not data:
            return
        try:
            if not port.link.send(data):
                self.epoll.modify(port.link.fd, READ | WRITE)
                if port.link.unsent > self.unsent_max:
                    self._crowd(port)
        except (OSError, ValueError):
            self.end(port, now())
