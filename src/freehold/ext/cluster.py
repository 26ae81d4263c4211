"""A cluster on this machine: a head and some nodes, to try things out, to test, to measure.

    with Cluster(nodes=3, num_cpus=2) as cluster:
        fh.init(address=cluster.address, token=cluster.token)

Each node is what ``freehold start`` makes of a machine, and takes itself for a machine of its own:
it has its own temporary directory, in which its daemons and the programs on it find each other,
and, where network namespaces are given, its own network.  The first machine also runs the head.

*Ending.*  A machine has a *starter*, which calls ``freehold start``, stays, and on SIGTERM calls
``freehold stop``.  The kernel sends it that signal also when the thread that started it ends, so
that a killed program leaves no cluster behind.  What does not end, and what was killed on purpose,
is found by its environment, which every process of a machine inherits (``TMPDIR``); the directory
goes last.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

import freehold

START_TIMEOUT = 60.0  # seconds until a node is a member
STOP_TIMEOUT = 15.0  # seconds from SIGTERM to SIGKILL
KILL_TIMEOUT = 10.0  # seconds until what was killed is gone
PORT_TRIES = 5  # another program may take a free port before the head does
POLL_S = 0.005
JOIN = re.compile(r"freehold start --address (\S+) --token (\S+)\n")
MEMBER = re.compile(r"is node ([0-9a-f]+)\b.*\n")
IN_USE = re.compile(r"in use", re.IGNORECASE)
# PR_SET_PDEATHSIG (1): SIGTERM when the starter of the starter ends.  The package may be where only
# that one looks for it.  A daemon's death does not end the starter: it may have been the purpose.
PROGRAM = """\
import ctypes, os, signal, sys
sys.path.append({root!r})
from freehold.cli import main
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.getppid() == {parent} or sys.exit("the starter has no parent")
try:
    try:
        main(sys.argv[1:], prog_name="freehold")
    except SystemExit as ended:
        if ended.code:
            raise
    while True:
        signal.pause()
except SystemExit as ended:
    code = ended.code
