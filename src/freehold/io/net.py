"""Sockets: Unix ones, in a directory that only this user may enter, and TCP between machines."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import stat
import struct
import tempfile

PREFIX = "freehold-"
KEEP_IDLE = 5  # seconds of silence after which the kernel asks whether the other side is there
KEEP_INTERVAL = 2  # seconds between two such questions
SILENCE_MAX = 10  # seconds without any answer to what was sent, after which a connection is lost
_CREDENTIALS = struct.Struct("iII")  # pid, user, group: the kernel's ucred
PATH_MAX = 75  # bytes of a session directory's parent: a socket's whole path may have 107


def make_session_dir() -> str:
    """A new directory, mode 0700, named after the user, so that two users do not collide."""
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getuid()}-", dir=_parent())


def _parent() -> str:
    parent = tempfile.gettempdir()
    return parent if len(os.fsencode(parent)) <= PATH_MAX else "/tmp"


def session_dirs() -> list[str]:
    """This user's session directories, the newest first; anybody else's are ignored."""
    found = []
    for entry in os.scandir(_parent()):
        if entry.name.startswith(f"{PREFIX}{os.getuid()}-"):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # its session has just ended
                continue
            private = stat.S_IMODE(status.st_mode) == 0o700 and status.st_uid == os.getuid()
            if private and stat.S_ISDIR(status.st_mode):
                found.append((status.st_mtime, entry.path))
    return [path for _, path in sorted(found, reverse=True)]


def remake_session_dir(path: str) -> None:
    """Make it again, empty.  Raises FileExistsError when somebody else was faster."""
    remove_session_dir(path)
    os.mkdir(path, 0o700)


def remove_session_dir(path: str) -> None:
    """Remove it with what is inside; nothing happens if it is gone."""
    shutil.rmtree(path, ignore_errors=True)


def write_private(path: str, data: bytes) -> None:
    """Write a new file of mode 0600."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def remove_file(path: str) -> None:
    """Remove it; nothing happens if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def replace_private(path: str, data: bytes) -> None:
    """Write a file of mode 0600, or put it in the place of the old one, at one stroke."""
    beside = f"{path}.{os.getpid()}"
    write_private(beside, data)
    os.replace(beside, path)


def is_private(path: str) -> bool:
    """Whether the file is this user's, and nobody else may read it."""
    status = os.stat(path)
    return status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077


def read_file(path: str) -> bytes:
    """The file's content."""
    with open(path, "rb") as file:
        return file.read()


def listen(path: str) -> socket.socket:
    """A listening socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    os.chmod(path, 0o600)
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def dial(path: str) -> socket.socket:
    """A connected socket.  Raises OSError when nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return _wide(_above_standard(sock))


def accept(listener: socket.socket) -> socket.socket | None:
    """The next connection, if there is one."""
    try:
        sock, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    return _wide(_above_standard(sock))


def _above_standard(sock: socket.socket) -> socket.socket:
    """The socket, at a descriptor above 2: user code may have closed those, and prints there."""
    if sock.fileno() > 2:
        return sock
    with sock:
        return socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def _wide(sock: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    return sock


def offer_descriptor(listener: socket.socket, fd: int) -> None:
    """Hand the descriptor to whoever has connected, if it is a process of this user."""
    while (sock := accept(listener)) is not None:
        with sock, contextlib.suppress(OSError):
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(credentials)[1] == os.getuid():
                socket.send_fds(sock, [b"."], [fd])


def fetch_descriptor(path: str, timeout: float) -> int:
    """The descriptor that is offered there.  Raises OSError when none is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    if not fds:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no descriptor was handed over", path)
    os.set_inheritable(fds[0], False)
    return fds[0]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any.  Raises OSError where it cannot be had."""
    family, address = _numeric(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(address)
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def dial_tcp(host: str, port: int) -> socket.socket:
    """A socket that is being connected; when it is writable, ``tcp_error`` tells how it went.

    The host is numeric, since asking a name service would block (see ``resolve``).  Raises OSError
    when it fails at once.
    """
    family, address = _numeric(host, port)
    sock = _above_standard(socket.socket(family, socket.SOCK_STREAM))
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(code, os.strerror(code))
    with contextlib.suppress(OSError):  # gone already: ``tcp_error`` will say so
        _tune(sock)
    return sock


def tcp_error(sock: socket.socket) -> OSError | None:
    """What has become of a connection that ``dial_tcp`` began; None if it stands."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    try:
        if not code and sock.getsockname() == sock.getpeername():
            code = errno.ECONNREFUSED  # nobody listens, and the kernel took that port for this end
    except OSError as error:
        return error
    return OSError(code, os.strerror(code)) if code else None


def accept_tcp(listener: socket.socket) -> socket.socket | None:
    """The next connection, if there is one.  Raises OSError when there are too many open files."""
    try:
        sock, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    sock = _above_standard(sock)
    with contextlib.suppress(OSError):  # gone already: the first read will say so
        _tune(sock)
    return sock


def _tune(sock: socket.socket) -> None:
    """Small frames go at once, and a peer that is silently gone is noticed."""
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPIDLE, KEEP_IDLE)
    sock.setsockopt(tcp, socket.TCP_KEEPINTVL, KEEP_INTERVAL)
    sock.setsockopt(tcp, socket.TCP_KEEPCNT, SILENCE_MAX // KEEP_INTERVAL)
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, SILENCE_MAX * 1000)


def notice_silence(sock: socket.socket, seconds: int) -> None:
    """Have the kernel end the connection when nothing comes back for so long, or a second more.

    For connections whose end is a reason to look; what the other side's kernel answers is enough,
    so that a process that is stopped does not count as silent.
    """
    tcp = socket.IPPROTO_TCP
    with contextlib.suppress(OSError):  # gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(tcp, socket.TCP_KEEPIDLE, 1)
        sock.setsockopt(tcp, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(tcp, socket.TCP_KEEPCNT, seconds)
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, seconds * 1000)


def _numeric(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return found[0][0], found[0][4]  # type: ignore[return-value]


def resolve(host: str) -> str:
    """The numeric form of a host's name.  It may ask a name service, and wait: not for the loop."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def own_host(toward: str = "192.0.2.1") -> str:
    """This machine's numeric host as another one would dial it; loopback if it has no network.

    Nothing is sent: the kernel only says from where it would send (the default is a documentation
    address, RFC 5737).
    """
    family, address = _numeric(toward, 9)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)
        except OSError:
            return "127.0.0.1"
        return str(sock.getsockname()[0])


def peek(sock: socket.socket, size: int) -> bytes:
    """What has arrived first, left where it is; empty when the other side has closed.

    Raises BlockingIOError when there is nothing yet.
    """
    try:
        return sock.recv(size, socket.MSG_PEEK)
    except ConnectionError:
        return b""


def wake_at(sock: socket.socket, size: int) -> None:
    """Report the socket as readable only when so many bytes have come, or the stream ends."""
    with contextlib.suppress(OSError):  # gone already: the first read will say so
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
