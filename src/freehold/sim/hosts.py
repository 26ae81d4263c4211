"""What hosts have in common: frames to the machine, frames from it, timers.

This mirrors ``freehold.proc.host`` step by step, so that a machine meets here what it meets there:
all frames of one arrival are handled, then the timer, then what was dropped, then ``settle``, then
one flush.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.machine import NEVER, Machine, Peer
from freehold.errors import ProtocolError
from freehold.sim.links import End, connect
from freehold.sim.values import Violation
from freehold.sim.world import World
from freehold.wire.codec import Reader, encode

LOOK = 0.5  # seconds until a node misses another one
LATE_MAX = 50  # a real process would spin meanwhile


class Host:
    """One simulated process."""

    def __init__(self, world: World, machine: Machine, kind: str, name: str, address: str) -> None:
        self.world = world
        self.machine = machine
        self.kind = kind
        self.name = name
        self.address = address
        self.pid = 0
        self.home = b""  # its node's id, once it is known
        self.spot = ""  # the machine on which it runs
        self.info: dict[str, Any] = {}
        self.alive = True
        self.ends: list[End] = []
        self.near: dict[str, Any] = {}  # kind of a near peer -> what takes its frames
        self.next_timer = NEVER
        self.seen: dict[bytes, Any] = {}  # the checkers' memory of this host
        self._planned = NEVER
        self._turns = 0
        self._late = 0  # turns in a row that left a deadline in the past
        if address:
            world.listeners[address] = self

    def __repr__(self) -> str:
        return self.name

    def hello(self, to: bytes = b"") -> bytearray:
        """The first frame on every link; ``to`` is whom it calls, if that is known."""
        info = (
            {**self.info, "node": self.home, "to": to} if to else {**self.info, "node": self.home}
        )
        return encode([(m.HELLO, self.machine.id, self.kind, self.pid, self.address, info)])

    # -- frames in --------------------------------------------------------------------------------
    def on_frame(self, end: End, data: bytes | bytearray) -> None:
        """A frame has arrived."""
        if not self.alive or not end.open:
            return
        world = self.world
        if world.defer(self.spot, self.on_frame, end, data):
            return
        world.frame(end.other.host.name, self.name, data)
        if end.greeting:
            end.greet()
        messages = end.reader.feed(memoryview(bytes(data)))
        if messages[0][0] == m.HELLO:
            try:
                self._on_hello(end, messages.pop(0))
            except ProtocolError:  # not the one who was called
                end.shut()
                return
        assert end.peer is not None
        self.machine.now = world.now
        for message in self.machine.in_bulk(end.peer, world.now, messages):
            self.machine.handlers[message[0]](end.peer, world.now, *message[1:])
        self.finish()

    def _on_hello(self, end: End, hello: list[Any]) -> None:
        peer = self.machine.meet(end.peer, hello)
        end.peer = peer
        if peer.port is None:
            peer.port = end
        self.machine.on_up(peer, self.world.now, hello[-1])

    def on_near(self, peer: Peer, data: bytes | bytearray) -> None:
        """A near thing has answered."""
        if not self.alive or self.world.defer(self.spot, self.on_near, peer, data):
            return
        self.world.frame(peer.kind, self.name, data)
        self.machine.now = self.world.now
        for message in Reader().feed(memoryview(bytes(data))):
            self.machine.handlers[message[0]](peer, self.world.now, *message[1:])
        self.finish()

    def on_end(self, end: End) -> None:
        """The other side is gone."""
        if not self.alive or end not in self.ends:
            return
        if self.world.defer(self.spot, self.on_end, end):
            return
        self.world.note(f"{self.name}: the link to {end.other.host.name} ends")
        self.ends.remove(end)
        end.open = False
        peer = end.peer
        if peer is not None:
            if peer.port is end:
                peer.port = None
            if not end.lasting or peer.kind == "node":  # of the others their nodes will tell
                self.machine.on_down(peer, self.world.now)
        self.finish()

    # -- frames out -------------------------------------------------------------------------------
    def flush(self) -> None:
        """Send what the machine has written."""
        machine = self.machine
        while machine.dirty and self.alive:
            dirty, machine.dirty = machine.dirty, []
            for peer in dirty:
                if not self._send(peer):
                    return

    def _send(self, peer: Peer) -> bool:
        """Send one peer's outbox; False if this process crashes before it does."""
        box = peer.outbox
        if not box:
            return True
        if peer.kind in self.near:
            peer.outbox = []
            self.near[peer.kind](encode(box))
            return True
        if peer.port is None:
            target = self.world.listeners.get(peer.address)
            if peer.down or not peer.address:
                box.clear()
                return True
            if target is None or not target.alive or (peer.id and target.machine.id != peer.id):
                here = node_of(peer.address) in (b"", self.home)
                if peer.kind in ("node", "head") or here:
                    self.machine.on_down(peer, self.world.now)
                box.clear()
                return True
            peer.port = connect(self, peer, target)
            if self.kind == peer.kind == "node" and self.world.parted(self, target):
                self.world.after(LOOK, self.troubled, peer)
        if self.kind == "worker" and self.world.chance(self.world.setup.crash_in_flush):
            self.world.fault("crash between two sends")
            self.crash(-9)
            return False
        peer.outbox = []
        peer.port.send(encode(box))
        return True

    def troubled(self, peer: Peer) -> None:
        """Another node has not been heard of for a while."""
        if self.alive and not peer.down:
            self.machine.on_down(peer, self.world.now)
            self.finish()

    # -- the loop ---------------------------------------------------------------------------------
    def finish(self) -> None:
        """Every frame of this arrival is handled: timers, drops, settling, sending."""
        if not self.alive:
            return
        machine, now = self.machine, self.world.now
        machine.now = now
        if now >= self.next_timer:
            machine.on_timer(now)
        self.drain()
        machine.settle(now)
        self.next_timer = machine.deadline()
        self._late = self._late + 1 if self.next_timer <= now else 0
        if self._late > LATE_MAX:
            raise Violation(f"{self}: its timer does not meet its deadline, {self.next_timer}")
        self.flush()
        self.after()
        self._look()
        self.plan(self.next_timer)

    def _look(self) -> None:
        self._turns += 1
        if self.alive and self._turns % self.world.setup.check_every == 0:
            self.check()

    def plan(self, when: float) -> None:
        """See that ``on_tick`` is called by then."""
        if self.alive and when < self._planned:
            self._planned = max(when, self.world.now + 1e-6)
            self.world.at(self._planned, self._tick, self._planned)

    def _tick(self, planned: float) -> None:
        if planned == self._planned and not self.world.defer(self.spot, self._tick, planned):
            self._planned = NEVER
            if self.alive:
                self.finish()

    def drain(self) -> None:
        """Process handles that user code has dropped."""

    def after(self) -> None:
        """Go on with what waits for this batch."""

    def check(self) -> None:
        """Assert the machine's invariants."""
        self.machine.check()

    # -- the end ----------------------------------------------------------------------------------
    def crash(self, code: int) -> None:
        """The process ends now; what it has sent arrives, what it has not is lost."""
        if not self.alive:
            return
        self.alive = False
        self.world.note(f"{self.name} ends with {code}")
        for end in self.ends:
            end.close()
        self.ends.clear()


class Near:
    """A near peer of a host: takes frames, answers in order after a while."""

    def __init__(self, host: Host, peer: Peer) -> None:
        self.host = host
        self.world = host.world
        self.peer = peer
        self._asked = self._arrival = 0.0  # when the last message gets here, and the last answer
        host.near[peer.kind] = self.take

    def take(self, data: bytearray) -> None:
        """Frames from the machine."""
        self.world.frame(self.host.name, self.peer.kind, data)
        for op, *fields in Reader().feed(memoryview(data)):
            self._asked = max(self._asked + 1e-9, self.world.now + self.world.latency())
            self.world.at(self._asked, self._on_message, op, fields)

    def _on_message(self, op: int, fields: list[Any]) -> None:
        if not self.world.defer(self.host.spot, self._on_message, op, fields):
            self.on_message(op, fields)

    def on_message(self, op: int, fields: list[Any]) -> None:
        """One message."""

    def answer(self, *frame: Any) -> None:
        """Send a message back."""
        self._arrival = max(self._arrival + 1e-9, self.world.now + self.world.latency())
        self.world.at(self._arrival, self.host.on_near, self.peer, encode([frame]))
