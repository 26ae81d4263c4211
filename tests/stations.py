"""Helpers for tests of connections: hosts in this process, and strangers who speak by hand."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from freehold.core import address as addresses
from freehold.core import messages as m
from freehold.core.machine import Frame, Machine, Peer
from freehold.io import net
from freehold.proc.host import Host
from freehold.wire.auth import Handshake
from freehold.wire.codec import encode

SECRET = b"s" * 32
NODE = b"the node"
LOCAL = "127.0.0.1"
Make = Callable[..., "Station"]  # the fixture ``make`` of tests/io
both = pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])


class Party(Machine):
    """Remembers what it is told; FUNCTION carries whatever a test wants to send."""

    def __init__(self) -> None:
        super().__init__(os.urandom(8), m.OPCODES)
        self.got: list[tuple[Peer, str, bytes]] = []
        self.ups: list[tuple[Peer, dict[str, Any]]] = []
        self.downs: list[Peer] = []
        self.turns = 0  # of its host's loop
        self.on({m.FUNCTION: self.on_function})

    def on_function(self, peer: Peer, now: float, digest: bytes, name: str, code: bytes) -> None:
        self.got.append((peer, name, code))

    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        self.ups.append((peer, info))

    def on_down(self, peer: Peer, now: float) -> None:
        self.downs.append(peer)

    def settle(self, now: float) -> None:
        self.turns += 1


class Station(Host):
    """A host that is driven by the test."""

    machine: Party

    def __init__(self, secret: bytes = SECRET, *, tls: bool = True) -> None:
        super().__init__(Party(), secret, "tool")
        self.tls = tls

    def open(self, pem: str, host: str = LOCAL, port: int = 0) -> str:
        """Listen by TCP; returns the address."""
        self.home = NODE
        self.listen_tcp(host, port, pem if self.tls else "")
        return self.address

    def say(self, peer: Peer, name: str, code: bytes = b"") -> Peer:
        """Send something; it goes with the next flush."""
        with self.lock:
            self.machine.send(peer, m.FUNCTION, b"", name, code)
            self.flush()
        return peer

    def call(self, address: str, name: str = "hi", code: bytes = b"", id: bytes = b"") -> Peer:
        """Dial somebody who is new, and send something."""
        peer = Peer(id, address, "tool")
        if id:
            self.machine.peers[id] = peer
        return self.say(peer, name, code)

    @property
    def names(self) -> list[str]:
        """What has arrived, by name."""
        return [name for _, name, _ in self.machine.got]


def drive(*hosts: Host, until: Callable[[], Any], within: float = 10.0) -> float:
    """Run the hosts' loops in turn until the condition holds; returns how long it took."""
    start = time.monotonic()
    while not until():
        for host in hosts:
            host.poll_once()
        assert time.monotonic() - start < within, f"not within {within:g} s"
    return time.monotonic() - start


def until(condition: Callable[[], object]) -> None:
    """Wait for what happens by itself."""
    drive(until=condition)


@contextlib.contextmanager
def running(host: Host) -> Iterator[None]:
    """The host's loop runs in a thread of its own meanwhile."""
    stop = threading.Event()
    thread = threading.Thread(target=host.run, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        host.waker.wake()
        thread.join(10)
        assert not thread.is_alive()


def place(address: str) -> tuple[str, int]:
    """Where an address listens by TCP."""
    found = addresses.host_port_of(address)
    assert found is not None
    return found


def knock(address: str, *, tls: bool = False, name: str = "") -> socket.socket:
    """A stranger's blocking connection."""
    sock = socket.create_connection(place(address), timeout=5)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    return sock


def enter(
    address: str, *, tls: bool, secret: bytes = SECRET, first: Sequence[Frame] = ()
) -> socket.socket:
    """One that has proven itself and said hello, or whatever is said ``first``."""
    import hashlib

    sock = knock(address, tls=tls)
    shake = Handshake(secret, os.urandom(32), dialler=True)
    if isinstance(sock, ssl.SSLSocket):
        shake.binding = hashlib.sha256(sock.getpeercert(True) or b"").digest()
    sock.sendall(shake.take())
    while not shake.done:
        shake.feed(sock.recv(4096))
        sock.sendall(shake.take())
    hello = (m.HELLO, os.urandom(8), "tool", os.getpid(), "", {})
    sock.sendall(encode([*first] or [hello]))
    return sock


def closed(sock: socket.socket, within: float = 5.0) -> bool:
    """Whether the other side closes the connection in time."""
    sock.settimeout(within)
    try:
        while sock.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def full_listener() -> Iterator[str]:
    """The address of a listener whose queue is full: who dials it hears nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOCAL, 0))
        listener.listen(0)
        host, port = listener.getsockname()
        waiting = [stack.enter_context(net.dial_tcp(host, port)) for _ in range(4)]
        assert len(waiting) == 4
        yield f"||{host}:{port}"


class Between:
    """Somebody in the middle, on a thread of his own: passes on bytes through ``change``.

    With ``pem`` he ends the caller's TLS with a certificate of his own and begins another.
    """

    def __init__(self, address: str, pem: str = "") -> None:
        self._target = address
        self._pem = pem
        self.change: Callable[[bytes], bytes] = bytes
        self.passed = 0
        self._listener = socket.create_server((LOCAL, 0))
        self.address = f"||{LOCAL}:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._socks: list[socket.socket] = []
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            self._socks.append(sock)
            if self._pem:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self._pem)
                sock = context.wrap_socket(sock, server_side=True)
            other = knock(self._target, tls=bool(self._pem))
            self._socks += [sock, other]
            back = threading.Thread(target=self._pass_on, args=(other, sock, bytes))
            self._threads.append(back)
            back.start()
            self._pass_on(sock, other, lambda data: self.change(data))

    def _pass_on(
        self, source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]
    ) -> None:
        source.settimeout(None)
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self.passed += len(data)
                target.sendall(change(data))
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop, and wait for the threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()
        for sock in self._socks:
            sock.close()
