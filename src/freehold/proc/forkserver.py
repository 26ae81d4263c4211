"""The fork server: a small, single-threaded process from which workers are forked in milliseconds.

It has imported what a worker needs, holds no locks and no connections, reads what workers print,
and reports their ends: the spawner peer of the node's machine.  When the node dies it removes what
the node cannot, and its children are killed by the kernel (``procs.die_with_parent``).
"""

from __future__ import annotations

import gc
import select
import signal
import socket
from typing import Any

from freehold.core import messages as m
from freehold.io import net, procs
from freehold.io.link import Link
from freehold.io.shm import Arena, Cells
from freehold.wire.codec import Reader, encode

TIMER_SLACK = 1000  # nanoseconds: a task that sleeps a millisecond should take little more
TAIL_LINES = 20
TAIL_BYTES = 4000
LINE_MAX = 100_000


class Child:
    """A worker, seen from outside."""

    def __init__(self, slot: int, pid: int) -> None:
        self.slot = slot
        self.pid = pid
        self.tail: list[str] = []
        self.partial: dict[int, bytes] = {}
        self.names = {"out": "", "err": ""}  # of what prints there now


class ForkServer:
    """The loop of the fork server."""

    def __init__(self, sock: socket.socket, config: dict[str, Any], arena: Arena) -> None:
        self.link = Link(sock)
        self.config = config
        self.arena = arena
        self.cells = Cells()
        self.reader = Reader()
        self.children: dict[int, Child] = {}  # by pid
        self.pipes: dict[int, tuple[Child, str]] = {}
        self.out: list[tuple[Any, ...]] = []
        self.poll = select.epoll()
        self.signals = procs.child_signals()
        self.poll.register(self.link.fd, select.EPOLLIN)
        self.poll.register(self.signals, select.EPOLLIN)
        self.over = False

    def run(self) -> None:
        """Serve until the node is gone."""
        while not self.over:
            for fd, _ in self.poll.poll():
                if fd == self.link.fd:
                    self._on_node()
                elif fd == self.signals:
                    self._on_exits()
                elif fd in self.pipes:
                    self._on_output(fd)
            self._flush()
        for pid in self.children:  # none may make a socket while the directory goes
            procs.send_signal(pid, signal.SIGKILL)
        net.remove_session_dir(self.config["dir"])

    def _flush(self) -> None:
        if self.out and not self.over:
            try:
                self.link.send(encode(self.out))
                while not self.link.drain():
                    procs.wait_writable(self.link.fd)
            except OSError:
                self.over = True
            self.out = []

    def _on_node(self) -> None:
        try:
            data = self.link.receive()
        except OSError:
            data = memoryview(b"")
        if data is None:
            return
        if not data:
            self.over = True
            return
        for op, *fields in self.reader.feed(data):
            if op == m.SPAWN:
                self._spawn(fields[0])
            elif op == m.DRAIN:
                for fd in list(self.pipes):
                    while fd in self.pipes and procs.has_output(fd):
                        self._on_output(fd)
                    self._end_line(fd)
                self.out.append((m.DRAINED, fields[0]))
            elif op == m.SIGNAL:
                for child in self.children.values():
                    if child.slot == fields[0]:
                        procs.send_signal(child.pid, fields[1])

    def _spawn(self, slot: int) -> None:
        try:
            out, err = procs.output_pipe(), procs.output_pipe()
            self.cells.cell(slot)[:] = bytes(Cells.WIDTH)
            pid = procs.fork(lambda: self._child(slot, out[1], err[1]))
        except OSError as error:
            self.out.append((m.SPAWN_FAILED, slot, str(error)))
            return
        child = self.children[pid] = Child(slot, pid)
        for (read, write), stream in ((out, "out"), (err, "err")):
            procs.close(write)
            self.pipes[read] = (child, stream)
            self.poll.register(read, select.EPOLLIN)
        self.out.append((m.SPAWNED, slot, pid))

    def _child(self, slot: int, out: int, err: int) -> None:
        from freehold.proc import worker

        procs.reset_signals()
        procs.capture_output(out, err, worker.printing)
        self.poll.close()
        self.link.close()
        for fd in (*self.pipes, self.signals):
            procs.close(fd)
        worker.main(self.config, self.arena, slot, self.cells.cell(slot))

    def _on_output(self, fd: int) -> None:
        child, stream = self.pipes[fd]
        data = procs.read_output(fd)
        if data is None:
            return
        if not data:
            self.poll.unregister(fd)
            procs.close(fd)
            del self.pipes[fd]
        text = child.partial.pop(fd, b"") + data
        *lines, rest = text.split(b"\n")
        if rest and data and len(rest) < LINE_MAX:
            child.partial[fd] = rest
        elif rest:
            lines.append(rest)
        shown: list[str] = []
        for line in lines:
            if line.startswith(procs.NAME_MARK):
                self._show(child, stream, shown)
                shown = []
                child.names[stream] = line.removeprefix(procs.NAME_MARK).decode()
            else:
                shown.append(_text(line))
        self._show(child, stream, shown)

    def _end_line(self, fd: int) -> None:
        """Show a line that has been begun, and may never be ended."""
        if fd in self.pipes:
            child, stream = self.pipes[fd]
            rest = child.partial.pop(fd, b"")
            self._show(child, stream, [_text(rest)] if rest else [])

    def _show(self, child: Child, stream: str, lines: list[str]) -> None:
        if lines:
            child.tail = (child.tail + lines)[-TAIL_LINES:]
            self.out.append((m.LOG, child.pid, child.names[stream], stream, lines))

    def _on_exits(self) -> None:
        procs.read_output(self.signals)
        for pid, code in procs.reap():
            child = self.children.pop(pid, None)
            if child is None:
                continue
            for fd in [fd for fd, (owner, _) in self.pipes.items() if owner is child]:
                while fd in self.pipes and procs.has_output(fd):
                    self._on_output(fd)
                if fd in self.pipes:  # a grandchild may hold it open
                    self.poll.unregister(fd)
                    procs.close(fd)
                    del self.pipes[fd]
            tail = "\n".join(child.tail)[-TAIL_BYTES:]
            started = bytes(self.cells.cell(child.slot))
            self.out.append((m.EXITED, child.slot, code, tail, started.rstrip(b"\0") and started))


def _text(line: bytes) -> str:
    """A line as it stands in the end: progress bars write over what they have written."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="backslashreplace")


def main(sock: socket.socket, config: dict[str, Any], arena: Arena) -> None:
    """The fork server's life, in the process that the node has forked."""
    procs.set_name("freehold-forks")
    procs.set_timer_slack(TIMER_SLACK)  # its children inherit it
    import freehold.proc.worker  # noqa: F401 (so that workers need not)

    gc.collect()
    gc.freeze()
    ForkServer(sock, config, arena).run()
