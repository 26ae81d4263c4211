"""Whether a process is still there: one question to its address, asked without blocking.

The kernel accepts connections for a process that is stopped, and ports are used again by others.
So a probe goes through the whole handshake, and counts as alive only who then says the right id.
There are three answers:

* ``ALIVE``: that process, by its id, has said hello.
* ``REFUSED``: nobody listens there, or somebody else does, or it hung up: it is not there any more.
* ``SILENT``: no answer within the time.  It may be dead, stopped, or cut off; nothing is proven.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from freehold.core import messages as m
from freehold.errors import ProtocolError
from freehold.io import clock, net
from freehold.proc.ports import READ, WRITE, Port, Ports, shake

ALIVE, REFUSED, SILENT = "alive", "refused", "silent"
REFUSALS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOENT)


class Probe:
    """One question.  ``answer(verdict, now)`` is called once, locked, and never from here.

    Args:
        ports: the host, whose lock the caller holds.
        address: where the process listened.
        id: its process id; ``b""`` if anybody who belongs to the cluster will do.
        within: seconds.
        answer: takes the verdict.
    """

    __slots__ = ("_answer", "_connected", "_id", "_limit", "_port", "_ports")

    def __init__(
        self,
        ports: Ports,
        address: str,
        id: bytes,
        within: float,
        answer: Callable[[str, float], None],
    ) -> None:
        self._ports = ports
        self._id = id
        self._answer: Callable[[str, float], None] | None = answer
        self._port: Port | None = None
        when = clock.now()
        try:
            link, self._connected = ports.reach(address)
        except OSError as error:
            verdict = REFUSED if _is_refusal(error) else SILENT
            self._limit = ports.call_at(when, lambda when: self._over(verdict, when))
            return
        self._limit = ports.call_at(when + within, lambda when: self._over(SILENT, when))
        self._port = Port(link, shake(ports.secret, dialler=True), None)
        ports.adopt(self._port, self._on_event, READ if self._connected else WRITE)
        if self._connected:
            self._on_event(0, when)

    def cancel(self) -> None:
        """The answer is not needed any longer, and will not come."""
        self._answer = None
        self._over(SILENT, clock.now())

    def _on_event(self, mask: int, when: float) -> None:
        port = self._port
        assert port is not None
        try:
            verdict = self._step(port, mask)
        except OSError as error:  # a ProtocolError is one
            verdict = REFUSED if _is_refusal(error) else SILENT
        if verdict:
            self._ports.end(port, when)
            self._limit.cancel()
            self._limit = self._ports.call_at(when, lambda when: self._over(verdict, when))

    def _step(self, port: Port, mask: int) -> str:
        """Get on with it; returns the verdict, '' if there is none yet."""
        link, epoll = port.link, self._ports.epoll
        if not self._connected:
            error = net.tcp_error(link.sock)
            if error is not None:
                raise error
            self._connected = True
            epoll.modify(link.fd, READ)
        elif mask & WRITE and link.drain():
            epoll.modify(link.fd, READ)
        self._say(port)
        data = link.receive()
        if data is None:
            return ""
        verdict = self._hear(port, data) if data else REFUSED
        if not verdict:
            self._say(port)
        return verdict

    def _say(self, port: Port) -> None:
        words = port.handshake.take() if port.handshake is not None else b""
        if words and not port.link.send(words):
            self._ports.epoll.modify(port.link.fd, READ | WRITE)

    def _hear(self, port: Port, data: memoryview) -> str:
        handshake = port.handshake
        if handshake is not None:
            handshake.binding = port.link.binding
            data = memoryview(handshake.feed(bytes(data)))
            if not handshake.done:
                return ""
            port.handshake = None
        for hello in port.reader.feed(data):
            sound = isinstance(hello, list) and len(hello) > 1 and hello[0] == m.HELLO
            return ALIVE if sound and self._id in (b"", hello[1]) else REFUSED
        return ""

    def _over(self, verdict: str, when: float) -> None:
        self._limit.cancel()
        if self._port is not None:
            self._ports.end(self._port, when)
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(verdict, when)


def _is_refusal(error: OSError) -> bool:
    return isinstance(error, ProtocolError) or error.errno in REFUSALS
