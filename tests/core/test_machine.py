"""The contract between machines and hosts: outboxes, identities, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from freehold.core.machine import NEVER, Machine, Peer
from freehold.errors import ProtocolError


def test_a_peer_is_dirty_once_however_much_it_is_sent() -> None:
    machine, peer = Machine(b"me", 3), Peer(b"you")
    machine.send(peer, 1, "a")
    machine.send(peer, 2)
    assert machine.dirty == [peer]
    assert peer.outbox == [(1, "a"), (2,)]


def test_nothing_is_written_to_the_dead() -> None:
    machine, peer = Machine(b"me", 3), Peer(b"you")
    peer.down = True
    machine.send(peer, 1)
    assert not machine.dirty
    assert not peer.outbox


def test_a_peer_is_one_object_and_learns_its_address_once() -> None:
    machine = Machine(b"me", 3)
    peer = machine.peer(b"you")
    assert machine.peer(b"you", "here") is peer
    machine.peer(b"you", "elsewhere")
    assert peer.address == "here"


ME, YOU = b"me" * 4, b"you-here"


def hello(proc: Any = YOU, address: str = "here", **info: Any) -> list[Any]:
    return [0, proc, "worker", 7, address, info]


def test_a_peer_is_met_by_its_hello() -> None:
    machine = Machine(ME, 3)
    peer = machine.meet(None, hello(node=b"n" * 8, to=ME))
    assert (peer.id, peer.kind, peer.pid, peer.address) == (YOU, "worker", 7, "here")
    assert machine.meet(None, hello(address="")) is peer  # a second connection
    assert peer.address == "here"
    nameless = Peer(b"", "there")
    assert machine.meet(nameless, hello(b"8 bytes.")) is nameless
    assert machine.peers == {YOU: peer, b"8 bytes.": nameless}


def test_another_process_at_the_address_is_not_the_peer() -> None:
    machine = Machine(ME, 3)
    peer = machine.peer(YOU, "here")
    with pytest.raises(ProtocolError, match="another process listens there"):
        machine.meet(peer, hello(b"somebody"))
    assert machine.peers == {YOU: peer}
    with pytest.raises(ProtocolError, match="for one that listened here before"):
        machine.meet(None, hello(to=b"earlier."))


@pytest.mark.parametrize(
    "garbage",
    [[0], hello(b"short"), hello("no bytes"), [*hello(), 1], [0, YOU, "worker", True, "", {}]],
)
def test_a_malformed_hello_is_refused(garbage: list[Any]) -> None:
    machine = Machine(ME, 3)
    with pytest.raises(ProtocolError, match="malformed HELLO"):
        machine.meet(None, garbage)
    assert not machine.peers


def test_an_opcode_that_nobody_takes_is_refused() -> None:
    machine = Machine(b"me", 3)
    with pytest.raises(ProtocolError, match="opcode 2"):
        machine.handlers[2](Peer(b"you", kind="driver"), 0.0)


def test_parts_add_their_handlers() -> None:
    machine = Machine(b"me", 3)
    seen = []
    machine.on({1: lambda peer, now, value: seen.append((now, value))})
    machine.handlers[1](Peer(), 2.5, "x")
    assert seen == [(2.5, "x")]


def test_a_bare_machine_wants_nothing() -> None:
    machine = Machine(b"me", 3)
    machine.on_up(Peer(), 0.0, {})
    machine.on_down(Peer(), 0.0)
    machine.on_timer(0.0)
    machine.settle(0.0)
    machine.check()
    assert machine.deadline() == NEVER
    assert machine.snapshot() == {}
