"""A node's memory: its store and its pulls, with a test that plays everybody else."""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.arena import GRAIN
from freehold.core.machine import Machine, Peer
from freehold.core.node.pulls import GET, Pulls
from freehold.core.node.store import Store

NODE, FAR, OTHER = b"node....", b"far.....", b"other..."
FAR_AT, OTHER_AT = FAR.hex() + "||far:1", OTHER.hex() + "||other:1"
OWNER, MAKER = b"owner...", b"maker..."
OWNER_AT = FAR.hex() + "|/owner|"
P, Q = b"p.......", b"q......."


class Desk:
    """A node's store and pulls; the test plays everybody else."""

    def __init__(self, grains: int = 8, **limits: Any) -> None:
        self.now = 100.0
        self.machine = Machine(NODE, m.OPCODES)
        self.store = Store(self.machine, grains * GRAIN)
        self.addresses = {FAR: FAR_AT, OTHER: OTHER_AT}  # of the living nodes
        self.pulls = Pulls(self.machine, self.store, **limits)
        self.pulls.address_of = lambda node: self.addresses.get(node, "")
        self.pages = True  # the machine has memory for them
        self.got: list[tuple[Any, ...]] = []
        for id in (P, Q):
            self.machine.peer(id).kind = "worker"

    # -- frames -----------------------------------------------------------------------------------
    def give(self, peer: Peer, op: int, *fields: Any) -> list[tuple[Any, ...]]:
        """A frame arrives; returns what the node sends for it."""
        self.machine.handlers[op](peer, self.now, *fields)
        return self.settle()

    def settle(self) -> list[tuple[Any, ...]]:
        """Everything is flushed: (receiver, name, *fields) of what was sent."""
        found: list[tuple[Any, ...]] = []
        self.machine.settle(self.now)
        self.pulls.settle(self.now)
        while self.machine.dirty:
            dirty, self.machine.dirty = self.machine.dirty, []
            for peer in dirty:
                frames, peer.outbox = peer.outbox, []
                for op, *fields in frames:
                    if peer is self.store.arena:
                        reason = "" if self.pages else "the machine is full"
                        self.machine.handlers[m.RESERVED](peer, self.now, fields[0], reason)
                    else:
                        found.append((peer.id or peer.kind, m.NAMES[op], *fields))
            self.pulls.settle(self.now)
        self.store.check()
        self.pulls.check()
        self.got += found
        return found

    def pass_time(self, seconds: float) -> list[tuple[Any, ...]]:
        self.now += seconds
        self.store.on_timer(self.now)
        self.pulls.on_timer(self.now)
        return self.settle()

    # -- processes --------------------------------------------------------------------------------
    def fetch(self, process: bytes, name: str, grains: float = 1, kind: int = GET) -> Any:
        return self.ask(process, name, place(name, grains), kind)

    def ask(self, process: bytes, name: str, where: list[Any], kind: int = GET) -> Any:
        """FETCH of what lies at that place."""
        peer = self.machine.peer(process)
        return self.give(peer, m.FETCH, ref(name), where, OWNER, OWNER_AT, kind)

    def unpin(self, process: bytes, *names: str) -> Any:
        """The process reads its (first) copies of these no longer."""
        pinned = self.pulls.copies.pinned.get(process, [])
        firsts = {copy.id: copy.offset for copy in reversed(pinned)}
        return self.give(self.machine.peer(process), m.UNPIN, [firsts[ref(name)] for name in names])

    def free(self, name: str) -> Any:
        """Its owner, which lives on another node, needs it no longer."""
        self.store.free_for(OWNER, [[ref(name), NODE]])
        return self.settle()

    def node_down(self, node: bytes) -> Any:
        """The head has said that the node is dead."""
        self.addresses.pop(node, None)
        self.pulls.on_node_down(node)
        return self.settle()

    # -- the mover --------------------------------------------------------------------------------
    def moving(self) -> list[str]:
        return [pull.key[0].decode().strip(".") for pull in self.pulls.moving.values()]

    def moved(self, name: str, have: int | None = None, reason: str = "", other: str = "") -> Any:
        (pull,) = [pull for pull in self.pulls.moving.values() if pull.key[0] == ref(name)]
        have = pull.size if have is None else have
        return self.give(self.pulls.mover, m.MOVED, pull.transfer, have, reason, other)

    def bring(self, process: bytes, name: str, grains: float = 1) -> list[Any]:
        """Fetch it, and it comes; returns its place."""
        self.fetch(process, name, grains)
        (found,) = only(self.moved(name), "FETCHED")
        assert found[5] == ""
        return list(found[4])

    def serve(
        self, number: int, where: list[Any], name: str, node: str, direct: bool = False
    ) -> list[tuple[Any, ...]]:
        fields = (number, ref(name), where, node.encode().ljust(8, b"."), node, direct)
        return only(self.give(self.pulls.mover, m.SERVE, *fields), "SERVING")

    def served(self, number: int, done: bool = True) -> Any:
        return self.give(self.pulls.mover, m.SERVED, number, done)

    def make(self, name: str, grains: int = 1) -> list[Any]:
        """A process here makes an object; returns its place."""
        maker = self.machine.peer(MAKER)
        maker.kind = "worker"
        (grant,) = only(self.give(maker, m.EXTENT, 1, grains * GRAIN), "EXTENT_GRANT")
        assert grant[4], grant
        size = grains * GRAIN
        self.give(maker, m.SEAL, ref(name), OWNER, FAR, grant[3], size, [])
        return [MAKER, grant[3], size, NODE]


def ref(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def place(name: str, grains: float = 1) -> list[Any]:
    return [MAKER, GRAIN * ord(name[0]), int(grains * GRAIN), FAR]


def only(frames: list[tuple[Any, ...]], name: str) -> list[tuple[Any, ...]]:
    return [frame for frame in frames if frame[1] == name]


def names(frames: list[tuple[Any, ...]]) -> list[str]:
    return [frame[1] for frame in frames]
