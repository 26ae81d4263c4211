"""What every process has in common: one machine, its links, and the loop that moves frames.

*The caller pumps*: a thread that waits for something drives the selector itself (``wait``), so that
no hand-off between threads is on the hot path.  While it waits it first spins for a while that adapts
to how long answers have taken, then sleeps in the kernel.  A background thread takes over only when
nobody has pumped for about a millisecond, so that this process still answers others while user code
computes.  All state is guarded by ``lock``; nothing blocks while holding it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.rows import Row
from freehold.errors import AuthenticationError, FreeholdError, ProtocolError
from freehold.io import clock, net
from freehold.io.link import Link
from freehold.io.wake import Waker
from freehold.wire.auth import NONCE_BYTES, Handshake
from freehold.wire.codec import Reader, encode

SPIN_MAX = 100e-6  # seconds
SPIN_MIN = 2e-6
TAKE_OVER = 1e-3  # seconds without a pump after which the background thread takes over
REST = 0.02  # seconds: how long a dropped reference may wait when nothing else happens
BURST = 64  # submissions between two flushes
READ, WRITE = select.EPOLLIN, select.EPOLLOUT
BROKEN = select.EPOLLHUP | select.EPOLLERR

drops: deque[Row] = deque()  # rows whose handle or view has died; appended to by any thread
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


class Host:
    """The loop around one machine."""

    def __init__(self, machine: Machine, secret: bytes, kind: str, address: str = "") -> None:
        self.machine = machine
        self.secret = secret
        self.kind = kind
        self.address = address
        self.info: dict[str, Any] = {}  # sent with HELLO
        self.lock = threading.RLock()
        self.pump_lock = threading.Lock()
        self.epoll = select.epoll()
        self.ports: dict[int, Callable[[int, float], None]] = {}
        self.waker = Waker()
        self.watch(self.waker.fd, self._on_waker)
        self.pumping = False
        self.pumps = 0
        self.resting = False  # the background thread sleeps in the selector
        self.unflushed = 0
        self.spin = SPIN_MAX
        self.next_timer = NEVER
        self.closed = False
        self.after: Callable[[], None] | None = None  # called, locked, after each batch
        self.errors: list[FreeholdError] = []  # what peers did wrong
        self._listener: socket.socket | None = None
        self._background: threading.Thread | None = None
        self._park = threading.Event()
        self._parked = False

    # -- connections ------------------------------------------------------------------------------
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
        self.watch(link.fd, lambda mask, when: self._on_port(port, mask, when))
        if handshake is not None:
            self._send(port, handshake.take())
        return port

    def _close(self, port: Port, when: float) -> None:
        self.unwatch(port.link.fd)
        port.link.close()
        peer = port.peer
        if peer is not None and peer.port is port:
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
        except (TypeError, ValueError, IndexError) as error:
            if port.peer is None or not self._is_garbage(error):
                raise
            self.errors.append(ProtocolError(f"{port.peer!r} sent a malformed message: {error}"))
            self._close(port, when)

    @staticmethod
    def _is_garbage(error: Exception) -> bool:
        """Whether a handler was called with fields that it does not take, as against a bug in it."""
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
        for message in messages:
            handlers[message[0]](peer, when, *message[1:])

    def _on_hello(self, port: Port, hello: list[Any], when: float) -> Peer:
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

    # -- the loop ---------------------------------------------------------------------------------
    def handle(self, events: list[tuple[int, int]]) -> None:
        """Handle what the selector has reported, and flush once."""
        with self.lock:
            when = now()
            ports = self.ports
            for fd, mask in events:
                port = ports.get(fd)
                if port is not None:
                    port(mask, when)
            self._finish(when)

    def _finish(self, when: float) -> None:
        machine = self.machine
        if when >= self.next_timer:
            machine.on_timer(when)
        if drops:
            self.drain()
        machine.settle(when)
        self.next_timer = machine.deadline()
        if machine.dirty:
            self.flush()
        if self.after is not None:
            self.after()

    def drain(self) -> None:
        """Process handles hosts keep (see ``ProcessHost``); a daemon has none."""

    def poll_once(self) -> None:
        """Handle what is there, without waiting."""
        self.handle(self.epoll.poll(0, 64))

    def pump(self, until: float) -> None:
        """Wait for events, at most until then, and handle them."""
        poll = self.epoll.poll
        events = poll(0, 64)
        if not events:
            start = now()
            spin = self.spin
            end = start + spin
            while not events and now() < end:
                events = poll(0, 64)
            if events:
                self.spin = min(SPIN_MAX, spin * 1.5)
            else:
                self.spin = max(SPIN_MIN, spin * 0.5)
                events = self._sleep(until, start)
        self.handle(events)

    def _sleep(self, until: float, start: float) -> list[tuple[int, int]]:
        wake = min(until, self.next_timer)
        timeout = -1 if wake == NEVER else max(0.0, wake - now())
        events = self.epoll.poll(timeout, 64)
        if events and now() - start < SPIN_MAX:
            self.spin = SPIN_MAX  # had it spun a little longer, it would not have slept
        return events

    def run(self, finished: Callable[[], bool]) -> None:
        """Pump in this thread until ``finished()``."""
        self.pumping = True
        while not finished():
            self.pump(NEVER)

    # -- the background thread ----------------------------------------------------------------------
    def start_background(self) -> None:
        """Answer others while user code computes."""
        self._background = threading.Thread(
            target=self._look_after, name="freehold-pump", daemon=True
        )
        self._background.start()

    def leave(self) -> None:
        """The pumping thread goes back to user code."""
        self.pumping = False
        if self._parked:
            self._parked = False
            self._park.set()

    def _look_after(self) -> None:
        seen = -1
        while not self.closed:
            if self.pumping:
                if seen == self.pumps:  # the same pump as a moment ago: it will take a while
                    self._park.clear()
                    self._parked = True
                    if self.pumping and seen == self.pumps:
                        self._park.wait(1.0)
                    self._parked = False
                seen = self.pumps
                clock.sleep(TAKE_OVER)
            elif seen != self.pumps:
                seen = self.pumps
                clock.sleep(TAKE_OVER)
            else:
                self._take_over()

    def _take_over(self) -> None:
        with self.lock:
            if self.closed:
                return
            self._finish(now())
        wake = min(self.next_timer, now() + REST if self.restless() else NEVER)
        timeout = -1 if wake == NEVER else max(0.0, wake - now())
        self.resting = True
        events = self.epoll.poll(timeout, 64)
        self.resting = False
        if self.closed or self.pumping:
            return
        self.handle(events)
        if self.pumping:
            self.waker.wake()  # what the pumping thread waits for may have come by this thread

    def restless(self) -> bool:
        """Whether something may be dropped without any event."""
        return False

    def _on_waker(self, mask: int, when: float) -> None:
        self.waker.clear()

    def close(self) -> None:
        """Close every connection.  The machine is not told."""
        self.closed = True
        self.waker.wake()
        self._park.set()
        background = self._background
        if background is not None and background is not threading.current_thread():
            background.join(1.0)
        with self.lock:
            if self._listener is not None:
                self._listener.close()
            for peer in self.machine.peers.values():
                if peer.port is not None:
                    peer.port.link.close()
                    peer.port = None
            self.epoll.close()
            self.waker.close()


def all_ready(rows: Sequence[Row]) -> bool:
    """Whether none of the rows is pending."""
    return all(row.state != m.PENDING for row in rows)
