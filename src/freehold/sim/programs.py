"""Seeded user programs: what the driver, tasks and actors' methods do.

A program is a function of the run's seed and of its own task id, so that a task that is run again
does the same as far as the outcomes of what it waits for allow.  It mixes everything that the API
offers.

Programs must not deadlock by themselves, so some references are *risky*: those that an earlier
run has kept (one may be the result of the very run that finds it) and results of calls that a
task or method makes (the actor may be waiting for that task).  Nobody waits for such a reference
without a time limit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

from freehold.core.process.executor import Output
from freehold.core.process.rows import CONSTRUCTOR, FUNCTION_TASK, METHOD
from freehold.sim.env import Env
from freehold.sim.handles import Ref
from freehold.sim.ledger import Failure
from freehold.sim.process import Execution, ProcessHost, Program, Wait
from freehold.sim.values import Value, dump

Step = Generator[Wait, None, None]
PADDINGS = (0, 0, 30, 300, 2000)
KEPT_MAX = 6


class Author:
    """The steps of one program."""

    api: type[Env] = Env

    def __init__(self, env: Env, rng: random.Random, depth: int) -> None:
        self.env = env
        self.rng = rng
        self.depth = depth
        self.infants = 0

    def run(self, steps: int) -> Step:
        """Do that many things."""
        for _ in range(steps):
            weights = self.choices()
            action = self.rng.choices([a for a, _ in weights], [w for _, w in weights])[0]
            try:
                yield from action()
            except Failure:
                pass

    def choices(self) -> list[tuple[Callable[[], Step], int]]:
        """What can be done now, with its weight."""
        found: list[tuple[Callable[[], Step], int]] = [(self.put, 4), (self.compute, 3)]
        if self.depth > 0 and self.env.refs and self.env.world.setup.storm:
            found.append((self.storm, 2))
        if self.depth > 0:
            found += [(self.submit, 12), (self.burst, 2), (self.make_actor, 2)]
        if self.env.refs:
            found += [(self.get, 6), (self.wait, 2), (self.drop, 4), (self.get_list, 2)]
        if self.env.actors:
            found += [(self.call, 8), (self.drop_actor, 1), (self.kill, 1)]
        if self.env.host.kept:
            found.append((self.use_kept, 3))
        return found

    # -- steps ------------------------------------------------------------------------------------
    def some(self, most: int) -> list[Ref]:
        """Some of the program's references, actors' handles among them."""
        pool = self.env.refs + self.env.actors
        return self.rng.sample(pool, min(self.rng.randint(0, most), len(pool)))

    def put(self) -> Step:
        ref = yield from self.env.put(self.rng.choice(PADDINGS), self.some(2))
        self.env.refs.append(ref)

    def compute(self) -> Step:
        yield from self.env.compute(self.env.world.setup.busy)

    def submit(self) -> Step:
        rng = self.rng
        outputs = rng.choice([0, 1, 1, 1, 1, 2])
        cpus = rng.choice([1.0, 1.0, 1.0, 0.5, 0.0])
        if rng.random() < 0.02:
            cpus = 99.0
            self.env.ledger.greedy += 1
        wire: dict[str, Any] = {"retry": True} if rng.random() < 0.1 else {}
        retries = rng.choice([0, 1, 3])
        spec = self.env.spec(FUNCTION_TASK, outputs, cpus, retries, wire, self.strategy())
        plain = [ref for ref in self.env.refs if not ref.risky]
        deps = rng.sample(plain, min(rng.choice([0, 0, 1, 2]), len(plain)))
        nested = self.some(2) if rng.random() < 0.5 else []
        meta = [self.depth - 1]
        refs = yield from self.env.submit(spec, meta, rng.choice(PADDINGS), deps, nested)
        self.env.refs += refs

    def strategy(self) -> tuple[Any, ...]:
        """Where a task may run."""
        nodes = self.env.world.setup.nodes
        kind = self.rng.random()
        if nodes == 1 or kind < 0.7:
            return ()
        if kind < 0.8:
            return ("spread",)
        spot = self.rng.randrange(nodes)
        node = self.env.world.node_ids.get(f"m{spot}", b"")
        if kind < 0.9 and node:
            return ("node", node, True)
        self.env.ledger.greedy += 1  # that node may die
        return ("node", node, False) if node else ("labels", (("zone", str(spot % 2)),))

    def storm(self) -> Step:
        """One reference goes to many processes at once: as it is, inside, and inside of that."""
        inner = self.rng.choice(self.env.refs)
        outer = yield from self.env.put(0, [inner])
        self.env.refs.append(outer)
        outermost = yield from self.env.put(2000, [outer])
        self.env.refs.append(outermost)
        spec = self.env.spec(FUNCTION_TASK, 1, 0.5, self.rng.choice([0, 3]), {}, ("spread",))
        for _ in range(self.rng.choice([3, 8])):
            nested = [self.rng.choice([inner, outer, outermost]), outermost]
            self.env.refs += yield from self.env.submit(spec, [0], 0, (), nested)

    def burst(self) -> Step:
        spec = self.env.spec(FUNCTION_TASK, 1, 1.0, self.rng.choice([0, 3]), {})
        for _ in range(self.rng.choice([3, 10, 30])):
            self.env.refs += yield from self.env.submit(spec, [0], 0)

    def make_actor(self) -> Step:
        rng = self.rng
        wire: dict[str, Any] = {"constructor": True}
        if rng.random() < 0.3:
            wire["max_concurrency"] = 3
        if self.env.world.setup.nodes > 1:
            wire["max_restarts"] = rng.choice([0, 0, 1, 3])
        spec = self.env.spec(CONSTRUCTOR, 1, 0.0, 0, wire)
        self.env.actors += yield from self.env.submit(
            spec, [0], rng.choice(PADDINGS), (), self.some(1)
        )

    def call(self) -> Step:
        rng = self.rng
        outputs = rng.choice([0, 1, 1, 1, 2])
        actor = rng.choice(self.env.actors)
        retries = rng.choice([0, 0, 2]) if actor.actor > 1 else 0
        spec = self.env.spec(METHOD, outputs, 0.0, retries, {})
        plain = [ref for ref in self.env.refs if not ref.risky]
        deps = rng.sample(plain, min(rng.choice([0, 0, 0, 1]), len(plain)))
        nested = self.some(2) if rng.random() < 0.4 else []
        for _ in range(rng.choice([1, 1, 1, 5])):
            refs = yield from self.env.submit(
                spec, [min(self.depth - 1, 1)], rng.choice(PADDINGS), deps, nested, actor
            )
            for ref in refs:
                ref.risky = self.env.execution.run is not None or actor.risky
            self.env.refs += refs

    def get(self) -> Step:
        ref = self.rng.choice(self.env.refs)
        timeout = min(self.rng.choice([0.0, 0.001, 0.02, 1e9, 1e9]), self.limit(ref))
        found = yield from self.env.get(ref, timeout, self.rng.random() < 0.2)
        if found is not None:
            self.take(found[1])

    def limit(self, ref: Ref) -> float:
        """How long it may be waited for, in seconds."""
        return 0.02 if ref.risky and self.env.execution.run is not None else 1e9

    def get_list(self) -> Step:
        for ref in list(self.env.refs):
            try:
                found = yield from self.env.get(ref, self.limit(ref))
            except Failure:
                continue
            if found is not None:
                self.take(found[1])

    def take(self, refs: list[Ref]) -> None:
        """References that a value has brought."""
        for ref in refs:
            (self.env.actors if ref.actor else self.env.refs).append(ref)

    def wait(self) -> Step:
        refs = self.rng.sample(self.env.refs, self.rng.randint(1, len(self.env.refs)))
        yield from self.env.wait(refs, self.rng.randint(1, len(refs)), self.rng.choice([0.01, 1.0]))

    def drop(self) -> Step:
        for _ in range(self.rng.randint(1, 3)):
            if self.env.refs:
                self.env.drop(self.env.refs.pop(self.rng.randrange(len(self.env.refs))))
        yield from ()

    def drop_actor(self) -> Step:
        self.env.drop(self.env.actors.pop(self.rng.randrange(len(self.env.actors))))
        yield from ()

    def kill(self) -> Step:
        yield from self.env.kill(self.rng.choice(self.env.actors))

    def use_kept(self) -> Step:
        """A reference that an earlier run has stored is used again, or forgotten."""
        kept = self.env.host.kept
        ref = kept.pop(self.rng.randrange(len(kept)))
        ref.risky = True
        self.take([ref])
        yield from ()

    def keep(self) -> None:
        """Store some references beyond the end of the run."""
        kept = self.env.host.kept
        for pool in (self.env.refs, self.env.actors):
            while pool and len(kept) < KEPT_MAX and self.rng.random() < 0.3:
                kept.append(pool.pop(self.rng.randrange(len(pool))))

    def open(self) -> Step:
        """Before the first step of a driver's program."""
        yield from ()

    def close(self) -> Step:
        """End what must not outlast the program."""
        yield from ()


