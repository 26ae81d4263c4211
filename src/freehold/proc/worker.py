"""The worker process: runs tasks, or is an actor.

Plain functions and plain methods run one after the other on the main thread.  An actor with
``async def`` methods runs them on an event loop of its own, which also pumps; one with
``max_concurrency`` > 1 runs plain methods in that many threads while the main thread pumps.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import traceback
from _thread import get_ident
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import cloudpickle

from freehold.core import messages as m
from freehold.core.client import RETRY
from freehold.core.executor import Output, Run
from freehold.core.ids import Context, ref_id
from freehold.core.leases import Limits
from freehold.core.machine import NEVER, Peer
from freehold.core.messages import FAILED, INLINE, SHARED
from freehold.core.rows import CONSTRUCTOR, METHOD
from freehold.errors import ObjectStoreFull, SerializationError, TaskError
from freehold.io import clock, procs
from freehold.io.shm import Arena
from freehold.proc import session
from freehold.proc.runtime import Runtime
from freehold.proc.session import drops, now, set_current, task_context
from freehold.wire import serial

FLUSH_EVERY = 4e-4  # seconds between flushes while short tasks run
FLUSH_COUNT = 64
LABEL_EVERY = 0.05  # seconds between two notices of what runs here
ASYNC_CONCURRENCY = 1000


class Worker(Runtime):
    """The runtime of a worker process."""

    def __init__(self, config: dict[str, Any], arena: Arena, slot: int, cell: memoryview) -> None:
        address = os.path.join(config["dir"], f"w{slot}.sock")
        super().__init__(
            config["secret"], "worker", address=address,
            limits=Limits(depth_max=config["depth_max"], idle=config["lease_idle"]),
            inline_max=config["inline_max"],
        )  # fmt: skip
        self.arena = arena
        self.cell = cell
        self.info = {"slot": slot}
        self.executor = self.process.executor
        self.functions: dict[bytes, Callable[..., Any]] = {}
        self.names: dict[bytes, str] = {}
        self.actor: Any = None
        self.actor_name = ""
        self.concurrency = 0  # of an actor: 0 plain, else threads or coroutines
        self.is_async = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._flush_at = 0.0
        self._unsent = 0
        self._label = ""
        self._label_at = 0.0
        self._flush_planned = False
        self._active: dict[bytes, asyncio.Task[None]] = {}  # the loop itself keeps no task alive
        self._start_runs: Callable[[], object] = int  # of an async actor; until then, nothing
        self._memory_limit = 0  # of an actor, in bytes

    # -- the main thread --------------------------------------------------------------------------
    def serve(self, node_address: str) -> None:
        """Run tasks until told to exit."""
        self.listen(self.address)
        node = Peer(b"", node_address, "node")
        self.dial(node)
        self.start_background()
        process, queue = self.process, self.executor.queue
        while not self._over():
            if not queue:
                self._wait_for_work()
            if self.actor is not None and self.concurrency:
                self._serve_concurrently()
                return
            with self.lock:
                run = self.executor.next()
            if run is not None:
                self.execute(run)
        if process.exiting:
            with self.lock:
                self.flush()

    def _over(self) -> bool:
        return self.process.exiting or bool(self.client.lost)

    def _wait_for_work(self) -> None:
        queue, process = self.executor.queue, self.process
        with self.lock:
            self.flush()
        self._unsent = 0
        with self.pump_lock:
            self.pumps += 1
            self.pumping = True
            while not queue and not process.exiting and not self.client.lost:
                self.pump(NEVER)
            self.leave()

    def _serve_concurrently(self) -> None:
        if self.is_async:
            asyncio.run(self._serve_async())
            return
        with ThreadPoolExecutor(self.concurrency, "freehold-actor") as threads:
            while not self._over():
                self._wait_for_work()
                while True:
                    with self.lock:
                        run = self.executor.next()
                    if run is None:
                        break
                    threads.submit(self._execute_in_thread, run)

    def _execute_in_thread(self, run: Run) -> None:
        task_context.set(Context(b"", run.id))
        try:
            outputs = self._outputs_of(run)
        except SystemExit as stop:  # which would end only this thread
            leave_process(stop.code)
        self._complete(run, outputs)
        with self.lock:
            self.flush()

    # -- async actors -----------------------------------------------------------------------------
    async def _serve_async(self) -> None:
        loop = self.loop = asyncio.get_running_loop()
        self.pumping = True  # the loop pumps; the background thread stays out of its way
        self.pumps += 1
        stop = loop.create_future()

        def on_ready() -> None:
            self.poll_once()
            start_runs()

        def start_runs() -> None:
            if self._over() and not stop.done():
                stop.set_result(None)
            queue, active = self.executor.queue, self._active
            while queue and len(active) < self.concurrency:
                with self.lock:
                    run = self.executor.next()
                if run is not None:
                    active[run.id] = loop.create_task(self._run_async(run))

        self._start_runs = start_runs
        loop.add_reader(self.epoll.fileno(), on_ready)
        start_runs()
        self._plan_timer(loop)
        await stop
        loop.remove_reader(self.epoll.fileno())

    def _plan_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._flush_async()
        loop.call_later(0.1, self._plan_timer, loop)

    async def _run_async(self, run: Run) -> None:
        task_context.set(Context(b"", run.id))
        outputs: list[Output] | None = None
        try:
            function = self.functions.get(run.key) or self._function(run)
            if run.args or run.full is not None:
                args, kwargs = self._arguments(run)
                result = function(*args, **kwargs)
                del args, kwargs
            else:
                result = function()
            if inspect.isawaitable(result):
                result = await result
            if result is None and run.full is None and run.refs is None:
                with self.lock:
                    self.executor.finish_plain(run, serial.NONE)
            else:
                outputs = self._results(run, result)
        except SystemExit:
            raise
        except BaseException as error:
            outputs = self._failure(run, error)
        if outputs is not None:
            self._complete(run, outputs)
        del self._active[run.id]
        if not self._flush_planned:
            self._flush_planned = True
            assert self.loop is not None
            self.loop.call_soon(self._flush_async)

    def _flush_async(self) -> None:
        self._flush_planned = False
        with self.lock:
            self._finish(now())
        if self.late:
            self.run_late()
        if self.executor.queue or self._over():  # a method that waited in `get` has pumped
            self._start_runs()

    # -- one task ---------------------------------------------------------------------------------
    def execute(self, run: Run) -> None:
        """Run one task on the main thread."""
        self.cell[:] = run.id
        root = self.root
        root.task_id, root.base, root.count = run.id, b"", 0
        self.running = run
        if run.full is None:
            self._execute_plain(run)
        else:
            self._complete(run, self._outputs_of(run))
        self.running = None
        self._unsent += 1
        when = now()
        if self._unsent >= FLUSH_COUNT or when - self._flush_at > FLUSH_EVERY:
            self._unsent = 0
            self._flush_at = when
            with self.lock:
                self.flush()

    def _execute_plain(self, run: Run) -> None:
        """A task of one result without options or top-level references: most are."""
        try:
            function = self.functions.get(run.key) or self._function(run)
            if run.args:
                args, kwargs = self._arguments(run)
                result = function(*args, **kwargs)
                del args, kwargs
            else:
                result = function()
            value = serial.NONE if result is None else serial.dumps(result)
        except SystemExit:
            raise
        except BaseException as error:
            self._complete(run, self._failure(run, error))
            return
        if run.refs is None and value.__class__ is bytes and len(value) <= self.inline_max:
            with self.lock:
                self.executor.finish_plain(run, value)
        else:
            del result
            self._complete(run, self._placed_or_failure(run, value))

    def _placed_or_failure(self, run: Run, packed: bytes | serial.Packed) -> list[Output]:
        try:
            return [self._placed(run, 0, packed)]
        except Exception as error:
            return self._failure(run, error)

    def _outputs_of(self, run: Run) -> list[Output]:
        try:
            function = self.functions.get(run.key) or self._function(run)
            args, kwargs = self._arguments(run)
            if run.options:
                result = self._call_with_options(run, function, args, kwargs)
            else:
                result = function(*args, **kwargs)
            del args, kwargs
            return self._results(run, result)
        except SystemExit:
            raise
        except BaseException as error:
            return self._failure(run, error)

    def _call_with_options(
        self, run: Run, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if run.kind == CONSTRUCTOR:
            return self._construct(run, function, args, kwargs)
        limit = run.options.get("memory")
        if not limit:
            return function(*args, **kwargs)
        procs.limit_memory(procs.private_bytes() + int(limit))
        try:
            return function(*args, **kwargs)
        finally:
            procs.limit_memory(None)

    def _construct(self, run: Run, kind: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._memory_limit = int(run.options.get("memory") or 0)
        if self._memory_limit:
            procs.limit_memory(procs.private_bytes() + self._memory_limit)
        self.actor = kind(*args, **kwargs)
        self.actor_name = getattr(kind, "__name__", "actor")
        cls = type(self.actor)
        self.is_async = any(
            inspect.iscoroutinefunction(getattr(cls, name, None)) for name in dir(cls)
        )
        concurrency = run.options.get("max_concurrency") or 0
        if self.is_async:
            self.concurrency = concurrency or ASYNC_CONCURRENCY
        elif concurrency > 1:
            self.concurrency = concurrency
        self.functions.clear()

    def _complete(self, run: Run, outputs: list[Output]) -> None:
        with self.lock:
            if drops:
                self.drain()
            self.executor.finish(run, outputs)
            for _, _, inner in outputs:
                for row in inner:  # held since the result was serialized
                    self.owner.drop(row)
            self.machine.settle(self.machine.now)

    def _function(self, run: Run) -> Callable[..., Any]:
        """What the run calls."""
        key = run.key
        function = self.functions.get(key)
        if function is not None:
            return function
        if run.kind == METHOD or (self.actor is not None and run.kind != CONSTRUCTOR):
            name = key.decode()
            function = getattr(self.actor, name)
            self.names[key] = f"{self.actor_name}.{name}"
        else:
            name, code = self.executor.code[key]
            function = cloudpickle.loads(code)
            self.names[key] = name
            self._tell_label(name)
        found: Callable[..., Any] = function
        self.functions[key] = found
        return found

    def _tell_label(self, name: str) -> None:
        node = self.owner.node
        if name != self._label and node is not None:
            self._label = name
            with self.lock:
                self.machine.send(node, m.LABEL, name)
                self.flush()

    def _arguments(self, run: Run) -> tuple[Any, Any]:
        """The values of the run's arguments; notes the references in them."""
        args: Any = ()
        kwargs: Any = {}
        full = run.full
        met: list[Any] = []
        thread = get_ident()
        self.loading[thread] = met
        try:
            if isinstance(run.args, bytes):
                if run.args:
                    args, kwargs = serial.loads(run.args)
            else:
                assert full is not None
                args, kwargs = self.read_shared(full.guards[0])
            if full is not None and full.deps:
                args = list(args)
                for position, row, state, data in full.deps:
                    value = self.read_shared(row) if state == SHARED else serial.loads(data)
                    if isinstance(position, str):
                        kwargs[position] = value
                    else:
                        args[position] = value
        finally:
            del self.loading[thread]
            if met:
                run.refs = met
        return args, kwargs

    def _results(self, run: Run, result: Any) -> list[Output]:
        """The serialized results."""
        if run.outputs == 1:
            return [self._output(run, 0, result)]
        if run.outputs == 0:
            return [(INLINE, b"", [])]
        if not isinstance(result, (tuple, list)) or len(result) != run.outputs:
            got = (
                f"{len(result)} values" if isinstance(result, (tuple, list)) else repr(type(result))
            )
            raise ValueError(f"num_returns={run.outputs}, but the function returned {got}")
        return [self._output(run, index, value) for index, value in enumerate(result)]

    def _output(self, run: Run, index: int, value: Any) -> Output:
        return self._placed(run, index, serial.dumps(value))

    def _placed(self, run: Run, index: int, packed: bytes | serial.Packed) -> Output:
        """A serialized result, inline or in the arena, with the references inside it."""
        if packed.__class__ is bytes and len(packed) <= self.inline_max:
            return INLINE, packed, []
        rows: list[Any] = []
        if not isinstance(packed, bytes):
            rows = [reference._row for reference in packed.refs]
            with self.lock:
                for row in rows:
                    row.handles += 1  # until the answer is sent
        state, data = self.place(ref_id(run.id, index), run.peer.id, packed)
        return state, data, rows

    def _failure(self, run: Run, error: BaseException) -> list[Output]:
        """What the caller's `get` will raise."""
        name = self._name(run)
        limit = self._memory_limit or run.options.get("memory")
        if isinstance(error, (SerializationError, ObjectStoreFull)):
            data: Any = [type(error).__name__, f"{name}: {error}"]
        elif isinstance(error, MemoryError) and limit:
            data = ["OutOfMemory", f"{name} went over its limit, memory={limit:,} bytes"]
        else:
            data = _pickled_failure(name, error)
        state = FAILED
        wanted = run.options.get("retry_exceptions")
        if wanted and (wanted is True or isinstance(error, cloudpickle.loads(wanted))):
            state = RETRY
        return [(state, data, []) for _ in range(max(run.outputs, 1))]

    def printing(self) -> str:
        """The name of what runs now, or has run last."""
        run = self.running
        return self._label if run is None or self.actor is not None else self._name(run)

    def _name(self, run: Run) -> str:
        if run.key in self.names:
            return self.names[run.key]
        if run.key in self.executor.code:
            return self.executor.code[run.key][0]
        return f"{self.actor_name}.{run.key.decode(errors='replace')}"


