"""A connected, non-blocking stream socket: what can be sent is sent at once, the rest is kept."""

from __future__ import annotations

import socket
from collections import deque

Buffer = bytes | bytearray | memoryview
CHUNK = 1 << 18  # bytes read at a time
TURN = 1 << 22  # bytes after which a sender that could go on lets others have their turn


class Link:
    """One connection.

    Attributes:
        backlog: whether unsent bytes wait for the socket to drain.
        unsent: how many bytes do.
        drained: how many have gone after they had to wait, ever; while it stands still, the other
            side takes nothing.
        binding: what ties the connection to its TLS certificate; empty without TLS.
    """

    __slots__ = ("_out", "drained", "fd", "sock", "unsent")

    binding = b""
    _inbox = memoryview(bytearray(CHUNK))  # shared: what is read is consumed before the next read

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.unsent = 0
        self.drained = 0
        self._out: deque[memoryview] = deque()

    @property
    def blocked(self) -> bool:
        """Whether bytes wait for the socket to be writable."""
        return bool(self._out)

    @property
    def backlog(self) -> bool:
        return bool(self._out)

    def send(self, data: Buffer) -> bool:
        """Send or keep; returns whether everything has been handed to the kernel.

        Raises OSError when the connection is gone.
        """
        if self._out:
            self._out.append(memoryview(data))
            self.unsent += len(data)
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._out.append(memoryview(data)[sent:])
        self.unsent += len(data) - sent
        return False

    def drain(self) -> bool:
        """The socket can take more; returns whether nothing waits for it any longer."""
        out = self._out
        most = self.drained + TURN
        while out:
            if self.drained >= most:
                return False
            try:
                sent = self.sock.send(out[0])
            except BlockingIOError:
                return False
            self.unsent -= sent
            self.drained += sent
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