def driver(host: ProcessHost, execution: Execution, kind: type[Author] = Author) -> Program:
    """The driver's program, and what a user does at the end of it: wait for everything, let go."""
    env = kind.api(host, execution)
    yield Wait(lambda: host.owner.node is not None)
    author = kind(env, random.Random(f"{host.world.seed} {host.name}"), host.world.setup.depth + 1)
    yield from author.open()
    yield from author.run(host.world.setup.steps)
    try:
        yield from author.close()
    except Failure:
        pass
    yield from env.wait(env.actors, len(env.actors), 1e9)
    yield from author.get_list()
    env.let_go()


def task(host: ProcessHost, execution: Execution, kind: type[Author] = Author) -> Program:
    """Any task, constructor or method."""
    env = kind.api(host, execution)
    run = execution.run
    assert run is not None
    value, refs = env.arguments()
    submission, retries, depth = value.meta
    tries = env.ledger.started(submission, run.id)
    if host.is_actor and run.kind != CONSTRUCTOR:
        env.ledger.takes_turn(host.machine.id, run.peer.id, run.id)
    rng = random.Random(f"{host.world.seed} {run.id.hex()}")
    author = kind(env, rng, depth)
    author.take(refs)
    steps = rng.choice([0, 0, 1, 2, 5]) if depth > 0 else rng.choice([0, 0, 0, 1, 2])
    yield from author.run(steps)
    try:
        yield from author.close()
    except Failure:
        pass
    raises = rng.random() < (0.08 if run.kind != CONSTRUCTOR else 0.04)
    if rng.random() < 0.3 or (run.kind == METHOD and rng.random() < 0.3):
        author.keep()
    retry = bool(run.options.get("retry"))
    if raises and (not retry or tries <= retries):
        return _raise(env, retry)
    inside = author.some(2)
    outputs: list[Output] = []
    try:
        outputs = yield from env.results(rng.choice(PADDINGS), inside)
    except Failure as failure:
        env.let_go()
        return host.failure(run, failure.data, False)
    env.let_go()
    return outputs


def _raise(env: Env, retry: bool) -> list[Output]:
    run = env.execution.run
    assert run is not None
    data = dump(Value(run.id, ["it raised"], [], 0))
    env.ledger.raised[data] = 1
    env.let_go()
    return env.host.failure(run, data, retry)