def _pickled_failure(name: str, error: BaseException) -> bytes:
    """A TaskError, without the cause if that cannot be pickled, or not read back."""
    own = error.__traceback__
    shown = own.tb_next if own is not None and own.tb_next is not None else own
    text = "".join(traceback.format_exception(type(error), error, shown))
    BaseException.with_traceback(error, None)  # whatever the class makes of assignment
    for cause in (error, None):
        try:
            data = serial.dumps(TaskError(name, text, cause, clock.pid()))
            data = data if isinstance(data, bytes) else data.join()
            serial.loads(data)
        except Exception:  # user classes may do anything when pickled
            continue
        return data
    raise SerializationError(f"the error of {name} cannot be pickled")


def printing() -> str:
    """The name of what runs in this worker now, for its output."""
    here = session.current()
    return here.printing() if isinstance(here, Worker) else ""


def leave_process(code: object) -> NoReturn:
    """End this process as ``sys.exit(code)`` in its main thread would."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    procs.exit_now(code if isinstance(code, int) else int(code is not None))


def main(config: dict[str, Any], arena: Arena, slot: int, cell: memoryview) -> None:
    """The worker's life, in the process that the fork server has made."""
    procs.set_name("freehold-worker")
    sys.path[:] = config["path"]
    worker = Worker(config, arena, slot, cell)
    set_current(worker)
    worker.serve(config["node"])
    sys.stdout.flush()
    sys.stderr.flush()
    procs.exit_now(0)
