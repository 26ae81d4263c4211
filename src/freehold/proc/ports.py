"""Connections being made and open ones, on this machine and between machines.

On one machine a process is dialled by its path, and that is all there is to it: only this user may
enter the directory.  Between machines anybody may knock.  So a TCP connection is encrypted
(``io.tls``), unless the whole cluster says ``tls = False``; it is tied to the certificate that was
shown by the proofs that both sides exchange first (``wire.auth``); and it has limits:

* to be connected: ``dial_timeout``.  Nothing waits for it; the loop goes on.
* to answer, once connected: ``answer_timeout``.  It is long, since the kernel connects on behalf of
  a process that may be busy; whether that process is alive, its node knows (``proc.probe``).  A
  machine that is gone is noticed by the kernel earlier (``net.SILENCE_MAX``).
* to prove itself, once accepted: ``shake_timeout`` (``proc.listening``).
* to take what is sent: who takes nothing for ``stall_timeout`` while ``unsent_max`` bytes wait for
  it is cut off.  This holds on one machine, too.

Whatever ends a connection to a peer is told to the machine (``on_down``), and why to ``errors``;
what strangers did wrong is in ``refused``.  Links between machines are another matter: they outlive
their connections (``proc.mending``).
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from freehold.core import address as addresses
from freehold.core.machine import Machine, Peer
from freehold.errors import FreeholdError, ProtocolError
from freehold.io import clock, net
from freehold.io.failures import Failures
from freehold.io.link import Link
from freehold.proc.alarms import Alarm, Alarms
from freehold.proc.lasting import Lasting
from freehold.wire.auth import NONCE_BYTES, Handshake
from freehold.wire.codec import Reader

if TYPE_CHECKING:
    from freehold.io.tls import Side

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
DIAL_TIMEOUT = 2.0  # seconds, like the ones below
ANSWER_TIMEOUT = 30.0
SHAKE_TIMEOUT = 5.0
STALL_TIMEOUT = 60.0
AWAY = 0.5  # an alarm that comes later than this: the process itself was stopped
UNSENT_MAX = 1 << 30  # bytes

OnEvent = Callable[[int, float], None]


class Port:
    """A connection and what the host knows about it."""

    __slots__ = (
        "alarm", "handshake", "hold", "kept", "lasting", "link", "peer", "reader", "waiting",
    )  # fmt: skip

    def __init__(self, link: Link, handshake: Handshake | None, peer: Peer | None) -> None:
        self.link = link
        self.handshake = handshake
        self.peer = peer
        self.reader = Reader()
        self.waiting: list[bytearray] = []  # frames written before the handshake was over
        self.kept = 0  # bytes of them
        self.hold = None if handshake is None else self.wait  # takes frames until then
        self.lasting: Lasting | None = None  # the link that outlives it
        self.alarm: Alarm | None = None  # the limit that it has now

    def wait(self, frame: bytearray) -> None:
        """Keep a frame until the handshake is over."""
        self.waiting.append(frame)
        self.kept += len(frame)

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer."""
        return self.kept + self.link.unsent

    def limit(self, alarm: Alarm | None) -> None:
        """This limit instead of the one before."""
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm = alarm


def shake(secret: bytes, *, dialler: bool) -> Handshake:
    """A handshake to begin."""
    return Handshake(secret, clock.random_bytes(NONCE_BYTES), dialler=dialler)


def _is_garbage(error: Exception) -> bool:
    """Whether a handler was called with fields that it does not take: no bug of its own.

    To be asked by who is called where it was caught, by the caller of who called the handler.
    """
    frames = error.__traceback__
    depth = 0
    while frames is not None:
        depth += 1
        frames = frames.tb_next
    return depth <= 2 and isinstance(error, (TypeError, IndexError))


