"""A relay: TCP with faults.  It listens, dials a target for each connection, and carries bytes.

The relay runs an event loop in a thread of its own.  Each direction is a :class:`Way` (``forward``:
from who dialled to the target; ``backward``: the other one) with its delay, rate and faults, which
hold for connections that are there and those to come.  A way of a connection is two coroutines with
a queue between: one reads and stamps each piece with the time when it is due, the other waits and
writes.  So a delay costs no throughput, and a queue that is full stops the reader, as a full link.

*Faults.*  A frozen way carries nothing and forgets nothing: on ``resume`` all arrives, late.
A dropping way reads and forgets; since a stream with a hole would be no stream, that direction of
the connection stays silent for good, also after the way has stopped dropping.  ``reset`` ends
connections the hard way.  While ``refusing`` the relay resets whoever dials.

*Randomness.*  Pieces, jitter and resets are drawn from a generator per connection and direction,
seeded by (seed, number of the connection, direction): a run does not depend on another's timing.

A thread is in the namespace of the thread that started it: a relay that is made within
``Network.inside(host)`` listens and dials on that host.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

PIECE_BYTES = 64 * 1024
QUEUE_PIECES = 1024
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
TIMEOUT = 10.0

T = TypeVar("T")


class Way:
    """One direction.  Attributes may be set at any time, from any thread.

    Attributes:
        delay_s: seconds that each byte takes.
        jitter_s: seconds more, at most; drawn for each piece; order is kept.
        bytes_per_s: what goes through, each connection for itself; None: all that can.
        pieces: cut what arrives in pieces of random sizes.
        reset_rate: the probability with which a piece resets its connection instead.
        dropping: read and forget.
        carried: bytes handed on so far.
        dropped: bytes forgotten so far.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.pieces = False
        self.reset_rate = 0.0
        self.dropping = False
        self.carried = 0
        self.dropped = 0
        self.open = asyncio.Event()  # not set: frozen
        self.open.set()


class Relay:
    """A listening relay, as long as the ``with`` block lasts.

    Args:
        target: host and port to which it carries.
        listen: host and port where it listens; port 0: any.
        seed: of everything random.
    """

    def __init__(
        self, target: tuple[str, int], listen: tuple[str, int] = ("127.0.0.1", 0), seed: int = 0
    ) -> None:
        self.target = target
        self.seed = seed
        self.forward = Way("forward")
        self.backward = Way("backward")
        self.refusing = False
        self.accepted = 0
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(listen)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._thread = threading.Thread(target=self._run, name=f"relay to {target}")

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Reset all connections and listen no more.  Nothing happens when it is done already."""
        if not self._thread.is_alive():
            return
        try:
            self._call(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT)

    # --- from any thread --------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._links)

    def freeze(self, *ways: Way) -> None:
        """Carry nothing on these ways (both, when none is named) once this returns."""
        self._do(lambda: [way.open.clear() for way in ways or (self.forward, self.backward)])

    def resume(self, *ways: Way) -> None:
        """Carry again, first all that has waited."""
        self._do(lambda: [way.open.set() for way in ways or (self.forward, self.backward)])

    def reset(self) -> None:
        """Reset all connections, at both ends."""
        self._do(lambda: [link.abort() for link in list(self._links)])

    def _do(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._call(act())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT)

    # --- in the loop's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket)

    async def _end(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.abort()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.accepted
        self.accepted += 1
        link = _Link(self, number)
        link.tasks.append(asyncio.current_task())
        link.writers.append(writer)
        self._links.add(link)
        try:
            if self.refusing:
                return
            there, onward = await asyncio.open_connection(*self.target)
            link.writers.append(onward)
            if link.closed:  # reset meanwhile
                link.closed = False
                return
            await asyncio.gather(
                link.carry(self.forward, reader, onward), link.carry(self.backward, there, writer)
            )
            link.close()
        except (OSError, asyncio.CancelledError):  # either side has reset; or this is the end
            pass
        finally:
            link.abort()
            self._links.discard(link)


class _Link:
    """One connection: two sockets."""

    def __init__(self, relay: Relay, number: int) -> None:
        self.relay = relay
        self.number = number
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Future[Any] | None] = []  # asyncio itself holds them weakly
        self.closed = False

    async def carry(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one direction until its end has been handed on."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_PIECES)
        draw = random.Random(f"{self.relay.seed}/{self.number}/{way.name}")
        tasks = [
            asyncio.ensure_future(self._read(way, reader, queue, draw)),
            asyncio.ensure_future(self._write(way, writer, queue)),
        ]
        self.tasks += tasks
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _read(
        self,
        way: Way,
        reader: asyncio.StreamReader,
        queue: asyncio.Queue[tuple[float, bytes]],
        draw: random.Random,
    ) -> None:
        due, silent = 0.0, False
        while True:
            await way.open.wait()
            size = draw.randint(1, PIECE_BYTES) if way.pieces else PIECE_BYTES
            data = await reader.read(size)
            silent = silent or way.dropping
            if silent:
                way.dropped += len(data)
                if data:
                    continue
                await asyncio.Event().wait()  # not even the end is told
            if way.reset_rate and draw.random() < way.reset_rate:
                raise ConnectionResetError("drawn")
            now = asyncio.get_running_loop().time()
            due = max(due, now + way.delay_s + draw.random() * way.jitter_s)
            await queue.put((due, data))
            if not data:
                return

    async def _write(
        self, way: Way, writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        free = 0.0
        while True:
            due, data = await queue.get()
            if way.bytes_per_s:
                free = max(free, loop.time()) + len(data) / way.bytes_per_s
                due = max(due, free)
            while (rest := due - loop.time()) > 0:
                await asyncio.sleep(rest)
            await way.open.wait()
            if not data:
                writer.write_eof()
                return
            way.carried += len(data)  # before anybody can have seen it
            writer.write(data)
            await writer.drain()

    def close(self) -> None:
        """End both sockets in good order: both ways have handed on their end."""
        self.closed = True
        for writer in self.writers:
            writer.close()

    def abort(self) -> None:
        """End both sockets with a reset; not if they have ended."""
        if self.closed:
            return
        self.closed = True
        for writer in self.writers:
            with contextlib.suppress(OSError):
                link: socket.socket = writer.get_extra_info("socket")
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            writer.transport.abort()
