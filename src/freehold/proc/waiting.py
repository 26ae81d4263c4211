"""How a thread of a process waits: it moves frames itself, or sleeps while another thread does.

A worker's task that waits for longer than a moment lends its CPUs to the node meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from freehold.core.machine import NEVER
from freehold.core.messages import PENDING
from freehold.core.process.executor import Run
from freehold.core.process.process import Process
from freehold.core.process.rows import Row, Waiter
from freehold.proc.host import Host
from freehold.proc.session import drops, now

LEND_AFTER = 1e-3  # seconds in `get` after which a worker lends its CPUs


class Waiting(Host):
    """The host of a process that waits for values."""

    machine: Process

    def __init__(self, process: Process, secret: bytes, kind: str, address: str) -> None:
        super().__init__(process, secret, kind, address)
        self.process = process
        self.running: Run | None = None  # of a worker's main thread
        self._sleepers: list[threading.Event] = []

    def wait_until(
        self,
        done: Callable[[], bool],
        until: float = NEVER,
        rows: Sequence[Row] = (),
        lend: bool = True,
    ) -> bool:
        """Pump, or sleep while another thread pumps, until ``done()``.

        With ``lend`` a task may wait for long, and its CPUs are of use to others meanwhile.
        """
        if done():
            return True
        if not self.pump_lock.acquire(blocking=False):
            return self._wait_asleep(done, until, rows)
        try:
            return self._wait_pumping(done, until, lend)
        finally:
            self.leave()
            self.pump_lock.release()
            if self._sleepers:
                with self.lock:
                    if self._sleepers:
                        self._sleepers[0].set()

    def _wait_pumping(self, done: Callable[[], bool], until: float, lend: bool = True) -> bool:
        self.pumps += 1
        self.pumping = True
        with self.lock:
            if drops or self.machine.dirty:
                self._finish(now())
        run = self.running
        lend_at = now() + LEND_AFTER if lend and run is not None else NEVER
        lent = False
        try:
            if self.late:
                self.run_late()
            while not done():
                try:
                    self.pump(min(until, lend_at))
                except (OSError, ValueError):
                    if not self.closed:  # by another thread, meanwhile
                        raise
                    return done()
                if self.interrupted:
                    self.interrupt()
                if until != NEVER and now() >= until and not done():
                    return False
                if lend_at != NEVER and now() >= lend_at and not done():
                    lend_at, lent = NEVER, True
                    with self.lock:
                        self.process.executor.block(run)
                        self.flush()
        finally:
            if lent:
                with self.lock:
                    self.process.executor.unblock()
                    self.flush()
        return True

    def _wait_asleep(self, done: Callable[[], bool], until: float, rows: Sequence[Row]) -> bool:
        """Another thread pumps: sleep until it brings what we wait for, or leaves."""
        event = threading.Event()
        with self.lock:
            pending = [row for row in rows if row.state == PENDING]
            for row in pending:
                waiter = Waiter(1, event.set)
                row.waiters = [*(row.waiters or ()), waiter]
            self._sleepers.append(event)
            if self.machine.dirty:
                self.flush()
        try:
            while not done():
                if self.pump_lock.acquire(blocking=False):
                    try:
                        return self._wait_pumping(done, until)
                    finally:
                        self.leave()
                        self.pump_lock.release()
                left = until - now()
                if left <= 0:
                    return False
                event.wait(min(left, 0.05))
                event.clear()
                if self.interrupted:
                    self.interrupt()
            return True
        finally:
            with self.lock:
                self._sleepers.remove(event)
                if self._sleepers:
                    self._sleepers[0].set()
