"""What user code can do: the public API, in the simulator's terms.

``Env`` mirrors ``freehold.api``, ``remote``, ``actor`` and ``ref`` above the runtime.  Methods
that may wait are generators.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from freehold.core.address import is_address
from freehold.core.ids import ARGUMENTS, ref_id
from freehold.core.machine import NEVER
from freehold.core.messages import COLLECTED, FAILED, INLINE, PENDING, SHARED
from freehold.core.process.executor import Output
from freehold.core.process.rows import CONSTRUCTOR, METHOD, Line, Row, Spec, Waiter, Where
from freehold.sim.handles import Handles, Ref
from freehold.sim.ledger import Failure
from freehold.sim.process import Wait
from freehold.sim.values import Value, Violation, brief, dump


class Env(Handles):
    """The API as one execution sees it."""

    @property
    def now(self) -> float:
        return self.world.now

    # -- values -----------------------------------------------------------------------------------
    def _is_ready(self, row: Row) -> bool:
        """Whether ``value`` may be called: the value is here, or there is an error."""
        if row.state in (PENDING, COLLECTED):
            return False
        return self.host.process.fetches.is_settled(row)

    def _bring(self, row: Row, until: float) -> Generator[Wait, None, bool]:
        """Wait for the value, and for a copy of it on this node; False when the time is over."""
        host = self.host
        fetches = host.process.fetches
        fetches.forgive(row)
        while not self._is_ready(row):
            if row.state == SHARED:
                fetches.here(row)
            else:
                host.owner.want(row)
            answers, state = fetches.answers, row.state
            yield Wait(
                lambda seen=answers, was=state: (  # type: ignore[misc]
                    self._is_ready(row) or fetches.answers != seen or row.state != was
                ),
                until,
            )
            if self.now >= until and not self._is_ready(row):
                return False
            host.check_alive()
        return True

    def value(self, ref: Ref, keep_view: bool = False) -> tuple[Value, list[Ref]]:
        """The value of a reference that is not pending.  Raises Failure."""
        row = ref.row
        if row.state == FAILED:
            self.ledger.judge(row.data, row.id)
            raise Failure(row.data)
        if row.state == SHARED and row.more is not None and row.more.refused:
            error = ["ObjectStoreFull", row.more.refused]
            self.ledger.judge(error, row.id)
            raise Failure(error)
        if row.state == SHARED:
            data = self._read(row)
            if keep_view:
                row.handles += 1
                self.views.append(self._view(row, data))
        else:
            data = row.data
        if not data:  # a task without results
            return Value(row.id, [], [], 0), []
        if is_address(data) and len(self.ledger.owners.get(row.id, ())) > 1:
            raise Failure(["ActorDied", "a re-run has made an actor under that name"])
        value, refs = self.load(data)
        if value.token != row.id:
            raise Violation(f"{self.host}: {row!r} reads the value of {brief(value.token)}")
        self.ledger.values += 1
        return value, refs

    def get(
        self, ref: Ref, timeout: float = NEVER, keep_view: bool = False
    ) -> Generator[Wait, None, tuple[Value, list[Ref]] | None]:
        """The value, or None when the time is over."""
        if not self._is_ready(ref.row):
            came = yield from self._bring(ref.row, self.now + timeout)
            if not came:
                return None
        return self.value(ref, keep_view)

    def wait(self, refs: Sequence[Ref], count: int, timeout: float) -> Generator[Wait, None, int]:
        """Wait until ``count`` are ready; how many are."""
        for ref in refs:
            if ref.row.state == COLLECTED:
                self.host.owner.want(ref.row)
        pending = [ref.row for ref in refs if ref.row.state == PENDING]
        waiter = Waiter(count - (len(refs) - len(pending)))
        if waiter.left > 0:
            for row in pending:
                if row.owner is not None:
                    self.host.owner.want(row)
                row.waiters = [*(row.waiters or []), waiter]
            yield Wait(lambda: waiter.left <= 0, self.now + timeout)
            for row in pending:
                if row.waiters is not None and waiter in row.waiters:
                    row.waiters.remove(waiter)
        return sum(ref.row.state != PENDING for ref in refs)

    def compute(self, mean: float) -> Generator[Wait, None, None]:
        """User code runs for a while."""
        yield Wait(lambda: False, self.now + self.world.rng.expovariate(1.0) * mean, computing=True)

    def acyclic(self, id: bytes, refs: Sequence[Ref]) -> list[Ref]:
        """Those of the references that may be put into value ``id``.

        Counting cannot free a value that, by way of others, contains itself; user code that makes
        one leaks it, so the programs do not.
        """
        return [ref for ref in refs if self.ledger.may_contain(id, ref.row.id)]

    # -- making things ----------------------------------------------------------------------------
    def put(self, padding: int, inside: Sequence[Ref]) -> Generator[Wait, None, Ref]:
        """A new object.  Raises Failure when the arena is full."""
        host = self.host
        id = self.execution.context.next_id()
        inside = self.acyclic(id, inside)
        data = dump(Value(id, [], self.export(inside), padding))
        host.check_alive()
        self.ledger.owns(id, host.machine.id)
        if len(data) <= self.world.setup.inline_max and not inside:
            return Ref(host.owner.put_small(id, data))
        rows = [ref.row for ref in inside]
        state, place = yield from host.place(id, host.machine.id, data, rows)
        row = host.owner.put(id, state, place, rows)
        row.handles += 1
        return Ref(row)

    def spec(
        self,
        kind: int,
        outputs: int,
        cpus: float,
        retries: int,
        wire: Any,
        where: Where = (),
        resources: tuple[tuple[str, float], ...] = (),
    ) -> Spec:
        """The function with these options."""
        key = (kind, outputs, cpus, retries, repr(wire), where, resources)
        spec = self.host.specs.get(key)
        if spec is None:
            name = f"f{kind}o{outputs}c{cpus:g}r{retries}"
            digest = b"method" if kind == METHOD else (name + repr(wire)).encode()
            spec = self.host.specs[key] = Spec(
                digest, name, b"code", kind=kind, cpus=cpus, outputs=outputs, retries=retries,
                options=wire, where=where, resources=resources,
            )  # fmt: skip
        return spec

    def submit(
        self,
        spec: Spec,
        meta: list[Any],
        padding: int,
        deps: Sequence[Ref] = (),
        nested: Sequence[Ref] = (),
        actor: Ref | None = None,
        gate: bool = False,
    ) -> Generator[Wait, None, list[Ref]]:
        """Submit a task or a call; its results.  With ``gate`` it is not to start yet."""
        host = self.host
        host.check_alive()
        line = None if actor is None else self.line(actor)
        refs = self.export(nested)
        self.export(deps)
        restarts = int(spec.options.get("max_restarts", 0))
        submission = self.ledger.submission(spec.retries + restarts)
        id = self.execution.context.next_id()
        data = dump(Value(id, [submission, spec.retries, *meta], refs, padding))
        self.ledger.owns(id, host.machine.id)
        if actor is not None and not deps:
            self.ledger.actor_of[id] = actor.row.id
        for output in range(1, spec.outputs):
            self.ledger.owns(ref_id(id, output), host.machine.id)
        small = len(data) <= self.world.setup.inline_max
        if spec.plain and small and not deps and not nested:
            if line is None:
                plain = host.client.plain
                row = plain.join(spec, id, data) or plain.submit(spec, id, data, self.now)
            else:
                self.ledger.called(self.host.machine.id, id)
                row = host.client.plain.call(line, spec, id, data, self.now)
            return [Ref(row)]
        args_row = None
        if not small:
            args_row = yield from self.place_arguments(data, id)
            data = b""
        self.ledger.called(self.host.machine.id, id)
        rows = host.client.submit_full(
            spec, id, data, self.now, args_row=args_row,
            deps=[(position, ref.row) for position, ref in enumerate(deps)],
            nested=[ref.row for ref in nested], line=line, gate=gate,
        )  # fmt: skip
        actor_too = restarts + 1 if spec.kind == CONSTRUCTOR else 0
        return [Ref(row, actor_too) for row in rows] if spec.outputs else []

    def line(self, actor: Ref) -> Line:
        """The way to an actor."""
        return self.host.client.actors.line(actor.row, actor.actor - 1)

    def place_arguments(self, data: bytes, task: bytes) -> Generator[Wait, None, Row]:
        """Large arguments become an object of their own."""
        host = self.host
        id = ref_id(task, ARGUMENTS)
        self.ledger.owns(id, host.machine.id)
        state, place = yield from host.place(id, host.machine.id, data)
        return host.owner.put(id, state, place, ())

    def kill(self, actor: Ref) -> Generator[Wait, None, None]:
        """End an actor now."""
        line = self.line(actor)
        row = actor.row
        if row.state == PENDING:
            if row.owner is not None:
                self.host.owner.want(row)
            yield Wait(lambda: row.state != PENDING)
        if row.state == INLINE:
            self.ledger.failed_actors.add(row.id)
            self.host.client.actors.kill(line)

    # -- a run's two ends -------------------------------------------------------------------------
    def arguments(self) -> tuple[Value, list[Ref]]:
        """The run's own arguments, and handles for every reference that came with them."""
        run = self.execution.run
        assert run is not None
        if run.kind != METHOD and not self.host.is_actor and run.key not in self.host.executor.code:
            raise Violation(f"{self.host}: a task came before its function")
        data = run.args
        if not isinstance(data, bytes):
            assert run.full is not None
            data = self._read(run.full.guards[0])
        met: list[Row] = []
        value, refs = self.load(data, met)
        if value.token != run.id:
            raise Violation(f"{self.host}: a task got the arguments of {brief(value.token)}")
        for _, row, state, place in run.full.deps if run.full is not None else ():
            refs += self._dependency(row, state, place, met)
        if met:
            run.refs = met
        return value, refs

    def _dependency(self, row: Row | None, state: int, data: Any, met: list[Row]) -> list[Ref]:
        if state == SHARED:
            assert row is not None
            data = self._read(row)
            if self.world.rng.random() < 0.2:
                row.handles += 1
                self.views.append(self._view(row, data))
        elif state != INLINE:
            raise Violation(f"{self.host}: a dependency in state {state} came with a task")
        if not data:
            return []
        value, refs = self.load(data, met)
        if row is not None and value.token != row.id:
            raise Violation(f"{self.host}: dependency {row!r} is {brief(value.token)}")
        return refs

    def results(self, padding: int, inside: Sequence[Ref]) -> Generator[Wait, None, list[Output]]:
        """The outputs of the run; the first carries the references."""
        run = self.execution.run
        assert run is not None
        if run.outputs == 0 or run.kind == CONSTRUCTOR:
            return [(INLINE, b"", [])]
        outputs: list[Output] = []
        rows: list[Row] = []
        try:
            for index in range(run.outputs):
                id = ref_id(run.id, index)
                own = self.acyclic(id, inside) if index == 0 else []
                unlike = [self.world.events]  # a second run's result is not the first's
                data = dump(Value(id, unlike, self.export(own), padding))
                rows = [ref.row for ref in own]
                for row in rows:
                    row.handles += 1  # until the answer is sent
                state, place = yield from self.host.place(id, run.peer.id, data, rows)
                outputs.append((state, place, rows))
        except Failure:
            self._take_back(run.id, outputs, rows)
            raise
        return outputs

    def _take_back(self, task: bytes, outputs: list[Output], rows: list[Row]) -> None:
        """A later output found no room: the earlier ones will not be sent."""
        for index, (state, place, _) in enumerate(outputs):
            if state == SHARED:
                self.host.owner.freed.append((ref_id(task, index), place))
        for row in outputs[0][2] if outputs else rows:
            self.host.drops.append(row)
