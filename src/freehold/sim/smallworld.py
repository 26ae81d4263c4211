"""An exhaustive check of a small world: every order of events, within bounds.

The world is a head, a few nodes, a driver and workers: the real machines of ``freehold.core``, with
real frames between them.  What is checked in every state: the machines' own invariants, that
nothing freed is read and every value is whose it should be, that no task runs more often than its
retries allow, and that only errors occur which the scenario allows.  At the end of every run all
programs must have ended, and all tables must be empty.

*Why it can be exhaustive.*  A state is a tuple: for each host the number of its local state, for
each pair of hosts the frames under way, for each node its memory.  A local state is a frozen host
(``smallsites``); what an event does to it is found out once and looked up ever after.

*What can happen next.*  The oldest channel delivers its first frame; or that channel is held up
(a *delay*) and delivers at any later moment; or a process or node dies.  Delays and deaths are
bounded in number: with ``delays=None`` every order of deliveries is explored, with a number only
those that differ from the usual order in so many places (delay-bounded scheduling: Emmi, Qadeer,
Rakamaric, POPL 2011).  Time passes only when nothing else can happen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from freehold.core import messages as m
from freehold.core.machine import NEVER
from freehold.sim.smallprocess import ProcessSite
from freehold.sim.smallsites import (
    HeadSite,
    NodeSite,
    thaw,
)
from freehold.sim.smallstates import (
    Bounds,
    Scenario,
    State,
    Transitions,
    left_in,
)
from freehold.sim.values import Violation, brief
from freehold.wire.codec import Reader

# A reference that was handed on in a frame which its sender's machine took with it into death stays
# registered until the process dies that should have got it (rule 2 of ``core.owner``).
LEAK = re.compile(r": (objects|adopted|extents of nobody|bytes|copies|rows|recipes): ")
RESTED = 10.0  # virtual seconds after which only such leaks can be left
PATIENCE = 30.0  # virtual seconds after everything else in which all must have come to rest


class Report(NamedTuple):
    """What an exploration has seen."""

    scenario: str
    states: int
    transitions: int
    local_states: int
    ends: int
    errors: dict[str, int]
    complete: bool  # within the bounds

    def __str__(self) -> str:
        met = ", ".join(f"{n:,} {kind}" for kind, n in sorted(self.errors.items())) or "none"
        return (
            f"{self.scenario}: {self.states:,} states, {self.transitions:,} transitions, "
            f"{self.local_states:,} local states, {self.ends:,} ends; errors met: {met}"
            + ("" if self.complete else "; not complete")
        )


Trail = tuple[Any, ...]  # (what happened last, the trail before), or ()


class SmallWorld(Transitions):
    """All that can happen in one scenario."""

    def __init__(self, scenario: Scenario, bounds: Bounds) -> None:
        super().__init__(scenario, bounds)
        self.ends = 0
        self.trail: Trail = ()

    # -- what can happen next ---------------------------------------------------------------------
    def choices(self, state: State) -> Iterator[tuple[str, Any]]:
        """What may happen in a state, the usual first."""
        ready = [channel for channel in state.channels if channel not in state.held]
        if not self.ordered:
            for channel in ready:
                yield "deliver", channel
        elif ready:
            yield "deliver", ready[0]
            if state.delays and len(ready) > 1:
                yield "delay", ready[0]
        for channel in sorted(state.held):
            yield "deliver", channel
        if state.deaths and (state.channels or not state.ended):
            for host in self._victims(state):
                yield "kill", host
                if state.hosts[host].node == host:
                    yield "power off", host
        if not state.channels:
            yield "wait", None

    def _victims(self, state: State) -> Iterator[int]:
        victims = self.scenario.victims
        for number, info in enumerate(state.hosts):
            if state.locals[number] < 0 or info.node < 0:
                continue
            kind = "workers" if info.slot > 0 else "nodes" if info.node == number > 1 else ""
            if kind in victims or info.name in victims:
                yield number

    def take(self, state: State, verb: str, what: Any) -> State | None:
        """The state after a choice; None at the end of a run."""
        new = state.copy()
        if verb == "deliver":
            event, *others = new.channels[what]
            if others:
                new.channels[what] = tuple(others)
            else:
                del new.channels[what]
            new.held -= {what}
            self.happen(new, what[1], event)
        elif verb == "delay":
            new.held |= {what}
            new.delays -= 1
        elif verb in ("kill", "power off"):
            new.deaths -= 1
            self.kill(new, what)
            if verb == "power off":
                self.lose(new, what)
        elif self._at_rest(new):
            return None
        else:
            self._wait(new)
        return new

    def _wait(self, state: State) -> None:
        """Time passes until somebody wants to do something."""
        alive = [i for i, local in enumerate(state.locals) if local >= 0]
        deadlines = {i: self.locals[state.locals[i]].deadline for i in alive}
        soonest = min(deadlines.values())
        if soonest == NEVER or (state.ended and soonest > state.ended + PATIENCE):
            raise Violation("it does not come to rest:\n" + "\n".join(self._left(state)))
        state.now = max(state.now, soonest)
        if state.now > 4 * PATIENCE:
            raise Violation("hang:\n" + "\n".join(self._left(state)))
        for number, deadline in deadlines.items():
            if deadline <= state.now and state.locals[number] >= 0:
                self.happen(state, number, ("tick",))

    def _at_rest(self, state: State) -> bool:
        driver = next(i for i, info in enumerate(state.hosts) if info.name == "driver")
        if state.locals[driver] < 0 or not self.locals[state.locals[driver]].over:
            return False
        if not state.ended:
            state.ended = state.now
        lost = state.lossy and state.now > state.ended + RESTED
        busy = any(self.locals[local].is_busy() for local in state.locals if local >= 0)
        if busy and not lost:
            return False
        if any(not (lost and LEAK.search(text)) for text in self._left(state)):
            return False
        self.ends += 1
        return True

    def _left(self, state: State) -> list[str]:
        """What is left in the tables of the living."""
        return left_in([thaw(self.locals[local].blob) for local in state.locals if local >= 0])

    # -- the search -------------------------------------------------------------------------------
    def initial(self) -> State:
        """A driver that is about to start, on nodes that know each other."""
        state = State()
        self._add(state, HeadSite(), -1, 0)
        for number in range(self.scenario.nodes):
            node = NodeSite(f"n{number}", self.scenario.cpus[number])
            self._add(state, node, number + 1, 0)
        while state.channels or state.now < 1.0:
            if not state.channels:
                self._wait(state)
                continue
            after = self.take(state, "deliver", next(iter(state.channels)))
            assert after is not None
            state = after
        driver = ProcessSite("driver", "driver", "n0", 0, self.scenario.library)
        self._add(state, driver, 1, 0)
        state.deaths = self.bounds.deaths
        state.delays = self.bounds.delays or 0
        return state

    def explore(self) -> Report:
        """Visit every state within the bounds.  Raises Violation, or whatever a machine raises."""
        start = self.initial()
        seen = {start.key(self.ordered)}
        stack: list[tuple[State, Trail]] = [(start, ())]
        while stack and len(seen) < self.bounds.states:
            state, trail = stack.pop()
            for choice in self.choices(state):
                self.trail = (choice, state.now, trail)
                new = self.take(state, *choice)
                if new is None:
                    continue
                key = new.key(self.ordered)
                if key not in seen:
                    seen.add(key)
                    stack.append((new, self.trail))
        return Report(
            self.scenario.name, len(seen), self.transitions, len(self.locals), self.ends,
            self.errors, not stack,
        )  # fmt: skip

    def story(self) -> list[str]:
        """How the state was reached in which the search has failed: every event, in order."""
        lines: list[tuple[Any, float]] = []
        trail = self.trail
        while trail:
            choice, now, trail = trail
            lines.append((choice, now))
        state = self.initial()
        told = []
        for (verb, what), now in reversed(lines):
            told.append(f"{now:8.3f}  {self._tell(state, verb, what)}")
            try:
                after = self.take(state, verb, what)
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")
                break
            assert after is not None
            state = after
        return told

    def _tell(self, state: State, verb: str, what: Any) -> str:
        names = {info.address: info.name for info in state.hosts}
        if isinstance(what, int):
            return f"{verb} {state.hosts[what].name}"
        if what is None:
            return verb
        source, host = what
        event = state.channels[what][0]
        text = event[0]
        if event[0] in ("frame", "near"):
            frames = Reader().feed(memoryview(event[2]))
            text = "; ".join(f"{m.NAMES[op]} {brief(fields)}" for op, *fields in frames)
        source = names.get(source.removeprefix("~"), source)
        return f"{verb} {source} > {state.hosts[host].name}: {text}"
