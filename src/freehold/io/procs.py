"""Processes: fork, exec, signals, pipes, limits.

Children are tied to their parent with ``PR_SET_PDEATHSIG``, so that nothing survives the process
that it belongs to, whatever kills that.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, NamedTuple, NoReturn

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_TIMERSLACK = 29

OUTPUT_CHUNK = 65_536
NAME_MARK = b"\0\0freehold:"  # at a line's start: the name of what prints the lines after it


def die_with_parent(parent: int) -> None:
    """Be killed when ``parent`` dies; exit now if it already has."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_name(name: str) -> None:
    """The name that ``ps`` and ``top`` show."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15])


def set_timer_slack(nanoseconds: int) -> None:
    """How late the kernel may wake this process from a sleep; by default 50 microseconds."""
    _libc.prctl(_PR_SET_TIMERSLACK, nanoseconds)


def start_python(code: str, config: bytes) -> subprocess.Popen[bytes]:
    """A fresh interpreter in a session of its own, with ``config`` on its standard input.

    Its standard output carries its one line of answer; its input stays open, and its end tells it
    that the starter has died.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],  # -P: no module of the working directory's
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        close_fds=True,
    )
    assert process.stdin is not None
    process.stdin.write(len(config).to_bytes(4, "little") + config)
    process.stdin.flush()
    return process


def execute_python(code: str, config: bytes) -> NoReturn:
    """Become such an interpreter, in this very process; no descriptor above 2 is kept."""
    with open(os.memfd_create("freehold-config"), "r+b") as file:
        file.write(len(config).to_bytes(4, "little") + config)
        file.flush()
        file.seek(0)
        os.dup2(file.fileno(), 0)
        os.execv(sys.executable, [sys.executable, "-P", "-c", code])


def read_line(pipe: IO[bytes], timeout: float) -> bytes:
    """A line, without its end; empty if none comes in that many seconds."""
    poll = _poll(pipe.fileno(), select.POLLIN)
    return pipe.readline().rstrip(b"\n") if poll.poll(timeout * 1000) else b""


def wait_or_kill(process: subprocess.Popen[bytes], timeout: float) -> int:
    """Its exit code, or minus the signal; it is killed if it does not exit in time."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def redirect(path: str, fd: int) -> None:
    """Make the descriptor append to that file of mode 0600, or lead nowhere if there is none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if path else os.O_RDWR
    to = os.open(path or os.devnull, flags, 0o600)
    os.dup2(to, fd)
    os.close(to)


def on_terminate(call: Callable[[], Any]) -> None:
    """Call it, in the main thread, instead of ending on SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: call())


def read_config() -> bytes:
    """The other end of ``start_python``."""
    size = int.from_bytes(os.read(0, 4), "little")
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            sys.exit(1)
        data += chunk
    return data


def fork(child: Callable[[], None], close: tuple[int, ...] = (), *, tied: bool = True) -> int:
    """Fork a process that runs ``child`` and exits; returns its pid.

    It is killed when this process dies, unless it is not ``tied``: then it must notice for itself.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run_child(child, parent if tied else 0, close)
    return pid


