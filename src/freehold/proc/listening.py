"""Listening: for processes of this machine at a path, and for other machines by TCP.

Who connects by TCP has ``shake_timeout`` to prove that it knows the secret.  While ``young_max``
have yet to do so, no more are accepted; they wait in the kernel's queue.  A connection may instead
begin with ``DATA_MAGIC``: it is handed to whoever moves objects (``proc.data``).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from freehold.core import address as addresses
from freehold.core.machine import Machine
from freehold.errors import ProtocolError
from freehold.io import clock, net
from freehold.io.link import Link
from freehold.proc.ports import OnEvent, Port, Ports, shake

if TYPE_CHECKING:
    from freehold.io.tls import Side

ACCEPT_PAUSE = 0.1  # seconds before it is tried again, when there are too many open files
YOUNG_MAX = 128
DATA_MAGIC = b"FRDT"  # how a data connection begins


class Listening(Ports):
    """What listens, of one process."""

    def __init__(self, machine: Machine, secret: bytes, kind: str, address: str = "") -> None:
        super().__init__(machine, secret, kind, address)
        self.young_max = YOUNG_MAX
        self.on_data: Callable[[socket.socket], None] | None = None  # takes data connections
        self.accepting: Side | None = None
        self._listeners: list[socket.socket] = []
        self._place = ("", 0)  # where others can dial it by TCP
        self._young: set[Port | socket.socket] = set()  # accepted by TCP, and not yet proven
        self._paused: list[Callable[[], None]] = []  # how to accept again, when there is room

    def listen(self, path: str) -> None:
        """Accept connections at ``path``, which becomes this process's address."""
        listener = net.listen(path)
        self._listeners.append(listener)
        self.address = path
        self.watch(listener.fileno(), lambda mask, when: self._on_accept(listener))

    def listen_tcp(self, host: str, port: int = 0, pem: str = "", advertise: str = "") -> int:
        """Accept connections by TCP as well; returns the port.  The address then tells both.

        Args:
            host: numeric; ``"0.0.0.0"`` or ``"::"`` for every network that there is.
            port: 0 for any that is free.
            pem: the node's key and certificate (``io.tls.make_certificate``); with ``tls`` only.
            advertise: the numeric host that others dial, where it is not ``host`` itself.

        Raises:
            OSError: it cannot listen there, or the certificate cannot be read.
        """
        if self.tls:
            from freehold.io import tls  # here, like wherever a cluster begins

            self.accepting = tls.acceptor(pem)
        listener = net.listen_tcp(host, port)
        self._listeners.append(listener)
        port = listener.getsockname()[1]
        if not advertise:
            advertise = net.own_host() if host in ("0.0.0.0", "::") else host
        self._place = (advertise, port)
        self.set_home(self.home)
        self.watch(listener.fileno(), lambda mask, when: self._on_accept_tcp(listener))
        return port

    def set_home(self, node: bytes) -> None:
        """The node on which this process runs is known now: the address tells it, too."""
        self.home = node
        if self._place[1]:
            path = addresses.path_of(self.address)
            self.address = addresses.make(node, path, *self._place)

    def _on_accept(self, listener: socket.socket) -> None:
        try:
            while (sock := net.accept(listener)) is not None:
                self._open(Link(sock), shake(self.secret, dialler=False), None)
        except OSError:
            self._accept_later(listener, lambda mask, when: self._on_accept(listener))

    def _on_accept_tcp(self, listener: socket.socket) -> None:
        def on_accept(mask: int, when: float) -> None:
            self._on_accept_tcp(listener)

        fd = listener.fileno()
        try:
            while len(self._young) < self.young_max:
                sock = net.accept_tcp(listener)
                if sock is None:
                    return
                self._take_in(sock)
        except OSError:
            self._accept_later(listener, on_accept)
            return
        self.unwatch(fd)
        self._paused.append(lambda: self.watch(fd, on_accept))

    def _accept_later(self, listener: socket.socket, on_accept: OnEvent) -> None:
        fd = listener.fileno()
        self.unwatch(fd)
        self.call_at(clock.now() + ACCEPT_PAUSE, lambda when: self.watch(fd, on_accept))

    def _take_in(self, sock: socket.socket) -> None:
        if self.on_data is None:
            self._greet(sock)
            return
        fd = sock.fileno()
        net.wake_at(sock, len(DATA_MAGIC))
        self._young.add(sock)

        def leave() -> None:
            alarm.cancel()
            self.unwatch(fd)
            net.wake_at(sock, 1)
            self._make_room(sock)

        def look(mask: int, when: float) -> None:
            try:
                head = net.peek(sock, len(DATA_MAGIC))
            except BlockingIOError:
                return
            except OSError:  # it has been reset
                head = b""
            leave()
            if len(head) < len(DATA_MAGIC):
                sock.close()
            elif head == DATA_MAGIC and self.on_data is not None:
                self.on_data(sock)
            else:
                self._greet(sock)

        def give_up(when: float) -> None:
            leave()
            sock.close()
            self.refused.append(self._too_late())

        alarm = self.call_at(clock.now() + self.shake_timeout, give_up)
        self.watch(fd, look)

    def _greet(self, sock: socket.socket) -> None:
        if self.tls:
            from freehold.io.tls import TlsLink

            assert self.accepting is not None
            link: Link = TlsLink(sock, self.accepting, dialler=False)
        else:
            link = Link(sock)
        port = self._open(link, shake(self.secret, dialler=False), None)
        self._young.add(port)
        self._limit(port, self.shake_timeout, self._too_late())

    def _too_late(self) -> ProtocolError:
        return ProtocolError(
            f"somebody has not proven within {self.shake_timeout:g} s that it knows the secret"
        )

    # -- who is accepted --------------------------------------------------------------------------
    def _settle(self, port: Port) -> None:
        super()._settle(port)
        self._make_room(port)

    def _make_room(self, young: Port | socket.socket) -> None:
        """It has proven itself, or is gone: accept more."""
        if young in self._young:
            self._young.discard(young)
            paused, self._paused = self._paused, []
            for resume in paused:
                resume()

    def shut(self) -> None:
        """Close every listener and connection.  The machine is not told."""
        for listener in self._listeners:
            listener.close()
        for young in self._young:
            if isinstance(young, socket.socket):
                young.close()
        self._young.clear()
        self._paused.clear()
        super().shut()
