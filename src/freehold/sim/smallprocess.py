"""Processes of the small world, and the user code that they run.

User code is a list of steps (``Step``); a run of it is a row of plain data (``Execution``), so that
a process can be frozen in the middle.  It mirrors ``sim.env`` and ``sim.process`` without time: a
run that must wait lends its CPUs at once, and is looked at again after each event of its process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from freehold.core.ids import CONTEXT_BYTES, Context, Contexts
from freehold.core.machine import Peer
from freehold.core.messages import COLLECTED, FAILED, INLINE, PENDING, SHARED
from freehold.core.process.executor import Output, Run
from freehold.core.process.leases import Limits
from freehold.core.process.process import Process
from freehold.core.process.rows import CONSTRUCTOR, METHOD, Row, Spec
from freehold.sim.smallsites import WINDOW, Site, proc_id
from freehold.sim.values import PoisonHeap, Value, Violation, brief, dump, load

LIMITS = Limits(depth_max=2, ahead=1.0, stall=1e6, idle=0.02, leases_max=2, retry_rest=0.0)
RESERVE = 1 << 24


class Step(NamedTuple):
    """One step of a program; ``name`` is the variable that it makes or uses."""

    verb: str
    name: str = ""
    target: str = ""  # the function that is called
    deps: tuple[str, ...] = ()  # variables whose values are arguments
    nested: tuple[str, ...] = ()  # variables that go along as references
    actor: str = ""  # the variable whose method it is


class Function(NamedTuple):
    """A program with its options."""

    steps: tuple[Step, ...]
    retries: int = 3
    cpus: float = 1.0
    node: str = ""  # where it runs if that node lives
    options: tuple[tuple[str, Any], ...] = ()


Library = dict[str, Function]


class Execution:
    """One run of a program; ``run`` is None in the driver."""

    __slots__ = ("at", "context", "error", "lent", "name", "outputs", "request", "run", "vars")

    def __init__(self, run: Run | None, name: str, context: Context) -> None:
        self.run = run
        self.name = name
        self.context = context
        self.at = -1  # before the first step the arguments are read
        self.vars: dict[str, Row] = {}
        self.error: Any = None
        self.lent = False
        self.request = 0  # for room in the arena
        self.outputs: list[Output] = []


class ProcessSite(Site):
    """A driver or a worker."""

    def __init__(self, kind: str, name: str, node: str, slot: int, library: Library) -> None:
        home = proc_id(node)
        address = f"{home.hex()}|{name}.sock|{name}:1"
        self.process = Process(proc_id(name), address, limits=LIMITS, heap_reserve=RESERVE)
        self.process.heap = PoisonHeap(WINDOW, RESERVE)
        super().__init__(self.process, name, address, home)
        self.kind = kind
        self.slot = slot
        self.daemon = f"{home.hex()}|{node}.sock|{node}:1"
        self.library = library
        self.owner = self.process.owner
        self.client = self.process.client
        self.executor = self.process.executor
        self.drops: list[Row] = []
        self.kept: list[Row] = []
        self.specs: dict[str, Spec] = {}
        self.contexts = Contexts(self.owner.twins.begin)
        self.executions: list[Execution] = []
        self.is_actor = False
        self.errors: list[tuple[str, str, str]] = []  # where, which variable, what
        self.over = False  # the driver's program has ended

    def info(self) -> dict[str, Any]:
        return {"slot": self.slot} if self.kind == "worker" else {}

    def begin(self) -> None:
        self.dial(Peer(b"", self.daemon, "node"), [])
        if self.kind == "driver":
            root = proc_id("the driver's root context").ljust(CONTEXT_BYTES, b".")
            self.executions.append(Execution(None, "main", Context(root)))

    def drain(self) -> None:
        drops, self.drops = self.drops, []
        for row in drops:
            self.owner.drop(row)

    # -- the loop ---------------------------------------------------------------------------------
    def after(self) -> None:
        self.owner.woken = []
        if self.owner.node is None:
            return
        if self.kind == "worker" and self.client.lost:
            self.out.append(("exit", 1))
            return
        while self._go_on():
            pass
        if self.process.exiting and not self.executions:
            self.out.append(("exit", 0))

    def _go_on(self) -> bool:
        for execution in self.executions:
            if self._advance(execution):
                return True
        if self.kind == "worker" and not self.executions and not self.process.exiting:
            run = self.executor.next()
            if run is not None:
                self._start(run)
                return True
        return False

    def _start(self, run: Run) -> None:
        self.is_actor = self.is_actor or run.kind == CONSTRUCTOR
        context = Context(self.contexts.base(run.id), run.id)
        self.executions.append(Execution(run, "", context))

    def _advance(self, execution: Execution) -> bool:
        """Do the next step if it can be done; whether it was."""
        steps = self.library[execution.name].steps if execution.at >= 0 else ()
        if execution.at >= len(steps) or execution.error is not None:
            self._end(execution)
            return True
        if execution.at < 0:
            if execution.run is not None:
                self._arguments(execution, execution.run)
            done = True
        else:
            done = self._step(execution, steps[execution.at])
        if done:
            self._lend(execution, False)
            execution.at += 1
        elif not execution.request:  # room in the arena comes soon
            self._lend(execution, True)
        self.settle()
        return done

    def _lend(self, execution: Execution, lent: bool) -> None:
        """A worker's blocked run lends its CPUs."""
        if execution.lent != lent and self.kind == "worker":
            execution.lent = lent
            if lent:
                self.executor.block(execution.run)
            else:
                self.executor.unblock()

    def settle(self) -> None:
        """What user code has done takes effect."""
        self.drain()
        self.machine.settle(self.now)
        self.flush()

    def _end(self, execution: Execution) -> None:
        self.executions.remove(execution)
        for row in execution.vars.values():
            self.drops.append(row)
        run = execution.run
        if run is None:
            self.over = True
        else:
            outputs = execution.outputs
            if execution.error is not None:
                outputs = [(FAILED, execution.error, [])]
            self._look_again(run)
            self.drain()
            self.executor.finish(run, outputs or [(INLINE, b"", [])])
            for _, _, inner in outputs:
                for row in inner:
                    self.owner.drop(row)
        self.settle()

    def _look_again(self, run: Run) -> None:
        """What a run has read stays in memory until it is over."""
        for row in run.full.guards if run.full is not None else ():
            if load(self._read(row)).token != row.id:
                raise Violation(f"{self.name}: {row!r} has changed while it was read")

    # -- steps ------------------------------------------------------------------------------------
    def _step(self, execution: Execution, step: Step) -> bool:
        found = execution.vars
        if step.verb in ("put", "return"):
            return self._place(execution, step)
        if step.verb == "call":
            found[step.name] = self._call(execution, step)
        elif step.verb == "get":
            return self._get(execution, step.name)
        elif step.verb == "delete":
            self.drops.append(found.pop(step.name))
        elif step.verb == "keep":
            self.kept.append(found.pop(step.name))
        elif step.verb == "forget":
            self.drops += self.kept
            self.kept = []
        else:
            raise Violation(f"no verb {step.verb}")
        return True

    def _fields(self, rows: list[Row]) -> list[list[Any]]:
        """What travels of references."""
        fields = []
        for row in rows:
            if not self.owner.twins.key_of(row) and row.state != FAILED:
                raise Violation(f"{self.name}: {row!r} is freed while it has a handle")
            owner = row.owner
            whose = (self.machine.id, self.address) if owner is None else (owner.id, owner.address)
            fields.append([row.id, *whose])
        return fields

    def _place(self, execution: Execution, step: Step) -> bool:
        """Put a value into the arena: a new object, or the result."""
        run = execution.run
        inside = [execution.vars[name] for name in step.nested]
        size = 4096
        heap, extents = self.process.heap, self.process.extents
        offset = heap.place(size)
        if offset is None:
            if not execution.request:
                execution.request = self.process.request_extent(size)
            elif extents[execution.request] is not None:
                raise Violation(f"{self.name}: no room: {extents[execution.request]}")
            return False
        if execution.request:
            del extents[execution.request]
            execution.request = 0
        returns = step.verb == "return"
        id = execution.context.next_id() if not returns else run.id if run is not None else b""
        WINDOW.write(offset, size, dump(Value(id, [], self._fields(inside), 0)))
        owner = run.peer.id if returns and run is not None else self.machine.id
        place = self.process.seal(id, owner, offset, size, inside)
        if returns:
            for row in inside:
                row.handles += 1
            execution.outputs = [(SHARED, place, inside)]
        else:
            row = self.owner.put(id, SHARED, place, inside)
            row.handles += 1
            execution.vars[step.name] = row
        return True

    def _spec(self, name: str, kind: int) -> Spec:
        spec = self.specs.get(name)
        if spec is None:
            made = self.library[name]
            spec = self.specs[name] = Spec(
                b"method" if kind == METHOD else name.encode(), name, b"code", kind=kind,
                cpus=made.cpus, retries=made.retries, options=dict(made.options),
                where=("node", proc_id(made.node), True) if made.node else (),
            )  # fmt: skip
        return spec

    def _call(self, execution: Execution, step: Step) -> Row:
        found = execution.vars
        line = None if not step.actor else self.client.actors.line(found[step.actor])
        options = dict(self.library[step.target].options)
        kind = METHOD if line is not None else CONSTRUCTOR if "constructor" in options else 0
        nested = [found[name] for name in step.nested]
        deps = [found[name] for name in step.deps]
        id = execution.context.next_id()
        self._fields(deps)
        args = dump(Value(id, [step.target], self._fields(nested), 0))
        (row,) = self.client.submit_full(
            self._spec(step.target, kind), id, args, self.now, deps=list(enumerate(deps)),
            nested=nested, line=line,
        )  # fmt: skip
        return row

    # -- values -----------------------------------------------------------------------------------
    def _get(self, execution: Execution, name: str) -> bool:
        row = execution.vars.get(name)
        if row is None:  # the value that it came in could not be read
            return True
        fetches = self.process.fetches
        if row.state in (PENDING, COLLECTED):
            self.owner.want(row)
            return False
        if row.state == SHARED and fetches.here(row) is None and not fetches.is_settled(row):
            return False
        if row.state == FAILED:
            self._met(execution, name, row.data)
            return True
        if row.state == SHARED:
            self._load(execution, name, row, self._read(row))
        elif row.data and (row.more is None or not row.more.actor):
            self._load(execution, name, row, row.data)
        return True

    def _met(self, execution: Execution, name: str, error: list[Any]) -> None:
        """A get raises; a task passes that on."""
        self.errors.append((execution.name, name, str(error[0])))
        self.out.append(("met", execution.name, name, str(error[0]), str(error[1])))
        if execution.run is not None:
            execution.error = error

    def _read(self, row: Row) -> bytes:
        place = self.process.fetches.here(row)
        if place is None:
            raise Violation(f"{self.name}: {row!r} is read before it is here")
        return WINDOW.read(place[1], place[2])

    def _load(self, execution: Execution, name: str, row: Row, data: bytes) -> list[Row]:
        value = load(data)
        if value.token != row.id:
            raise Violation(f"{self.name}: {row!r} reads the value of {brief(value.token)}")
        return self._take(execution, name, value)

    def _take(self, execution: Execution, name: str, value: Value) -> list[Row]:
        """Handles for the references in a value, as variables ``NAME.0``, ``NAME.1``..."""
        rows = [self.owner.hold(*fields) for fields in value.refs]
        for number, row in enumerate(rows):
            before = execution.vars.get(f"{name}.{number}")
            if before is not None:
                self.drops.append(before)
            execution.vars[f"{name}.{number}"] = row
        return rows

    def _arguments(self, execution: Execution, run: Run) -> None:
        value = load(run.args)
        if value.token != run.id:
            raise Violation(f"{self.name}: a task got the arguments of {brief(value.token)}")
        execution.name = value.meta[0]
        met = self._take(execution, "arg", value)
        for position, row, state, _ in run.full.deps if run.full is not None else ():
            if state == SHARED:
                met += self._load(execution, f"dep{position}", row, self._read(row))
        if met:
            run.refs = met
        self.out.append(("run", run.id, self.library[execution.name].retries))
