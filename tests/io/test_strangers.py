"""Who is refused: the wrong secret, somebody in between, garbage, one who drips, a crowd."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

import pytest

from freehold.core import messages as m
from freehold.errors import AuthenticationError, ProtocolError, VersionMismatch
from freehold.io import net, tls
from freehold.wire.codec import encode
from stations import (
    LOCAL,
    Between,
    Make,
    both,
    closed,
    drive,
    enter,
    knock,
    running,
    until,
)


@both
def test_a_wrong_secret(make: Make, pem: str, secure: bool) -> None:
    near, far = make(b"w" * 32, tls=secure), make(tls=secure)
    peer = near.call(far.open(pem))
    drive(near, far, until=lambda: near.machine.downs)
    assert near.machine.downs == [peer]
    assert [type(error) for error in near.errors] == [AuthenticationError]
    assert [type(error) for error in far.refused] == [AuthenticationError]
    assert not far.machine.got
    assert not far.errors


def test_somebody_in_between_with_a_certificate_of_his_own(
    make: Make, pem: str, tmp_path: Path
) -> None:
    near, far = make(), make()
    his = str(tmp_path / "his.pem")
    tls.make_certificate(his)
    between = Between(far.open(pem), his)
    try:
        peer = near.call(between.address, "for far only")
        drive(near, far, until=lambda: near.machine.downs and far.refused)
    finally:
        between.close()
    assert between.passed > 100  # he did pass on greetings and proofs
    assert near.machine.downs == [peer]
    for errors in (near.errors, far.refused):
        assert [type(error) for error in errors] == [AuthenticationError]
        assert "between" in str(errors[0])
    assert not far.machine.got


def test_a_wire_in_between_is_no_harm_but_what_it_changes_is_found(make: Make, pem: str) -> None:
    near, far = make(), make()
    between = Between(far.open(pem))
    try:
        peer = near.call(between.address)
        drive(near, far, until=lambda: far.names == ["hi"] and near.machine.ups)
        between.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
        near.say(peer, "changed")
        drive(near, far, until=lambda: far.machine.downs and near.machine.downs)
    finally:
        between.close()
    assert far.names == ["hi"]
    assert "not what was sent" in str(far.errors[0])


@both
def test_tls_is_on_or_off_on_both_sides(make: Make, pem: str, secure: bool) -> None:
    near, far = make(tls=secure), make(tls=not secure)
    peer = near.call(far.open(pem))
    drive(near, far, until=lambda: near.machine.downs and far.refused, within=2)
    assert near.machine.downs == [peer]
    for errors in (near.errors, far.refused):
        assert "on or off on both sides" in str(errors[0])
        assert isinstance(errors[0], ProtocolError)


GARBAGE = [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"FRHX", b"\x16\x03\x01\x00\x05hello" * 9,
           b"\x15\x03\x03\x00\x02\x02\x46", b"\x16" + bytes(range(256)) * 99]  # fmt: skip


@both
def test_garbage_from_strangers(make: Make, pem: str, secure: bool) -> None:
    host = make(tls=secure)
    address = host.open(pem)
    with running(host):
        for garbage in GARBAGE:
            with knock(address) as sock:
                sock.sendall(garbage)
                assert closed(sock), garbage
        if secure:
            with knock(address, tls=True) as sock:
                sock.sendall(os.urandom(1000))
                assert closed(sock)
        with enter(address, tls=secure) as sock:
            sock.sendall(encode([(m.FUNCTION, b"", "fine", b"")]))
            until(lambda: host.names == ["fine"])
    assert len(host.refused) == len(GARBAGE) + secure
    assert not host.errors


@both
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_from_who_was_dialled(make: Make, secure: bool, garbage: bytes) -> None:
    near = make(tls=secure)
    with socket.create_server((LOCAL, 0)) as listener:
        peer = near.call(f"||{LOCAL}:{listener.getsockname()[1]}")
        drive(near, until=lambda: peer.port is None or peer.port.link.sock.getpeername())
        with listener.accept()[0] as sock:
            sock.sendall(garbage)
            drive(near, until=lambda: near.machine.downs == [peer])
    assert isinstance(near.errors[0], ProtocolError)


def test_another_version_is_named(make: Make) -> None:
    near = make(tls=False)
    with socket.create_server((LOCAL, 0)) as listener:
        peer = near.call(f"||{LOCAL}:{listener.getsockname()[1]}")
        drive(near, until=lambda: peer.port.link.sock.getsockname())
        with listener.accept()[0] as sock:
            sock.sendall(struct.pack("<4sH32s", b"FRHD", m.VERSION + 1, bytes(32)))
            drive(near, until=lambda: near.machine.downs == [peer])
    assert isinstance(near.errors[0], VersionMismatch)


@both
def test_one_who_drips_is_cut_off(make: Make, pem: str, secure: bool) -> None:
    host = make(tls=secure)
    host.shake_timeout = 0.2
    address = host.open(pem)
    drops = (b"\x16" if secure else b"F") + b"\x03R"[not secure :]
    start = time.monotonic()
    with running(host), knock(address) as slow, knock(address) as silent:
        slow.sendall(drops[:1])
        assert closed(silent)
        assert closed(slow)
    assert 0.2 <= time.monotonic() - start < 3
    assert len(host.refused) == 2
    assert "within 0.2 s" in str(host.refused[0])


def test_only_so_many_may_be_unproven_at_a_time(make: Make, pem: str) -> None:
    near, far = make(), make()
    far.shake_timeout, far.young_max = 0.3, 3
    address = far.open(pem)
    socks = [knock(address) for _ in range(5)]
    peer = near.call(address, "patient")

    def step() -> bool:
        assert len(far._young) <= 3
        return far.names == ["patient"]

    assert drive(near, far, until=step) >= 0.3  # the first three had to go, then there was room
    drive(near, far, until=lambda: len(far.refused) == 5)
    for sock in socks:
        assert closed(sock)
        sock.close()
    assert peer.id == far.machine.id
    near.say(peer, "still there")
    drive(near, far, until=lambda: far.names[1:] == ["still there"])
    assert not far._young


@both
def test_a_burst_of_callers_is_served_however_few_may_be_unproven(
    make: Make, pem: str, secure: bool
) -> None:
    far = make(tls=secure)
    far.young_max = 2
    address = far.open(pem)
    callers = [make(tls=secure) for _ in range(12)]
    for caller in callers:
        caller.call(address)
    drive(far, *callers, until=lambda: len(far.names) == 12)


def test_too_many_open_files_are_waited_out(
    make: Make, pem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near, by_path = make(), make(), make()
    path = str(tmp_path / "far.sock")
    far.listen(path)
    address = far.open(pem)
    tries = []

    def refuse(listener: socket.socket) -> None:
        tries.append(listener)
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(net, "accept", refuse)
        patch.setattr(net, "accept_tcp", refuse)
        near.call(address)
        by_path.call(path)
        drive(far, near, by_path, until=lambda: len(tries) >= 4)
    drive(far, near, by_path, until=lambda: far.names == ["hi", "hi"])
