"""Orphans that a node has made again: whom it names to those who ask."""

from __future__ import annotations

from typing import Any

import pytest

from freehold.core import messages as m
from freehold.core.ids import CONTEXT_BYTES
from freehold.core.machine import Machine, Peer
from freehold.core.revivals import Revivals
from freehold.core.store import Store

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
