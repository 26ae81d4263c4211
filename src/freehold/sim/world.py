"""Virtual time, chance and the trace: a heap of events ordered by (time, number)."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from freehold.core import messages as m
from freehold.sim.setup import Setup, draw
from freehold.sim.values import Violation, brief
from freehold.wire.codec import Reader

IN, OUT, BOTH = "in", "out", "both"  # directions in which a place is cut off
STUCK = 20_000  # events at one moment: time has stopped


class World:
    """Time, chance, memory and the trace of one run."""

    def __init__(
        self,
        seed: int,
        setup: Setup | None = None,
        show: bool = False,
        draw: Callable[[random.Random], Setup] = draw,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.setup = setup or draw(self.rng)
        self.now = 0.0
        self.events = 0
        self.frames = 0
        self.faults: dict[str, int] = {}
        self.healed = False
        self.show = show
        self.listeners: dict[str, Any] = {}  # address -> host
        self.islands: dict[str, str] = {}  # places that are cut off: IN, OUT or BOTH
        self.gaps: set[tuple[str, str]] = set()  # what the first sends to the second is held up
        self.paused: dict[str, float] = {}  # places that stand still, and until when
        self.slow: dict[str, float] = {}  # places with slow links -> seconds that a frame takes
        self.dead_nodes = 0
        self.node_ids: dict[str, bytes] = {}  # place -> the node that has been there last
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

    def is_apart(self, spot: str) -> bool:
        """Whether somebody cannot reach that place now."""
        gaps = {end for way in self.gaps for end in way}
        return spot in self.islands or spot in self.paused or spot in gaps

    def parted(self, one: Any, other: Any) -> bool:
        """Whether the network between two hosts is broken, in either direction."""
        if one.spot == other.spot:
            return False
        if self.gaps and not self.gaps.isdisjoint(((one.spot, other.spot), (other.spot, one.spot))):
            return True
        return one.spot in self.islands or other.spot in self.islands

    def holds(self, one: Any, other: Any) -> bool:
        """Whether frames from one host to another are held up."""
        if one.spot == other.spot:
            return False
        if (one.spot, other.spot) in self.gaps:
            return True
        return self.islands.get(one.spot, IN) != IN or self.islands.get(other.spot, OUT) != OUT

    def slowness(self, one: Any, other: Any) -> float:
        """How much longer a frame between two hosts takes."""
        if not self.slow or one.spot == other.spot:
            return 0.0
        return self.slow.get(one.spot, 0.0) + self.slow.get(other.spot, 0.0)

    def coldness(self) -> float:
        """When a connection between two nodes that is made now is up."""
        return self.now if self.healed else self.now + self.setup.cold * self.rng.random()

    def defer(self, spot: str, call: Callable[..., None], *args: Any) -> bool:
        """Whether that place stands still; then the call comes when it goes on."""
        until = self.paused.get(spot, 0.0)
        if until > self.now:
            self.at(until, call, *args)
        return until > self.now

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
