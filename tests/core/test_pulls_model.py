"""Pulls against a naive model: what is read is never overwritten, and every FETCH is answered once.

The model plays the mover, the pages, the owners, the processes and other nodes, in any order.  It
knows the arena as a table of who wrote what where.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from freehold.core import messages as m
from freehold.core.arena import GRAIN
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node.pulls import Pulls
from freehold.core.node.store import Store
from stateful import effort

NODE = b"node...."
NODES = (b"far1....", b"far2....")
OWNERS = (b"owner1..", b"owner2..")
SIZES = (1, GRAIN, 2 * GRAIN, 3 * GRAIN + 5, 9 * GRAIN)
NAMES = st.integers(0, 6)
WHO = st.integers(0, 2)
Place = tuple[bytes, int, int, bytes]


def address(node: bytes) -> str:
    return f"{node.hex()}||{node.decode().strip('.')}:1"


class Region:
    """Bytes in the arena: of which object, and how many of them are there."""

    def __init__(self, offset: int, size: int, what: Any, have: int) -> None:
        self.offset = offset
        self.size = size
        self.what = what
        self.have = have


class PullsModel(RuleBasedStateMachine):
    """One node, three processes, two nodes with ten objects, and everything that goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10.0
        self.machine = Machine(NODE, m.OPCODES)
        self.store = Store(self.machine, 8 * GRAIN)
        self.pulls = Pulls(self.machine, self.store, patience=1.0, moves_max=3, pulls_max=12)
        self.pulls.address_of = lambda node: "" if node in self.down else address(node)
        self.regions: dict[int, Region] = {}
        self.asks: set[tuple[bytes, bytes, Place]] = set()
        self.pins: dict[bytes, list[tuple[bytes, int]]] = {}  # process -> id, offset
        self.moves: dict[int, tuple[int, int]] = {}  # transfer -> offset, size
        self.halted: set[int] = set()
        self.serves: dict[int, int | None] = {}  # transfer -> offset that is read
        self.stopped: set[int] = set()  # of those
        self.local: dict[int, int] = {}  # extents of a process here
        self.pages: list[int] = []
        self.numbers = 0
        self.dead: set[bytes] = set()
        self.down: set[bytes] = set()  # nodes
        self.processes: list[bytes] = []
        for _ in range(3):
            self.born()

    def born(self) -> bytes:
        self.numbers += 1
        id = b"p%07d" % self.numbers
        self.machine.peer(id).kind = "worker"
        self.processes.append(id)
        return id

    # -- what the node sends ----------------------------------------------------------------------
    def handle(self, peer: Peer, op: int, *fields: Any) -> None:
        self.machine.handlers[op](peer, self.now, *fields)
        self.settle()

    def settle(self) -> None:
        self.pulls.settle(self.now)
        while self.machine.dirty:
            dirty, self.machine.dirty = self.machine.dirty, []
            for peer in dirty:
                frames, peer.outbox = peer.outbox, []
                for op, *fields in frames:
                    self.sent(peer, op, fields)
            self.pulls.settle(self.now)

    def sent(self, peer: Peer, op: int, fields: list[Any]) -> None:
        if op == m.RESERVE:
            self.pages.append(fields[0])
        elif op == m.MOVE:
            self.on_move(*fields)
        elif op == m.HALT:
            if fields[0]:
                assert fields[1] in self.moves
                self.halted.add(fields[1])
            else:
                self.stopped.add(fields[1])
        elif op == m.SERVING:
            self.on_serving(*fields)
        elif op == m.FETCHED and peer.id not in self.dead:
            self.on_fetched(peer.id, *fields)
        elif op == m.EXTENT_GRANT and fields[2]:
            self.write(fields[1], fields[2], None, fields[2])
            self.local[fields[1]] = fields[2]

    def write(self, offset: int, size: int, what: Any, have: int) -> None:
        """Somebody writes there; nobody may be using what was there."""
        for region in list(self.regions.values()):
            if region.offset < offset + size and offset < region.offset + region.size:
                assert not self.in_use(region.offset), f"overwritten: {region.what}"
                del self.regions[region.offset]
        self.regions[offset] = Region(offset, size, what, have)

    def in_use(self, offset: int) -> bool:
        pinned = any(offset == at for pins in self.pins.values() for _, at in pins)
        moving = any(offset == at for at, _ in self.moves.values())
        return pinned or moving or offset in self.serves.values() or offset in self.local

    def on_move(
        self, transfer: int, source: str, id: bytes, place: Any, skip: int, offset: int,
        direct: bool,
    ) -> None:  # fmt: skip
        holder, at, size, node = place
        what = (id, (holder, at, size, node))
        assert source not in [address(dead) for dead in sorted(self.down)]
        if skip:
            region = self.regions[offset]
            assert (region.what, region.have) == (what, skip), "the bytes that were here are not"
            assert not any(offset == other for other, _ in self.moves.values())
        elif self.regions.get(offset) is None or self.regions[offset].what != what:
            self.write(offset, size, what, 0)
        self.moves[transfer] = (offset, size)

    def on_fetched(self, who: bytes, id: bytes, source: Any, place: Any, reason: str) -> None:
        ask = (who, id, tuple(source))
        assert ask in self.asks, "an answer that nobody waits for"
        self.asks.remove(ask)
        if not place:
            assert reason == "lost" or reason.startswith("ObjectStoreFull: ")
            return
        region = self.regions[place[1]]
        assert place == [NODE, region.offset, source[2], NODE]
        assert region.what == (id, tuple(source))
        assert region.have == region.size, "a part of it was told to be all"
        if (id, region.offset) not in self.pins.setdefault(who, []):
            self.pins[who].append((id, region.offset))

    def on_serving(self, transfer: int, offset: int, size: int, have: int, other: str) -> None:
        assert transfer in self.serves
        if offset >= 0:
            region = self.regions[offset]
            assert region.size == size
            assert have <= region.have
            self.serves[transfer] = offset

    # -- processes --------------------------------------------------------------------------------
    def object(self, number: int) -> tuple[bytes, list[Any]]:
        id = b"%016d" % (number % 5)  # two of them were made twice
        return id, [
            b"maker...",
            number * 16 * GRAIN,
            SIZES[number % 4 if number else 4],
            NODES[number % 2],
        ]

    @rule(who=WHO, number=NAMES, kind=st.integers(0, 1))
    def fetch(self, who: int, number: int, kind: int) -> None:
        process = self.processes[who]
        id, place = self.object(number)
        self.asks.add((process, id, tuple(place)))
        owner = OWNERS[number % 2]
        peer = self.machine.peer(process)
        self.handle(peer, m.FETCH, id, place, owner, address(NODES[0]), kind)

    @rule(who=WHO, which=st.integers(0, 20))
    def unpin(self, who: int, which: int) -> None:
        process = self.processes[who]
        pins = self.pins.get(process)
        if pins:
            _, offset = pins.pop(which % len(pins))
            self.handle(self.machine.peer(process), m.UNPIN, [offset])

    @rule(who=WHO)
    def die(self, who: int) -> None:
        process = self.processes.pop(who)
        self.dead.add(process)
        self.born()
        self.pins.pop(process, None)
        self.asks = {ask for ask in self.asks if ask[0] != process}
        self.pulls.on_death(process)
        self.settle()

    @rule(number=NAMES)
    def free(self, number: int) -> None:
        self.freed(OWNERS[number % 2], [self.object(number)[0]])

    def freed(self, owner: bytes, ids: list[bytes]) -> None:
        """An owner on another node needs its copies here no longer."""
        self.store.free_for(owner, [[id, NODE] for id in ids])
        self.settle()

    @rule(grains=st.integers(1, 4))
    def put(self, grains: int) -> None:
        self.handle(self.machine.peer(b"local..."), m.EXTENT, 1, grains * GRAIN)

    @precondition(lambda self: self.local)
    @rule()
    def put_back(self) -> None:
        offset = next(iter(self.local))
        del self.local[offset], self.regions[offset]
        self.handle(self.machine.peer(b"local..."), m.EXTENT_BACK, offset)

    # -- the mover and the pages ------------------------------------------------------------------
    @precondition(lambda self: self.pages)
    @rule(full=st.sampled_from([False, False, False, True]))
    def reserved(self, full: bool) -> None:
        end = self.pages.pop(0)
        self.handle(self.store.arena, m.RESERVED, end, "no pages" if full else "")

    @precondition(lambda self: self.moves)
    @rule(which=st.integers(0, 5), how=st.sampled_from(["", "", "gone", "broken", "other"]))
    def moved(self, which: int, how: str) -> None:
        transfer = sorted(self.moves)[which % len(self.moves)]
        offset, size = self.moves.pop(transfer)
        region = self.regions[offset]
        if how == "broken":
            region.have += (size - region.have) // 2
        elif not how:
            region.have = size
        other = address(NODES[1]) if how == "other" else ""
        reason = "" if how == "other" else how
        self.handle(self.pulls.mover, m.MOVED, transfer, region.have, reason, other)

    @rule(number=NAMES, node=st.integers(0, 3), direct=st.booleans())
    def serve(self, number: int, node: int, direct: bool) -> None:
        id, place = self.object(number)
        here = [region.what for region in self.regions.values() if region.what]
        if here and number:
            id, place = here[number % len(here)]
        self.numbers += 1
        self.serves[self.numbers] = None
        asker = b"asker%03d" % node
        fields = (self.numbers, id, list(place), asker, address(asker), direct)
        self.handle(self.pulls.mover, m.SERVE, *fields)

    @precondition(lambda self: self.serves)
    @rule(which=st.integers(0, 20), done=st.booleans())
    def served(self, which: int, done: bool) -> None:
        transfer = sorted(self.serves)[which % len(self.serves)]
        del self.serves[transfer]
        self.handle(self.pulls.mover, m.SERVED, transfer, done)

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.3, 1.5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.store.on_timer(self.now)
        self.pulls.on_timer(self.now)
        self.settle()

    @precondition(lambda self: len(self.dead) > 3)
    @rule(which=st.integers(0, 1))
    def node_down(self, which: int) -> None:
        self.down.add(NODES[which])
        self.pulls.on_node_down(NODES[which])
        self.settle()

    # -- what must hold ---------------------------------------------------------------------------
    @invariant()
    def adds_up(self) -> None:
        self.store.check()
        self.pulls.check()
        pins = {
            (who, id, copy.offset)
            for who, copies in self.pulls.copies.pinned.items()
            for copy in copies
            for id in [copy.id]
        }
        assert pins == {(who, id, at) for who, own in self.pins.items() for id, at in own}
        waiting = {(who, pull.key[0]) for pull in self.pulls.pulls.values() for who in pull.askers}
        assert waiting == {(who, id) for who, id, _ in self.asks}
        assert set(self.pulls.moving) == set(self.moves)
        used = {at for own in self.pins.values() for _, at in own}
        used |= {at for at in self.serves.values() if at is not None}
        assert all(self.store.extents.holders.get(at) == NODE for at in sorted(used))
        coming = {pull.copy.offset for pull in self.pulls.pulls.values() if pull.copy}
        for transfer, offset in self.serves.items():
            if offset is not None and self.regions[offset].have < self.regions[offset].size:
                assert offset in coming or transfer in self.stopped, "its bytes never come"

    def teardown(self) -> None:
        """The network heals; everything comes to an end, and nothing is left."""
        for _ in range(200):
            while self.pages:
                self.reserved(False)
            for transfer in sorted(self.serves):
                del self.serves[transfer]
                self.handle(self.pulls.mover, m.SERVED, transfer, True)
            while self.moves:
                self.moved(0, "broken" if min(self.moves) in self.halted else "")
            if not self.asks:
                break
            assert self.pages or self.pulls.deadline() < NEVER, "they wait for ever"
            self.wait(1.5)
        assert not self.asks
        assert not self.pulls.pulls
        for process in self.processes:
            self.unpin_all(process)
        while self.local:
            self.put_back()
        for owner in OWNERS:
            ids = {copy.id for copy in self.pulls.copies.by_key.values() if copy.owner == owner}
            self.freed(owner, sorted(ids))
        self.adds_up()
        while self.store.trimmed or self.pages or self.local:
            self.wait(1.5)
            while self.pages:
                self.reserved(False)
            while self.local:
                self.put_back()
        assert self.store.extents.granted == 0
        assert not self.pulls.copies.by_offset
        assert not self.pulls.servings.chains

    def unpin_all(self, process: bytes) -> None:
        for _, offset in self.pins.pop(process, []):
            self.handle(self.machine.peer(process), m.UNPIN, [offset])


TestPulls = PullsModel.TestCase
TestPulls.settings = effort(150, 60)