if code == 143:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main(["stop"], prog_name="freehold")
sys.exit(code)
"""


TOOL = """\
import sys
sys.path.append({root!r})
from freehold.cli import main
main(["status", "--json"], prog_name="freehold")
"""
STATUS_TIMEOUT = 10.0  # seconds
COMMAND = """\
import sys
sys.path.append({root!r})
from freehold.cli import main
main(sys.argv[1:], prog_name="freehold")
"""


class ClusterError(Exception):
    """A machine of the cluster could not be started; the text is what ``freehold start`` said."""


class Machine:
    """One machine of the cluster; :class:`Cluster` makes them.

    Attributes:
        index: its number; 0 also runs the head.
        directory: the temporary directory of everything that runs on it.
        namespace: its network namespace, by name; empty: that of this process.
        host: its address; empty: ``freehold start`` finds one.
        node: its node's id, in hex.
    """

    def __init__(self, index: int, directory: str, namespace: str, host: str) -> None:
        self.index = index
        self.directory = directory
        self.namespace = namespace
        self.host = host
        self.node = ""
        self.variables: dict[str, str] = {}
        self.starter: subprocess.Popen[str] | None = None

    def __repr__(self) -> str:
        return f"<Machine {self.index}, node {self.node or '?'}>"

    def popen(
        self, argv: Sequence[str], env: dict[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[str]:
        """Start a program on the machine, whose ``fh.init()`` joins the cluster.

        Args:
            argv: the program and its arguments.
            env: variables besides those of this process and the cluster's.
            **more: as for :class:`subprocess.Popen`.
        """
        enter = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        environment = {**os.environ, **self.variables, "TMPDIR": self.directory, **(env or {})}
        return subprocess.Popen([*enter, *argv], env=environment, text=True, **more)

    def pids(self, *names: str) -> list[int]:
        """What runs on the machine: all processes, or those with these names (freehold-node...)."""
        mark = f"\0TMPDIR={self.directory}\0".encode()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
                if (
                    mark in b"\0" + environment
                    and (not names or process.name() in names)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process.pid)
        return sorted(found)

    def signal(self, number: int, *names: str) -> list[int]:
        """Send a signal to all that runs on the machine, or to the processes with these names.

        After SIGKILL they are gone when this returns, also those that were born meanwhile.

        Returns:
            the processes that were there.
        """
        reached = pids = self.pids(*names)
        _send(number, pids)
        if number == signal.SIGKILL:
            end = time.monotonic() + KILL_TIMEOUT
            while pids := self.pids(*names):
                if time.monotonic() > end:
                    raise ClusterError(f"killed, but still there: {pids}")
                _send(number, pids)
                time.sleep(POLL_S)
        if self.starter is not None:
            self.starter.poll()
        return reached

    @property
    def alive(self) -> bool:
        """Whether its node daemon runs, or is frozen."""
        return bool(self.pids("freehold-node"))

    def said(self) -> str:
        """What ``freehold start`` has printed."""
        try:
            return Path(self.directory, "start.log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def status(self) -> dict[str, Any]:
        """The tables of its node, as ``freehold status --json`` tells them there.

        Raises:
            ClusterError: there is none, or it does not answer.
        """
        command = [sys.executable, "-c", TOOL.format(root=_root())]
        with self.popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as tool:
            try:
                out, err = tool.communicate(timeout=STATUS_TIMEOUT)
            except subprocess.TimeoutExpired:
                tool.kill()
                raise ClusterError(f"{self}: no status in {STATUS_TIMEOUT:g} s") from None
        nodes = json.loads(out)["nodes"] if out else []
        if not nodes or "error" in nodes[0]:
            raise ClusterError(f"{self}: {nodes[0]['error'] if nodes else err.strip()}")
        found: dict[str, Any] = nodes[0]
        return found

    # --- for the cluster --------------------------------------------------------------------------

    def start(self, arguments: Sequence[str], ready: Callable[[str], bool]) -> None:
        """Call ``freehold start`` and wait until it has said what it has to."""
        self.begin(arguments)
        self.finish(ready)

    def begin(self, arguments: Sequence[str]) -> None:
        """Call ``freehold start``."""
        program = PROGRAM.format(parent=os.getpid(), root=_root())
        command = [sys.executable, "-c", program, "start", *arguments]
        with open(Path(self.directory, "start.log"), "w", encoding="utf-8") as log:
            self.starter = self.popen(
                command, {"FREEHOLD_ADDRESS": ""}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def finish(self, ready: Callable[[str], bool]) -> None:
        """Wait until it has said what it has to."""
        assert self.starter is not None
        end = time.monotonic() + START_TIMEOUT
        while not ready(self.said()):
            if self.starter.poll() is not None:
                raise ClusterError(f"machine {self.index}: {self.said().strip()}")
            if time.monotonic() > end:
                raise ClusterError(f"machine {self.index} takes too long: {self.said().strip()}")
            time.sleep(POLL_S)
        found = MEMBER.search(self.said())
        self.node = found[1] if found else ""

    def ask_to_end(self) -> None:
        """SIGTERM to the starter, which ends the daemons in good order."""
        if self.starter is not None and self.starter.poll() is None:
            _send(signal.SIGCONT, self.pids())
            self.starter.terminate()

    def wait(self) -> None:
        """Wait until it has ended; kill what has not, or what is left."""
        if self.starter is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.starter.wait(STOP_TIMEOUT)
        self.signal(signal.SIGKILL)
        if self.starter is not None:
            self.starter.wait()


class Cluster:
    """Machines that make a cluster, as long as the ``with`` block lasts.

    Args:
        nodes: how many machines.
        num_cpus: CPUs that each node offers; None: those that there are.
        resources: custom resources of each node.
        tls: encrypt what machines say to each other.
        store: keep the head's tables in a file, with which ``restart(0)`` goes on.
        namespaces: a network namespace for each machine, by name; none: this process's.
        hosts: an address for each machine, needed with namespaces; else all have 127.0.0.1.
        env: variables for everything on all machines.

    Attributes:
        address: the head's, ``HOST:PORT``.
        token: the cluster's.
        machines: those started so far, also the ones that were killed.

    Raises:
        ClusterError: a machine could not be started.  Nothing is left of the others.
    """

    def __init__(
        self,
        nodes: int = 2,
        *,
        num_cpus: float | None = 1,
        resources: dict[str, float] | None = None,
        tls: bool = True,
        store: bool = False,
        namespaces: Sequence[str] = (),
        hosts: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"a cluster has at least one node, not {nodes!r}")
        for name, given in (("namespaces", namespaces), ("hosts", hosts)):
            if given and len(given) < nodes:
                raise ValueError(f"{nodes} nodes, but {len(given)} {name}")
        if namespaces and not hosts:
            raise ValueError("machines in namespaces need their hosts' addresses")
        self.nodes = nodes
        self.num_cpus = num_cpus
        self.resources = resources
        self.tls = tls
        self.store = store
        self.namespaces = namespaces
        self.hosts = hosts
        self.env = env or {}
        self.address = self.token = ""
        self.machines: list[Machine] = []
        self.directory = ""
        self._arguments: list[list[str]] = []

    # --- life -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the head and the nodes; it returns when all are members."""
        if self.directory:
            raise ClusterError("this cluster has been started")
        # The name is short, since Unix sockets will be below it.
        self.directory = tempfile.mkdtemp(prefix="fhc-", dir="/tmp")
        atexit.register(self.stop)
        try:
            self._start_head()
            others = [
                self._begin_node(
                    self.namespaces[index] if self.namespaces else "",
                    self.hosts[index] if self.hosts else "127.0.0.1",
                )
                for index in range(1, self.nodes)
            ]
            for machine in others:
                machine.finish(_is_member)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the cluster and remove its files.  Twice does not matter."""
        atexit.unregister(self.stop)
        for machines in (self.machines[1:], self.machines[:1]):  # the head's is the last
            for machine in machines:
                machine.ask_to_end()
            for machine in machines:
                machine.wait()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- machines ---------------------------------------------------------------------------------

    def add_node(
        self,
        *,
        num_cpus: float | None = None,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        namespace: str = "",
        host: str = "127.0.0.1",
    ) -> Machine:
        """Start one more machine; what is not given is as for the others."""
        machine = self._begin_node(namespace, host, num_cpus, resources, labels)
        machine.finish(_is_member)
        return machine

    def _begin_node(
        self,
        namespace: str,
        host: str,
        num_cpus: float | None = None,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Machine:
        machine = self._machine(namespace, host)
        machine.variables = self._variables()
        arguments = ["--address", self.address, *self._options(host, num_cpus, resources, labels)]
        self._arguments.append(arguments)
        machine.begin(arguments)
        return machine

    def kill_node(self, index: int, number: int = signal.SIGKILL) -> Machine:
        """A machine's power fails: SIGKILL to all that runs on it.

        With SIGSTOP it freezes instead, and with SIGCONT it goes on.
        """
        machine = self.machines[index]
        machine.signal(number)
        return machine

    def kill_head(self, number: int = signal.SIGKILL) -> None:
        """The same for the head alone; the node beside it is not touched."""
        if not self.machines[0].signal(number, "freehold-head"):
            raise ClusterError("no head is running")

    def restart_head(self) -> None:
        """The head comes back alone, beside the node that it had; see :meth:`restart`."""
        machine = self.machines[0]
        if machine.pids("freehold-head"):
            raise ClusterError("the head is running")
        command = [sys.executable, "-c", COMMAND.format(root=_root()), "start", *self._arguments[0]]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with machine.popen(
            command, {"FREEHOLD_ADDRESS": ""}, stdin=subprocess.DEVNULL, **pipes
        ) as starter:
            said, _ = starter.communicate()
        if starter.returncode:
            raise ClusterError(f"machine 0: {said.strip()}")

    def stop_node(self, index: int) -> Machine:
        """A machine leaves in good order."""
        machine = self.machines[index]
        machine.ask_to_end()
        machine.wait()
        return machine

    def restart(self, index: int) -> Machine:
        """A machine that was killed or stopped comes back; its node has a new id.

        Machine 0 comes back with the head, at the same address, which goes on with its tables if
        the cluster has a store.
        """
        machine = self.machines[index]
        if machine.alive:
            raise ClusterError(f"machine {index} is running")
        machine.signal(signal.SIGKILL)
        machine.wait()  # for the starter of the last time, which nobody would wait for
        for entry in os.scandir(machine.directory):  # a machine that boots has an empty /tmp
            if entry.is_dir():
                shutil.rmtree(entry.path, ignore_errors=True)
        pattern = MEMBER if index else JOIN
        machine.start(self._arguments[index], lambda text: bool(pattern.search(text)))
        return machine

    # --- how they are started ---------------------------------------------------------------------

    def _start_head(self) -> None:
        host = self.hosts[0] if self.hosts else "127.0.0.1"
        machine = self._machine(self.namespaces[0] if self.namespaces else "", host)
        for left in reversed(range(PORT_TRIES)):
            arguments = ["--head", *self._options(host, None, None, None)]
            if not machine.namespace:  # elsewhere the usual one is free
                arguments += ["--port", str(_free_port(host))]
            arguments += [] if self.tls else ["--no-tls"]
            arguments += ["--store", f"{self.directory}/head.db"] if self.store else []
            machine.variables = dict(self.env)
            try:
                machine.start(arguments, lambda text: bool(JOIN.search(text)))
                break
            except ClusterError as error:
                if not left or not IN_USE.search(str(error)):
                    raise
        join = JOIN.search(machine.said())
        assert join is not None
        self.address, self.token = join[1], join[2]
        self._arguments.insert(0, arguments)
        machine.variables = self._variables()

    def _machine(self, namespace: str, host: str) -> Machine:
        index = len(self.machines)
        directory = os.path.join(self.directory, str(index))
        os.mkdir(directory, 0o700)
        machine = Machine(index, directory, namespace, host)
        self.machines.append(machine)
        return machine

    def _variables(self) -> dict[str, str]:
        """What a program on a machine needs to join.  A token must not be in a command line."""
        return {**self.env, "FREEHOLD_ADDRESS": self.address, "FREEHOLD_TOKEN": self.token}

    def _options(
        self,
        host: str,
        num_cpus: float | None,
        resources: dict[str, float] | None,
        labels: dict[str, str] | None,
    ) -> list[str]:
        cpus = self.num_cpus if num_cpus is None else num_cpus
        found = [] if cpus is None else ["--num-cpus", f"{cpus:g}"]
        custom = self.resources if resources is None else resources
        for name, value in (("--resources", custom), ("--labels", labels)):
            found += [name, json.dumps(value)] if value else []
        return [*found, *(["--host", host] if host else [])]


def _root() -> str:
    """Where the package is, for processes that would not find it."""
    return str(Path(freehold.__file__).resolve().parents[1])


def _is_member(text: str) -> bool:
    """Whether ``freehold start`` has said that the node is a member."""
    return bool(MEMBER.search(text))


def _send(number: int, pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
