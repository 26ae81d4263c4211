"""Links between machines outlive their connections: what is sent arrives once, and in order."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.core import address as addresses
from freehold.core.machine import Peer
from freehold.proc import mending
from freehold.proc.lasting import Lasting
from relayed import Make, processes, settled
from sessions import MIB
from stations import LOCAL, both, drive, place


@pytest.fixture
def make(pem: str) -> Iterator[Make]:
    with processes(pem) as build:
        yield build


# -- what is lost is sent again --------------------------------------------------------------------
@both
@pytest.mark.parametrize("seed", [1, 2])
def test_connections_are_reset_all_the_time(make: Make, secure: bool, seed: int) -> None:
    one, two = make(tls=secure), make(tls=secure)
    draw = random.Random(seed)
    count, sent = 10_000, [0, 0]
    resets = 0
    again = 0.0

    def step() -> bool:
        nonlocal resets, again
        for side, (near, far) in enumerate(((one, two), (two, one))):
            room = min(count, 400 * (resets + 1)) - sent[side]
            for _ in range(min(draw.randrange(60), room)):
                near.say(near.know(far), str(sent[side]), bytes(draw.randrange(200)))
                sent[side] += 1
        now = time.monotonic()
        if now > again and resets < 80:
            again = now + draw.uniform(0.0, 0.03)
            draw.choice([one, two]).relay.reset()  # type: ignore[union-attr]
            resets += 1
        return len(one.names) + len(two.names) == 2 * count

    drive(one, two, until=step, within=60)
    assert one.numbers == two.numbers == list(range(count))
    assert resets >= 20
    drive(one, two, until=settled(one, two))
    assert not [*one.machine.downs, *two.machine.downs]
    assert one.link_to(two).got == two.link_to(one).confirmed


@both
def test_large_frames_arrive_although_a_connection_breaks_amid_them(
    make: Make, secure: bool
) -> None:
    one, two = make(tls=secure), make(tls=secure)
    data = [os.urandom(MIB) * 8, os.urandom(MIB) * 8]
    relay = two.relay
    assert relay is not None
    one.say(one.know(two), "0", data[0])
    one.say(one.know(two), "1", data[1])
    for part in (1, 6, 11):
        goal = relay.forward.carried + part * MIB
        drive(one, two, until=lambda goal=goal: relay.forward.carried > goal or len(two.names) == 2)
        relay.reset()
    drive(one, two, until=lambda: len(two.names) == 2, within=30)
    assert [code for _, _, code in two.machine.got] == data


@both
def test_a_network_that_is_silent_for_a_while(make: Make, secure: bool) -> None:
    one, two = make(tls=secure), make(tls=secure)
    one.say(one.know(two), "0")
    drive(one, two, until=lambda: two.names and two.link_to(one).port)
    for process in (one, two):
        process.relay.freeze()  # type: ignore[union-attr]
    one.say(one.know(two), "1")
    two.say(two.know(one), "0")
    heal = time.monotonic() + 1.5
    drive(one, two, until=lambda: time.monotonic() > heal)
    assert two.names == ["0"]
    for process in (one, two):
        process.relay.resume()  # type: ignore[union-attr]
    drive(one, two, until=lambda: one.numbers == [0] and two.numbers == [0, 1])
    assert not [*one.machine.downs, *two.machine.downs]


@both
def test_a_parted_network_that_heals(make: Make, secure: bool) -> None:
    one, two = make(tls=secure), make(tls=secure)
    one.say(one.know(two), "0")
    drive(one, two, until=lambda: two.names)
    for process in (one, two):
        process.relay.refusing = True  # type: ignore[union-attr]
        process.relay.reset()  # type: ignore[union-attr]
    for number in range(1, 100):
        one.say(one.know(two), str(number))
        two.say(two.know(one), str(number))
    drive(one, two, until=lambda: one.link_to(two).failures > 4)
    assert two.names == ["0"]
    assert len(one.errors) <= 1  # the first failure in a row is told, no more
    for process in (one, two):
        process.relay.refusing = False  # type: ignore[union-attr]
    drive(one, two, until=lambda: len(one.names) == 99 and len(two.names) == 100)
    assert one.numbers == list(range(1, 100))
    assert two.numbers == list(range(100))
    assert not [*one.machine.downs, *two.machine.downs]


def test_a_peer_that_cannot_be_dialled_dials_again(make: Make) -> None:
    one, two = make(), make()
    one.address = addresses.make(one.home, "", "", 0)
    one.say(one.know(two), "hi")
    drive(one, two, until=lambda: two.names)
    two.relay.reset()  # type: ignore[union-attr]
    back = two.machine.peers[one.machine.id]
    drive(two, until=lambda: two.link_to(one).port is None)
    two.say(back, "answer")
    drive(one, two, until=lambda: one.names == ["answer"])


# -- two at once -----------------------------------------------------------------------------------
@both
@pytest.mark.parametrize("delays", [(0.0, 0.0), (0.02, 0.0), (0.0, 0.02), (0.02, 0.02)])
def test_both_dial_at_once(make: Make, secure: bool, delays: tuple[float, float]) -> None:
    small, large = make(tls=secure, id=b"1" * 8), make(tls=secure, id=b"2" * 8)
    for process, delay in zip((small, large), delays, strict=True):
        assert process.relay is not None
        process.relay.forward.delay_s = process.relay.backward.delay_s = delay
    for number in range(100):
        small.say(small.know(large), str(number))
        large.say(large.know(small), str(number))
        small.poll_once()
        large.poll_once()
    drive(small, large, until=lambda: len(small.names) == len(large.names) == 100)
    assert small.numbers == large.numbers == list(range(100))
    drive(small, large, until=settled(small, large))
    drive(small, large, until=lambda: len(small._open_ports) == len(large._open_ports) == 1)
    if delays == (0.02, 0.02):
        assert small.link_to(large).dials
        assert not large.link_to(small).dials
    assert not [*small.machine.downs, *large.machine.downs, *small.errors, *large.errors]


def test_many_at_once(make: Make) -> None:
    processes = [make() for _ in range(5)]
    for near in processes:
        for far in processes:
            if near is not far:
                near.say(near.know(far), "0")
                near.say(near.know(far), "1")
    drive(*processes, until=lambda: all(len(each.names) == 8 for each in processes))
    drive(*processes, until=settled(*processes))
    drive(*processes, until=lambda: all(len(each._open_ports) == 4 for each in processes))


# -- the dead --------------------------------------------------------------------------------------
@both
def test_a_process_that_has_died_is_dialled_until_the_machine_knows(
    make: Make, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "SWEEP_EVERY", 0.05)
    one, two = make(tls=secure), make(tls=secure)
    peer = one.say(one.know(two), "hi")
    drive(one, two, until=lambda: two.names)
    relay = two.relay
    assert relay is not None
    two.close()
    one.say(peer, "lost")
    drive(one, until=lambda: one.link_to(two).failures >= 3)
    assert not one.machine.downs
    peer.down = True
    drive(one, until=lambda: not one.links)
    assert not one._open_ports
    link = one.link_to(two)
    assert link.over
    assert not link.unacked
    calls = link.calls
    tries = relay.accepted
    later = time.monotonic() + 2 * mending.PAUSE_MAX
    drive(one, until=lambda: time.monotonic() > later)
    assert link.calls == calls
    assert relay.accepted == tries
    assert one.alarms.deadline() == float("inf")


def test_a_silent_peer_that_is_declared_dead_is_let_go(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "SWEEP_EVERY", 0.05)
    one, two = make(), make()
    peer = one.say(one.know(two), "hi")
    drive(one, two, until=settled(one, two))
    peer.down = True  # nothing has happened to the connection
    drive(one, until=lambda: not one.links)
    assert not one._open_ports
    two.say(two.know(one), "I am here")
    drive(one, two, until=lambda: two.machine.downs)  # it called, and was told
    assert "given this process up" in str(two.errors[0])
    assert not one.names
    assert not two._open_ports


def test_the_dead_are_not_heard(make: Make) -> None:
    one, two = make(), make()
    peer = one.say(one.know(two), "hi")
    drive(one, two, until=settled(one, two))
    peer.down = True
    two.say(two.know(one), "I am here")
    drive(one, two, until=lambda: not one.links)
    assert not one.names


@both
def test_another_process_listens_there(make: Make, secure: bool) -> None:
    one, two, heir = make(tls=secure), make(tls=secure), make(tls=secure)
    peer = one.say(one.know(two), "hi")
    drive(one, two, until=lambda: two.names)
    two.relay.target = place(heir.address)  # type: ignore[union-attr]
    two.close()
    two.relay.reset()  # type: ignore[union-attr]
    one.say(peer, "not for the heir")
    drive(one, heir, until=lambda: not one.links)
    assert "is not where it was" in str(one.errors[-1])
    assert not one.machine.downs  # its node will say so
    assert not one._open_ports
    one.say(peer, "nor this")
    assert not heir.names
    assert not heir.machine.downs


# -- nodes -----------------------------------------------------------------------------------------
def test_trouble_with_a_node_is_a_hint(make: Make) -> None:
    one, two = make(kind="node"), make(kind="node")
    peer = one.say(one.know(two), "0")
    drive(one, two, until=settled(one, two))
    assert not one.machine.downs
    two.relay.refusing = True  # type: ignore[union-attr]
    two.relay.reset()  # type: ignore[union-attr]
    drive(one, two, until=lambda: len(one.machine.downs) >= 3)
    assert set(one.machine.downs) == {peer}
    assert two.machine.downs == [two.machine.peers[one.machine.id]]
    one.say(peer, "1")
    two.relay.refusing = False  # type: ignore[union-attr]
    drive(one, two, until=lambda: two.numbers == [0, 1])
    assert len(one.machine.ups) == 2


def test_a_node_that_was_never_there_is_a_hint(make: Make) -> None:
    one, two = make(kind="node"), make(kind="node")
    two.close()
    two.relay.close()  # type: ignore[union-attr]
    peer = one.say(one.know(two), "hi")
    drive(one, until=lambda: one.machine.downs == [peer])
    assert "Connection refused" in str(one.errors[0])


# -- what is plain ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["tool", "head"])
def test_tools_and_the_head_have_plain_links(make: Make, kind: str) -> None:
    one, two = make(kind="node"), make(kind=kind)
    peer = one.machine.peer(two.machine.id, two.address)
    peer.kind = kind
    one.say(peer, "hi")
    two.say(two.know(one), "hi")
    drive(one, two, until=lambda: one.names and two.names)
    assert not one.links
    assert not two.links
    two.close()
    drive(one, until=lambda: peer in one.machine.downs)


def test_processes_of_one_node_have_plain_links(make: Make, tmp_path: Path) -> None:
    one, two = make(), make()
    two.home = one.home
    path = str(tmp_path / "two.sock")
    two.listen(path)
    two.address = addresses.make(two.home, path, LOCAL, 1)
    peer = one.say(one.know(two), "hi")
    drive(one, two, until=lambda: two.names)
    assert not one.links
    assert peer.port.link.sock.family == socket.AF_UNIX
    two.close()
    drive(one, until=lambda: one.machine.downs == [peer])


def test_who_turns_out_to_have_no_lasting_links_is_given_up(make: Make) -> None:
    one, two = make(), make(kind="tool")
    peer = one.machine.peer(two.machine.id, two.address)
    one.say(peer, "hi")
    drive(one, two, until=lambda: one.machine.downs == [peer])
    assert "no lasting links" in str(one.errors[0])


def test_a_process_elsewhere_without_a_port_is_given_up(make: Make) -> None:
    one = make()
    peer = one.machine.peer(os.urandom(8), addresses.make(os.urandom(8), "/path", "", 0))
    one.say(peer, "hi")
    assert one.machine.downs == [peer]
    assert not one.links


# -- bookkeeping -----------------------------------------------------------------------------------
def test_stale_calls() -> None:
    link = Lasting(Peer(b"p" * 8), lambda link, frame: None)
    link.heard, link.answered, link.calls = 3, 2, 2
    assert link.is_stale(3, 2, False)  # a later one was answered
    assert link.is_stale(4, 1, False)  # it was dialled before ours was answered
    assert not link.is_stale(4, 2, True)
    link.calls = 3
    link.calling = type("Port", (), {"handshake": None})
    assert link.is_stale(4, 2, True)  # ours is under way, and comes first
    assert not link.is_stale(4, 2, False)
    assert not link.is_stale(4, 3, True)  # ours has arrived, and is lost
    link.calling.handshake = object()
    assert not link.is_stale(4, 2, True)  # nothing was said by ours yet