class Ports(ABC):
    """What dials and what is open, of one process."""

    def __init__(self, machine: Machine, secret: bytes, kind: str, address: str = "") -> None:
        self.machine = machine
        self.secret = secret
        self.kind = kind
        self.address = address
        self.home = b""  # the id of the node on which this process runs, once it is known
        self.tls = True  # encrypt TCP: the same in the whole cluster
        self.dial_timeout = DIAL_TIMEOUT
        self.answer_timeout = ANSWER_TIMEOUT
        self.shake_timeout = SHAKE_TIMEOUT
        self.stall_timeout = STALL_TIMEOUT
        self.unsent_max = UNSENT_MAX
        self.epoll = select.epoll()
        self.ports: dict[int, OnEvent] = {}
        self.alarms = Alarms()
        self.forgiving = False  # a daemon: it checks all messages, and tells nobody of bad ones
        self.errors = Failures()  # what peers did wrong
        self.refused = Failures()  # what strangers did wrong
        self._dialling: Side | None = None
        self._open_ports: set[Port] = set()

    # -- events -----------------------------------------------------------------------------------
    def watch(self, fd: int, on_event: OnEvent, mask: int = READ) -> None:
        """Call ``on_event(mask, now)``, locked, when the descriptor is readable."""
        self.ports[fd] = on_event
        self.epoll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        if self.ports.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self.epoll.unregister(fd)

    def call_at(self, when: float, call: Callable[[float], None]) -> Alarm:
        """Call ``call(now)``, locked, at that time."""
        return self.alarms.set(when, call)

    # -- dialling ---------------------------------------------------------------------------------
    def dial(self, peer: Peer) -> None:
        """Connect to a peer by its address; it is told to the machine if that fails, or later."""
        try:
            link, connected = self.reach(peer.address)
        except OSError as error:  # a ProtocolError is one
            if isinstance(error, ProtocolError):
                self.errors.append(error)
            self.machine.on_down(peer, clock.now())
            return
        handshake = shake(self.secret, dialler=True)
        if connected:
            self._open(link, handshake, peer)
            return
        port = peer.port = Port(link, handshake, peer)
        self._await(port, peer.address)

    def _await(self, port: Port, address: str) -> None:
        """Go on when it is connected."""
        self.adopt(port, lambda mask, when: self._on_connected(port, when), WRITE)
        what = f"{address} cannot be reached within {self.dial_timeout:g} s"
        self._limit(port, self.dial_timeout, FreeholdError(what))

    def reach(self, address: str) -> tuple[Link, bool]:
        """A link to that address, and whether it is connected already, or about to be.

        Raises OSError when nobody is there, and ProtocolError, which is one, on garbage.
        """
        if "|" not in address:
            return Link(net.dial(address)), True
        node, path = addresses.node_of(address), addresses.path_of(address)
        place = addresses.host_port_of(address)
        near = node == self.home or not node or not self.home
        if path and (node == self.home or (place is None and near)):
            return Link(net.dial(path)), True
        if place is None:
            raise ProtocolError(f"{address} is on another node, and has no TCP port")
        if not self.tls:
            return Link(net.dial_tcp(*place)), False
        from freehold.io import tls

        self._dialling = self._dialling or tls.dialler()
        return tls.TlsLink(net.dial_tcp(*place), self._dialling, dialler=True), False

    def _on_connected(self, port: Port, when: float) -> None:
        assert port.peer is not None
        assert port.handshake is not None
        error = net.tcp_error(port.link.sock)
        if error is not None:
            what = f"{port.peer.address} cannot be reached: {error.strerror}"
            self._fail(port, FreeholdError(what), when)
            return
        what = f"{port.peer.address} has not answered within {self.answer_timeout:g} s"
        self._limit(port, self.answer_timeout, ProtocolError(what))
        self.ports[port.link.fd] = lambda mask, when: self._on_port(port, mask, when)
        self.epoll.modify(port.link.fd, READ)
        self._send(port, port.handshake.take())

    def attach(self, sock: socket.socket, peer: Peer) -> None:
        """Use a connected socket that needs no authentication: one made before a fork."""
        self._open(Link(sock), None, peer)

    # -- open connections -------------------------------------------------------------------------
    def _open(self, link: Link, handshake: Handshake | None, peer: Peer | None) -> Port:
        port = Port(link, handshake, peer)
        if peer is not None:
            peer.port = port
        self.adopt(port, lambda mask, when: self._on_port(port, mask, when))
        if handshake is not None:
            self._send(port, handshake.take())
        return port

    def adopt(self, port: Port, on_event: OnEvent, mask: int = READ) -> None:
        """Watch an open connection, until ``end``."""
        self._open_ports.add(port)
        self.watch(port.link.fd, on_event, mask)

    def _limit(self, port: Port, seconds: float, error: FreeholdError) -> None:
        """Close the port with that error, unless it gets another limit, or none, before."""
        due = clock.now() + seconds

        def over(when: float) -> None:
            if when - due > AWAY:  # what came while this process was stopped has yet to be read
                self._limit(port, seconds, error)
            else:
                self._fail(port, error, when)

        port.limit(self.call_at(due, over))

    def _settle(self, port: Port) -> None:
        """It has proven itself, or is gone: it has no limit any more."""
        port.limit(None)

    def _crowd(self, port: Port) -> None:
        """Too much waits for the peer: see whether it takes any of it."""
        if port.alarm is not None:  # as there is while it has to answer
            return
        link, before = port.link, port.link.drained

        def look(when: float) -> None:
            port.alarm = None
            if port.unsent <= self.unsent_max:
                return
            if link.drained != before:
                self._crowd(port)
                return
            what = (
                f"{port.peer!r} has taken none of {port.unsent:,} bytes in {self.stall_timeout:g} s"
            )
            self._fail(port, ProtocolError(what), when)

        port.alarm = self.call_at(clock.now() + self.stall_timeout, look)

    def malformed(self, peer: Peer | None, error: Exception) -> ProtocolError:
        """What the peer did wrong, when the handler of its message has failed.

        Its connection ends, nothing else: who waits for something is told by its death.  If the bug
        may be this process's own, people must be able to see it.
        """
        if not self.forgiving and not _is_garbage(error):
            sys.excepthook(type(error), error, error.__traceback__)
        return ProtocolError(f"{peer!r} sent a malformed message: {error!r}")

    def _fail(self, port: Port, error: FreeholdError, when: float) -> None:
        """It ends because of this."""
        (self.refused if port.peer is None else self.errors).append(error)
        self.end(port, when)

    def end(self, port: Port, when: float) -> None:
        """Close a connection, once; the machine is told if it was a peer's."""
        if not self._close(port):
            return
        peer = port.peer
        if peer is not None:  # of two connections to it, either may have held what is lost
            if peer.port is port:
                peer.port = None
            self.machine.on_down(peer, when)

    def _close(self, port: Port) -> bool:
        """Close a connection; False if it is closed: a send has failed meanwhile."""
        if port not in self._open_ports:
            return False
        self._open_ports.discard(port)
        self.unwatch(port.link.fd)
        port.link.close()
        self._settle(port)
        return True

    def shut(self) -> None:
        """Close every connection.  The machine is not told."""
        for port in list(self._open_ports):
            port.link.close()
            if port.peer is not None:
                port.peer.port = None
        self._open_ports.clear()
        self.alarms.heap.clear()
        self.epoll.close()

    # -- what moves frames ------------------------------------------------------------------------
    @abstractmethod
    def _on_port(self, port: Port, mask: int, when: float) -> None: ...

    @abstractmethod
    def _send(self, port: Port, data: Any) -> None: ...
