"""Hosts joined by TCP, with TLS and without: what travels, who is refused, and what it costs."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.errors import AuthenticationError, ProtocolError, VersionMismatch
from freehold.io import link, net, tls
from freehold.wire.codec import encode
from sessions import MIB
from stations import (
    LOCAL,
    NODE,
    Between,
    Station,
    closed,
    drive,
    enter,
    full_listener,
    knock,
    place,
    running,
)

HOSTS = [LOCAL]
with socket.socket(socket.AF_INET6) as probe:
    try:
        probe.bind(("::1", 0))
        HOSTS.append("::1")
    except OSError:  # a machine without IPv6
        pass
Make = Callable[..., Station]
both = pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("tls") / "node.pem")
    tls.make_certificate(path)
    return path


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Station] = []

    def build(*arguments: bytes, **options: bool) -> Station:
        made.append(Station(*arguments, **options))
        return made[-1]

    yield build
    for station in made:
        if not station.closed:
            station.close()


# -- what travels ----------------------------------------------------------------------------------
@both
@pytest.mark.parametrize("host", HOSTS)
def test_two_hosts_meet(make: Make, pem: str, host: str, secure: bool) -> None:
    near, far = make(tls=secure), make(tls=secure)
    peer = near.call(far.open(pem, host), "first")
    near.say(peer, "second")
    drive(near, far, until=lambda: len(far.machine.got) == 2 and near.machine.ups)
    assert far.names == ["first", "second"]
    assert peer.id == far.machine.id
    assert peer.address == far.address
    assert near.machine.ups == [(peer, {"node": NODE})]
    back, info = far.machine.ups[0]
    assert (back.id, info) == (near.machine.id, {"node": b""})
    far.say(back, "answer")
    drive(near, far, until=lambda: near.names == ["answer"])
    near.close()
    drive(far, until=lambda: far.machine.downs == [back])
    assert not [*near.errors, *far.errors, *near.refused, *far.refused]


@both
def test_large_frames_both_ways_at_once(make: Make, pem: str, secure: bool) -> None:
    near, far = make(tls=secure), make(tls=secure)
    data = [os.urandom(MIB) * 50, os.urandom(MIB) * 50]
    peer = near.call(far.open(pem), "hi")
    drive(near, far, until=lambda: far.machine.ups and near.machine.ups)
    near.say(peer, "there", data[0])
    far.say(far.machine.ups[0][0], "back", data[1])
    assert peer.port.link.backlog
    near.say(peer, "small")
    drive(near, far, until=lambda: near.names == ["back"] and far.names[1:] == ["there", "small"],
          within=30)  # fmt: skip
    assert far.machine.got[1][2] == data[0]
    assert near.machine.got[0][2] == data[1]
    for end in (peer.port.link, far.machine.ups[0][0].port.link):
        assert not end.backlog
        assert end.unsent == 0


@both
def test_frames_in_pieces(make: Make, pem: str, secure: bool) -> None:
    host = make(tls=secure)
    address = host.open(pem)
    frames = b"".join(encode([(m.FUNCTION, b"", str(n), bytes(n * 700))]) for n in range(40))
    with running(host), enter(address, tls=secure) as sock:
        for start in range(0, len(frames), 3331):
            sock.sendall(frames[start : start + 3331])
        sock.sendall(frames[:5])  # and half of one more
        sock.shutdown(socket.SHUT_WR)
        until(lambda: host.machine.downs)
    assert host.names == [str(n) for n in range(40)]
    assert len(host.machine.downs) == 1


@both
def test_a_reset_in_the_middle_of_a_frame(make: Make, pem: str, secure: bool) -> None:
    host = make(tls=secure)
    address = host.open(pem)
    with running(host):
        sock = enter(address, tls=secure)
        sock.sendall(encode([(m.FUNCTION, b"", "whole", b"")]))
        sock.sendall(encode([(m.FUNCTION, b"", "half", bytes(MIB))])[: MIB // 2])
        until(lambda: host.names)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        until(lambda: host.machine.downs)
    assert host.names == ["whole"]


def test_the_end_of_tls_is_the_end_of_the_stream(make: Make, pem: str) -> None:
    host = make()
    address = host.open(pem)
    with running(host), enter(address, tls=True) as sock:
        sock.sendall(encode([(m.FUNCTION, b"", "last", b"")]))
        assert sock.recv(4096)  # its hello
        with pytest.raises(OSError):  # TLS ends, and the other side takes it for the end of all
            sock.unwrap()  # type: ignore[attr-defined]
        until(lambda: host.machine.downs)
    assert host.names == ["last"]


def test_who_shares_the_node_dials_the_path(make: Make, pem: str, tmp_path: Path) -> None:
    near, far, other = make(), make(), make()
    path = str(tmp_path / "far.sock")
    far.listen(path)
    assert far.address == path
    address = far.open(pem)
    assert address == f"{NODE.hex()}|{path}|{LOCAL}:{place(address)[1]}"
    near.set_home(NODE)
    other.set_home(b"stranger")
    peers = [near.call(address), other.call(address)]
    assert peers[0].port.link.sock.family == socket.AF_UNIX
    assert peers[1].port.link.sock.family == socket.AF_INET
    drive(near, far, other, until=lambda: far.names == ["hi", "hi"])


def test_an_address_learns_its_node_when_it_is_known(make: Make, pem: str, tmp_path: Path) -> None:
    host = make()
    path = str(tmp_path / "s.sock")
    host.listen(path)
    port = host.listen_tcp("0.0.0.0", 0, pem, advertise="10.1.2.3")
    assert host.address == f"|{path}|10.1.2.3:{port}"
    host.set_home(NODE)
    assert host.address == f"{NODE.hex()}|{path}|10.1.2.3:{port}"
    assert net.resolve("localhost") in ("127.0.0.1", "::1")
    assert make(tls=False).listen_tcp("0.0.0.0")
    assert socket.inet_aton(net.own_host())


# -- who is refused --------------------------------------------------------------------------------
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


# -- who is not there ------------------------------------------------------------------------------
def test_nobody_listens(make: Make, pem: str) -> None:
    near, far = make(), make()
    address = far.open(pem)
    far.close()
    peer = near.call(address)
    assert drive(near, until=lambda: near.machine.downs) < 1
    assert near.machine.downs == [peer]
    assert peer.port is None
    assert "Connection refused" in str(near.errors[0])


def test_an_unreachable_host_is_given_up(make: Make) -> None:
    near = make()
    near.dial_timeout = 0.3
    with full_listener() as address:
        start = time.monotonic()
        peer = near.call(address)
        near.poll_once()
        assert time.monotonic() - start < 0.2  # nothing has waited for it
        drive(near, until=lambda: near.machine.downs)
        assert 0.3 <= time.monotonic() - start < 2
    assert near.machine.downs == [peer]
    assert "cannot be reached within 0.3 s" in str(near.errors[0])
    assert len(near._open_ports) == 0


def test_a_sleeping_host_is_woken_by_its_limits(make: Make) -> None:
    near = make()
    near.dial_timeout = 0.2
    with full_listener() as address, running(near):
        until(lambda: near.pumping)
        near.call(address)  # while the loop sleeps, with no deadline in sight
        until(lambda: near.machine.downs)


@both
def test_one_who_never_answers_is_given_up(make: Make, secure: bool) -> None:
    near = make(tls=secure)
    near.answer_timeout = 0.2
    with socket.create_server((LOCAL, 0)) as listener:
        peer = near.call(f"||{LOCAL}:{listener.getsockname()[1]}")
        drive(near, until=lambda: near.machine.downs == [peer])
    assert "has not answered within 0.2 s" in str(near.errors[0])


@both
def test_a_port_that_another_process_has_now(make: Make, pem: str, secure: bool) -> None:
    near, gone, heir = make(tls=secure), make(tls=secure), make(tls=secure)
    address = gone.open(pem)
    gone.close()
    heir.open(pem, LOCAL, place(address)[1])
    peer = near.call(address, "for the one who is gone", id=gone.machine.id)
    drive(near, heir, until=lambda: near.machine.downs)
    assert near.machine.downs == [peer]
    assert not heir.machine.got
    assert not heir.machine.downs
    drive(near, heir, until=lambda: heir.refused or heir.errors)


@pytest.mark.parametrize("address", ["||", "a|b", "00|x|", "||host.name:80", f"{b'8' * 8!r}|p|"])
def test_an_address_that_is_garbage(make: Make, address: str) -> None:
    near = make()
    near.set_home(NODE)
    peer = near.call(address)
    assert near.machine.downs == [peer]
    assert not near._open_ports


def test_a_process_elsewhere_without_a_port_cannot_be_reached(make: Make, tmp_path: Path) -> None:
    near, far = make(), make()
    path = str(tmp_path / "s.sock")
    far.listen(path)
    near.set_home(NODE)
    near.call(f"{b'another.'.hex()}|{path}|")
    assert len(near.machine.downs) == 1
    assert "on another node" in str(near.errors[0])
    near.call(f"|{path}|")  # nobody says that it is elsewhere
    drive(near, far, until=lambda: far.names == ["hi"])


# -- who does not listen ---------------------------------------------------------------------------
@both
def test_one_who_takes_nothing_is_cut_off(make: Make, pem: str, secure: bool) -> None:
    near, far = make(tls=secure), make(tls=secure)
    near.unsent_max, near.stall_timeout = MIB, 0.2
    peer = near.call(far.open(pem))
    drive(near, far, until=lambda: far.names and near.machine.ups)
    for _ in range(4):
        near.say(peer, "more", bytes(8 * MIB))
    drive(near, until=lambda: near.machine.downs)  # the other one's loop stands still
    assert "has taken none of" in str(near.errors[0])


def test_one_who_does_not_answer_is_not_waited_for_with_too_much(
    make: Make, tmp_path: Path
) -> None:
    near = make()
    near.unsent_max, near.stall_timeout = MIB, 0.2
    path = str(tmp_path / "mute.sock")
    with contextlib.closing(net.listen(path)):
        little = near.call(path, "little", bytes(MIB // 2))
        much = near.call(path, "much", bytes(2 * MIB))
        drive(near, until=lambda: near.machine.downs)
    assert near.machine.downs == [much]
    assert little.port.kept > MIB // 2
    assert "has taken none of 2,0" in str(near.errors[0])


@both
def test_a_large_frame_leaves_others_their_turn(make: Make, pem: str, secure: bool) -> None:
    near, far = make(tls=secure), make(tls=secure)
    peer = near.call(far.open(pem))
    drive(near, far, until=lambda: far.names and near.machine.ups)
    most = 0
    with running(far):
        near.say(peer, "large", bytes(64 * MIB))

        def step() -> bool:
            nonlocal most
            before = peer.port.link.drained
            near.poll_once()
            most = max(most, peer.port.link.drained - before)
            return len(far.names) == 2

        drive(until=step, within=30)
    assert 0 < most <= link.TURN + 16 * MIB  # what the kernel takes at once is its own affair
    assert not peer.port.link.backlog


def test_one_who_is_slow_is_not(make: Make, pem: str) -> None:
    near, far = make(), make()
    near.unsent_max, near.stall_timeout = MIB, 0.2
    peer = near.call(far.open(pem))
    drive(near, far, until=lambda: far.names and near.machine.ups)
    near.say(peer, "much", bytes(64 * MIB))
    looks = [time.monotonic()]

    def slowly() -> bool:
        near.poll_once()
        if time.monotonic() - looks[-1] > 0.01:  # a quarter of a megabyte at a time
            looks.append(time.monotonic())
            far.poll_once()
        return bool(far.names[1:])

    assert drive(until=slowly, within=30) > 0.4
    assert not near.machine.downs


def test_a_stopped_process_does_not_blame_others(make: Make, pem: str) -> None:
    near, far = make(), make()
    far.shake_timeout = near.answer_timeout = 0.05
    address = far.open(pem)
    near.call(address)
    drive(near, far, until=lambda: far._young)
    away = time.monotonic() + 0.7
    drive(until=lambda: time.monotonic() > away)  # neither of the loops runs
    drive(near, far, until=lambda: far.names == ["hi"])
    assert not far.refused
    assert not near.errors


def until(condition: Callable[[], object]) -> None:
    drive(until=condition)


def test_a_forked_child_gives_up_what_is_its_parents(make: Make, pem: str) -> None:
    near, far = make(), make()
    peer = near.call(far.open(pem))
    drive(near, far, until=lambda: far.names and near.machine.ups)
    pid = os.fork()
    if not pid:
        near.abandon()
        far.abandon()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    near.say(peer, "it still works")
    drive(near, far, until=lambda: far.names[1:] == ["it still works"])
    assert Peer() not in near.machine.downs
    assert not near.machine.downs


@both
def test_the_first_bytes_tell_data_connections_from_others(
    make: Make, pem: str, secure: bool
) -> None:
    near, far = make(tls=secure), make(tls=secure)
    taken: list[socket.socket] = []
    far.on_data = taken.append
    far.shake_timeout, far.young_max = 0.3, 3
    address = far.open(pem)
    with running(far), knock(address) as data, knock(address) as gone, knock(address) as slow:
        data.sendall(b"FR")
        slow.sendall(b"F")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        until(lambda: len(far._young) == 2)
        turns = far.machine.turns
        data.sendall(b"DT")
        until(lambda: taken)
        assert closed(slow)
        assert far.machine.turns - turns < 10  # it has slept meanwhile
    assert taken[0].recv(4) == b"FRDT"
    taken[0].close()
    assert "within 0.3 s" in str(far.refused[0])
    near.call(address)
    drive(near, far, until=lambda: far.names == ["hi"])
    with knock(address):  # and is left there
        drive(far, until=lambda: len(far._young) == 1)
        far.close()
