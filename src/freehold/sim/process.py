"""The host of a driver or a worker, and its user code.

User code is a generator (``programs``) that yields a ``Wait`` wherever a real thread would pump
or compute.  What ``freehold.proc.runtime`` and ``freehold.proc.worker`` do around the machine is
done here in the same order: lending the CPUs of a blocked task, dropping arguments before a run
is finished, answering in batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from freehold.core import messages as m
from freehold.core.ids import CONTEXT_BYTES, Context, Contexts
from freehold.core.machine import NEVER, Peer
from freehold.core.messages import FAILED, INLINE
from freehold.core.process.client import RETRY
from freehold.core.process.executor import Output, Run
from freehold.core.process.process import Process
from freehold.core.process.rows import CONSTRUCTOR, Row
from freehold.sim import checks
from freehold.sim.hosts import Host
from freehold.sim.ledger import Failure, Ledger
from freehold.sim.links import connect
from freehold.sim.values import Memory, PoisonHeap, brief
from freehold.sim.world import World

FLUSH_LATE = 3e-4  # seconds that results may wait for company


class Wait:
    """Why user code cannot go on: a condition, a time, or both."""

    __slots__ = ("computing", "done", "until")

    def __init__(
        self, done: Callable[[], bool], until: float = NEVER, computing: bool = False
    ) -> None:
        self.done = done
        self.until = until
        self.computing = computing  # user code runs: the process pumps only in the background


Program = Generator[Wait, None, Any]


class Execution:
    """A thread of user code: the driver's program, or one run of a task."""

    def __init__(self, run: Run | None, context: Context) -> None:
        self.run = run
        self.context = context
        self.program: Program = iter(())  # type: ignore[assignment]  # set by its maker
        self.wait: Wait | None = None
        self.lend_at = NEVER
        self.lent = False


Body = Callable[["ProcessHost", Execution], Program]


class Home(Protocol):
    """What a process needs of its node's host."""

    prefix: str  # of the names of what lives there
    spot: str
    home: bytes
    address: str
    memory: Memory

    def address_of(self, name: str) -> str:
        """Where a process of that name listens."""


