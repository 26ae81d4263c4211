"""Borrowing against a plain list of who holds what, with tasks, kept references and deaths.

A driver and three workers submit tasks to one another, with references on top and inside; workers
keep some of what they are given and return some of what they hold; every wire delivers in its own
time; now and then a worker dies.  The model knows nothing of tickets: only handles, and which value
contains which.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from freehold.core.messages import FAILED, INLINE, PENDING
from freehold.core.process.executor import Run
from freehold.core.process.leases import Limits
from freehold.core.process.process import Process
from freehold.core.process.rows import Row
from freehold.sim.bench import function
from stateful import effort
from wires import Wires

LIMITS = Limits(depth_max=4, ahead=1.0, stall=0.1, idle=0.2)
WORKERS_MAX = 6  # in one example, with those that replace the dead
Fields = tuple[bytes, bytes, str]


class Borrowing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.wires = Wires(3.0, LIMITS)
        self.held: dict[str, list[Row]] = {"driver": []}  # user code's handles, each on its own
        self.running: dict[str, tuple[Run, list[Row]]] = {}
        self.args: dict[bytes, list[Fields]] = {}  # task -> references inside its arguments
        self.inside: dict[bytes, list[Fields]] = {}  # value -> references inside
        self.values = 0
        self.deaths = 0

    @initialize()
    def workers_come(self) -> None:
        self.wires.node.workers.prestart = 3
        self.wires.node.start(0.0)
        for _ in range(3):
            self.new_worker()
        self.wires.deliver()

    # -- helpers ----------------------------------------------------------------------------------
    def new_worker(self) -> None:
        name = f"w{len(self.held)}"
        self.wires.worker(name)
        self.held[name] = []

    def process(self, who: str) -> Process:
        return self.wires.desks[who].process

    def alive(self) -> list[str]:
        return [who for who in self.held if self.wires.desks[who].alive]

    def someone(self, data: st.DataObject, names: list[str]) -> str:
        return data.draw(st.sampled_from(names))

    def some_of(self, data: st.DataObject, rows: list[Row]) -> list[Row]:
        if not rows:
            return []
        picked = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=2))
        return list({rows[at].id: rows[at] for at in picked}.values())

    def fields(self, who: str, row: Row) -> Fields:
        if row.owner is None:
            return row.id, self.process(who).id, who
        return row.id, row.owner.id, row.owner.address

    def value(self, who: str, rows: list[Row]) -> bytes:
        self.values += 1
        token = b"value %d" % self.values
        self.inside[token] = [self.fields(who, row) for row in rows]
        return token

    def load(self, who: str, fields: list[Fields]) -> list[Row]:
        return [self.process(who).owner.hold(*each) for each in fields]

    def bury(self) -> None:
        for who in self.held:
            if not self.wires.desks[who].alive:
                self.held[who] = []
                self.running.pop(who, None)

    # -- what user code does ----------------------------------------------------------------------
    @rule(data=st.data())
    def put(self, data: st.DataObject, who: str = "") -> None:
        who = who or self.someone(data, self.alive())
        complete = [row for row in self.held[who] if self.complete(row.id)]
        rows = self.some_of(data, complete) if data.draw(st.booleans()) else []
        id = self.wires.desks[who].context.next_id()
        row = self.process(who).owner.put(id, INLINE, self.value(who, rows), rows)
        row.handles += 1
        self.held[who].append(row)
        self.wires.settle()

    @rule(data=st.data(), retries=st.sampled_from([0, 2, -1]), how=st.integers(0, 3))
    def submit(self, data: st.DataObject, retries: int, how: int) -> None:
        who = self.someone(data, self.alive())
        if not self.held[who]:
            self.put(data, who)
        nested = self.some_of(data, self.held[who]) if how else []
        deps = self.some_of(data, self.held[who]) if how == 1 else []
        id = self.wires.desks[who].context.next_id()
        self.args[id] = [self.fields(who, row) for row in nested]
        spec = function("f", retries=retries)
        spec.pace = 0.0001
        (row,) = self.process(who).client.submit_full(
            spec, id, b"", self.wires.now, deps=list(enumerate(deps)), nested=nested
        )
        self.held[who].append(row)
        self.wires.settle()

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        who = self.someone(data, [who for who in self.held if self.held[who]])
        at = data.draw(st.integers(0, len(self.held[who]) - 1))
        self.process(who).owner.drop(self.held[who].pop(at))
        self.wires.settle()

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Ask for a value; if it is there, load it, and so hold what is inside."""
        who = self.someone(data, [who for who in self.held if self.held[who]])
        row = data.draw(st.sampled_from(self.held[who]))
        if row.state == INLINE:
            self.held[who] += self.load(who, self.inside[row.data])
        else:
            self.process(who).owner.want(row)
        self.wires.settle()

    def could_start(self) -> list[str]:
        ready = [who for who in self.alive() if self.process(who).executor.queue]
        return [who for who in ready if who not in self.running]

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        if not self.could_start() and not self.running:
            self.everything_arrives()
        if self.could_start():
            self.begin(self.someone(data, self.could_start()))

    def begin(self, who: str) -> None:
        run = self.process(who).executor.next()
        assert run is not None
        rows = self.load(who, self.args[run.id])
        for _, _, _, token in run.full.deps if run.full is not None else ():
            rows += self.load(who, self.inside[token])
        run.refs = list(rows)
        self.running[who] = (run, rows)

    @rule(data=st.data(), raises=st.sampled_from([False] * 5 + [True]))
    def finish(self, data: st.DataObject, raises: bool) -> None:
        """Return references and keep some of those that came with the arguments."""
        if not self.running:
            self.start(data)
        if not self.running:
            return
        who = self.someone(data, list(self.running))
        _, rows = self.running[who]
        complete = [row for row in self.held[who] + rows if self.complete(row.id)]
        inside = [] if raises or data.draw(st.booleans()) else self.some_of(data, complete)
        kept = [row for row in rows if data.draw(st.integers(0, 3))]
        self.end(who, inside, kept, raises)

    def complete(self, id: bytes) -> bool:
        """Whether the value is known, and all inside it: a cycle of references is never freed."""
        for who in self.alive():
            row = self.process(who).owner.rows.get(id)
            if row is not None and row.state != PENDING:
                inner = self.inside[row.data] if row.state == INLINE else []
                return all(self.complete(each) for each, _, _ in inner)
        return False

    def end(self, who: str, inside: list[Row], kept: list[Row], raises: bool = False) -> None:
        run, rows = self.running.pop(who)
        process = self.process(who)
        token = self.value(who, inside)
        for row in inside:
            row.handles += 1
        remaining = list(kept)
        for row in rows:
            if row in remaining:
                remaining.remove(row)
                self.held[who].append(row)
            else:
                process.owner.drop(row)
        output = (FAILED, ["TaskError", "it raised"], []) if raises else (INLINE, token, inside)
        process.executor.finish(run, [output])
        for row in inside:
            process.owner.drop(row)
        self.wires.settle()

    # -- what the world does ----------------------------------------------------------------------
    @precondition(lambda self: self.wires.busy())
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.wires.step(*data.draw(st.sampled_from(self.wires.busy())))
        self.bury()

    @rule()
    def everything_arrives(self) -> None:
        self.wires.deliver()
        self.bury()

    @precondition(lambda self: not self.wires.busy())
    @rule(seconds=st.sampled_from([0.01, 0.3]))
    def tick(self, seconds: float) -> None:
        self.wires.tick(seconds)

    @precondition(lambda self: self.deaths < 2 and len(self.wires.lines) > 20 * self.deaths + 15)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A worker dies; what it had sent to others arrives before the news of its death."""
        self.deaths += 1
        who = self.someone(data, [who for who in self.alive() if who != "driver"] or ["driver"])
        if who == "driver":
            return
        for target in self.held:
            if self.wires.desks[target].alive:
                self.wires.deliver(who, target)
        self.wires.kill(who)
        self.bury()

    @precondition(lambda self: len(self.held) < WORKERS_MAX and self.starting())
    @rule()
    def spawn(self) -> None:
        self.new_worker()

    def starting(self) -> bool:
        return any(worker.peer is None for worker in self.wires.node.workers.workers.values())

    # -- what must hold ---------------------------------------------------------------------------
    @invariant()
    def nothing_is_freed_while_it_is_held(self) -> None:
        for who in self.alive():
            rows = self.process(who).owner.rows
            for row in self.held[who]:
                assert rows.get(row.id) is row, f"{who} lost {row!r}"
                assert row.state != FAILED or row.data[0] != "ObjectFreed", f"{who}: {row!r}"
                if row.owner is not None and row.state == PENDING:
                    owner = self.wires.desks[self.wires.names[row.owner.id]]
                    if owner.alive and owner.name != "node":
                        assert row.id in owner.process.owner.rows, f"{owner.name} freed {row!r}"
            self.process(who).check()

    def quiet(self) -> None:
        """Everything arrives, every task runs, until nothing is left to do."""
        idle = 0
        while idle < 4:
            idle += 1
            self.wires.deliver()
            self.bury()
            if self.starting():
                self.new_worker()
                idle = 0
            for who in self.alive():
                if who not in self.running and self.process(who).executor.queue:
                    self.begin(who)
                if who in self.running:
                    self.end(who, [], [])
                    idle = 0
            self.wires.tick(0.3)

    def reachable(self) -> dict[str, set[bytes]]:
        """Which row must be in whose table, from handles and containment alone."""
        found = {who: {row.id for row in self.held[who]} for who in self.alive()}
        ids = {self.process(who).id: who for who in found}
        before = -1
        while before != sum(map(len, found.values())):
            before = sum(map(len, found.values()))
            for who, mine in found.items():
                for id in list(mine):
                    row = self.process(who).owner.rows.get(id)
                    assert row is not None, f"{who} has freed {id.hex()}, which is needed"
                    if row.owner is not None and row.owner.id in ids:
                        found[ids[row.owner.id]].add(id)
                    if row.state == INLINE:
                        mine |= {inner for inner, _, _ in self.inside[row.data]}
        return found

    def teardown(self) -> None:
        self.quiet()
        for who, expected in self.reachable().items():
            rows = self.process(who).owner.rows
            stuck = [row for row in rows.values() if row.owner is None and row.state == PENDING]
            assert not stuck, f"{who} waits for ever for {stuck}"
            assert set(rows) == expected, f"{who} has rows that nobody needs"
        self.nothing_is_freed_while_it_is_held()
        for who in self.alive():
            for row in self.held[who]:
                self.process(who).owner.drop(row)
            self.held[who] = []
        self.wires.settle()
        self.quiet()
        for who in self.alive():
            owner = self.process(who).owner
            assert not owner.rows, f"{who} has {list(owner.rows.values())} left"
            assert not owner._handed
            for pool in self.process(who).client.leases.pools.values():
                assert not pool.leases, f"{who} keeps leases"
        assert not self.wires.node.estates.adopted
        assert not self.wires.node.workers.leases
        self.wires.node.check()


TestBorrowing = Borrowing.TestCase
TestBorrowing.settings = effort(150, 50)
