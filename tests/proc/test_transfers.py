"""Two nodes' machines, hosts and movers in one process: an object goes from one arena to the other.

Only the processes are played by the test.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.node.node import Node
from freehold.core.node.pulls import GET
from freehold.io.shm import Arena
from freehold.proc.host import Host
from freehold.proc.session import now
from freehold.proc.transfers import Transfers

ARENA = 16 * 1024 * 1024
SIZE = 5_000_003
PATIENCE = 30.0  # seconds
REF = b"object.........."


class Daemon(Host):
    """A node daemon without processes, as ``proc.node`` would wire it."""

    def __init__(self, id: bytes, daemons: dict[str, Daemon], stall_s: float) -> None:
        self.node = Node(id, cpus=0.0, arena_bytes=ARENA, prestart=0)
        super().__init__(self.node, b"secret", "node")
        self.arena = Arena.create(ARENA)
        self.address = f"{id.hex()}||{id.decode()}"
        self.daemons = daemons
        self.dials = 0
        self.transfers = Transfers(
            self, self.node.pulls, self.arena, self.connect, self.address, stall_s=stall_s
        )
        self.process = self.node.peer(b"process" + id[:1])
        self.owner = self.node.peer(b"owner...")
        self.process.kind = "worker"
        self.got: list[tuple[Any, ...]] = []
        for other in daemons.values():
            self.know(other.node.id, other.address)
            other.know(id, self.address)
        daemons[self.address] = self

    def know(self, node: bytes, address: str) -> None:
        """That node is a member of the cluster."""
        self.node.neighbours.node_up(node, address, [])

    def connect(self, address: str) -> socket.socket:
        self.dials += 1
        other = self.daemons.get(address)
        if other is None:
            raise ConnectionRefusedError(address)
        ours, theirs = socket.socketpair()
        other.transfers.accept(theirs)
        return ours

    def flush(self) -> None:
        store = self.node.store
        while store.arena.outbox or self.transfers.peer.outbox:
            frames, store.arena.outbox = store.arena.outbox, []
            for _, end in frames:
                self.arena.reserve(store.reserved, end - store.reserved)
                self.node.handlers[m.RESERVED](store.arena, now(), end, "")
            self.transfers.flush()
        for peer in (self.process, self.owner):
            self.got += peer.outbox
            peer.outbox = []
        super().flush()

    def frame(self, peer: Peer, op: int, *fields: Any) -> None:
        with self.lock:
            self.node.handlers[op](peer, now(), *fields)
            self._finish(now())

    def make(self, data: bytes) -> list[Any]:
        self.frame(self.process, m.EXTENT, 1, len(data))
        (grant,) = [frame for frame in self.got if frame[0] == m.EXTENT_GRANT]
        self.arena.write(grant[2], [(0, data)], False)
        self.frame(self.process, m.SEAL, REF, self.owner.id, b"", grant[2], len(data), [])
        return [self.process.id, grant[2], len(data), self.node.id]

    def fetch(self, place: list[Any]) -> None:
        self.frame(self.process, m.FETCH, REF, place, self.owner.id, "", GET)

    def answers(self) -> list[tuple[Any, ...]]:
        return [frame for frame in self.got if frame[0] == m.FETCHED]

    def stop(self) -> None:
        self.transfers.close()
        self.close()
        self.arena.close()


@pytest.fixture
def daemons() -> Iterator[Callable[[str], Daemon]]:
    made: dict[str, Daemon] = {}

    def make(name: str, stall_s: float = 10.0) -> Daemon:
        return Daemon(name.encode().ljust(8, b"."), made, stall_s)

    before = threading.active_count()
    yield make
    for daemon in list(made.values()):
        daemon.stop()
    assert threading.active_count() == before


def pump(daemons: list[Daemon], until: Callable[[], bool]) -> None:
    """Let the daemons work until that is so."""
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end, "it does not come"
        for daemon in daemons:
            daemon.pump(now() + 0.002)
            daemon.node.check()


def test_an_object_is_copied_once_for_all_who_ask_and_freed_like_the_first(
    daemons: Callable[[str], Daemon],
) -> None:
    a, b = daemons("a"), daemons("b")
    data = os.urandom(SIZE)
    place = a.make(data)
    b.fetch(place)
    pump([a, b], lambda: bool(b.answers()))
    (answer,) = b.answers()
    here = answer[3]
    assert answer == (m.FETCHED, REF, place, [b.node.id, here[1], SIZE, b.node.id], "")
    assert b.arena.read(here[1], SIZE) == data
    assert (m.COPIED, REF, here) in b.got
    b.fetch(place)
    assert b.answers()[1][3] == here
    assert b.dials == 1
    b.frame(b.process, m.UNPIN, [here[1]])
    b.frame(b.owner, m.FREE, [[REF, b.node.id, b.node.id]])
    assert b.node.store.extents.granted == 0
    pump([a, b], lambda: not a.node.pulls.servings.active)


def test_a_broadcast_goes_along_a_chain(daemons: Callable[[str], Daemon]) -> None:
    a, *others = all_ = [daemons(name) for name in "abcde"]
    data = os.urandom(SIZE)
    place = a.make(data)
    for other in others:
        other.fetch(place)
    pump(all_, lambda: all(other.answers() for other in others))
    for other in others:
        (answer,) = other.answers()
        assert other.arena.read(answer[3][1], SIZE) == data
    pump(all_, lambda: not any(daemon.node.pulls.servings.active for daemon in all_))


def test_what_is_gone_and_what_is_dead_is_lost(daemons: Callable[[str], Daemon]) -> None:
    a, b = daemons("a"), daemons("b")
    place = [b"nobody..", 0, SIZE, a.node.id]
    b.fetch(place)
    pump([a, b], lambda: bool(b.answers()))
    assert b.answers()[0][3:] == ([], "lost")
    b.know(b"dead....", "dead")
    b.fetch([b"nobody..", 0, SIZE, b"dead...."])
    pump([b], lambda: b.dials >= 3)  # it is tried again and again
    b.node.pulls.on_node_down(b"dead....")
    pump([b], lambda: len(b.answers()) == 2)
    assert b.answers()[1][3:] == ([], "lost")
    assert b.node.store.extents.granted == 0
