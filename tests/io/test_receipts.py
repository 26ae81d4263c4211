"""What a lasting link keeps until it is confirmed, and those who break the rules of that."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.errors import ProtocolError
from freehold.proc import receipts
from freehold.proc.lasting import read_words
from freehold.wire.codec import encode
from relayed import Make, Process, processes, settled
from sessions import MIB
from stations import both, closed, drive, enter, running


@pytest.fixture
def make(pem: str) -> Iterator[Make]:
    with processes(pem) as build:
        yield build


# -- what is kept ----------------------------------------------------------------------------------
def test_what_is_confirmed_is_not_kept(make: Make) -> None:
    one, two = make(), make()
    peer = one.know(two)
    most = 0
    for number in range(5000):
        one.say(peer, str(number), bytes(1000))
        if number % 50 == 0:
            one.poll_once()
            two.poll_once()
            most = max(most, len(one.link_to(two).unacked))
    drive(one, two, until=settled(one, two))
    assert two.numbers == list(range(5000))
    assert not one.machine.got
    link = one.link_to(two)
    assert (link.confirmed, link.unacked_bytes) == (5000, 0)
    one.say(peer, "last")
    assert drive(one, two, until=settled(one, two)) < 20 * receipts.DELAY  # by itself


def test_confirmations_go_along_with_frames(make: Make) -> None:
    one, two = make(), make()
    one.say(one.know(two), "0")
    drive(one, two, until=settled(one, two))
    for number in range(receipts.ALONG):
        one.say(one.know(two), str(number))
    drive(one, two, until=lambda: len(two.names) == receipts.ALONG + 1)
    two.say(two.know(one), "and so they were confirmed")
    drive(one, two, until=lambda: one.names)
    assert not one.link_to(two).unacked


@both
def test_one_who_confirms_nothing_is_given_up(make: Make, secure: bool) -> None:
    one, two = make(tls=secure), make(tls=secure)
    one.unsent_max, one.stall_timeout = MIB, 0.2
    peer = one.say(one.know(two), "hi")
    drive(one, two, until=settled(one, two))
    for _ in range(4):
        one.say(peer, "more", bytes(8 * MIB))
    drive(one, until=lambda: one.machine.downs)
    assert one.machine.downs == [peer]
    assert "has confirmed none of" in str(one.errors[-1])
    assert not one._open_ports


def test_one_who_cannot_be_reached_is_kept_for_only_so_much(make: Make) -> None:
    one, two = make(), make()
    two.relay.refusing = True  # type: ignore[union-attr]
    one.unsent_max, one.stall_timeout = MIB, 0.2
    peer = one.say(one.know(two), "much", bytes(2 * MIB))
    drive(one, until=lambda: one.machine.downs == [peer])
    assert not one.links


def test_one_who_is_slow_is_not_given_up(make: Make) -> None:
    one, two = make(), make()
    one.unsent_max, one.stall_timeout = MIB, 0.2
    two.relay.forward.bytes_per_s = 16 * MIB  # type: ignore[union-attr]
    for number in range(64):
        one.say(one.know(two), str(number), bytes(MIB // 4))
    assert drive(one, two, until=lambda: len(two.names) == 64, within=30) > 0.5
    assert not one.machine.downs


# -- who breaks the protocol -----------------------------------------------------------------------
def break_in(one: Process, two: Process, frame: bytearray) -> Peer:
    """Have ``one`` send that frame past its link; the peer that it is to ``two``."""
    one.say(one.know(two), "hi")
    drive(one, two, until=settled(one, two))
    one._send(one.link_to(two).port, frame)
    peer = two.machine.peers[one.machine.id]
    drive(one, two, until=lambda: two.machine.downs)
    assert two.machine.downs == [peer]
    return peer


GARBAGE = {
    "no message": encode([5]),
    "too few fields": encode([(m.FUNCTION, b"")]),
    "an unexpected opcode": encode([(m.SIGNAL, 1, 9)]),
    "confirms what was not sent": encode([(m.ACK, 5)]),
    "confirms no number": encode([(m.ACK, "5")]),
    "empty": encode([]),
}


@pytest.mark.parametrize("frame", GARBAGE.values(), ids=GARBAGE)
def test_one_who_sends_garbage_is_given_up_on_both_sides(make: Make, frame: bytearray) -> None:
    one, two = make(), make()
    break_in(one, two, frame)
    drive(one, two, until=lambda: one.machine.downs)  # it calls again, and is told
    assert not [*one.links, *two.links]
    assert not [*one._open_ports, *two._open_ports]


def test_two_who_count_differently_part(make: Make) -> None:
    one, two = make(), make()
    one.say(one.know(two), "hi")
    drive(one, two, until=settled(one, two))
    two.link_to(one).got += 7
    two.relay.reset()  # type: ignore[union-attr]
    drive(one, two, until=lambda: one.machine.downs)
    assert "and said 1 before" in str(one.errors[-1])


@both
def test_a_caller_that_speaks_before_it_is_answered(make: Make, secure: bool) -> None:
    two = make(tls=secure)
    id = os.urandom(8)
    hello = (m.HELLO, id, "worker", 1, "", {"node": b"n" * 8, "call": [1, 0, 0]})
    early = (m.FUNCTION, b"", "too early", b"")
    with running(two), enter(two.address, tls=secure, first=[hello, early]) as sock:
        assert closed(sock)
    assert "before its call was answered" in str(two.errors[0])
    assert not two.names
    assert not two._open_ports


@pytest.mark.parametrize("words", [None, [], [1, 2], [1, 2, "3"], [1, 2, -1], [True, 1, 1], {}])
def test_calls_are_checked(words: object) -> None:
    with pytest.raises(ProtocolError):
        read_words(words, Peer())
