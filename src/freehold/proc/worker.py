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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from freehold.core.ids import Context
from freehold.core.machine import NEVER, Peer
from freehold.core.process.executor import Output, Run
from freehold.core.process.leases import Limits
from freehold.io import procs
from freehold.io.shm import Arena
from freehold.proc import session
from freehold.proc.execution import Execution
from freehold.proc.session import now, set_current, task_context
from freehold.wire import serial

FLUSH_COUNT = 64


class Worker(Execution):
    """The runtime of a worker process."""

    def __init__(self, config: dict[str, Any], arena: Arena, slot: int, cell: memoryview) -> None:
        address = os.path.join(config["dir"], f"w{slot}.sock")
        limits = Limits(
            depth_max=config["depth_max"],
            idle=config["lease_idle"],
            remake=config["remake"],
            lineage_bytes_max=config["lineage_max"],
        )
        super().__init__(config["secret"], address, limits, config["inline_max"])
        self.keep = limits.keep
        self.arena = arena
        self.cell = cell
        self.info = {"slot": slot}
        self.set_home(config["id"])
        self.loop: asyncio.AbstractEventLoop | None = None
        self._flush_at = 0.0
        self._unsent = 0
        self._flush_planned = False
        self._active: dict[bytes, asyncio.Task[None]] = {}  # the loop itself keeps no task alive
        self._start_runs: Callable[[], object] = int  # of an async actor; until then, nothing

    # -- the main thread --------------------------------------------------------------------------
    def serve(self, config: dict[str, Any]) -> None:
        """Run tasks until told to exit."""
        self.listen(self.address)
        cluster = config["cluster"]
        if cluster is not None:
            from freehold.proc import attach  # here: only a cluster needs it

            attach.listen(self, cluster["host"], 0, config["dir"], cluster["tls"])
            self.owner.address = self.address
        node = Peer(b"", config["node"], "node")
        self.dial(node)
        self.start_background()
        process, client, queue = self.process, self.client, self.executor.queue
        while not self._over():
            if not queue or queue[0].missing:
                self._wait_for_work()
            if self.actor is not None and self.concurrency:
                self._serve_concurrently()
                return
            with self.lock:
                run = self.executor.next()
            while run is not None and not (process.exiting or client.lost):
                run = self.execute(run)
        if process.exiting:
            with self.lock:
                process.bequeath()
                self.flush()

    def _over(self) -> bool:
        return self.process.exiting or bool(self.client.lost)

    def _wait_for_work(self) -> None:
        queue = self.executor.queue
        with self.lock:
            self.flush()
        self._unsent = 0
        with self.pump_lock:
            self.pumps += 1
            self.pumping = True
            while (not queue or queue[0].missing) and not self._over():
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
        task_context.set(Context(b"", run.id, self.contexts))
        try:
            outputs = self.outputs_of(run)
        except SystemExit as stop:  # which would end only this thread
            leave_process(stop.code)
        self.complete(run, outputs)
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
                if run is None:  # its arguments are on their way
                    break
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
        task_context.set(Context(b"", run.id, self.contexts))
        outputs: list[Output] | None = None
        try:
            function = self.functions.get(run.key) or self.function_of(run)
            if run.args or run.full is not None:
                args, kwargs = self.arguments_of(run)
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
                outputs = self.results_of(run, result)
        except SystemExit:
            raise
        except BaseException as error:
            outputs = self.failure_of(run, error)
        if outputs is not None:
            self.complete(run, outputs)
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

    def execute(self, run: Run) -> Run | None:
        """Run one task on the main thread; the one to run next, if it was a plain one."""
        self.cell[:] = run.id
        root = self.root
        root.task_id, root.base, root.count = run.id, b"", 0
        self.running = run
        value = None
        if run.full is None:
            value = self.execute_plain(run)
        else:
            self.complete(run, self.outputs_of(run))
        self.running = None
        self._unsent += 1
        when = now()
        with self.lock:
            if value is not None:
                self.executor.finish_plain(run, value)
            if self._unsent >= FLUSH_COUNT or when - self._flush_at > self.keep:
                self._unsent = 0
                self._flush_at = when
                self.flush()
            return self.executor.next() if value is not None else None

    def broken(self, error: Exception) -> None:
        leave_process(1)


def printing() -> str:
    """The name of what runs in this worker now, for its output."""
    here = session.current()
    return here.printing() if isinstance(here, Worker) else ""


def leave_process(code: object) -> NoReturn:
    """End this process as ``sys.exit(code)`` in its main thread would."""
    number = procs.exit_code(code)
    sys.stdout.flush()
    sys.stderr.flush()
    procs.exit_now(number)


class _Left:
    """The lock of a worker's runtime in a child that a task has forked: who comes here must end.

    The child has the worker's stack, so if it returns from the task's function, it goes on as if it
    were the worker.
    """

    def __enter__(self) -> NoReturn:
        print("a process that a task has forked has returned from the task", file=sys.stderr)
        leave_process(1)

    def __exit__(self, *error: object) -> None: ...


def _after_fork() -> None:
    """The child of a worker is no worker: it must not answer in its place."""
    inherited = session.leave_to_parent()
    if isinstance(inherited, Worker):
        inherited.lock = _Left()  # type: ignore[assignment]


def main(config: dict[str, Any], arena: Arena, slot: int, cell: memoryview) -> None:
    """The worker's life, in the process that the fork server has made."""
    procs.set_name("freehold-worker")
    sys.path[:] = config["path"]
    worker = Worker(config, arena, slot, cell)
    set_current(worker)
    procs.at_fork(_after_fork)
    worker.serve(config)
    sys.stdout.flush()
    sys.stderr.flush()
    procs.exit_now(0)
