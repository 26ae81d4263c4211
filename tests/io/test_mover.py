"""The mover on real sockets: whole objects, resumed ones, chains, slow and foolish peers."""

from __future__ import annotations

import gc
import os
import queue
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import ProtocolError
from freehold.io import stream
from freehold.io.mover import ASK_OTHER, NOT_HERE, Mover
from freehold.io.shm import Arena

MB = 1_000_000
PATIENCE = 30.0  # seconds that a test waits for what must come
ID = b"t" * 16
HOLDER = b"h" * 8
Dial = Callable[[str], socket.socket]


class Net:
    """Nodes' data ports by name; how they connect is the test's choice."""

    def __init__(self, connect: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
        self.connect = connect
        self.ends: dict[str, End] = {}
        self.dialled: list[str] = []

    def dial(self, address: str) -> socket.socket:
        self.dialled.append(address)
        end = self.ends.get(address)
        if end is None:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        ours, theirs = self.connect()
        end.mover.serve(theirs)
        return ours


class End:
    """A node's mover, and the little of a node that answers it."""

    def __init__(self, net: Net, name: str, size: int, **options: Any) -> None:
        self.name = name
        self.id = name.encode().ljust(8, b".")
        self.arena = Arena.create(size)
        self.arena.reserve(0, size)
        self.woken = threading.Semaphore(0)
        self.mover = Mover(
            self.arena, self.id, name, net.dial, self.woken.release, **{"stall_s": 5.0, **options}
        )
        self.moved: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.served: queue.Queue[tuple[int, bool]] = queue.Queue()
        self.asked: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.answer: Callable[[tuple[Any, ...]], tuple[int, int, int, str] | None] = lambda event: (
            NOT_HERE,
            0,
            0,
            "",
        )
        self.closing = False
        self.loop = threading.Thread(target=self._loop)
        self.loop.start()
        net.ends[name] = self

    def _loop(self) -> None:
        while True:
            self.woken.acquire()
            if self.closing:
                return
            for event in self.mover.events():
                if event[0] == "serve":
                    self.asked.put(event)
                    answer = self.answer(event)
                    if answer is not None:
                        self.mover.serving(event[1], *answer)
                elif event[0] == "moved":
                    self.moved.put(event[1:])
                else:
                    self.served.put(event[1:])

    def move(self, number: int, source: str, size: int, skip: int = 0, offset: int = 0) -> None:
        self.mover.move(number, source, ID, place(size), skip, offset, False)

    def end(self) -> tuple[Any, ...]:
        return self.moved.get(timeout=PATIENCE)

    def close(self) -> None:
        self.mover.close()
        self.closing = True
        self.woken.release()
        self.loop.join()
        self.arena.close()


def place(size: int) -> list[Any]:
    return [HOLDER, 4096, size, b"a......."]


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    files = ["-subj", "/CN=test", "-keyout", str(path / "key"), "-out", str(path / "cert")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return path


def tls(certificate: Path) -> tuple[socket.socket, socket.socket]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate / "cert", certificate / "key")
    client = ssl.create_default_context(cafile=str(certificate / "cert"))
    client.check_hostname = False
    plain = tcp()
    made: list[socket.socket] = []
    other = threading.Thread(
        target=lambda: made.append(server.wrap_socket(plain[1], server_side=True))
    )
    other.start()
    ours = client.wrap_socket(plain[0])
    other.join()
    return ours, made[0]


@pytest.fixture(params=["pair", "tcp", "tls"])
def connect(request: pytest.FixtureRequest) -> Callable[[], tuple[socket.socket, socket.socket]]:
    if request.param == "pair":
        return socket.socketpair
    if request.param == "tcp":
        return tcp
    path = request.getfixturevalue("certificate")
    return lambda: tls(path)


def clean() -> tuple[int, int]:
    gc.collect()  # mappings have descriptors of their own
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.fixture
def ends() -> Iterator[list[End]]:
    """The test's ends; afterwards no thread and no descriptor is left of them."""
    before = clean()
    made: list[End] = []
    yield made
    while made:
        made.pop().close()
    assert clean() == before


def sample(size: int) -> bytes:
    block = os.urandom(1 << 16)
    return (block * (size // len(block) + 1))[:size]


def holds(end: End, data: bytes, offset: int = 4096) -> End:
    """The end has the object, and gives it to everyone."""
    end.arena.view[offset : offset + len(data)] = data
    end.answer = lambda event: (offset, len(data), len(data), "")
    return end


def test_an_object_arrives_whole_and_nothing_beside_it_changes(
    connect: Callable[[], tuple[socket.socket, socket.socket]], ends: list[End]
) -> None:
    net = Net(connect)
    data = sample(3 * MB + 17)
    a = End(net, "a", 4 * MB)
    b = End(net, "b", 4 * MB)
    ends += [a, b]
    holds(a, data)
    b.move(1, "a", len(data), offset=640)
    assert b.end() == (1, len(data), "", "")
    assert bytes(b.arena.view[640 : 640 + len(data)]) == data
    assert bytes(b.arena.view[:640]) == bytes(640)
    assert not any(b.arena.view[640 + len(data) : 4 * MB])
    _, number, id, where, asker, address, direct = a.asked.get(timeout=PATIENCE)
    assert (id, where, asker, address, direct) == (ID, place(len(data)), b.id, "b", False)
    assert a.served.get(timeout=PATIENCE) == (number, True)


def test_a_hundred_megabytes(ends: list[End]) -> None:
    net = Net(tcp)
    data = sample(100 * MB)
    ends += [End(net, "a", 101 * MB), End(net, "b", 101 * MB)]
    a, b = ends
    holds(a, data)
    b.move(1, "a", len(data))
    assert b.end() == (1, len(data), "", "")
    assert b.arena.view[: len(data)] == data


def test_connections_are_kept_for_the_next_object(ends: list[End]) -> None:
    net = Net(tcp)
    ends += [End(net, "a", MB), End(net, "b", MB)]
    a, b = ends
    holds(a, b"x" * 1000)
    for number in range(5):
        b.move(number, "a", 1000)
        assert b.end()[1:] == (1000, "", "")
    assert net.dialled == ["a"]


def test_a_connection_that_ended_while_it_rested_is_made_anew(ends: list[End]) -> None:
    net = Net(tcp)
    ends += [End(net, "a", MB), End(net, "b", MB)]
    a, b = ends
    holds(a, b"x" * 1000)
    b.move(1, "a", 1000)
    assert b.end()[2] == ""
    a.mover.close()
    again = End(net, "a", MB)
    ends.append(holds(again, b"y" * 1000))
    b.move(2, "a", 1000)
    assert b.end() == (2, 1000, "", "")
    assert bytes(b.arena.view[:1000]) == b"y" * 1000
    assert net.dialled == ["a", "a"]


def test_gone_and_ask_another(ends: list[End]) -> None:
    net = Net(tcp)
    ends += [End(net, "a", MB), End(net, "b", MB)]
    a, b = ends
    b.move(1, "a", 1000)
    assert b.end() == (1, 0, "gone", "")
    a.answer = lambda event: (ASK_OTHER, 0, 0, "c")
    b.move(2, "a", 1000)
    assert b.end() == (2, 0, "", "c")
    b.move(3, "nowhere", 1000)
    assert b.end() == (3, 0, "nobody listens at nowhere", "")


def test_a_transfer_is_resumed_elsewhere_from_the_bytes_had(ends: list[End]) -> None:
    net = Net(socket.socketpair)
    data = sample(40 * MB)
    ends += [End(net, name, 41 * MB) for name in "abc"]
    a, b, c = ends
    holds(a, data)
    a.answer = lambda event: (4096, len(data), 25 * MB, "")  # the rest never comes
    b.move(1, "a", len(data))
    number = a.asked.get(timeout=PATIENCE)[1]
    until = time.monotonic() + PATIENCE
    while b.mover._incoming[1].have < 25 * MB and time.monotonic() < until:
        os.sched_yield()
    a.mover.halt(False, number)
    _, have, reason, _ = b.end()
    assert have == 25 * MB
    assert reason
    assert a.served.get(timeout=PATIENCE) == (number, False)
    holds(c, data)
    b.arena.view[:16] = b"these are kept.."
    b.move(2, "c", len(data), skip=have)
    assert b.end() == (2, len(data), "", "")
    assert b.arena.view[16 : len(data)] == data[16:]
    assert bytes(b.arena.view[:16]) == b"these are kept..", "bytes that were here came again"


def test_a_chain_of_eight_passes_the_bytes_on_as_they_come(ends: list[End]) -> None:
    net = Net(socket.socketpair)
    data = sample(8 * MB)
    ends += [End(net, f"n{number}", 9 * MB) for number in range(8)]
    holds(ends[0], data)
    ends[0].answer = lambda event: (4096, len(data), MB, "")  # a part, for now
    for end in ends[1:-1]:
        end.answer = lambda event: (0, len(data), 0, "")
    for number in range(1, 8):
        ends[number].move(number, f"n{number - 1}", len(data))
    until = time.monotonic() + PATIENCE
    while ends[-1].mover._incoming[7].have < MB and time.monotonic() < until:
        os.sched_yield()
    assert ends[-1].arena.view[:MB] == data[:MB], "the last has what the first has sent"
    (arriving,) = ends[0].mover._arriving.values()
    arriving.advance(len(data))
    for number in range(1, 8):
        assert ends[number].end() == (number, len(data), "", "")
        assert ends[number].arena.view[: len(data)] == data
    assert all(end.served.get(timeout=PATIENCE)[1] for end in ends[:-1])
    assert not any(end.mover._incoming or end.mover._outgoing for end in ends)


def test_what_is_passed_on_goes_on_after_a_new_attempt(ends: list[End]) -> None:
    net = Net(socket.socketpair)
    data = sample(2 * MB)
    ends += [End(net, name, 3 * MB) for name in "abc"]
    a, b, c = ends
    holds(a, data)
    a.answer = lambda event: (4096, len(data), MB, "")
    b.answer = lambda event: (0, len(data), 0, "")
    b.move(1, "a", len(data))
    number = a.asked.get(timeout=PATIENCE)[1]
    c.move(1, "b", len(data))
    until = time.monotonic() + PATIENCE
    while c.mover._incoming[1].have < MB and time.monotonic() < until:
        os.sched_yield()
    a.mover.halt(False, number)
    assert b.end()[1] == MB
    holds(a, data)
    b.move(2, "a", len(data), skip=MB)
    assert b.end() == (2, len(data), "", "")
    assert c.end() == (1, len(data), "", "")
    assert c.arena.view[: len(data)] == data


def test_a_slow_reader_gets_all_and_a_silent_one_is_given_up(ends: list[End]) -> None:
    net = Net(socket.socketpair)
    data = sample(12 * MB)
    ends.append(holds(End(net, "a", 13 * MB, stall_s=0.3), data))
    request = stream.Request(ID, HOLDER, 4096, len(data), b"n" * 8, 0, False, b"s" * 8, "s")
    for patient in (True, False):
        with net.dial("a") as sock:
            stream.send_request(sock, request)
            assert stream.read_answer(sock, request) == (stream.OK, "")
            got = bytearray()
            while patient and len(got) < len(data):
                got += sock.recv(100_000)
            _, done = ends[0].served.get(timeout=PATIENCE)
            assert done is patient
            assert bytes(got) == (data if patient else b"")


def test_a_source_that_falls_silent_is_given_up(ends: list[End]) -> None:
    net = Net(tcp)
    ends += [End(net, "a", 3 * MB), End(net, "b", 3 * MB, stall_s=0.2)]
    a, b = ends
    holds(a, sample(2 * MB))
    a.answer = lambda event: (4096, 2 * MB, MB, "")
    b.move(1, "a", 2 * MB)
    assert b.end() == (1, MB, "nothing has come for 0.2 s", "")
    a.answer = lambda event: None
    b.move(2, "a", 2 * MB)
    assert b.end()[1:3] == (0, "timed out")


def test_a_halted_transfer_ends_at_once_and_is_reported(
    connect: Callable[[], tuple[socket.socket, socket.socket]], ends: list[End]
) -> None:
    net = Net(connect)
    ends += [End(net, "a", 3 * MB, stall_s=60.0), End(net, "b", 3 * MB, stall_s=60.0)]
    a, b = ends
    a.answer = lambda event: None
    b.move(1, "a", 2 * MB)
    number = a.asked.get(timeout=PATIENCE)[1]
    b.mover.halt(True, 1)
    assert b.end()[:2] == (1, 0)
    a.mover.halt(False, number)
    assert a.served.get(timeout=PATIENCE) == (number, False)
    a.mover.halt(False, number)  # once more does no harm
    a.mover.serving(number, 0, 2 * MB, 0, "")  # nor does an answer that comes too late
    assert not a.mover._arriving


GOOD = stream._request.pack(
    stream.MAGIC, 0, 16, 1, 4096, 1000, 0, HOLDER, b"n" * 8, b"s" * 8
)  # fmt: skip


@pytest.mark.parametrize(
    ("request_bytes", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nUser-Agent: x\r\n\r\n", "begins with"),
        (GOOD[:4] + b"\x02" + GOOD[5:], "the flags 0x2"),
        (GOOD[:5] + b"\x00" + GOOD[6:], "0 bytes of id"),
        (GOOD[:5] + b"\xff" + GOOD[6:], "255 bytes of id"),
        (GOOD[:6] + b"\xff\xff" + GOOD[8:], "65535 of address"),
        (GOOD[:8] + b"\xff" * 8 + GOOD[16:], "a request for"),
        (GOOD[:16] + b"\xff" * 8 + GOOD[24:], "a request for"),
        (GOOD[:16] + bytes(8) + GOOD[24:], "a request for 0 bytes"),
        (GOOD[:24] + b"\xff" * 8 + GOOD[32:], "without the first"),
        (GOOD + ID + b"\xff", "no text"),
    ],
)
def test_a_foolish_reader_is_shown_the_door(
    request_bytes: bytes, says: str, ends: list[End]
) -> None:
    net = Net(socket.socketpair)
    ends.append(End(net, "a", MB))
    with net.dial("a") as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(request_bytes)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass  # it had not read all of it
    (error,) = ends[0].mover.errors
    assert isinstance(error, ProtocolError)
    assert says in str(error)
    assert ends[0].asked.empty()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "begins with"),
        (stream._answer.pack(stream.MAGIC, 9, 0, 0), "begins with"),
        (stream._answer.pack(stream.MAGIC, stream.OK, 0, 1001), "1001 bytes there, not 1000"),
        (stream._answer.pack(stream.MAGIC, stream.OK, 1, 1000) + b"x", "address of 1 bytes"),
        (stream._answer.pack(stream.MAGIC, stream.OTHER, 0, 0), "address of 0 bytes"),
        (stream._answer.pack(stream.MAGIC, stream.OTHER, 60_000, 0), "address of 60000"),
        (stream._answer.pack(stream.MAGIC, stream.OTHER, 1, 0) + b"\xff", "no text"),
    ],
)
def test_a_foolish_source_is_an_error_and_writes_nothing(
    answer: bytes, says: str, ends: list[End]
) -> None:
    ours, theirs = socket.socketpair()
    net = Net(socket.socketpair)
    ends.append(End(net, "b", MB))
    b = ends[0]
    b.mover.dial = lambda address: ours
    with theirs:
        theirs.sendall(answer)
        b.move(1, "a", 1000)
        _, have, reason, other = b.end()
    assert (have, other) == (0, "")
    assert says in reason
    assert not any(b.arena.view[:MB])
    assert [type(error) for error in b.mover.errors] == [ProtocolError]


