"""A process that runs user code, driver or worker: values, references and waiting around its host.

The public API is a thin face of this file.  ``current()`` is the process's runtime.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from freehold.core.ids import CONTEXT_BYTES, Context
from freehold.core.machine import NEVER
from freehold.core.messages import COLLECTED, FAILED, INLINE, PENDING, SHARED
from freehold.core.places import is_at_hand
from freehold.core.process.leases import Limits
from freehold.core.process.owner import Owner
from freehold.core.process.process import Process
from freehold.core.process.rows import Row, Waiter
from freehold.errors import (
    FreeholdError,
    NodeDied,
    NotInitialized,
    ObjectStoreFull,
    TaskError,
    from_wire,
)
from freehold.io import clock
from freehold.io.shm import Arena
from freehold.proc.session import BURST, drops, now, task_context
from freehold.proc.waiting import Waiting
from freehold.wire import serial
from freehold.wire.serial import Packed

KNOWN = (INLINE, SHARED, FAILED)  # states of a value that need no waiting


class Runtime(Waiting):
    """The host of a driver or a worker."""

    def __init__(
        self,
        secret: bytes,
        kind: str,
        *,
        address: str,
        limits: Limits,
        inline_max: int,
    ) -> None:
        process = Process(clock.random_bytes(8), address, limits=limits)
        super().__init__(process, secret, kind, address)
        self.owner = process.owner
        self.client = process.client
        self.inline_max = inline_max
        self.arena: Arena | None = None
        self.questions: Any = None  # to the cluster's directory; see ``proc.questions``
        self.root: Context = Context(clock.random_bytes(CONTEXT_BYTES))
        self.loading: dict[int, list[Row]] = {}  # thread -> rows met while arguments are loaded
        self.after = self._after

    def _hello(self, to: bytes, call: list[int] | None = None) -> bytearray:
        if self.client.leases.requests.job:  # others work for the same program
            self.info = {**self.info, "job": self.client.leases.requests.job}
        return super()._hello(to, call)

    # -- submission -------------------------------------------------------------------------------
    def context(self) -> Context:
        """Where this thread's submissions are numbered."""
        return task_context.get() or self.root

    def submitted(self) -> None:
        """After a submission, locked: a lone message goes at once, a burst in batches.

        The hot paths call it only when one of its conditions holds, and count otherwise.
        """
        leases = self.client.leases
        self.unflushed += 1
        if leases.lone:
            leases.lone = False
            self.flush()
        elif self.unflushed > BURST:
            self.pumps += 1  # the background thread need not take over
            self.flush()
            self.poll_once()
        if self.resting:  # nobody else would see to the first of a burst
            self.waker.wake()

    def put(self, packed: bytes | Packed, contains: Sequence[Row], id: bytes = b"") -> Row:
        """A new object of this process, with no handle yet; by default the context's next."""
        if not id:
            with self.lock:
                id = self.context().next_id()
        state, data = self.place(id, self.process.id, packed)
        with self.lock:
            return self.owner.put(id, state, data, contains)

    def place(self, id: bytes, owner: bytes, packed: bytes | Packed) -> tuple[int, Any]:
        """Where a serialized value lives: inline if it is small, else in the arena."""
        if isinstance(packed, bytes):
            if len(packed) <= self.inline_max:
                return INLINE, packed
            packed = Packed([(0, packed)], len(packed), [])
        elif packed.size <= self.inline_max:
            return INLINE, packed.join()
        offset, warm = self._allocate(packed.size)
        assert self.arena is not None
        self.arena.write(offset, packed.parts, warm)
        with self.lock:
            inside = [reference._row for reference in packed.refs]
            return SHARED, self.process.seal(id, owner, offset, packed.size, inside)

    def _allocate(self, size: int) -> tuple[int, bool]:
        heap = self.process.heap
        least = False
        for _ in range(100):
            with self.lock:
                if drops:
                    self.drain()
                    self.machine.settle(now())
                offset = heap.place(size)
                if offset is not None:
                    return offset, heap.is_warm(offset, size)
                self.check_alive()
                request = self.process.request_extent(size, least)
            refusal = self._extent_refused(request)
            if refusal and least:
                raise ObjectStoreFull(refusal)
            least = least or bool(refusal)
        raise ObjectStoreFull(f"no room for {size:,} bytes: other threads take it first")

    def _extent_refused(self, request: int) -> str:
        """Wait for the node's answer to a request for an extent; why it was refused, or ''."""
        extents = self.process.extents
        self.wait_until(lambda: extents[request] is not None or self._lost(), lend=False)
        refusal = extents.pop(request)
        if refusal is None:
            self.check_alive()
        return refusal or ""

    # -- values -----------------------------------------------------------------------------------
    def value(self, row: Row) -> Any:
        """The value of a row that is not pending.  Raises the error that it ended in."""
        if row.state == INLINE:
            return serial.loads(row.data)
        if row.state == SHARED:
            return self.read_shared(row)
        if row.state != FAILED:  # it was lost since it was looked at
            self.wait_row(row)
            return self.value(row)
        raise self.error(row.data)

    def read_shared(self, row: Row) -> Any:
        """The value, in place; views of it keep the row."""
        assert self.arena is not None
        place = row.data
        if not is_at_hand(place, self.process.home):
            place = self.process.fetches.here(row)
            if place is None:
                self.bring((row,))
                return self.value(row)
        _, offset, size, _ = place
        view = self.arena.read(offset, size)
        if not serial.has_views(view):
            return serial.loads(view)
        with self.lock:  # another thread may be taking a handle away
            row.handles += 1
        return serial.loads(self.arena.pin(offset, size, drops, row))

    def error(self, data: Any) -> BaseException:
        """The exception that a failed row's data describes."""
        if isinstance(data, (bytes, memoryview)):
            error: BaseException = serial.loads(data)
            return error.as_instance_of_cause() if isinstance(error, TaskError) else error
        made = from_wire(data[0], data[1])
        if len(data) > 2:
            made.__cause__ = self.error(data[2])
        return made

    def hold(self, id: bytes, owner: bytes, address: str) -> Row:
        """The row of a reference that is being deserialized, with one more handle."""
        with self.lock:
            row = self.owner.hold(id, owner, address)
            met = self.loading.get(threading.get_ident())
            if met is not None:
                met.append(row)
            return row

    # -- waiting ----------------------------------------------------------------------------------
    def wait_row(self, row: Row, until: float = NEVER) -> bool:
        """Pump until the row is not pending; False when the time is over."""
        if row.state in KNOWN:
            return self._is_here(row) or self.bring((row,), until)
        with self.lock:
            self.owner.want(row)
            self.machine.settle(now())
        came = self.wait_until(lambda: row.state in KNOWN, until, (row,))
        return came and (self._is_here(row) or self.bring((row,), until))

    def _is_here(self, row: Row) -> bool:
        """Whether the value can be read without asking the node."""
        return row.state != SHARED or is_at_hand(row.data, self.process.home)

    def bring(self, rows: Sequence[Row], until: float = NEVER) -> bool:
        """Have the values of rows that lie elsewhere copied here; False when the time is over.

        A value that is lost on the way is made again, or becomes an error.
        """
        fetches = self.process.fetches

        def away() -> list[Row]:
            return [row for row in rows if row.state not in KNOWN or not fetches.is_settled(row)]

        with self.lock:
            for row in rows:
                fetches.forgive(row)
        while waiting := away():
            with self.lock:
                for row in waiting:
                    if row.state == SHARED:
                        fetches.here(row)
                    else:
                        self.owner.want(row)
                self.machine.settle(now())
            seen = fetches.answers, [row.state for row in waiting]
            if not self.wait_until(
                lambda was=seen, rows=waiting: (  # type: ignore[misc]
                    was != (fetches.answers, [row.state for row in rows]) or self._lost()
                ),
                until,
                waiting,
            ):
                return False
            self.check_alive()
        for row in rows:
            if row.state == SHARED and row.more is not None and row.more.refused:
                raise ObjectStoreFull(row.more.refused)
        return True

    def wait_rows(self, rows: Sequence[Row], until: float = NEVER) -> bool:
        """Pump until none of the rows is pending, or one has failed; False when time is over."""
        owner = self.owner
        with self.lock:
            for row in rows:
                state = row.state
                if state == PENDING:
                    if row.owner is not None:
                        owner.want(row)
                elif state == FAILED:
                    return True
                elif state == COLLECTED:
                    owner.want(row)
            seen = owner.failures
        remaining = iter(rows)
        last: Row | None = None  # of those looked at

        def done() -> bool:
            nonlocal last, seen
            if owner.failures != seen:  # one of those further back may have failed
                seen = owner.failures
                if any(row.state == FAILED for row in rows):
                    return True
            if last is not None and last.state not in KNOWN:
                return False
            for last in remaining:
                if last.state not in KNOWN:
                    break
            else:
                return True
            return False

        if not self.wait_until(done, until, rows):
            return False
        if self.client.leases.nodes == 1:
            return True
        return all(map(self._is_here, rows)) or self.bring(rows, until)

    def watch_rows(self, rows: Sequence[Row], count: int, port: Callable[[], None]) -> bool:
        """Call ``port`` when ``count`` more of the rows are ready; False: they are now."""
        with self.lock:
            _revive(self.owner, rows)
            pending = [row for row in rows if row.state == PENDING]
            left = count - (len(rows) - len(pending))
            if left <= 0:
                return False
            waiter = Waiter(left, port)
            for row in pending:
                self.owner.want(row)
                if row.waiters is None:
                    row.waiters = [waiter]
                else:
                    row.waiters.append(waiter)
            if self.machine.dirty:
                self.flush()
            if self.resting:
                self.waker.wake()
            return True

    def count_ready(self, rows: Sequence[Row], count: int, until: float) -> None:
        """Pump until ``count`` of the rows are ready, or the time is over."""
        waiter = Waiter(0)
        with self.lock:
            _revive(self.owner, rows)
            pending = [row for row in rows if row.state == PENDING]
            waiter.left = count - (len(rows) - len(pending))
            if waiter.left > 0:
                for row in pending:
                    if row.owner is not None:
                        self.owner.want(row)
                    if row.waiters is None:
                        row.waiters = [waiter]
                    else:
                        row.waiters.append(waiter)
        self.wait_until(lambda: waiter.left <= 0, until, rows)
        with self.lock:
            for row in pending:
                if row.waiters is not None and waiter in row.waiters:
                    row.waiters.remove(waiter)

    def _after(self) -> None:
        woken = self.owner.woken
        if woken:
            self.owner.woken = []
            self.late.extend(waiter.port for waiter in woken)
        questions = self.process.questions
        if questions.logs:
            logs, questions.logs = questions.logs, []
            self.show_logs(logs)

    def show_logs(self, logs: list[tuple[int, str, str, list[str]]]) -> None:
        """Show what workers printed, which only a driver gets, and warnings of freehold's own."""
        for _, name, _, lines in logs:  # a worker's standard error is shown at its driver
            sys.stderr.write("".join(f"{name}: {line}\n" for line in lines))

    # -- the host's duties ------------------------------------------------------------------------
    def drain(self) -> None:
        self.owner.drop_all(drops)

    def restless(self) -> bool:
        return bool(self.owner.rows)

    def _lost(self) -> bool:
        return bool(self.client.lost) or self.closed

    def check_alive(self) -> None:
        """Raises NotInitialized or NodeDied when there is nothing to work with."""
        if self.closed:
            raise NotInitialized("freehold was shut down; call freehold.init() to start again")
        if self.client.lost:
            raise NodeDied(self.client.lost)

    def status(self, timeout: float = 5.0) -> dict[str, Any]:
        """The node's tables."""
        with self.lock:
            self.check_alive()
            request = self.process.questions.ask_status()
            self.flush()
        statuses = self.process.questions.statuses
        arrived = self.wait_until(
            lambda: statuses[request] is not None or self._lost(), now() + timeout
        )
        status = statuses.pop(request)
        self.check_alive()
        if not arrived or status is None:
            raise FreeholdError(f"the node did not answer within {timeout:g} s")
        return status


def _revive(owner: Owner, rows: Sequence[Row]) -> None:
    """Have those made again whose values were collected."""
    for row in rows:
        if row.state == COLLECTED:
            owner.want(row)
