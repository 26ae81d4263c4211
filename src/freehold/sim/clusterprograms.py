"""Seeded user programs of a cluster: those of ``sim.programs``, with what only clusters offer.

Resources of placement groups are held while others are waited for, so programs could deadlock by
themselves.  Therefore groups are of a resource that nothing else needs, what runs in one is risky,
nobody who has a group waits for a risky reference without a limit, and a program ends its groups
before its last look at what it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core.ids import is_detached
from freehold.core.process.rows import CONSTRUCTOR, FUNCTION_TASK
from freehold.sim import detached, programs
from freehold.sim.clusterenv import ClusterEnv
from freehold.sim.handles import Ref
from freehold.sim.process import Execution, ProcessHost, Program
from freehold.sim.programs import PADDINGS, Author, Step

NAMES = ("ann", "bob", "cat")
STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
GROUPS_MAX = 2


class ClusterAuthor(Author):
    """The steps of one program in a cluster."""

    env: ClusterEnv
    api = ClusterEnv

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.groups: list[tuple[bytes, int]] = []  # id, number of bundles

    def open(self) -> Step:
        yield from self.env.begin_job()

    def choices(self) -> list[tuple[Callable[[], Step], int]]:
        found = super().choices()
        if self.depth > 0:
            found += [(self.name_actor, 1), (self.find_actor, 2), (self.put_kept, 2)]
            if len(self.groups) < GROUPS_MAX:
                found.append((self.make_group, 1))
        if self.env.world.setup.detached and self.depth > 1:
            found.append((self.detach, 2))
        if self.env.ledger.detached and self.env.execution.run is None:
            found.append((self.find_detached, 2))
        if self.groups and self.depth > 0:
            found += [(self.submit_in_group, 4), (self.await_group, 2), (self.remove_group, 1)]
        return found

    def limit(self, ref: Ref) -> float:
        return 0.02 if ref.risky and self.groups else super().limit(ref)

    def kill(self) -> Step:
        actors = [actor for actor in self.env.actors if not actor.risky]  # others may wait for it
        if actors:
            actor = self.rng.choice(actors)
            if is_detached(actor.row.id):
                yield from detached.end(self.env, actor)
            else:
                yield from self.env.kill(actor)

    def name_actor(self) -> Step:
        rng = self.rng
        wire = {"constructor": True, "max_restarts": rng.choice([0, 1, 3])}
        spec = self.env.spec(CONSTRUCTOR, 1, 0.0, 0, wire)
        args = (rng.choice(NAMES), spec, rng.choice(PADDINGS), self.some(1))
        self.env.actors.append((yield from self.env.name_actor(*args)))

    def find_actor(self) -> Step:
        found = yield from self.env.find_actor(self.rng.choice(NAMES))
        if found is not None:
            self.env.actors.append(found)

    def put_kept(self) -> Step:
        self.env.refs.append((yield from self.env.put_kept(2000, self.some(1))))

    def detach(self) -> Step:
        plain = [ref for ref in self.env.refs if not ref.risky]
        deps = self.rng.sample(plain, min(self.rng.choice([0, 0, 1]), len(plain)))
        padding = self.rng.choice(PADDINGS)
        made = yield from detached.make(self.env, self.rng, padding, self.some(1), deps)
        if made is not None:
            self.env.actors.append(made)

    def find_detached(self) -> Step:
        name = self.rng.choice(sorted(self.env.ledger.detached))
        found = yield from detached.find(self.env, name)
        if found is not None:
            self.env.actors.append(found)

    # -- groups -----------------------------------------------------------------------------------
    def make_group(self) -> Step:
        count = self.rng.choice([1, 1, 2, 3])
        amount = self.rng.choice([0.5, 1.0, 2.0])
        group = yield from self.env.make_group(
            [{"gpu": amount}] * count, self.rng.choice(STRATEGIES)
        )
        self.groups.append((group, count))

    def submit_in_group(self) -> Step:
        rng = self.rng
        group, count = rng.choice(self.groups)
        demand = self.env.demand(group, {"gpu": 0.5}, rng.randrange(-1, count))
        if rng.random() < 0.2:
            wire = {"constructor": True, "max_restarts": rng.choice([0, 3])}
            spec = self.env.spec(CONSTRUCTOR, 1, 0.0, 0, wire, (), demand)
        else:
            spec = self.env.spec(FUNCTION_TASK, 1, 0.0, rng.choice([0, 3]), {}, (), demand)
        made = yield from self.env.submit(spec, [0], rng.choice(PADDINGS), (), self.some(1))
        for ref in made:
            ref.risky = True
        (self.env.actors if spec.kind == CONSTRUCTOR else self.env.refs).extend(made)

    def await_group(self) -> Step:
        yield from self.env.group_placed(self.rng.choice(self.groups)[0], self.rng.choice([0.1, 1]))

    def remove_group(self) -> Step:
        group, _ = self.groups.pop(self.rng.randrange(len(self.groups)))
        yield from self.env.remove_group(group)

    def close(self) -> Step:
        while self.groups:
            yield from self.env.remove_group(self.groups.pop()[0])


def driver(host: ProcessHost, execution: Execution) -> Program:
    """The driver's program: its job begins before it."""
    return programs.driver(host, execution, ClusterAuthor)


def task(host: ProcessHost, execution: Execution) -> Program:
    """Any task, constructor or method."""
    return programs.task(host, execution, ClusterAuthor)
