"""What every process has in common: one machine, its links, and the loop that moves frames.

*The caller pumps*: a thread that waits for something drives the selector itself (``wait``), so that
no hand-off between threads is on the hot path.  While it waits it first spins for a while that
adapts to how long answers have taken, then sleeps in the kernel.  A background thread takes over
only when nobody has pumped for about a millisecond, so that this process still answers others while
user code computes.  All state is guarded by ``lock``; nothing blocks while holding it.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable

from freehold.core.machine import NEVER, Machine
from freehold.io import clock
from freehold.io.wake import Waker
from freehold.proc.alarms import Alarm
from freehold.proc.links import Links
from freehold.proc.session import drops, now

SPIN_MAX = 100e-6  # seconds
SPIN_MIN = 2e-6
SPIN_AGAIN = 400e-6  # what takes no longer asleep, on both sides, may be within SPIN_MAX awake
TAKE_OVER = 1e-3  # seconds without a pump after which the background thread takes over
TAKE_OVER_MAX = 4e-3  # the same, after a while of steady pumping
REST = 0.02  # seconds: how long a dropped reference may wait when nothing else happens


class Host(Links):
    """The loop around one machine."""

    def __init__(self, machine: Machine, secret: bytes, kind: str, address: str = "") -> None:
        super().__init__(machine, secret, kind, address)
        self.lock = threading.RLock()
        self.pump_lock = threading.RLock()  # a callback of the pumping thread may wait, too
        self.waker = Waker()
        self.watch(self.waker.fd, self._on_waker)
        self.pumping = False
        self.pumps = 0
        self.resting = False  # the background thread sleeps in the selector
        self.spin = SPIN_MAX
        self.next_timer = NEVER
        self.closed = False
        self.interrupted = False  # Ctrl-C came, and is kept until the next wait
        self.after: Callable[[], None] | None = None  # called, locked, after each batch
        self.late: deque[Callable[[], None]] = deque()  # to be called without the lock
        self._background: threading.Thread | None = None
        self._park = threading.Event()
        self._parked = False

    # -- the loop ---------------------------------------------------------------------------------
    def handle(self, events: list[tuple[int, int]]) -> None:
        """Handle what the selector has reported, and flush once."""
        with self.lock:
            when = now()
            ports = self.ports
            for fd, mask in events:
                port = ports.get(fd)
                if port is not None:
                    port(mask, when)
            self._finish(when)
        if self.late:
            self.run_late()

    def run_late(self) -> None:
        """Call what may run user code, or wait: never with the lock held."""
        if self.lock._is_owned():  # type: ignore[attr-defined]
            return  # by a caller of ours; whoever pumps next does it
        pumping = self.pumping
        while self.late:
            try:
                call = self.late.popleft()
            except IndexError:  # another thread was faster
                break
            call()
        self.pumping = pumping

    def _finish(self, when: float) -> None:
        machine = self.machine
        if when >= self.next_timer:
            self._on_timer(when)
        if drops:
            self.drain()
        machine.settle(when)
        self.next_timer = machine.deadline()
        if self.alarms.heap:
            self.next_timer = min(self.next_timer, self.alarms.deadline())
        if machine.dirty:
            self.flush()
        if self.after is not None:
            self.after()

    def _on_timer(self, when: float) -> None:
        self.alarms.run(when)
        if when >= self.machine.deadline():
            self.machine.now = when
            self.machine.on_timer(when)

    def call_at(self, when: float, call: Callable[[float], None]) -> Alarm:
        """Call ``call(now)``, locked, at that time; whoever sleeps in the selector is told."""
        alarm = super().call_at(when, call)
        if when < self.next_timer:
            self.next_timer = when
            self.waker.wake()
        return alarm

    def drain(self) -> None:
        """Process handles hosts keep (see ``ProcessHost``); a daemon has none."""

    def poll_once(self) -> None:
        """Handle what is there, without waiting."""
        self.handle(self.epoll.poll(0, 64))

    def pump(self, until: float) -> None:
        """Wait for events, at most until then, and handle them."""
        poll = self.epoll.poll
        events = poll(0, 64)
        if not events:
            start = now()
            spin = self.spin
            end = start + spin
            while not events and now() < end:
                clock.yield_cpu()  # where cores are short, the answer may need this one
                events = poll(0, 64)
            if events:
                self.spin = min(SPIN_MAX, spin * 1.5)
            else:
                self.spin = max(SPIN_MIN, spin * 0.5)
                events = self._sleep(until, start)
        self.handle(events)

    def _sleep(self, until: float, start: float) -> list[tuple[int, int]]:
        wake = min(until, self.next_timer)
        timeout = -1 if wake == NEVER else max(0.0, wake - now())
        events = self.epoll.poll(timeout, 64)
        if events and now() - start < SPIN_AGAIN:
            self.spin = SPIN_MAX  # had both sides spun, neither would have slept
        return events

    def run(self, finished: Callable[[], bool]) -> None:
        """Pump in this thread until ``finished()``."""
        self.pumping = True
        while not finished():
            self.pump(NEVER)

    # -- the background thread --------------------------------------------------------------------
    def start_background(self) -> None:
        """Answer others while user code computes."""
        self._background = threading.Thread(
            target=self._watch_over, name="freehold-pump", daemon=True
        )
        self._background.start()

    def leave(self) -> None:
        """The pumping thread goes back to user code."""
        self.pumping = False
        if self._parked:
            self._parked = False
            self._park.set()

    def _watch_over(self) -> None:
        try:
            self._look_after()
        except Exception as error:
            if not self.closed:
                sys.excepthook(type(error), error, error.__traceback__)
                self.broken(error)

    def broken(self, error: Exception) -> None:
        """This process's tables are not what they should be: nobody may wait for them."""

    def _look_after(self) -> None:
        seen = -1
        nap = TAKE_OVER
        while not self.closed:
            if seen != self.pumps:  # somebody pumps all the time: look less often
                seen = self.pumps
                clock.sleep(nap)
                nap = min(nap * 1.5, TAKE_OVER_MAX)
                continue
            nap = TAKE_OVER
            if not self.pumping:
                self._take_over()
                continue
            self._park.clear()  # the same pump as a moment ago: it will take a while
            self._parked = True
            if self.still_pumping(seen):
                self._park.wait(1.0)
            self._parked = False
            clock.sleep(TAKE_OVER)

    def _take_over(self) -> None:
        self.resting = True  # before looking, so that what comes after the look wakes this thread
        with self.lock:
            if self.closed:
                return
            self._finish(now())
        if self.late:
            self.run_late()
        wake = min(self.next_timer, now() + REST if self.restless() else NEVER)
        timeout = -1 if wake == NEVER else max(0.0, wake - now())
        events = self.epoll.poll(timeout, 64)
        self.resting = False
        if self.idle():
            self.handle(events)
        if self.pumping:
            self.waker.wake()  # what the pumping thread waits for may have come by this thread

    def still_pumping(self, pump: int) -> bool:
        """Whether another thread is still in that pump; it changes these at any time."""
        return self.pumping and pump == self.pumps

    def idle(self) -> bool:
        """Whether no thread pumps, and the process is not being closed."""
        return not self.closed and not self.pumping

    def restless(self) -> bool:
        """Whether something may be dropped without any event."""
        return False

    def _on_waker(self, mask: int, when: float) -> None:
        self.waker.clear()

    def interrupt(self) -> None:
        """Raise the Ctrl-C that was kept, in the main thread; others leave it alone."""
        if threading.current_thread() is threading.main_thread():
            self.interrupted = False
            raise KeyboardInterrupt

    def abandon(self) -> None:
        """In a forked child: give up what is the parent's, without a word to anybody."""
        self.closed = True
        self.shut()
        self.waker.close()

    def close(self) -> None:
        """Close every connection.  The machine is not told."""
        self.closed = True
        self.waker.wake()
        self._park.set()
        background = self._background
        if background is not None and background is not threading.current_thread():
            background.join(1.0)
        with self.lock:
            self.shut()
            self.waker.close()