def _run_child(child: Callable[[], None], parent: int, close: tuple[int, ...]) -> NoReturn:
    code = 1
    try:
        if parent:
            die_with_parent(parent)
        for fd in close:
            os.close(fd)
        child()
        code = 0
    except SystemExit as stop:
        code = exit_code(stop.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def output_pipe() -> tuple[int, int]:
    """(read end, write end), the read end non-blocking."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    return read, write


def capture_output(out: int, err: int, name: Callable[[], str]) -> None:
    """Make the pipes this process's standard output and error, line by line.

    The descriptors stay open: should user code close 1 or 2, they take their places again.
    """
    os.dup2(out, 1)
    os.dup2(err, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for the life of the process)
    sys.stdout = _Output(_Standard(1, out), name)
    sys.stderr = _Output(_Standard(2, err), name)


class _Standard(io.FileIO):
    """A standard descriptor that is opened again when it is written to and closed."""

    def __init__(self, fd: int, spare: int) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._spare = spare

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        os.dup2(self._spare, self.fileno())
        return super().write(data)


class _Output(io.TextIOWrapper):
    """A stream that tells, in lines of its own, who printed those that follow."""

    def __init__(self, standard: _Standard, name: Callable[[], str]) -> None:
        super().__init__(
            io.BufferedWriter(standard), "utf-8", "backslashreplace", line_buffering=True
        )
        self._name = name
        self._told = ""
        self._inside = False  # a line has begun

    def write(self, text: str) -> int:
        if not text:
            return 0
        if (name := self._name()) != self._told:
            self._told = name
            end = "\n" if self._inside else ""  # of a line that another has begun
            super().write(f"{end}{NAME_MARK.decode()}{name}\n")
        self._inside = not text.endswith("\n")
        return super().write(text)


def read_output(fd: int) -> bytes | None:
    """What was printed: empty at the end, None if there is nothing now."""
    try:
        return os.read(fd, OUTPUT_CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def child_signals() -> int:
    """A descriptor that becomes readable when a child has exited."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def reset_signals() -> None:
    """Signal handling as a fresh process has it, but for Ctrl-C, which is the driver's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def reap() -> list[tuple[int, int]]:
    """(pid, exit code or minus the signal) of every child that has exited."""
    done: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return done
        if not pid:
            return done
        done.append((pid, os.waitstatus_to_exitcode(status)))


def wait(pid: int) -> None:
    """Wait for the end of a child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def send_signal(pid: int, number: int) -> None:
    """Signal a process; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def start_time(pid: int) -> int:
    """When that process was started, in clock ticks since the boot; 0 if it is gone.

    Together with the pid it names a process for ever, and it stays when the process executes
    another program.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


class Living(NamedTuple):
    """A process, by a name that never returns: its pid and when it was started."""

    pid: int
    started: int

    @property
    def lives(self) -> bool:
        """Whether it runs; one that is dead and not yet waited for does not."""
        return self.started == start_time(self.pid)


def descendants(pid: int) -> list[Living]:
    """Its children, their children, and so on."""
    import psutil  # here: only who ends daemons needs it

    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    living = [Living(child.pid, start_time(child.pid)) for child in found]
    return [child for child in living if child.started]


def limit_memory(limit: int | None) -> None:
    """Bound this process's private memory, in bytes; None lifts the bound."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = resource.RLIM_INFINITY if limit is None else limit
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def private_bytes() -> int:
    """The private memory of this process that RLIMIT_DATA counts, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def exit_code(told: object) -> int:
    """The exit code of ``sys.exit(told)``; anything but a number is printed, as Python does."""
    if told is not None and not isinstance(told, int):
        print(told, file=sys.stderr)
    return told if isinstance(told, int) else int(told is not None)


def exit_now(code: int) -> NoReturn:
    """End the process without cleaning up; the kernel and the node collect what it had."""
    os._exit(code)


def at_fork(child: Callable[[], Any]) -> None:
    """Call ``child`` in every forked child of this process."""
    os.register_at_fork(after_in_child=child)


def close(fd: int) -> None:
    """Close a descriptor."""
    os.close(fd)


def has_output(fd: int) -> bool:
    """Whether something can be read now, the end included."""
    return bool(_poll(fd, select.POLLIN).poll(0))


def wait_writable(fd: int) -> None:
    """Wait until the descriptor takes output."""
    _poll(fd, select.POLLOUT).poll()


def _poll(fd: int, mask: int) -> select.poll:
    """Unlike ``select()``, it takes descriptors above 1024."""
    poll = select.poll()
    poll.register(fd, mask)
    return poll


def open_standard_files() -> None:
    """See that descriptors 0, 1 and 2 are open, so that no socket ever becomes one."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def allow_many_files() -> None:
    """Raise the limit of open files as far as it may be: each worker takes a few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
