"""The driver: the user's program, and the embedded node that it starts and ends with."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from freehold.config import Config
from freehold.core.machine import Peer
from freehold.core.messages import PENDING
from freehold.core.process.leases import Limits
from freehold.errors import AlreadyInitialized, FreeholdError, NodeDied, NotInitialized
from freehold.io import clock, limits, net, procs
from freehold.io.shm import Arena
from freehold.proc import daemon, nodes, session
from freehold.proc.logs import LogView
from freehold.proc.runtime import Runtime
from freehold.proc.session import drops, now, set_current
from freehold.wire.auth import SECRET_BYTES

if TYPE_CHECKING:
    from freehold.proc.attach import Way

START_TIMEOUT = 30.0  # seconds
LEAVE_WAIT = 1.0  # seconds for the cluster to hear that the program has ended
LOGS_WAIT = 1.0  # seconds, at the session's end
INTERRUPT_AGAIN = 2e-3  # seconds between two tries to raise KeyboardInterrupt outside the library
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = tuple(  # the files in which Ctrl-C waits
    os.path.join(PACKAGE, part)
    for part in ("api.py", "actor.py", "ref.py", "remote.py", "proc", "core", "wire", "io")
)
_ended_here = False  # this process had a runtime and shut it down
_changing = threading.RLock()  # held by who starts a session


class Driver(Runtime):
    """The runtime of the user's program."""

    def __init__(self, config: Config, given: dict[str, Any]) -> None:
        self.config = config
        self.way = None if config.address is None else _way(config, given)
        self.attached = self.way is not None and self.way.record is not None
        secret = clock.random_bytes(SECRET_BYTES) if self.way is None else self.way.token.secret
        super().__init__(
            secret, "driver", address="",
            limits=Limits(
                depth_max=config.depth_max,
                idle=config.lease_idle_ms / 1000,
                remake=config.remake_s_max,
                lineage_bytes_max=config.lineage_bytes_max,
            ),
            inline_max=config.inline_bytes_max,
        )  # fmt: skip
        self.pid = clock.pid()
        self.log_view = LogView()
        self.node_process: subprocess.Popen[bytes] | None = None
        self._sigint: Any = None
        self.job = self.process.id
        self.process.hired = True  # by its user
        if self.attached:
            assert self.way is not None
            self.dir = self.way.dir
            self.socket = os.path.join(self.dir, f"d{self.pid}.sock")
            net.remove_file(self.socket)  # of a dead driver, which had the same pid
        else:
            self.dir = net.make_session_dir()
            self.socket = os.path.join(self.dir, "driver.sock")

    # -- start ------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start the embedded node, if there is no standing one, and connect to it."""
        node_address = os.path.join(self.dir, "node.sock")
        if not self.attached:
            net.write_private(os.path.join(self.dir, "secret"), self.secret)
            config = self._node_config(node_address)
            self.node_process = daemon.start("node" if self.way is None else "member", config)
        self.listen(self.socket)
        self._take_address()
        self._meet(Peer(b"", node_address, "node"))
        self._map_arena()
        if self.way is not None:
            self._register()
        self._take_interrupts()
        self.start_background()

    def _take_address(self) -> None:
        """Know the node, and be dialled from where its other processes are."""
        if self.node_process is not None:
            told = daemon.answer(self.node_process, "node")
            node, address = told["node"], told["address"]
        else:
            assert self.way is not None
            assert self.way.record is not None
            node, address = self.way.record.node, f"||{self.way.record.address}"
        self.set_home(bytes.fromhex(node))
        if self.way is not None:
            from freehold.proc import attach  # here, as below: only a cluster needs it

            attach.open_to_cluster(self, self.dir, self.way, address)
        self.owner.address = self.address

    def _meet(self, node: Peer) -> None:
        self.dial(node)
        ready = self.wait_until(
            lambda: self.owner.node is not None or bool(self.errors or self.client.lost),
            now() + START_TIMEOUT,
        )
        if self.errors:
            raise self.errors[0]
        if not ready or self.owner.node is None:
            raise NodeDied(self.client.lost or "the node daemon does not answer")

    def _register(self) -> None:
        """Tell the cluster of this program: what is made for it goes with it."""
        from freehold.proc.questions import asking

        self.client.leases.requests.job = [self.job, self.address, nodes.search_path()]
        info = {"pid": self.pid, "program": sys.argv[0] if sys.argv else "", "host": self.address}
        asking(self).ask("job", START_TIMEOUT, job=self.job, info=info, alive=True)

    def _unregister(self) -> None:
        """It has ended; if that cannot be said, its node will say it."""
        if self.way is not None and self.questions is not None and not self._lost():
            with contextlib.suppress(FreeholdError):
                self.questions.ask("job", LEAVE_WAIT, job=self.job, info={}, alive=False)

    def _map_arena(self) -> None:
        info = self.process.node_info
        if self.attached:
            from freehold.proc import attach

            self.arena = attach.take_arena(self.dir, info["arena"])
            return
        assert self.node_process is not None
        fd = os.open(f"/proc/{self.node_process.pid}/fd/{info['fd']}", os.O_RDWR)
        self.arena = Arena(fd, info["arena"])

    def _node_config(self, address: str) -> dict[str, Any]:
        config = self.config
        cpus = float(config.num_cpus if config.num_cpus is not None else limits.cpu_count())
        if self.way is not None:  # it is there for this driver's objects; others run the tasks
            cpus = 0.0
        return {
            **nodes.common(config, cpus),
            "dir": self.dir,
            "node": address,
            "secret": self.secret,
            "cluster": self.way and {"address": self.way.address, "token": self.way.token.text},
        }

    def _take_interrupts(self) -> None:
        """Ctrl-C must not strike while the tables are being changed.

        In the user's own code it does what it always did.  Inside the library it is kept until a
        wait notices it, or until the library has returned, whichever comes first.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGINT)
        if not callable(previous):
            return

        def again() -> None:
            clock.sleep(INTERRUPT_AGAIN)
            if self.interrupted:
                signal.pthread_kill(main_thread, signal.SIGINT)

        def on_interrupt(number: int, frame: FrameType | None) -> None:
            if _in_library(frame):
                self.interrupted = True
                self.waker.wake()
                _thread.start_new_thread(again, ())  # unlike Thread.start, it takes no lock
            else:
                self.interrupted = False
                previous(number, frame)

        main_thread = threading.get_ident()

        self._sigint = (on_interrupt, previous)
        signal.signal(signal.SIGINT, on_interrupt)

    # -- end --------------------------------------------------------------------------------------
    def stop(self) -> None:
        """End the session: workers, node, files.  References of it raise from now on."""
        interrupt: KeyboardInterrupt | None = None
        try:
            self._last_logs()
        except KeyboardInterrupt as error:  # not before everything is gone
            interrupt = error
        with self.lock:
            self.process.bequeath()
            self.flush()
        self._unregister()
        with self.lock:
            self.process.fall_silent()  # who asks is told by its node that this process has ended
            for row in list(self.owner.rows.values()):
                if row.state == PENDING:
                    self.owner.fail(row, "NotInitialized", "freehold was shut down meanwhile")
                else:
                    row.state = 3
                    row.data = ["InvalidReference", "it belongs to a session that was shut down"]
            self._after()
        self.run_late()
        self.close()
        self.clean_up()
        self.log_view.close()
        if self._sigint and signal.getsignal(signal.SIGINT) is self._sigint[0]:
            signal.signal(signal.SIGINT, self._sigint[1])
        self.owner.rows.clear()
        if interrupt is not None:
            raise interrupt

    def _last_logs(self) -> None:
        """Show what tasks have printed, however recently."""
        if self.owner.node is None or self.client.lost or not self.config.log_to_driver:
            return
        with self.lock:
            request = self.process.questions.ask_logs()
            self.flush()
        questions = self.process.questions
        self.wait_until(lambda: questions.drained == request or self._lost(), now() + LOGS_WAIT)

    def clean_up(self) -> None:
        """End the node, if it is this driver's, and remove its files."""
        if self.attached:
            net.remove_file(self.socket)
        else:
            self._end_node()
            net.remove_session_dir(self.dir)

    def _end_node(self) -> None:
        process = self.node_process
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def abandon_node(self) -> None:
        """In a forked child: the node is the parent's to end, or to see die with it."""
        process = self.node_process
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.returncode = 0  # it is no child of this process: nothing is to be waited for

    def broken(self, error: Exception) -> None:
        with self.lock:
            self.client.deaths.node_died(f"this process cannot go on: {error!r}")
        self.waker.wake()

    def show_logs(self, logs: list[tuple[int, str, str, list[str]]]) -> None:
        if self.config.log_to_driver:
            self.log_view.show(logs)


