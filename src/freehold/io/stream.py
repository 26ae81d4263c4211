"""The data protocol: how one node asks another for an object's bytes, and how they are sent.

On a connection that has been authenticated already, one question at a time::

    ->  REQUEST  id  address-of-the-asker
    <-  ANSWER   OK: the object's bytes from ``skip`` on follow
                 GONE: it is not there;  OTHER + address: ask that node

Everything that arrives is checked before it is used; what is wrong raises ProtocolError, and the
connection is closed.  Sockets block, with a time-out: a peer that makes no progress for so long is
given up (TimeoutError).  Plain sockets send straight out of the arena's file (``sendfile``), TLS
sockets out of its mapping; both receive into the mapping, and without the interpreter's lock.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
from typing import NamedTuple

from freehold.errors import ProtocolError
from freehold.io.shm import Arena

MAGIC = b"fhd1"
OK, GONE, OTHER = range(3)
ID_MAX = 64
ADDRESS_MAX = 1000
SIZE_MAX = 1 << 48
CHUNK = 4 << 20  # bytes asked of the kernel at a time
TLS_CHUNK = 256 << 10
UNIX_BUFFER = 4 << 20  # TCP's own tuning does better than any fixed size

_request = struct.Struct(">4sBBHQQQ8s8s8s")
_answer = struct.Struct(">4sBHQ")


class Request(NamedTuple):
    """A question for the bytes of an object."""

    id: bytes
    holder: bytes
    offset: int
    size: int
    node: bytes  # holder, offset and node are the place that names the bytes
    skip: int
    direct: bool  # name no other node
    asker: bytes
    address: str


def prepare(sock: socket.socket, stall_s: float) -> None:
    """Make the socket ready for long transfers."""
    sock.settimeout(stall_s)
    if sock.family == socket.AF_UNIX:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, UNIX_BUFFER)
    elif sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def hang_up(sock: socket.socket) -> None:
    """End the connection under the thread that uses it; that one closes it."""
    try:
        # Not the method: a TLS socket's would take its state away from under that thread.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:  # it is closed, or the other side was faster
        pass


# -- headers --------------------------------------------------------------------------------------
def send_request(sock: socket.socket, request: Request) -> None:
    """Ask."""
    address = request.address.encode()
    head = _request.pack(
        MAGIC, request.direct, len(request.id), len(address), request.offset, request.size,
        request.skip, request.holder, request.node, request.asker,
    )  # fmt: skip
    sock.sendall(head + request.id + address)


def read_request(sock: socket.socket, first: bytes) -> Request:
    """The question that begins with that byte."""
    head = first + read_exactly(sock, len(MAGIC) - 1)
    if head != MAGIC:  # said before it is waited for more
        raise ProtocolError(f"no request for an object begins with {head!r}")
    head += read_exactly(sock, _request.size - len(head))
    _, direct, id_size, address_size, offset, size, skip, holder, node, asker = _request.unpack(
        head
    )
    if direct > 1:
        raise ProtocolError(f"a request with the flags {direct:#x}")
    if not 1 <= id_size <= ID_MAX or address_size > ADDRESS_MAX:
        raise ProtocolError(f"a request with {id_size} bytes of id, {address_size} of address")
    if not 1 <= size <= SIZE_MAX or offset > SIZE_MAX or skip > size:
        raise ProtocolError(f"a request for {size} bytes at {offset}, without the first {skip}")
    id = read_exactly(sock, id_size)
    address = _text(read_exactly(sock, address_size))
    return Request(id, holder, offset, size, node, skip, bool(direct), asker, address)


def send_answer(sock: socket.socket, status: int, size: int = 0, other: str = "") -> None:
    """Answer; if it is OK, the bytes are to follow."""
    text = other.encode()
    sock.sendall(_answer.pack(MAGIC, status, len(text), size) + text)


def read_answer(sock: socket.socket, request: Request) -> tuple[int, str]:
    """The answer's status, and the address if it is OTHER."""
    head = read_exactly(sock, _answer.size)
    magic, status, length, size = _answer.unpack(head)
    if magic != MAGIC or status > OTHER:
        raise ProtocolError(f"no answer to a request begins with {head[:8]!r}")
    if status == OK and size != request.size:
        raise ProtocolError(f"the object has {size} bytes there, not {request.size}")
    if length > ADDRESS_MAX or (length > 0) != (status == OTHER):
        raise ProtocolError(f"an answer of status {status} with an address of {length} bytes")
    if status == OTHER and request.direct:
        raise ProtocolError("a node names another that was told not to")
    return status, _text(read_exactly(sock, length))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"an address that is no text: {data[:40]!r}") from error


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes.  Raises ConnectionError when the stream ends before them."""
    data = bytearray(size)
    view = memoryview(data)
    at = 0
    while at < size:
        count = sock.recv_into(view[at:])
        if not count:
            raise ConnectionError("the connection was closed")
        at += count
    return bytes(data)


# -- bytes ----------------------------------------------------------------------------------------
def send_range(sock: socket.socket, arena: Arena, start: int, end: int) -> None:
    """Send these bytes of the arena."""
    if isinstance(sock, ssl.SSLSocket):
        while start < end:
            start += sock.send(arena.view[start : min(end, start + TLS_CHUNK)])
        return
    fd = sock.fileno()
    while start < end:
        try:
            sent = os.sendfile(fd, arena.fd, start, min(end - start, CHUNK))
        except BlockingIOError:
            _wait_writable(sock)
            continue
        if not sent:
            raise ConnectionError("the arena's file is shorter than it was")
        start += sent


def _wait_writable(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    timeout = sock.gettimeout()
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError(f"the reader has taken nothing for {timeout:g} s")


def receive_some(sock: socket.socket, arena: Arena, start: int, end: int) -> int:
    """Receive some of these bytes into the arena; returns how many."""
    try:
        count = sock.recv_into(arena.view[start : min(end, start + CHUNK)])
    except TimeoutError as error:
        raise TimeoutError(f"nothing has come for {sock.gettimeout():g} s") from error
    if not count:
        raise ConnectionError("the connection was closed")
    return count