class ProcessHost(Host):
    """A driver or a worker."""

    process: Process

    def __init__(
        self, world: World, ledger: Ledger, kind: str, slot: int, body: Body, home: Home,
        title: str = "",
    ) -> None:  # fmt: skip
        setup = world.setup
        self.site = home
        name = home.prefix + (title or (f"w{slot}" if kind == "worker" else kind))
        address = home.address_of(name)
        process = self.process = Process(
            world.rng.randbytes(8), address, limits=setup.limits, heap_reserve=setup.heap_reserve
        )
        process.heap = PoisonHeap(home.memory, setup.heap_reserve)
        super().__init__(world, process, kind, name, address)
        self.spot = home.spot
        self.home = home.home
        self.ledger = ledger
        ledger.home[process.id] = home.home
        self.slot = slot
        self.pid = slot + 100
        self.info = {"slot": slot} if kind == "worker" else {}
        self.owner = process.owner
        self.client = process.client
        self.executor = process.executor
        self.body = body
        self.drops: deque[Row] = deque()
        self.executions: list[Execution] = []
        self.kept: list[Any] = []  # references in the actor's fields, or in a module's globals
        self.specs: dict[Any, Any] = {}
        self.contexts = Contexts(self.owner.twins.begin)
        self.is_actor = False
        self.concurrency = 1
        self.on_exit: Callable[[ProcessHost, int], None] = lambda host, code: None
        self._looking = False

    def hello(self, to: bytes = b"") -> bytearray:
        """With the program that this process works for."""
        if self.client.leases.requests.job:
            self.info = {**self.info, "job": self.client.leases.requests.job}
        return super().hello(to)

    def begin(self) -> None:
        """Connect to the node."""
        if not self.alive:
            return
        node = Peer(b"", self.site.address, "node")
        target = self.world.listeners.get(self.site.address)
        if target is None or not target.alive:
            self.crash(0)
            return
        node.port = connect(self, node, target)
        if self.kind == "driver":
            context = Context(self.world.rng.randbytes(CONTEXT_BYTES))
            self._launch(Execution(None, context))
            self.finish()

    # -- user code --------------------------------------------------------------------------------
    def _launch(self, execution: Execution) -> None:
        execution.program = self.body(self, execution)
        execution.wait = Wait(lambda: True)
        self.executions.append(execution)

    def after(self) -> None:
        for waiter in self.owner.woken:
            waiter.port()
        self.owner.woken = []
        if self._looking:
            return
        if self.kind == "worker" and self.client.lost:
            self.crash(1)  # without its node a worker's answers would be wrong
            return
        self._looking = True
        while self.alive and self._go_on():
            pass
        self._looking = False
        if self.alive and self.process.exiting and not self.executions:
            self.process.bequeath()
            self.flush()
            self.crash(0)

    def _go_on(self) -> bool:
        """Resume what can go on, start what can start; whether there was anything."""
        for execution in list(self.executions):
            wait = execution.wait
            assert wait is not None
            now = self.world.now
            if wait.done() or now >= wait.until:
                self._resume(execution)
                return True
            if now >= execution.lend_at:
                execution.lend_at, execution.lent = NEVER, True
                self.executor.block(execution.run)
                self.flush()
                if not self.alive:
                    return False
            self.plan(min(wait.until, execution.lend_at))
        idle = self.kind == "worker" and len(self.executions) < self.concurrency
        if idle and not self.process.exiting:
            run = self.executor.next()
            if run is not None:
                self._start(run)
                return True
        return False

    def _start(self, run: Run) -> None:
        self.world.note(f"{self.name} starts {brief(run.id)}")
        if run.kind == CONSTRUCTOR:
            self.ledger.constructs(run.id, self.machine.id, run.peer.id)
        if self.world.chance(self.world.setup.crash_at_start):
            self.world.fault("crash at start")
            self.crash(-11)
            return
        if run.kind == CONSTRUCTOR:
            self.is_actor = True
            self.concurrency = run.options.get("max_concurrency") or 1
        self._launch(Execution(run, Context(self.contexts.base(run.id), run.id)))

    def _resume(self, execution: Execution) -> None:
        """Run user code until it waits for something that is not there yet, or ends."""
        if execution.lent:
            execution.lent = False
            self.executor.unblock()
            self.flush()
            if not self.alive:
                return
        execution.lend_at = NEVER
        try:
            wait = next(execution.program)
        except StopIteration as stop:
            self.executions.remove(execution)
            if execution.run is not None:
                self._complete(execution.run, stop.value)
            return
        execution.wait = wait
        if wait.computing:
            self._flush_sometime()
            return
        if self.kind == "worker" and self.concurrency == 1:
            execution.lend_at = self.world.now + self.world.setup.lend_after
        self.drain()
        self.machine.settle(self.world.now)
        self.flush()
        self.plan(self.machine.deadline())

    def _complete(self, run: Run, outputs: list[Output]) -> None:
        """The run is over; all that it held of its arguments has been dropped by its program."""
        self.drain()
        self.executor.finish(run, outputs)
        for _, _, inner in outputs:
            for row in inner:
                self.owner.drop(row)
        self.machine.settle(self.world.now)
        if self.world.chance(self.world.setup.crash_at_finish):
            self.world.fault("crash before a result is sent")
            self.crash(-9)
            return
        self._flush_sometime()

    def _flush_sometime(self) -> None:
        if self.world.rng.random() < self.world.setup.lazy_flush:
            self.plan(self.world.now + FLUSH_LATE)
        else:
            self.flush()
            self.plan(self.machine.deadline())

    def drain(self) -> None:
        while self.drops:
            self.owner.drop(self.drops.popleft())

    def check(self) -> None:
        super().check()
        self.seen = checks.watch(self.name, self.process, self.seen, self.world.setup.nodes > 1)

    def crash(self, code: int) -> None:
        if not self.alive:
            return
        super().crash(code)
        self.ledger.died(self.machine.id, code)
        self.ledger.bequeaths(self)
        self.executions.clear()
        self.on_exit(self, code)

    # -- values -----------------------------------------------------------------------------------
    def place(
        self, id: bytes, owner: bytes, data: bytes, inside: Sequence[Row] = ()
    ) -> Generator[Wait, None, tuple[int, Any]]:
        """Where a serialized value lives: inline if it is small, else in the arena."""
        setup = self.world.setup
        if len(data) <= setup.inline_max:
            return INLINE, data
        size = len(data) * setup.scale
        heap, extents = self.process.heap, self.process.extents
        for _ in range(100):
            self.drain()
            self.machine.settle(self.world.now)
            offset = heap.place(size)
            if offset is not None:
                self.site.memory.write(offset, size, data)
                self.ledger.lies(id, self.home)
                if self.world.rng.random() < 0.3:  # copying takes a while
                    later = self.world.now + self.world.latency()
                    yield Wait(lambda: False, later, computing=True)
                return m.SHARED, self.process.seal(id, owner, offset, size, inside)
            self.check_alive()
            request = self.process.request_extent(size)
            yield self._answer(request)
            refusal = extents.pop(request)
            self.check_alive()
            if refusal:
                raise Failure(["ObjectStoreFull", refusal])
        raise Failure(["ObjectStoreFull", "others take it first"])

    def _answer(self, request: int) -> Wait:
        extents = self.process.extents
        return Wait(lambda: extents[request] is not None or bool(self.client.lost))

    def check_alive(self) -> None:
        """Raise Failure when the node is gone."""
        if self.client.lost:
            raise Failure(["NodeDied", self.client.lost])

    def check_member(self, error: list[Any]) -> None:
        """Raise Failure when the directory has said so because the node was given up."""
        if error and error[0] == "NodeDied" and self.client.deaths.ousted:
            raise Failure(error)

    def failure(self, run: Run, data: Any, retry: bool) -> list[Output]:
        """The outputs of a run that raised."""
        if run.kind == CONSTRUCTOR:
            self.ledger.failed_actors.add(run.id)
        state = RETRY if retry else FAILED
        return [(state, data, []) for _ in range(max(run.outputs, 1))]
