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
(a *delay*) and delivers at any later moment; or a process, a node or the head dies.  Another head
takes the store as soon as what is under way by then has arrived, and the nodes call it.  Delays and
deaths are bounded in number: with ``delays=None`` every order of deliveries is explored, with a
number only those that differ from the usual order in so many places (delay-bounded scheduling:
Emmi, Qadeer, Rakamaric, POPL 2011).  Time passes only when nothing else can happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER
from freehold.sim.smallprocess import ProcessSite
from freehold.sim.smallsites import (
    EVENTS,
    HEAD_ADDRESS,
    WINDOW,
    HeadSite,
    NodeSite,
    Site,
    Untouched,
    freeze,
    thaw,
)
from freehold.sim.smallstate import (
    Bounds,
    Event,
    HostInfo,
    Live,
    Local,
    Report,
    Scenario,
    State,
    left_in,
)
from freehold.sim.values import Violation, brief
from freehold.wire.codec import Reader, encode

PATIENCE = 30.0  # virtual seconds after everything else in which all must have come to rest
Trail = tuple[Any, ...]  # (what happened last, the trail before), or ()


class SmallWorld:
    """All that can happen in one scenario."""

    def __init__(self, scenario: Scenario, bounds: Bounds) -> None:
        self.scenario = scenario
        self.bounds = bounds
        self.ordered = bounds.delays is not None
        self.locals: list[Local] = []
        self.numbers: dict[bytes, int] = {}
        self.lives: list[Live] = []
        self.live_numbers: dict[Live, int] = {}
        self.known: dict[Any, Any] = {}  # (local, now, event[, memory]) -> what it does
        self.transitions = 0
        self.ends = 0
        self.errors: dict[str, int] = {}
        self.trail: Trail = ()

    # -- local states -----------------------------------------------------------------------------
    def intern(self, site: Site) -> int:
        """The number of a host's state."""
        blob = freeze(site)
        number = self.numbers.get(blob)
        if number is None:
            number = self.numbers[blob] = len(self.locals)
            self.locals.append(Local(blob, site))
        return number

    def memory_of(self, live: dict[int, tuple[int, bytes]]) -> int:
        """The number of a memory's content."""
        found = tuple(sorted(live.items()))
        number = self.live_numbers.get(found)
        if number is None:
            number = self.live_numbers[found] = len(self.lives)
            self.lives.append(found)
        return number

    def react(self, local: int, now: float, event: Event, memory: int) -> tuple[int, Any, int]:
        """What an event does to a host: its next state, what comes out, the node's memory."""
        key = (local, now, event)
        known = self.known.get(key)
        if known is None:
            known = self._react(local, now, event, -1)
            self.known[key] = known or "memory"
        if known == "memory" or not known:
            key = (local, now, event, memory)  # type: ignore[assignment]
            known = self.known.get(key)
            if known is None:
                known = self.known[key] = self._react(local, now, event, memory)
        after, out, new = known
        return after, out, memory if new < 0 else new

    def _react(self, local: int, now: float, event: Event, memory: int) -> Any:
        site = thaw(self.locals[local].blob)
        site.now = site.machine.now = now
        WINDOW.open = memory >= 0
        if memory >= 0:
            WINDOW.live = dict(self.lives[memory])
        try:
            if event[0] == "begin":
                site.begin()
            else:
                EVENTS[event[0]](site, *event[1:])
            site.check()
        except Untouched:
            return None
        out, site.out = site.out, []
        after = self.intern(site)
        return after, out, self.memory_of(WINDOW.live) if memory >= 0 else -1

    # -- global transitions -----------------------------------------------------------------------
    def happen(self, state: State, host: int, event: Event) -> None:
        """Let an event happen to a host, and send what comes out."""
        self.transitions += 1
        node = state.hosts[host].node
        memory = state.memory[node] if node >= 0 else 0
        after, out, memory = self.react(state.locals[host], state.now, event, memory)
        state.locals[host] = after
        if node >= 0:
            state.memory[node] = memory
        for verb, *what in out:
            self._route(state, host, verb, what)

    def _route(self, state: State, host: int, verb: str, what: list[Any]) -> None:
        me = state.hosts[host].address
        if verb in ("send", "knock"):
            event = ("knock", me) if verb == "knock" else ("frame", me, what[1])
            self._post(state, host, what[0], event, ("end", what[0]), "")
        elif verb == "hear":
            self._post(state, host, what[0], ("hear", me, what[1]), ("silence", what[0]), "~")
        elif verb == "probe":
            node, address = what
            answer = "alive" if state.at(address) >= 0 else "refused"
            _near(state, host, "prober", (m.PROBED, node, answer))
        elif verb == "spawn":
            self._spawn(state, host, what[0])
        elif verb == "signal":
            for number, info in enumerate(state.hosts):
                if (info.node, info.slot) == (host, what[0]) and state.locals[number] >= 0:
                    self._end(state, number, -9)
        elif verb == "seek":
            if state.at(HEAD_ADDRESS) >= 0:
                state.append(("seek", host), ("seek",))
        elif verb == "exit":
            self._end(state, host, what[0])
        elif verb == "run":
            task, retries = what
            runs = state.runs[task] = state.runs.get(task, 0) + 1
            if runs > retries + 1:
                raise Violation(f"task {brief(task)} starts {runs} times, {retries + 1} allowed")
        else:
            where, name, kind, text = what
            self.errors[kind] = self.errors.get(kind, 0) + 1
            if kind not in self.scenario.allowed:
                raise Violation(f"{where} meets {kind} at {name}: {text}")

    def _post(
        self, state: State, host: int, to: str, event: Event, bounce: Event, lane: str
    ) -> None:
        target = state.at(to)
        if target < 0:
            state.append((lane + to, host), bounce)
        else:
            state.append((lane + state.hosts[host].address, target), event)

    def _add(self, state: State, site: Site, node: int, slot: int) -> int:
        number = len(state.hosts)
        state.hosts = (*state.hosts, HostInfo(site.name, site.address, node, slot))
        state.locals.append(self.intern(site))
        if isinstance(site, NodeSite):
            state.memory[number] = self.memory_of({})
        state.append(("start", number), ("begin",))
        return number

    def _spawn(self, state: State, node: int, slot: int) -> None:
        name = state.hosts[node].name
        count = sum(info.node == node and info.slot > 0 for info in state.hosts)
        worker = ProcessSite("worker", f"{name}.w{count}", name, slot, self.scenario.library)
        _near(state, node, "spawner", (m.SPAWNED, slot, count + 100))
        self._add(state, worker, node, slot)

    # -- deaths -----------------------------------------------------------------------------------
    def _end(self, state: State, host: int, code: int) -> None:
        """A process ends: what it has sent arrives, and then the end of each connection."""
        info = state.hosts[host]
        local = self.locals[state.locals[host]]
        self._fall_silent(state, host)
        if info.slot > 0 and state.locals[info.node] >= 0:
            frame = (m.EXITED, info.slot, code, "", local.started)
            _near(state, info.node, "spawner", frame)

    def _fall_silent(self, state: State, host: int) -> None:
        address = state.hosts[host].address
        links = self.locals[state.locals[host]].links
        state.locals[host] = -1
        for channel in [channel for channel in state.channels if channel[1] == host]:
            state.drop(channel)
        for link in links:
            target = state.at(link)
            if target >= 0:
                state.append((address, target), ("end", address))

    def revive(self, state: State, host: int, life: int, entries: Any) -> None:
        """A head takes the store of one that has died; the nodes hear that there is one."""
        state.locals[host] = self.intern(HeadSite(life, entries))
        self.happen(state, host, ("begin",))
        for number, info in enumerate(state.hosts):
            if info.node == number and state.locals[number] >= 0:
                state.append(("seek", number), ("seek",))

    def kill(self, state: State, host: int) -> None:
        """A worker is killed, the head, or a node with all that runs there."""
        if state.hosts[host].address == HEAD_ADDRESS:
            head = thaw(self.locals[state.locals[host]].blob)
            assert isinstance(head, HeadSite)
            self._fall_silent(state, host)
            state.append(("restart", host), ("revive", head.life + 1, head.entries()))
            return
        if state.hosts[host].node != host:
            self._end(state, host, -9)
            return
        own = [i for i, info in enumerate(state.hosts) if info.node == host]
        own = [i for i in own if state.locals[i] >= 0]
        for number in own:
            self._fall_silent(state, number)
        for number, info in enumerate(state.hosts):
            if info.node == number and state.locals[number] >= 0:
                address = state.hosts[host].address
                state.append(("~" + address, number), ("silence", address))

    def lose(self, state: State, host: int) -> None:
        """What a dead node had sent is lost too: its machine has lost power."""
        gone = {info.address for info in state.hosts if info.node == host}
        for channel, events in list(state.channels.items()):
            if channel[0].removeprefix("~") in gone:
                state.channels[channel] = events[-1:]  # the end of the connection
                if events[-1][0] not in ("end", "silence"):
                    state.drop(channel)

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
            if state.locals[number] < 0:
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
            if event[0] == "revive":
                self.revive(new, what[1], *event[1:])
            else:
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
        if any(self.locals[local].is_busy() for local in state.locals if local >= 0):
            return False
        if self._left(state):
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


def _near(state: State, host: int, kind: str, frame: tuple[Any, ...]) -> None:
    """A near peer of a node says something to it."""
    state.append((kind, host), ("near", kind, bytes(encode([frame]))))
