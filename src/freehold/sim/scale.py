"""How far one head goes: the real head, a thousand nodes and their named actors, in virtual time.

Every frame that the head sends is encoded and every frame that it gets is decoded, as its process
would; what that costs in CPU time is what the report tells.  A few nodes have the real membership
(``core.node.members``) and see to it that views are right; the rest only count what they are told.
The disk takes ``DISK`` for each batch, the network ``LATENCY`` for each frame.
"""

from __future__ import annotations

import heapq
import itertools
import resource
from collections.abc import Callable
from functools import partial
from typing import Any

from freehold.core import messages as m
from freehold.core.head.head import Head
from freehold.core.machine import Machine, Peer
from freehold.core.node.members import Members
from freehold.wire.codec import Reader, Repeater, encode

LATENCY = 0.0005  # seconds
DISK = 0.004
JOIN_SECONDS = 2.0  # in which all nodes start
NAMING_SECONDS = 10.0  # in which all actors get their names
WITNESSES = 10  # nodes with the real membership
HEARTBEAT = 0.5
FAILING = 0.1  # of the nodes, at once


class Node:
    """One node: it reports, counts members, and names its actors."""

    def __init__(self, number: int, peer: Peer) -> None:
        self.name = f"node {number}"
        self.id = number.to_bytes(8, "big")
        self.peer = peer  # as the head knows it
        self.members = 0  # how many it has been told of
        self.alive = True
        self.real: Members | None = None

    def take(self, frames: list[Any]) -> int:
        """Count what is told; how many questions were answered."""
        answers = 0
        for op, *fields in frames:
            if op == m.JOINED:
                self.members = len(fields[1])
            elif op == m.NODE_UP:
                self.members += 1
            elif op == m.NODE_DOWN:
                self.members -= 1
            elif op == m.ENTRY:
                assert not fields[1], fields[1]
                answers += 1
        return answers