def test_more_bytes_than_asked_for_are_written_nowhere(ends: list[End]) -> None:
    ours, theirs = socket.socketpair()
    net = Net(socket.socketpair)
    ends.append(End(net, "b", MB))
    b = ends[0]
    b.mover.dial = lambda address: ours
    with theirs:
        theirs.sendall(stream._answer.pack(stream.MAGIC, stream.OK, 0, 1000) + b"z" * 5000)
        b.move(1, "a", 1000, offset=64)
        assert b.end() == (1, 1000, "", "")
        assert bytes(b.arena.view[: 64 + 1000]) == bytes(64) + b"z" * 1000
        assert not any(b.arena.view[64 + 1000 : MB])
        b.move(2, "a", 1000, offset=64)  # the rest is no answer
        assert "begins with" in b.end()[2]


@pytest.mark.parametrize(("skip", "offset"), [(0, -1), (0, MB - 999), (1001, 0), (-1, 0)])
def test_the_mover_writes_only_into_the_arena(skip: int, offset: int, ends: list[End]) -> None:
    ends.append(End(Net(tcp), "a", MB))
    with pytest.raises(ValueError, match="do not lie in the arena"):
        ends[0].move(1, "b", 1000, skip, offset)


def test_too_many_readers_are_sent_away(monkeypatch: pytest.MonkeyPatch, ends: list[End]) -> None:
    monkeypatch.setattr("freehold.io.mover.SERVES_MAX", 1)
    net = Net(socket.socketpair)
    ends.append(End(net, "a", MB))
    with net.dial("a"), net.dial("a") as second:
        second.settimeout(PATIENCE)
        assert second.recv(1) == b""


def test_closing_ends_all_that_moves(
    connect: Callable[[], tuple[socket.socket, socket.socket]], ends: list[End]
) -> None:
    net = Net(connect)
    ends += [End(net, "a", 3 * MB, stall_s=60.0), End(net, "b", 3 * MB, stall_s=60.0)]
    a, b = ends
    holds(a, sample(2 * MB))
    a.answer = lambda event: (4096, 2 * MB, MB, "")
    b.move(1, "a", 2 * MB)
    a.asked.get(timeout=PATIENCE)
    b.mover.close()
    b.move(2, "a", 2 * MB)
    assert sorted((b.end()[0], b.end()[0])) == [1, 2]
    a.mover.close()
    assert not a.mover._threads
    with net.dial("a") as sock:  # nobody is served any more
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b""
