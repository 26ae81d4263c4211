"""Orphans that a node has made again: who is asked to, and whom it names to those who ask."""

from __future__ import annotations

from typing import Any

import pytest

from fleets import fleet
from freehold.core import messages as m
from freehold.core.ids import CONTEXT_BYTES
from freehold.core.machine import Machine, Peer
from freehold.core.node.revivals import Revivals
from freehold.core.node.store import Store

ORPHAN = b"c" * CONTEXT_BYTES + b"\0" * 4
MAKER, OWNER, THERE = b"maker...", b"owner...", b"there..."
ADDRESS = f"{THERE.hex()}|w1|n2:1"


class Desk:
    """The part of a node's machine, and a process that can make the orphan again."""

    def __init__(self) -> None:
        self.machine = Machine(b"node....", m.OPCODES)
        self.store = Store(self.machine, 1 << 20)
        self.revivals = Revivals(self.machine, self.store)
        self.revivals.revivers[ORPHAN] = MAKER
        self.maker = self.machine.peer(MAKER, "m")

    def ask(self) -> list[Any]:
        """Somebody asks for the orphan; what is sent to whoever it is at once."""
        asker = Peer(b"asker...")
        self.revivals.find(asker, ORPHAN)
        return asker.outbox

    def answer(self) -> None:
        """It has been made again, says the one who could."""
        self.revivals.on_reborn(self.maker, 0.0, ORPHAN, OWNER, ADDRESS)


def test_who_asks_later_is_told_the_same() -> None:
    desk = Desk()
    assert desk.ask() == []
    desk.answer()
    assert desk.ask() == [(m.REBORN, ORPHAN, OWNER, ADDRESS)]


@pytest.mark.parametrize("dead", [OWNER, THERE])
def test_a_new_owner_that_had_died_when_it_was_named_is_named_once(dead: bytes) -> None:
    """Those who waited turn to its heir, which may be this node: else both would go round."""
    desk = Desk()
    waiting = Peer(b"waiting.")
    desk.revivals.find(waiting, ORPHAN)
    desk.store.gone.add(dead)
    desk.answer()
    assert waiting.outbox == [(m.REBORN, ORPHAN, OWNER, ADDRESS)]
    desk.maker.outbox.clear()
    assert desk.ask() == []
    assert desk.maker.outbox == [(m.REVIVE, ORPHAN, MAKER)], "it is to be made once more"


def test_a_new_owner_that_dies_later_is_named_no_more() -> None:
    desk = Desk()
    desk.ask()
    desk.answer()
    desk.store.gone.add(THERE)
    assert desk.ask() == []


# -- in a cluster ----------------------------------------------------------------------------------
def test_who_was_to_make_an_orphan_again_and_dies_has_answered() -> None:
    """Else those who wait for it would wait for ever."""
    bench = fleet("n2")
    node, heir = bench.node_at("n2"), bench.node_at("n1")
    adopter = node.peer(heir.id, bench.address("n1"))
    maker = bench.desks["w1"].machine.id
    orphan = b"c" * CONTEXT_BYTES + b"\0" * 4
    node.handlers[m.REVIVE](adopter, bench.now, orphan, maker)
    bench.kill("w1")
    adopter.outbox.clear()
    bench.deliver("w1", "n2")
    bench.deliver("spawner@n2", "n2")
    assert "REBORN" in bench.sent("n2", "n1")
    assert not node.estates.revivals.asked


def test_an_answer_for_another_adopter_is_for_this_node_s_askers_too() -> None:
    """The first adopter has died amid the revival, and this node has adopted after it."""
    bench = fleet("n2")
    node = bench.node_at("n2")
    adopter = node.peer(bench.node_at("n1").id, bench.address("n1"))
    maker = node.peers[bench.desks["w1"].machine.id]
    orphan = b"c" * CONTEXT_BYTES + b"\0" * 4
    revivals = node.estates.revivals
    revivals.revivers[orphan] = maker.id
    node.handlers[m.REVIVE](adopter, bench.now, orphan, maker.id)
    asker = node.peer(b"asker...", "")
    revivals.find(asker, orphan)
    node.handlers[m.REBORN](maker, bench.now, orphan, b"", "")
    assert [frame[0] for frame in asker.outbox] == [m.VALUE]
    assert not revivals.reviving
    assert not revivals.asked


def test_nobody_is_asked_to_make_what_a_dead_process_could_have_made() -> None:
    bench = fleet("n2")
    node = bench.node_at("n1")
    asker = node.peers[bench.desks["d"].machine.id]
    orphan = b"c" * CONTEXT_BYTES + b"\0" * 4
    revivals = node.estates.revivals
    revivals.revivers[orphan[:CONTEXT_BYTES]] = b"someone."
    revivals.homes[b"someone."] = bench.desks["n2"].machine.id
    revivals.find(asker, orphan)
    bench.settle()
    assert "REVIVE" in bench.sent("n1", "n2")
    node.estates.on_death(b"someone.")
    bench.settle()
    assert bench.sent("n1", "d")[-1] == "VALUE"
    assert not revivals.reviving
    assert not revivals.revivers