def _way(config: Config, given: dict[str, Any]) -> Way:
    from freehold.proc import attach

    return attach.way(config, given)


def _in_library(frame: FrameType | None) -> bool:
    """Whether the library is at work in any frame of the stack."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(LIBRARY):
            return True
        frame = frame.f_back
    return False


# -- the process's one driver --------------------------------------------------------------------


def init(options: dict[str, Any]) -> Driver:
    """Start a session.  Raises AlreadyInitialized if there is one."""
    with _changing:
        return _init(options)


def _init(options: dict[str, Any]) -> Driver:
    global _ended_here
    existing = session.current()
    if existing is not None:
        raise AlreadyInitialized(
            "freehold is running already; call freehold.shutdown() before another init()"
        )
    config = Config.make(options)
    procs.open_standard_files()
    driver = Driver(config, options)
    drops.clear()
    try:
        driver.start()
    except BaseException:
        driver.close()
        driver.clean_up()
        raise
    set_current(driver)
    _ended_here = session.forked = False
    return driver


def shutdown() -> None:
    """End the session, if there is one."""
    global _ended_here
    driver = session.current()
    if isinstance(driver, Driver) and driver.pid == clock.pid():
        set_current(None)
        _ended_here = True
        driver.stop()


def first_use() -> Runtime:
    """There is no runtime: start one, unless there was one and it has ended."""
    with _changing:
        current: Runtime | None = session.current()
        return _first_use() if current is None else current  # another thread was faster


def _first_use() -> Runtime:
    if session.forked:
        raise NotInitialized(
            "this process was forked from one that uses freehold and has no connection of its own; "
            "call freehold.init() in it, or use tasks instead of fork"
        )
    if _ended_here:
        raise NotInitialized("freehold was shut down; call freehold.init() to start again")
    return _init({})


def _after_fork() -> None:
    """The child of a driver is no driver: it must not touch its sockets, nor keep them open."""
    global _changing
    _changing = threading.RLock()  # a thread of the parent may have held it
    inherited = session.leave_to_parent()
    if isinstance(inherited, Driver):
        inherited.abandon_node()


procs.at_fork(_after_fork)
atexit.register(shutdown)
