"""A connected, non-blocking stream socket: what can be sent is sent at once, the rest is kept."""

from __future__ import annotations

import socket
from collections import deque

Buffer = bytes | bytearray | memoryview
CHUNK = 1 << 18  # bytes read at a time


class Link:
    """One connection.  ``backlog`` is true while unsent bytes wait for the socket to drain."""

    __slots__ = ("_out", "fd", "sock")

    _inbox = memoryview(bytearray(CHUNK))  # shared: what is read is consumed before the next read

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self._out: deque[memoryview] = deque()

    @property
    def backlog(self) -> bool:
        return bool(self._out)

    def send(self, data: Buffer) -> bool:
        """Send or keep; returns whether everything has been handed to the kernel.

        Raises OSError when the connection is gone.
        """
        if self._out:
            self._out.append(memoryview(data))
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._out.append(memoryview(data)[sent:])
        return False

    def drain(self) -> bool:
        """The socket can take more; returns whether everything is sent now."""
        out = self._out
        while out:
            try:
                sent = self.sock.send(out[0])
            except BlockingIOError:
                return False
            if sent == len(out[0]):
                out.popleft()
            else:
                out[0] = out[0][sent:]
        return True

    def receive(self) -> memoryview | None:
        """What has arrived: empty at the end of the stream, None if there is nothing yet.

        The view is valid until the next ``receive`` of any link.  Raises OSError on a reset.
        """
        inbox = Link._inbox
        try:
            count = self.sock.recv_into(inbox)
        except BlockingIOError:
            return None
        return inbox[:count]

    def close(self) -> None:
        """Close the socket."""
        self._out.clear()
        self.sock.close()
