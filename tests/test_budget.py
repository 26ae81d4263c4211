"""What a no-op task costs, in Python frames, C calls and bytecodes, so that it cannot creep up.

The counts repeat exactly, unlike times.  A driver's and a worker's runtime are joined in one
process, with frames going through the codec as they do on a socket; the sockets are left out.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import freehold as fh
from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.process.leases import Limits
from freehold.proc import host as host_module
from freehold.proc import links as links_module
from freehold.proc import runtime as runtime_module
from freehold.proc import session
from freehold.proc import waiting as waiting_module
from freehold.proc import worker as worker_module
from freehold.proc.runtime import Runtime
from freehold.proc.worker import Worker
from freehold.wire.codec import Reader, encode

remote_module = importlib.import_module("freehold.remote")
TIMED = (
    host_module, links_module, runtime_module, waiting_module, remote_module, worker_module,
)  # fmt: skip
TASKS = 256
# The most that one task may cost in both processes together; lower them when it gets cheaper.
FRAMES_MAX = 10.5
C_CALLS_MAX = 15.5
BYTECODES_MAX = 670


class Loop:
    """A driver's and a worker's runtime, and the wire between them."""

    def __init__(self) -> None:
        self.driver = Runtime(b"", "driver", address="", limits=Limits(), inline_max=100_000)
        config = {
            "dir": "", "secret": b"", "depth_max": 128, "lease_idle": 0.2, "inline_max": 100_000,
            "remake": 0.0, "lineage_max": 1 << 20, "id": b"the node",
        }  # fmt: skip
        self.worker = Worker(config, None, 1, memoryview(bytearray(16)))  # type: ignore[arg-type]
        self.node = Peer(b"node", "", "node")
        self.driver.owner.node = self.worker.owner.node = self.node
        self.to_worker = self.driver.machine.peer(self.worker.machine.id)
        self.to_driver = self.worker.machine.peer(self.driver.machine.id)
        self.reader = Reader()
        self.driver.flush = self.flushed  # type: ignore[method-assign]
        self.worker.flush = int  # type: ignore[method-assign,assignment]
        self.driver.poll_once = int  # type: ignore[method-assign,assignment]

    def flushed(self) -> None:
        """What a flush is here: the rest is done by ``carry``."""
        self.driver.unflushed = 0

    def grant(self) -> None:
        """Answer the driver's request for a lease."""
        for op, *fields in self.node.outbox:
            if op == m.LEASE:
                grant = self.driver.machine.handlers[m.GRANT]
                grant(self.node, 0.0, fields[0], 1, self.worker.machine.id, "")
        self.node.outbox.clear()

    def carry(self, source: Peer, target: Any, as_peer: Peer) -> None:
        """Deliver what ``source``'s outbox holds to the other runtime."""
        frames, source.outbox = source.outbox, []
        if frames:
            port = links_module.Port(None, None, as_peer)  # type: ignore[arg-type]
            target._take(port, memoryview(encode(frames)), 0.0)

    def turn(self) -> None:
        """One round: tasks over, run, results back."""
        self.carry(self.to_worker, self.worker, self.to_driver)
        run = self.worker.executor.next()
        while run is not None:
            run = self.worker.execute(run) or self.worker.executor.next()
        self.carry(self.to_driver, self.driver, self.to_worker)
        self.driver._finish(0.0)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    stopped = itertools.repeat(0.0).__next__  # a clock in C, as the real one, that stands still
    for module in TIMED:
        monkeypatch.setattr(module, "now", stopped)
    before = session.current_runtime
    made = Loop()
    session.set_current(made.driver)
    yield made
    session.set_current(before)
    session.drops.clear()
    made.driver.close()
    made.worker.close()


@fh.remote
def noop() -> None:
    """Nothing."""


def run_tasks(loop: Loop, count: int) -> None:
    refs = [noop.remote() for _ in range(count)]
    while refs[-1]._row.state == m.PENDING or refs[0]._row.state == m.PENDING:
        loop.grant()
        loop.turn()
    assert fh.get(refs) == [None] * count


def measure(action: Callable[[], None]) -> tuple[int, int, int]:
    """(Python frames, C calls, bytecodes) of the action."""
    frames = c_calls = codes = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal frames, c_calls
        if event == "call":
            frames += 1
        elif event == "c_call":
            c_calls += 1

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal codes
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            codes += 1
        return trace

    gc.disable()
    try:
        sys.setprofile(profile)
        action()
        sys.setprofile(None)
        sys.settrace(trace)
        action()
    finally:
        sys.setprofile(None)
        sys.settrace(None)
        gc.enable()
    return frames, c_calls, codes


def test_a_noop_task_stays_in_its_budget(loop: Loop) -> None:
    run_tasks(loop, TASKS)  # functions are sent, pools and paces are known
    noop._spec.pace = 1e-6
    run_tasks(loop, TASKS)
    small = measure(lambda: run_tasks(loop, TASKS))
    large = measure(lambda: run_tasks(loop, 2 * TASKS))
    frames, c_calls, codes = ((b - a) / TASKS for a, b in zip(small, large, strict=True))
    print(f"frames {frames:.1f}, C calls {c_calls:.1f}, bytecodes {codes:.0f}")
    assert frames <= FRAMES_MAX
    assert c_calls <= C_CALLS_MAX
    assert codes <= BYTECODES_MAX


def test_the_count_repeats_exactly(loop: Loop) -> None:
    run_tasks(loop, TASKS)
    noop._spec.pace = 1e-6
    run_tasks(loop, TASKS)
    counts = {measure(lambda: run_tasks(loop, TASKS)) for _ in range(3)}
    assert len(counts) == 1


def test_growth_is_noticed(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tasks(loop, TASKS)
    before = measure(lambda: run_tasks(loop, TASKS))
    place = loop.driver.client.leases.place
    push = loop.driver.client.push
    assert place is not None

    def slower(*arguments: Any) -> None:
        push(*arguments)

    monkeypatch.setattr(loop.driver.client.leases, "push", slower)
    after = measure(lambda: run_tasks(loop, TASKS))
    assert after[0] > before[0]
