"""The data plane: bytes of objects from the arena of one node into that of another.

Each transfer has a thread of its own, which moves bytes without the interpreter's lock; where the
bytes are, and whether they may be read, only the node's machine knows.  It is asked and told by
*events*, a queue that the node's loop empties (``events``) when ``wake`` has woken it, and it
answers and orders by plain calls, none of which waits.

*Incoming* (``move``): dial, or take up a connection that is at rest; ask; receive; report
``("moved", transfer, have, reason, other)``.  *Outgoing* (``serve``): for each question on an
accepted connection report ``("serve", ...)``, wait for ``serving``, send; report ``("served",
transfer, done)``.

An outgoing transfer may read what an incoming one is still writing: both know the object's
``Arriving``, which says how much is there, from attempt to attempt.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from freehold.errors import ProtocolError
from freehold.io import clock, stream
from freehold.io.failures import Failures
from freehold.io.shm import Arena

STALL_S = 10.0  # without any progress
IDLE_S = 10.0  # for which the serving side keeps a connection without a question
SERVES_MAX = 128  # connections served at a time; more are closed, and come again
RESTING_MAX = 32  # connections kept for the next question
NOT_HERE, ASK_OTHER = -1, -2

Event = tuple[Any, ...]


class Arriving:
    """How much of an object is in the arena; the rest is coming."""

    __slots__ = ("changed", "have", "offset", "users", "waiters")

    def __init__(self, offset: int, have: int) -> None:
        self.offset = offset
        self.have = have
        self.users = 0  # transfers, in either direction
        self.waiters = 0
        self.changed = threading.Condition()

    def advance(self, have: int) -> None:
        """So many bytes are there now."""
        self.have = have
        if self.waiters:  # they are counted before they look at ``have``
            self.stir()

    def stir(self) -> None:
        """Let everyone who waits look again."""
        with self.changed:
            self.changed.notify_all()

    def wait(self, beyond: int, halted: Callable[[], bool], stall_s: float) -> int:
        """How many bytes are there, as soon as it is more than ``beyond``."""
        with self.changed:
            self.waiters += 1
            try:
                ready = self.changed.wait_for(lambda: self.have > beyond or halted(), stall_s)
            finally:
                self.waiters -= 1
        if halted():
            raise ConnectionError("the transfer was given up")
        if not ready:
            raise TimeoutError(f"nothing has come for {stall_s:g} s")
        return self.have


class Transfer:
    """One in either direction."""

    __slots__ = ("answer", "answered", "arriving", "halted", "sock")

    def __init__(self, arriving: Arriving | None, sock: socket.socket | None) -> None:
        self.arriving = arriving
        self.sock = sock
        self.halted = False
        self.answered = threading.Event()  # outgoing: the node has spoken
        self.answer: tuple[int, int, int, str] = (NOT_HERE, 0, 0, "")

    @property
    def have(self) -> int:
        """Bytes that are here."""
        return self.arriving.have if self.arriving is not None else 0

    def halt(self) -> None:
        """Make its thread end soon."""
        self.halted = True
        if self.sock is not None:
            stream.hang_up(self.sock)
        if self.arriving is not None:
            self.arriving.stir()
        self.answered.set()


class Mover:
    """All transfers of one node.

    Args:
        arena: where the bytes are.
        node: the id of this node, 8 bytes.
        address: where this node can be asked.
        dial: returns a connected, authenticated, blocking socket; raises OSError or FreeholdError.
        wake: called, from any thread, when there are events.
        stall_s: seconds without progress after which a transfer is given up.
    """

    def __init__(
        self,
        arena: Arena,
        node: bytes,
        address: str,
        dial: Callable[[str], socket.socket],
        wake: Callable[[], None],
        *,
        stall_s: float = STALL_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self.arena = arena
        self.node = node
        self.address = address
        self.dial = dial
        self.wake = wake
        self.stall_s = stall_s
        self.idle_s = idle_s
        self.errors = Failures()  # what others did wrong
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        self._closing = False
        self._numbers = itertools.count(1)
        self._incoming: dict[int, Transfer] = {}
        self._outgoing: dict[int, Transfer] = {}
        self._arriving: dict[int, Arriving] = {}  # by offset
        self._reported: list[Arriving] = []  # of the incoming whose end the last events told
        self._served: set[socket.socket] = set()
        self._resting: deque[tuple[str, float, socket.socket]] = deque()
        self._threads: set[threading.Thread] = set()

    # -- the node's calls -------------------------------------------------------------------------
    def events(self) -> list[Event]:
        """What has happened; the node answers before it asks again."""
        with self._lock:
            for arriving in self._reported:
                self._leave(arriving)
            self._reported.clear()
        events = []
        while self._events:
            event = self._events.popleft()
            if event[0] == "moved":
                event, arriving = event[:-1], event[-1]
                self._reported.append(arriving)  # kept until the node has handled it
            events.append(event)
        return events

    def move(
        self, transfer: int, source: str, id: bytes, place: list[Any], skip: int, offset: int,
        direct: bool,
    ) -> None:  # fmt: skip
        """Bring the object from ``skip`` on; ``offset`` is that of its first byte here."""
        holder, start, size, node = place
        if not (0 <= skip <= size and offset >= 0 and offset + size <= self.arena.size):
            raise ValueError(f"{size} bytes at {offset} do not lie in the arena")
        request = stream.Request(
            id, holder, start, size, node, skip, direct, self.node, self.address
        )
        with self._lock:
            before = self._arriving.get(offset)
            if before is not None and before.have != skip:  # another object was there
                del self._arriving[offset]
            incoming = Transfer(self._enter(offset, skip), None)
            self._incoming[transfer] = incoming
        if not self._start(self._bring, transfer, incoming, source, request, offset):
            self._moved(transfer, incoming, "no thread can be started", "")

    def serving(self, transfer: int, offset: int, size: int, have: int, other: str) -> None:
        """The answer to a ``serve`` event."""
        with self._lock:
            outgoing = self._outgoing.get(transfer)
            if outgoing is None:  # it has given up waiting, and said so
                return
            if offset >= 0 and have < size:
                outgoing.arriving = self._enter(offset, have)
            outgoing.answer = (offset, size, have, other)
            outgoing.answered.set()

    def halt(self, incoming: bool, transfer: int) -> None:
        """Give a transfer up; its end is reported as ever."""
        with self._lock:
            found = (self._incoming if incoming else self._outgoing).get(transfer)
            if found is not None:
                found.halt()

    def serve(self, sock: socket.socket) -> None:
        """Answer the questions on an accepted, authenticated connection, until it ends."""
        with self._lock:
            refused = self._closing or len(self._served) >= SERVES_MAX
            if not refused:
                self._served.add(sock)
        if refused:
            sock.close()
        elif not self._start(self._answer_all, sock):
            self._served.discard(sock)
            sock.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """End every transfer and connection."""
        with self._lock:
            self._closing = True
            for transfer in (*self._incoming.values(), *self._outgoing.values()):
                transfer.halt()
            for sock in self._served:
                stream.hang_up(sock)
            while self._resting:
                self._resting.popleft()[2].close()
            threads = list(self._threads)
        until = clock.now() + timeout_s
        for thread in threads:
            thread.join(max(0.0, until - clock.now()))

    # -- what threads share -----------------------------------------------------------------------
    def _start(self, target: Callable[..., None], *args: Any) -> bool:
        def run() -> None:
            try:
                target(*args)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, name="freehold-mover", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more of them
            self._threads.discard(thread)
            return False
        return True

    def _emit(self, *event: Any) -> None:
        self._events.append(event)
        self.wake()

    def _enter(self, offset: int, have: int) -> Arriving:
        """With the lock held: what arrives there has one user more."""
        arriving = self._arriving.get(offset)
        if arriving is None:
            arriving = self._arriving[offset] = Arriving(offset, have)
        arriving.users += 1
        return arriving

    def _leave(self, arriving: Arriving) -> None:
        """With the lock held: one user less."""
        arriving.users -= 1
        if not arriving.users and self._arriving.get(arriving.offset) is arriving:
            del self._arriving[arriving.offset]

    # -- incoming ---------------------------------------------------------------------------------
    def _bring(
        self, transfer: int, incoming: Transfer, source: str, request: stream.Request, offset: int
    ) -> None:
        reason = other = ""
        try:
            status, other = self._ask(incoming, source, request, offset)
            reason = "gone" if status == stream.GONE else ""
        except ProtocolError as error:
            self.errors.append(error)
            reason = str(error)
        except Exception as error:  # whatever it is, the node must hear of the end
            reason = str(error) or type(error).__name__
        self._moved(transfer, incoming, reason, other)

    def _moved(self, transfer: int, incoming: Transfer, reason: str, other: str) -> None:
        with self._lock:
            del self._incoming[transfer]
        self._emit("moved", transfer, incoming.have, reason, other, incoming.arriving)

    def _ask(
        self, incoming: Transfer, source: str, request: stream.Request, offset: int
    ) -> tuple[int, str]:
        sock = self._take(source)
        if sock is not None:
            try:
                return self._converse(incoming, source, sock, request, offset)
            except (TimeoutError, ProtocolError):
                raise
            except OSError:  # most likely the other side had closed it while it rested
                if incoming.halted or incoming.have > request.skip:
                    raise
        return self._converse(incoming, source, self.dial(source), request, offset)

    def _converse(
        self,
        incoming: Transfer,
        source: str,
        sock: socket.socket,
        request: stream.Request,
        offset: int,
    ) -> tuple[int, str]:
        try:
            self._attach(incoming, sock)
            stream.send_request(sock, request)
            answer = stream.read_answer(sock, request)
            if answer[0] == stream.OK:
                self._receive(incoming, sock, request, offset)
        except BaseException:
            with self._lock:
                incoming.sock = None
            sock.close()
            raise
        self._rest(incoming, source, sock)
        return answer

    def _receive(
        self, incoming: Transfer, sock: socket.socket, request: stream.Request, offset: int
    ) -> None:
        arriving = incoming.arriving
        assert arriving is not None
        at, end = offset + request.skip, offset + request.size
        while at < end:
            at += stream.receive_some(sock, self.arena, at, end)
            arriving.advance(at - offset)

    def _attach(self, incoming: Transfer, sock: socket.socket) -> None:
        stream.prepare(sock, self.stall_s)
        with self._lock:
            incoming.sock = sock
            if incoming.halted or self._closing:
                raise ConnectionError("the transfer was given up")

    def _take(self, address: str) -> socket.socket | None:
        """A connection at rest; those that the other side is about to close are closed."""
        with self._lock:
            oldest = clock.now() - self.idle_s / 2
            while self._resting and self._resting[0][1] < oldest:
                self._resting.popleft()[2].close()
            for entry in reversed(self._resting):
                if entry[0] == address:
                    self._resting.remove(entry)
                    return entry[2]
        return None

    def _rest(self, incoming: Transfer, address: str, sock: socket.socket) -> None:
        """Keep the connection for the next question."""
        with self._lock:
            incoming.sock = None
            if incoming.halted or self._closing:
                sock.close()
                return
            self._resting.append((address, clock.now(), sock))
            if len(self._resting) > RESTING_MAX:
                self._resting.popleft()[2].close()

    # -- outgoing ---------------------------------------------------------------------------------
    def _answer_all(self, sock: socket.socket) -> None:
        try:
            while not self._closing:
                stream.prepare(sock, self.idle_s)
                first = sock.recv(1)
                if not first:
                    break
                stream.prepare(sock, self.stall_s)
                self._answer_one(sock, stream.read_request(sock, first))
        except ProtocolError as error:
            self.errors.append(error)
        except OSError:
            pass  # the reader is gone, or silent; what it was reading has been reported
        finally:
            with self._lock:
                self._served.discard(sock)
            sock.close()

    def _answer_one(self, sock: socket.socket, request: stream.Request) -> None:
        transfer = next(self._numbers)
        outgoing = Transfer(None, sock)
        with self._lock:
            self._outgoing[transfer] = outgoing
            if self._closing:
                outgoing.halt()
        place = [request.holder, request.offset, request.size, request.node]
        self._emit(
            "serve", transfer, request.id, place, request.asker, request.address, request.direct
        )
        done = False
        try:
            if not outgoing.answered.wait(self.stall_s) or outgoing.halted:
                raise ConnectionError("the transfer was given up")
            done = self._send(sock, outgoing, request)
        finally:
            with self._lock:
                del self._outgoing[transfer]
                if outgoing.arriving is not None:
                    self._leave(outgoing.arriving)
            self._emit("served", transfer, done)

    def _send(self, sock: socket.socket, outgoing: Transfer, request: stream.Request) -> bool:
        start, size, have, other = outgoing.answer
        if start == NOT_HERE:
            stream.send_answer(sock, stream.GONE)
            return False
        if start == ASK_OTHER:
            stream.send_answer(sock, stream.OTHER, other=other)
            return False
        stream.send_answer(sock, stream.OK, size)
        at = request.skip
        while at < size:
            if outgoing.arriving is not None:
                have = outgoing.arriving.wait(at, lambda: outgoing.halted, self.stall_s)
            stream.send_range(sock, self.arena, start + at, start + have)
            at = have
        return True
