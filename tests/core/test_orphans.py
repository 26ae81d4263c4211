"""Orphans: references whose owner has died, and has been made again, and has died again."""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.process.process import Process
from freehold.core.process.shares import Share

ID = b"c" * 12 + b"\0\0\0\0"
FIRST, AGAIN = b"maker 1.", b"maker 2."


class Desk:
    """A process that holds what a task had made that has run twice, in two processes."""

    def __init__(self) -> None:
        self.process = Process(b"p" * 8, "p")
        self.owner = self.process.owner
        self.heirs = {maker: self._node(b"heir " + maker[-3:]) for maker in (FIRST, AGAIN)}
        self.row = self.owner.hold(ID, FIRST, "1")

    def _node(self, id: bytes) -> Peer:
        return self.process.peer(id, f"{id.hex()}|n|n:1")

    def die(self, maker: bytes) -> None:
        peer = self.process.peer(maker)
        peer.down = True
        Share(self.owner, self.heirs[maker], asked=True, driver=b"").of_process(peer, [])
        del self.process.peers[maker]

    def sent(self, heir: bytes, op: int) -> list[Any]:
        return [frame[1:] for frame in self.heirs[heir].outbox if frame[0] == op]


def reborn_and_dead() -> Desk:
    desk = Desk()
    desk.die(FIRST)
    desk.process.client.orphans.on_reborn(desk.heirs[FIRST], 0.0, ID, AGAIN, "2")
    desk.die(AGAIN)
    assert desk.row.owner is desk.heirs[AGAIN]
    return desk


def test_a_value_that_names_an_owner_long_dead_says_nothing_new() -> None:
    desk = reborn_and_dead()
    desk.owner.hold(ID, FIRST, "1")  # it was inside of a value
    assert desk.row.owner is desk.heirs[AGAIN]
    mine = list(desk.row.extend().mine)
    desk.owner.drop(desk.row)
    desk.owner.drop(desk.row)
    ((released,),) = desk.sent(AGAIN, m.RELEASE)
    assert [ticket for _, ticket in released] == mine, "it is let go where it is held"
    assert not desk.owner.rows


def test_who_is_told_of_a_new_owner_that_is_dead_already_turns_to_its_heir() -> None:
    desk = Desk()
    desk.die(FIRST)
    desk.die(AGAIN)
    desk.owner.want(desk.row)
    desk.process.client.orphans.on_reborn(desk.heirs[FIRST], 0.0, ID, AGAIN, "2")
    assert desk.row.owner is desk.heirs[AGAIN]
    assert len(desk.sent(FIRST, m.RELEASE)) == 1
    assert len(desk.sent(AGAIN, m.REGISTER)) == 1, "it is a borrower there from now on"
    assert desk.sent(AGAIN, m.PULL) == [([ID],)]