class Scale:
    """One run.

    Args:
        nodes: how many.
        actors: how many named actors, on all nodes together.
    """

    def __init__(self, nodes: int, actors: int) -> None:
        self.now = 0.0
        self.actors = actors
        self.head = Head(b"the head", entries=[], cluster="scale")
        self.nodes = [Node(n, Peer(n.to_bytes(8, "big"), f"{n}", "node")) for n in range(nodes)]
        self.entries: dict[bytes, bytes] = {}
        self.cpu = 0.0  # seconds that the head has worked
        self.frames_in = self.frames_out = self.bytes_out = 0
        self.answers = 0
        self.repeater = Repeater()
        self.lines: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._timer = -1.0
        self._revision = 0
        self._writing: list[Any] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def until(self, done: Callable[[], bool], seconds: float) -> float:
        """Let time pass until that is so; how long it took."""
        start = self.now
        while not done():
            assert self._events, "nothing happens any more"
            self.now, _, what = heapq.heappop(self._events)
            assert self.now - start < seconds, f"not done after {seconds} s"
            what()
        return self.now - start

    # -- the head ---------------------------------------------------------------------------------
    def work(self, what: Callable[..., None], *args: Any) -> None:
        """The head does something, and sends what it has to say."""
        begun = _cpu()
        what(*args)
        head = self.head
        head.settle(self.now)
        out: list[tuple[Peer, list[Any], int]] = []
        while head.dirty:
            dirty, head.dirty = head.dirty, []
            for peer in dirty:
                frames, peer.outbox = peer.outbox, []
                out.append((peer, frames, len(self.repeater.encode(frames))))
        deadline = head.deadline()
        self.cpu += _cpu() - begun
        for peer, frames, size in out:
            self._sent(peer, frames, size)
        if deadline != self._timer and deadline < 1e9:
            self._timer = deadline
            self.at(max(deadline, self.now), lambda: self._tick(deadline))

    def _tick(self, planned: float) -> None:
        if planned == self._timer:
            self._timer = -1.0
            self.work(self.head.on_timer, self.now)

    def _sent(self, peer: Peer, frames: list[Any], size: int) -> None:
        if peer.kind == "store":
            if not self._writing:
                self.at(self.now + DISK, self._written)
            self._writing += frames
        elif peer.kind == "prober":
            for _, id, _ in frames:
                alive = self.nodes[int.from_bytes(id, "big")].alive
                answer = "alive" if alive else "refused"
                self.at(self.now + LATENCY, partial(self._probed, id, answer))
        else:
            self.frames_out += len(frames)
            self.bytes_out += size
            node = self.nodes[int.from_bytes(peer.id, "big")]
            self.at(self.now + LATENCY, lambda: self._arrive(node, frames))

    def _probed(self, id: bytes, answer: str) -> None:
        self.work(self.head.handlers[m.PROBED], self.head.prober, self.now, id, answer)

    def _written(self) -> None:
        frames, self._writing = self._writing, []
        revisions = []
        for _, request, _, entries in frames:
            self._revision += 1
            revisions.append((request, self._revision))
            for key, value in entries:
                self.entries[key] = value
        self.work(self._stored, revisions)

    def _stored(self, revisions: list[tuple[int, int]]) -> None:
        for request, revision in revisions:
            self.head.handlers[m.STORED](self.head.store, self.now, request, revision)

    # -- nodes ------------------------------------------------------------------------------------
    def _arrive(self, node: Node, frames: list[Any]) -> None:
        if not node.alive:
            return
        self.answers += node.take(frames)
        if node.real is None:
            return
        machine, head = node.real.machine, node.real.head
        for op, *fields in frames:
            if op != m.ENTRY:  # its questions are asked for it
                machine.handlers[op](head, self.now, *fields)
        machine.dirty.clear()
        if head is not None:
            head.outbox.clear()

    def _join(self, number: int) -> None:
        node = self.nodes[number]
        if number < WITNESSES:
            machine = Machine(node.id, m.OPCODES)
            node.real = Members(machine, address=node.name, total={"CPU": 16.0})
            node.real.on_head_up(machine.peer(self.head.id), self.now, self.head.info)
        info = {"total": {"CPU": 16.0, "memory": 64e9}, "labels": {"zone": f"{number % 3}"}}
        self.head.peers[node.id] = node.peer
        self.work(self.head.on_up, node.peer, self.now, info)
        self.at(self.now + HEARTBEAT * (number % 97) / 97, lambda: self._report(node, 0))

    def _report(self, node: Node, turn: int) -> None:
        if node.alive:
            free = {"CPU": float(turn % 16), "memory": 64e9}  # busy: it changes every time
            self._to_head(node, [(m.REPORT, free, turn % 3)])
            self.at(self.now + HEARTBEAT, lambda: self._report(node, turn + 1))

    def _to_head(self, node: Node, frames: list[Any]) -> None:
        data = bytes(encode(frames))
        self.frames_in += len(frames)
        self.at(self.now + LATENCY, lambda: self.work(self._heard, node, data))

    def _heard(self, node: Node, data: bytes) -> None:
        for op, *fields in Reader().feed(memoryview(data)):
            self.head.handlers[op](node.peer, self.now, *fields)

    def _name(self, node: Node, number: int) -> None:
        fields = {"namespace": node.name, "name": f"actor {number}", "value": bytes(40)}
        self._to_head(node, [(m.DIRECTORY, number, "name", fields)])

    def _fail(self, node: Node) -> None:
        node.alive = False
        self.work(self.head.on_down, node.peer, self.now)

    # -- the run ----------------------------------------------------------------------------------
    def run(self) -> list[str]:
        """Start, name, rest, fail; what was measured, as lines for people."""
        count = len(self.nodes)
        before = _memory()
        self.work(self.head.start, self.now)
        for number in range(count):
            self.at(JOIN_SECONDS * number / count, partial(self._join, number))
        self._phase(f"{count:,} nodes join in {JOIN_SECONDS:g} s", lambda: self._agree(count), 60)
        self._rest("at rest, every node reporting a change twice a second")
        for number in range(self.actors):
            node = self.nodes[number % count]
            when = self.now + NAMING_SECONDS * number / max(1, self.actors)
            self.at(when, partial(self._name, node, number))
        named = f"{self.actors:,} actors get names in {NAMING_SECONDS:g} s"
        self._phase(named, lambda: self.answers == self.actors, 120)
        failing = self.nodes[count - int(count * FAILING) :]
        for node in failing:
            self.at(self.now, partial(self._fail, node))
        left = count - len(failing)
        self._phase(f"{len(failing):,} nodes fail at once", lambda: self._agree(left), 60)
        self._check()
        self.lines.append(f"memory of everything simulated: {_memory() - before:,.0f} MiB")
        return self.lines

    def _check(self) -> None:
        """The tables are sound, and the real views are what the head has."""
        self.head.check()
        for node in self.nodes[:WITNESSES]:
            assert node.real is not None
            node.real.check()
            assert set(node.real.view) == set(self.head.nodes)

    def _agree(self, count: int) -> bool:
        """Whether every living node has been told of exactly so many members."""
        if len(self.head.nodes) != count:
            return False
        return all(node.members == count for node in self.nodes if node.alive)

    def _rest(self, what: str) -> None:
        end = self.now + 5.0
        self._phase(what, lambda: self.now >= end, 60)

    def _phase(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        cpu, frames_in, frames_out, size = self.cpu, self.frames_in, self.frames_out, self.bytes_out
        took = self.until(done, seconds)
        self.lines.append(
            f"{what}: over after {took:.3f} s; the head got "
            f"{(self.frames_in - frames_in) / took:,.0f} and sent "
            f"{(self.frames_out - frames_out) / took:,.0f} messages/s, "
            f"{(self.bytes_out - size) / took / 1e6:,.1f} MB/s, "
            f"and worked {self.cpu - cpu:.2f} s of CPU"
        )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
