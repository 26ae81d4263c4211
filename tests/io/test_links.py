"""Sockets, session directories, wake-ups, output: the system calls, one by one."""

from __future__ import annotations

import os
import select
import socket
import stat
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from freehold.io import net, procs
from freehold.io.link import CHUNK, Link
from freehold.io.wake import Waker


def links() -> tuple[Link, Link]:
    first, second = net.pair()
    return Link(first), Link(second)


def test_what_cannot_be_sent_waits_in_order() -> None:
    first, second = links()
    parts = [bytes([n]) * 300_000 for n in range(20)]
    done = [first.send(part) for part in parts]
    assert done[0] or first.backlog
    assert not done[-1]
    assert first.backlog
    received = bytearray()
    while len(received) < sum(map(len, parts)):
        data = second.receive()
        if data is not None:
            assert len(data) <= CHUNK
            received += data
        first.drain()
    assert received == b"".join(parts)
    assert not first.backlog
    assert second.receive() is None
    first.close()
    assert second.receive() == b""
    second.close()


def test_a_connection_that_is_gone_is_an_os_error() -> None:
    first, second = links()
    second.close()
    with pytest.raises(BrokenPipeError):
        first.send(b"x")
    first.close()


def test_a_listener_is_private(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    listener = net.listen(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert net.accept(listener) is None
    with net.dial(path) as dialled:
        accepted = net.accept(listener)
        assert accepted is not None
        dialled.sendall(b"hi")
        assert accepted.recv(9) == b"hi"
        accepted.close()
    listener.close()
    with pytest.raises(OSError):
        net.dial(path)


def test_session_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = net.make_session_dir(), net.make_session_dir()
    os.utime(first, (1, 1))
    assert stat.S_IMODE(os.stat(first).st_mode) == 0o700
    (tmp_path / f"{net.PREFIX}{os.getuid()}-open").mkdir(mode=0o755)
    (tmp_path / f"{net.PREFIX}{os.getuid()}-file").touch()
    (tmp_path / f"{net.PREFIX}{os.getuid() + 1}-other").mkdir(mode=0o700)
    assert net.session_dirs() == [second, first]
    net.write_private(os.path.join(first, "secret"), b"s" * 32)
    assert stat.S_IMODE(os.stat(os.path.join(first, "secret")).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        net.write_private(os.path.join(first, "secret"), b"again")
    assert net.read_file(os.path.join(first, "secret")) == b"s" * 32
    for path in (first, first, second):
        net.remove_session_dir(path)
    assert net.session_dirs() == []


def test_a_long_temporary_directory_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    path = net.make_session_dir()
    try:
        net.listen(os.path.join(path, "w1000000.sock")).close()
    finally:
        net.remove_session_dir(path)


def test_a_waker_wakes_once_for_many() -> None:
    waker = Waker()
    poll = select.poll()
    poll.register(waker.fd, select.POLLIN)
    waker.clear()
    assert not poll.poll(0)
    for _ in range(3):
        waker.wake()
    assert poll.poll(0)
    waker.clear()
    assert not poll.poll(0)
    thread = threading.Thread(target=waker.wake)
    thread.start()
    assert poll.poll(5000)
    thread.join()
    waker.close()
    waker.wake()


def test_output_of_a_pipe() -> None:
    read, write = procs.output_pipe()
    assert procs.read_output(read) is None
    assert not procs.has_output(read)
    os.write(write, b"text")
    assert procs.has_output(read)
    assert procs.read_output(read) == b"text"
    os.close(write)
    assert procs.has_output(read)
    assert procs.read_output(read) == b""
    os.close(read)
    assert procs.read_output(read) == b""


def test_a_fork_ends_with_its_code() -> None:
    def leave() -> None:
        sys.exit(7)

    pids = [procs.fork(lambda: None), procs.fork(leave)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0, 7]
    procs.send_signal(pids[0], 9)  # gone: nothing happens


def test_a_waiting_writer() -> None:
    first, second = socket.socketpair()
    procs.wait_writable(first.fileno())
    first.close()
    second.close()
