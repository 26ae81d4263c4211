"""One task in a worker: its function, its arguments, its results, or how it failed.

Nothing here decides when a task runs, or where: that is ``proc.worker``.  A result goes into the
answer itself when it is small, and into this process's part of the arena when it is not; whatever
the user's code raises becomes the error that the caller's ``get`` raises.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from _thread import get_ident
from collections.abc import Callable
from types import TracebackType
from typing import Any

import cloudpickle

from freehold.core import messages as m
from freehold.core.ids import Contexts, ref_id
from freehold.core.machine import Peer
from freehold.core.messages import FAILED, INLINE, SHARED
from freehold.core.process.client import RETRY
from freehold.core.process.executor import Output, Run
from freehold.core.process.leases import Limits
from freehold.core.process.rows import CONSTRUCTOR, METHOD
from freehold.errors import ObjectStoreFull, SerializationError, TaskError
from freehold.io import clock, procs
from freehold.proc.runtime import Runtime
from freehold.proc.session import drops
from freehold.wire import serial

ASYNC_CONCURRENCY = 1000
HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
GPUS_SEEN = "CUDA_VISIBLE_DEVICES"


class Execution(Runtime):
    """The runtime of a process that runs tasks, as far as one task is concerned."""

    def __init__(self, secret: bytes, address: str, limits: Limits, inline_max: int) -> None:
        super().__init__(secret, "worker", address=address, limits=limits, inline_max=inline_max)
        self.executor = self.process.executor
        self.contexts = Contexts(self.owner.twins.begin)
        self.root.contexts = self.contexts
        self.functions: dict[bytes, Callable[..., Any]] = {}
        self.names: dict[bytes, str] = {}
        self.actor: Any = None
        self.actor_name = ""
        self.concurrency = 0  # of an actor: 0 plain, else threads or coroutines
        self.is_async = False
        self._label = ""
        self._memory_limit = 0  # of an actor, in bytes
        self.process.on({m.LEASED: self._on_leased})

    def _on_leased(self, peer: Peer, when: float, gpus: list[int]) -> None:
        """A lease begins; its GPUs are the only ones that libraries are to see."""
        self.executor.on_leased(peer, when, gpus)
        if not self.executor.is_actor:
            seen = [one for one in os.environ.get(GPUS_SEEN, "").split(",") if one]
            mine = [seen[one] if one < len(seen) else str(one) for one in gpus]
            os.environ[GPUS_SEEN] = ",".join(mine)

    def execute_plain(self, run: Run) -> bytes | None:
        """A task of one result without options or top-level references: most are.

        The result, if it is as plain; None if the run has been completed here.
        """
        try:
            known = self.functions
            function = known[run.key] if run.key in known else self.function_of(run)
            if run.args:
                args, kwargs = self.arguments_of(run)
                result = function(*args, **kwargs)
                del args, kwargs
            else:
                result = function()
            if result is None and run.refs is None:
                return serial.NONE
            value = serial.dumps(result)
        except SystemExit:
            raise
        except BaseException as error:
            self.complete(run, self.failure_of(run, error))
            return None
        if run.refs is None and isinstance(value, bytes) and len(value) <= self.inline_max:
            return value
        del result
        self.complete(run, self._placed_or_failure(run, value))
        return None

    def _placed_or_failure(self, run: Run, packed: bytes | serial.Packed) -> list[Output]:
        try:
            return [self._placed(run, 0, packed)]
        except Exception as error:
            return self.failure_of(run, error)

    def outputs_of(self, run: Run) -> list[Output]:
        try:
            function = self.functions.get(run.key) or self.function_of(run)
            args, kwargs = self.arguments_of(run)
            if run.options:
                result = self._call_with_options(run, function, args, kwargs)
            else:
                result = function(*args, **kwargs)
            del args, kwargs
            return self.results_of(run, result)
        except SystemExit:
            raise
        except BaseException as error:
            return self.failure_of(run, error)

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

    def complete(self, run: Run, outputs: list[Output]) -> None:
        with self.lock:
            if drops:
                self.drain()
            self.executor.finish(run, outputs)
            for _, _, inner in outputs:
                for row in inner:  # held since the result was serialized
                    self.owner.drop(row)
            self.machine.settle(self.machine.now)

    def function_of(self, run: Run) -> Callable[..., Any]:
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
            self._find_modules()
            function = cloudpickle.loads(code)
            self.names[key] = name
            self._tell_label(name)
        found: Callable[..., Any] = function
        self.functions[key] = found
        return found

    def _find_modules(self) -> None:
        """Look for modules where the program does that this worker works for."""
        _, _, path = self.client.leases.requests.job or (b"", "", [])
        sys.path += [place for place in path if place not in sys.path]

    def _tell_label(self, name: str) -> None:
        node = self.owner.node
        if name != self._label and node is not None:
            self._label = name
            with self.lock:
                self.machine.send(node, m.LABEL, name)
                self.flush()

    def arguments_of(self, run: Run) -> tuple[Any, Any]:
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

    def results_of(self, run: Run, result: Any) -> list[Output]:
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
        outputs: list[Output] = []
        try:
            for index, value in enumerate(result):
                outputs.append(self._output(run, index, value))
        except BaseException:
            self._take_back(run, outputs)
            raise
        return outputs

    def _take_back(self, run: Run, outputs: list[Output]) -> None:
        """A later result failed: the earlier ones will not be sent."""
        with self.lock:
            for index, (state, data, rows) in enumerate(outputs):
                if state == SHARED:
                    self.owner.freed.append((ref_id(run.id, index), data))
                for row in rows:
                    self.owner.drop(row)

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
        try:
            state, data = self.place(ref_id(run.id, index), run.peer.id, packed)
        except BaseException:
            with self.lock:
                for row in rows:
                    self.owner.drop(row)
            raise
        return state, data, rows

    def failure_of(self, run: Run, error: BaseException) -> list[Output]:
        """What the caller's `get` will raise."""
        name = self.name_of(run)
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
        return self._label if run is None or self.actor is not None else self.name_of(run)

    def name_of(self, run: Run) -> str:
        if run.key in self.names:
            return self.names[run.key]
        if run.key in self.executor.code:
            return self.executor.code[run.key][0]
        return f"{self.actor_name}.{run.key.decode(errors='replace')}"


def _pickled_failure(name: str, error: BaseException) -> bytes:
    """A TaskError, without the cause if that cannot be pickled, or not read back."""
    text = "".join(traceback.format_exception(type(error), error, _beyond(error.__traceback__)))
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


def _beyond(frames: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this package at its beginning: it starts where users do."""
    shown = frames
    while shown is not None and shown.tb_frame.f_code.co_filename.startswith(HERE):
        shown = shown.tb_next
    return shown or frames
