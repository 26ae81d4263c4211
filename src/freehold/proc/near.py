"""A machine that lives in another's process: the head of an embedded session, in its node's.

The two speak as they would over a socket: what one writes to the other is encoded, decoded and
handled, so that they share no list that one of them might change.  The resident has no connections
of its own; its store is a dictionary, which is as durable as the session that it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from freehold.core import messages as m
from freehold.core.machine import Frame, Machine, Peer

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Memory:
    """A store without a disk: entries with revisions, written all or none."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[bytes, int]] = {}  # key -> value, revision
        self.revision = 0

    def write(self, checks: list[list[Any]], entries: list[list[bytes]]) -> int:
        """The revision of what was written; 0 when one of the checks failed, and nothing was."""
        for key, expected in checks:
            if self.entries.get(key, (b"", 0))[1] != expected:
                return 0
        self.revision += 1
        for key, value in entries:
            if value:
                self.entries[key] = value, self.revision
            else:
                self.entries.pop(key, None)
        return self.revision


class Resident:
    """The machine that lives in the process of ``host``'s.

    Args:
        host: the machine whose process it is.
        seat: the peer by which ``host`` knows the resident.
        machine: the resident.
        store: the resident's near peer that takes STORE.
        address: where ``host`` is dialled.
    """

    def __init__(
        self, host: Machine, seat: Peer, machine: Machine, store: Peer, address: str
    ) -> None:
        self.host = host
        self.seat = seat
        self.machine = machine
        self.store = store
        self.memory = Memory()
        self.guest = Peer(host.id, address, "node")  # by which the resident knows ``host``

    def open(self, now: float, host_info: dict[str, Any], info: dict[str, Any]) -> None:
        """Introduce them to each other."""
        self.seat.id = self.machine.id
        self.host.peers[self.machine.id] = self.seat
        self.machine.peers[self.host.id] = self.guest
        self.machine.on_up(self.guest, now, host_info)
        self.host.on_up(self.seat, now, info)
        self.carry(now)

    def carry(self, now: float) -> None:
        """Deliver what they have written to each other, until there is no more."""
        machine, seat, guest, store = self.machine, self.seat, self.guest, self.store
        while seat.outbox or guest.outbox or store.outbox:
            _deliver(seat, guest, machine, now)
            machine.settle(now)
            for _, request, checks, entries in _taken(store):
                revision = self.memory.write(checks, entries)
                machine.handlers[m.STORED](store, now, request, revision)
            _deliver(guest, seat, self.host, now)
        for peer in machine.dirty:  # nobody else can be written to from here
            peer.outbox.clear()
        machine.dirty.clear()

    def deadline(self) -> float:
        """When :meth:`on_timer` wants to be called."""
        return self.machine.deadline()

    def on_timer(self, now: float) -> None:
        """The time may have come."""
        if now >= self.machine.deadline():
            self.machine.on_timer(now)
            self.machine.settle(now)
            self.carry(now)


def _taken(peer: Peer) -> list[Frame]:
    """What was written to the peer, as it would arrive there."""
    if not peer.outbox:
        return []
    frames, peer.outbox = peer.outbox, []
    decoded: list[Frame] = _decode(_encode(frames))
    return decoded


def _deliver(to: Peer, sender: Peer, machine: Machine, now: float) -> None:
    """Hand what was written to ``to`` to its machine, to which it comes from ``sender``."""
    handlers: tuple[Callable[..., None], ...] = machine.handlers
    for op, *fields in _taken(to):
        handlers[op](sender, now, *fields)
