"""Hosts joined by TCP, with TLS and without: what travels, and who is given up."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from pathlib import Path

import pytest

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.io import link, net
from freehold.wire.codec import encode
from sessions import MIB
from stations import (
    LOCAL,
    NODE,
    Make,
    both,
    closed,
    drive,
    enter,
    full_listener,
    knock,
    place,
    running,
    until,
)

HOSTS = [LOCAL]
with socket.socket(socket.AF_INET6) as probe:
    try:
        probe.bind(("::1", 0))
        HOSTS.append("::1")
    except OSError:  # a machine without IPv6
        pass


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
