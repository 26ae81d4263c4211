"""The floor: two processes, one Unix socket, a pickled call; and a copy into shared memory."""

import importlib
import mmap
import os
import pickle
import platform
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .plan import IN_FLIGHT, Plan, Reading, System, noop

LENGTH = struct.Struct("<I")
BURST = 100
MEGABYTES_100 = 100_000_000
FUNCTIONS: dict[str, Callable[..., object]] = {"noop": noop}


class _Buffer:
    """Frames out of a stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""

    def _read(self) -> bytes:
        """Some bytes; a socket that does not block is asked again and again."""
        while True:
            try:
                chunk = self.sock.recv(1 << 18)
            except BlockingIOError:
                continue
            if not chunk:
                raise EOFError
            return chunk

    def frames(self) -> list[bytes]:
        """Every whole frame that one read completes; at least one. EOFError at the end."""
        found: list[bytes] = []
        while not found:
            data = self.data + self._read()
            at, end = 0, len(data)
            while end - at >= 4:
                (length,) = LENGTH.unpack_from(data, at)
                if end - at - 4 < length:
                    break
                found.append(data[at + 4 : at + 4 + length])
                at += 4 + length
            self.data = data[at:]
        return found


def _frame(value: object) -> bytes:
    body = pickle.dumps(value, 5)
    return LENGTH.pack(len(body)) + body


def _serve(sock: socket.socket) -> None:
    """The called process: answer every call, one write for each read."""
    incoming = _Buffer(sock)
    with suppress(EOFError, ConnectionError):
        while True:
            answers = []
            for body in incoming.frames():
                number, name, args = pickle.loads(body)
                answers.append(_frame((number, FUNCTIONS[name](*args))))
            sock.sendall(b"".join(answers))


class _Pair:
    """This process's end of the socket, and a child at the other."""

    def __init__(self, *, spin: bool = False) -> None:
        self.sock, other = socket.socketpair()
        self.sock.setblocking(not spin)
        other.setblocking(not spin)
        self.child = os.fork()
        if not self.child:
            try:
                self.sock.close()
                _serve(other)
            finally:
                os._exit(0)
        other.close()
        self.incoming = _Buffer(self.sock)

    def one_at_a_time(self) -> None:
        """BURST calls, each waiting for its answer."""
        for number in range(BURST):
            self.sock.sendall(_frame((number, "noop", ())))
            for body in self.incoming.frames():
                pickle.loads(body)

    def pipelined(self) -> None:
        """IN_FLIGHT calls sent in batches of BURST, then their answers."""
        due = IN_FLIGHT
        for start in range(0, IN_FLIGHT, BURST):
            calls = [_frame((start + i, "noop", ())) for i in range(BURST)]
            self.sock.sendall(b"".join(calls))
        while due:
            for body in self.incoming.frames():
                pickle.loads(body)
                due -= 1

    def close(self) -> None:
        """End the child."""
        self.sock.close()
        os.waitpid(self.child, 0)


def _measure(measure: Callable[[_Pair], float], *, spin: bool = False) -> float:
    pair = _Pair(spin=spin)
    try:
        return measure(pair)
    finally:
        pair.close()


def _task_sync(plan: Plan) -> Reading:
    """One call at a time: both sides blocking, wherever the kernel runs them or on one core."""

    def sync(pair: _Pair) -> float:
        return plan.rate(pair.one_at_a_time, BURST)

    free = _measure(sync)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        together = _measure(sync)
    finally:
        os.sched_setaffinity(0, allowed)
    return {
        "task_sync": max(free, together),
        "floor_free": free,
        "floor_one_core": together,
        "floor_spin": _measure(sync, spin=True),
    }


def _task_1000(plan: Plan) -> Reading:
    return _measure(lambda pair: plan.rate(pair.pipelined, IN_FLIGHT))


def _shared(numpy: Any) -> Any:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(MEGABYTES_100)
        memory = mmap.mmap(file.fileno(), MEGABYTES_100)
    return numpy.frombuffer(memory, dtype=numpy.uint8)


def _copies(plan: Plan, *, fresh: bool) -> float:
    """GB/s of copying 100 MB into shared memory, into new pages each time or the same ones."""
    numpy: Any = importlib.import_module("numpy")
    source = numpy.ones(MEGABYTES_100, dtype=numpy.uint8)
    target = _shared(numpy)
    target[:] = source
    taken: list[float] = []
    end = time.perf_counter() + plan.seconds
    while len(taken) < 5 or (time.perf_counter() < end and not fresh):
        if fresh:
            target = _shared(numpy)
        begin = time.perf_counter()
        target[:] = source
        taken.append(time.perf_counter() - begin)
    return MEGABYTES_100 / statistics.median(taken) / 1e9


def system() -> System:
    """The floor as a system."""
    return System(
        version=platform.python_version(),
        probes={
            "put_first": lambda plan: _copies(plan, fresh=True),
            "put_warm": lambda plan: _copies(plan, fresh=False),
            "task_sync": _task_sync,
            "task_1000": _task_1000,
        },
    )
