"""Virtual time, links and the trace.

The world is a heap of events ordered by (time, number).  A link delivers each direction's frames in
order, after a random latency; when an end crashes, what it has sent still arrives, and then the end
of the stream, as with a real socket.  A cut link loses what is under way.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.sim.setup import Setup, draw
from freehold.sim.values import Memory, Violation, brief
from freehold.wire.codec import Reader

if TYPE_CHECKING:
    from freehold.sim.hosts import Host

STUCK = 20_000  # events at one moment: time has stopped


class World:
    """Time, chance, memory and the trace of one run."""

    def __init__(self, seed: int, setup: Setup | None = None, show: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.setup = setup or draw(self.rng)
        self.now = 0.0
        self.memory = Memory()
        self.events = 0
        self.frames = 0
        self.faults: dict[str, int] = {}
        self.healed = False
        self.show = show
        self.listeners: dict[str, Host] = {}
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._hash = blake2b(digest_size=16)
        self._at_once = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Call at that time."""
        self._number += 1
        heapq.heappush(self._queue, (max(when, self.now), self._number, call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Call after that many seconds."""
        self.at(self.now + delay, call, *args)

    def step(self) -> bool:
        """The next event; False when there is none."""
        if not self._queue:
            return False
        when, _, call, args = heapq.heappop(self._queue)
        self._at_once = self._at_once + 1 if when == self.now else 0
        if self._at_once > STUCK:
            raise Violation(f"{STUCK} events happened at time {when}: a loop without end")
        self.now = when
        self.events += 1
        call(*args)
        return True

    @property
    def next_time(self) -> float | None:
        """When the next event is, if there is one."""
        return self._queue[0][0] if self._queue else None

    def fault(self, kind: str) -> None:
        """Count an injected fault."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.note(f"fault: {kind}")

    def chance(self, probability: float) -> bool:
        """Whether a fault of that probability happens now."""
        return not self.healed and probability > 0 and self.rng.random() < probability

    def latency(self, most: float = 1.0) -> float:
        """How long a frame takes, at most that long if it is late."""
        setup = self.setup
        if self.chance(setup.spike):
            self.fault("late frame")
            return min(most, self.rng.choice([0.01, 0.1, 0.4]) * self.rng.random())
        return setup.latency * self.rng.expovariate(1.0) + 1e-6

    # -- the trace --------------------------------------------------------------------------------
    def frame(self, source: str, target: str, data: bytes | bytearray) -> None:
        """Record a frame that has arrived."""
        self.frames += 1
        self._hash.update(f"{self.now!r} {source} {target} ".encode())
        self._hash.update(data)
        if self.show:
            for op, *fields in Reader().feed(memoryview(bytes(data))):
                line = f"{source} > {target}: {m.NAMES[op]} {brief(fields)}"
                print(f"{self.now * 1e3:10.3f}  {line}")

    def note(self, text: str) -> None:
        """Record something that is not a frame."""
        self._hash.update(f"{self.now!r} {text}".encode())
        if self.show:
            print(f"{self.now * 1e3:10.3f}  {text}")

    @property
    def trace_hash(self) -> str:
        """The hash of everything recorded so far."""
        return self._hash.hexdigest()


class End:
    """One end of a link."""

    __slots__ = ("arrival", "greeting", "host", "open", "other", "peer", "reader")

    def __init__(self, host: Host, peer: Peer | None) -> None:
        self.host = host
        self.peer = peer
        self.reader = Reader()
        self.open = True
        self.arrival = 0.0  # of the last frame that was sent here
        self.greeting = bytearray()  # to be sent when the other side has said hello
        self.other: End = self

    def send(self, data: bytes | bytearray) -> None:
        """Send a frame to the other end."""
        if self.open:
            self._deliver(self.other.host.on_frame, self.other, data)

    def close(self) -> None:
        """This end is gone; what was sent still arrives."""
        if self.open:
            self.open = False
            self._deliver(self.other.host.on_end, self.other)

    def cut(self) -> None:
        """The link breaks: both ends notice, and what is under way is lost."""
        for end in (self, self.other):
            if end.open:
                end.open = False
                world = end.host.world
                world.after(world.latency(), end.host.on_end, end)

    def shut(self) -> None:
        """This end hears that the link is gone; what it has sent arrives all the same."""
        self.close()
        self.host.on_end(self)

    def _deliver(self, call: Callable[..., None], *args: Any) -> None:
        world = self.host.world
        other = self.other
        late = 0.05 if other.host.kind == "node" else 1.0  # see core.workers.SUSPECT_GRACE
        other.arrival = max(other.arrival + 1e-9, world.now + world.latency(late))
        world.at(other.arrival, call, *args)


def connect(dialler: Host, peer: Peer, acceptor: Host) -> End:
    """A new link; each side says HELLO.

    The handshake makes a process hear the node before the node hears it; so nobody can be granted a
    worker that does not know its node yet.
    """
    ours, theirs = End(dialler, peer), End(acceptor, None)
    ours.other, theirs.other = theirs, ours
    dialler.ends.append(ours)
    acceptor.ends.append(theirs)
    theirs.send(acceptor.hello())
    if acceptor.kind == "node":
        ours.greeting = dialler.hello()
    else:
        ours.send(dialler.hello())
    return ours
