"""Peers that do not belong: garbage, wrong secrets, other versions; and forks of the driver."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import freehold as fh
from freehold.core import messages as m
from freehold.wire.auth import Handshake
from freehold.wire.codec import encode
from sessions import MIB, run_script, until

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
def same(x: Any) -> Any:
    return x


def paths(home: str) -> tuple[Path, bytes]:
    (directory,) = [path for path in Path(home).iterdir() if path.name.startswith("freehold")]
    return directory, (directory / "secret").read_bytes()


def sockets(home: str) -> list[Path]:
    directory, _ = paths(home)
    return [directory / "node.sock", directory / "driver.sock", *directory.glob("w*.sock")]


@pytest.fixture(autouse=True)
def it_goes_on(session: None) -> Iterator[None]:
    """Whatever a stranger has said, the session works."""
    fh.get(same.remote(0))
    yield
    assert fh.get([same.remote(n) for n in range(20)], timeout=10) == list(range(20))
    assert fh.status()["deaths"] == 0


def closed(sock: socket.socket) -> bool:
    """Whether the other side closes the connection, in a second."""
    sock.settimeout(1)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def dial(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def test_a_peer_that_speaks_garbage(home: str) -> None:
    for path in sockets(home):
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(10_000), b"\0" * 100, b"FRHX"):
            with dial(path) as sock:
                sock.sendall(garbage)
                assert closed(sock), (path, garbage[:20])
        with dial(path) as sock:  # a silent one
            pass


def test_a_peer_with_the_wrong_secret(home: str) -> None:
    for path in sockets(home):
        with dial(path) as sock:
            shake = Handshake(b"w" * 32, os.urandom(32), dialler=True)
            sock.sendall(shake.take())
            shake.feed(sock.recv(38))
            sock.sendall(shake.take())
            assert closed(sock)


def test_a_peer_of_another_version(home: str) -> None:
    for version in (0, m.VERSION + 1, 65_535):
        with dial(paths(home)[0] / "node.sock") as sock:
            sock.sendall(struct.pack("<4sH32s", b"FRHD", version, os.urandom(32)))
            answer = sock.recv(38)
            assert struct.unpack("<4sH32s", answer)[1] == m.VERSION  # so that it can say so too
            assert closed(sock)


def enter(home: str, name: str = "node.sock") -> socket.socket:
    directory, secret = paths(home)
    sock = dial(directory / name)
    shake = Handshake(secret, os.urandom(32), dialler=True)
    sock.sendall(shake.take())
    while not shake.done:
        shake.feed(sock.recv(4096))
        sock.sendall(shake.take())
    return sock


def hello(kind: str = "tool", proc: bytes = b"tooltool") -> bytearray:
    return encode([(m.HELLO, proc, kind, os.getpid(), "", {})])


@pytest.mark.parametrize(
    "words",
    [
        b"\xff" * 50,
        struct.pack("<I", 2**31) + b"x",
        struct.pack("<I", 5) + b"\x93abcd",
        struct.pack("<I", 1) + b"\x90" + struct.pack("<I", 1) + b"\xc1",
        bytes(encode([[m.STATUS, 1]])),
        bytes(encode([[m.HELLO]])),
        bytes(encode([[m.HELLO, 1, 2, 3, 4, 5]])),
        bytes(encode([[m.HELLO, b"short", "tool", 1, "", {}]])),
        bytes(hello()) + bytes(encode([[9999]])),
        bytes(hello()) + bytes(encode([["STATUS", 1]])),
        bytes(hello()) + bytes(encode([[-1]])),
        bytes(hello()) + bytes(encode([[m.STATUS]])),
        bytes(hello()) + bytes(encode([[m.LEASE, 1, "two", None, []]])),
        bytes(hello()) + bytes(encode([[m.FREE, 5]])),
        bytes(hello()) + bytes(encode([[m.SPAWNED, 10**6, 5]])),
        bytes(hello()) + bytes(encode([[m.DRAINED, 5]])),
    ],
    ids=lambda words: words[-16:].hex(),
)
def test_garbage_after_authentication(home: str, words: bytes) -> None:
    with enter(home) as sock:
        sock.sendall(words)
        assert closed(sock) or words[4:5] == b"\x93", words


def test_random_messages_harm_nobody_else(home: str) -> None:
    """The node outlives anything that a peer says, even one that knows the secret."""
    chance = random.Random(5)
    values: list[Any] = [
        0,
        1,
        -1,
        2**40,
        "",
        "x",
        b"",
        b"tooltool",
        [],
        [[b"a", b"b"]],
        {},
        None,
        1.5,
    ]
    harmless = [
        message
        for message in m.MESSAGES
        if message.name not in {"HELLO", "SPAWN", "KILL", "DRAIN", "DRAINED", "BYE"}
    ]
    for number in range(300):
        with enter(home) as sock:
            sock.sendall(hello(proc=number.to_bytes(8, "big")))
            message = chance.choice(harmless)
            fields = [chance.choice(values) for _ in message.fields]
            sock.sendall(encode([[message.op, *fields]]))
            sock.shutdown(socket.SHUT_WR)
            assert closed(sock), message


def test_a_tool_may_ask_for_the_status(home: str) -> None:
    with enter(home) as sock:
        sock.sendall(hello() + encode([[m.STATUS, 7]]))
        data = b""

        def answered() -> bool:
            nonlocal data
            data += sock.recv(65_536)
            return b"granted" in data

        until(answered)
    assert msgspec.msgpack.encode("resources") in data


def test_a_forked_child_is_no_driver() -> None:
    code = """
    import freehold as fh, os, multiprocessing, sys
    @fh.remote
    def f(x): return x + 1
    fh.init(num_cpus=1)
    ref, held = f.remote(1), fh.put(bytes(10**6))
    view = fh.get(fh.put(memoryview(b"v" * 10**6)))

    def child():
        global ref
        assert bytes(view[:3]) == b"vvv"
        for call in (lambda: fh.get(ref), lambda: f.remote(2), lambda: fh.put(3), ref.future,
                     fh.status, lambda: fh.wait([ref])):
            try:
                call()
            except fh.NotInitialized as error:
                assert "forked" in str(error)
            else:
                os._exit(9)
        del ref
        fh.init(num_cpus=1)
        assert fh.get(f.remote(4)) == 5
        fh.shutdown()
        fh.shutdown()

    pid = os.fork()
    if not pid:
        try: child()
        except BaseException as error: print(repr(error), file=sys.stderr); os._exit(8)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert fh.get(ref) == 2
    assert len(fh.get(held)) == 10**6
    assert fh.get([f.remote(n) for n in range(100)]) == list(range(1, 101))
    """
    run_script(code)


def test_a_full_machine_is_a_typed_error() -> None:
    code = f"""
    import freehold as fh, pytest
    fh.init(num_cpus=1, arena_bytes_max={16 * MIB}, reserve_bytes=0)
    @fh.remote
    def big(): return bytes({20 * MIB})
    for call in (lambda: fh.put(bytes({20 * MIB})), lambda: fh.get(big.remote())):
        with pytest.raises(fh.ObjectStoreFull, match="arena"):
            call()
    assert len(fh.get(fh.put(bytes({8 * MIB})))) == {8 * MIB}
    """
    run_script(code)
