"""Hosts made of this machine: network namespaces, each with one cable to a switch.

A :class:`Network` of N hosts is N + 1 namespaces.  Each host has a loopback device and ``eth0``,
the end of a veth pair whose other end is a port of the bridge in the namespace of the switch::

    host 0  eth0 10.0.0.1 ──── p0 ┐
    host 1  eth0 10.0.0.2 ──── p1 ┤ br0   the switch
    host 2  eth0 10.0.0.3 ──── p2 ┘

Nothing of it is in the namespace of the machine: no name can clash, no two networks meet, and a
namespace that is removed takes its devices along.  Hosts share the machine's files and memory.  A
cable may be limited by a token bucket (``tbf``) at both of its ends.

    with Network(3) as network, Cluster(3, **network.places()) as cluster:
        ...

It needs root, and ``ip`` and ``tc``; :func:`forbidden` says what is missing.

*Nothing is left.*  A network kills whatever runs in its namespaces and removes them: at its end, at
the end of the interpreter, and, when its process was killed, at the start of the next network.  For
this the names tell whose they are: ``fh-PID-START-SERIAL-PART``, START being the start time of the
process, since pids come back.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypedDict

PLACE = Path("/run/netns")  # where iproute2 keeps namespaces by name
HOSTS_MAX = 200
QUEUE_MS = 50  # what waits at a limited cable, at most
CLONE_NEWNET = 0x40000000

_serials = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


class NetworkError(Exception):
    """``ip`` or ``tc`` refused; the text is its own."""


class Traffic(NamedTuple):
    """What has gone through a host's cable since its start, headers included."""

    sent_bytes: int
    received_bytes: int
    sent_packets: int
    received_packets: int

    def since(self, before: Traffic) -> Traffic:
        """What has come on top of an earlier count."""
        return Traffic(*(mine - its for mine, its in zip(self, before, strict=True)))


class Places(TypedDict):
    """Where a cluster's machines are."""

    namespaces: list[str]
    hosts: list[str]


class Network:
    """Hosts with addresses and cables, as long as the ``with`` block lasts.

    Args:
        hosts: how many; they are called 0, 1, ...
        mbit: what each cable carries in each direction, 10^6 bits a second; None: all it can.

    Raises:
        NetworkError: the machine does not let us; :func:`forbidden` tells beforehand.
    """

    def __init__(self, hosts: int, mbit: float | None = None) -> None:
        if not 1 <= hosts <= HOSTS_MAX:
            raise ValueError(f"a network has 1 to {HOSTS_MAX} hosts, not {hosts!r}")
        self.hosts = range(hosts)
        self.mbit = mbit
        self.prefix = f"{_owner(os.getpid())}-{next(_serials)}-"
        self.switch = self.prefix + "switch"

    # --- life -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        sweep()
        atexit.register(self.close)
        try:
            self._build()
            if self.mbit is not None:
                for host in self.hosts:
                    self.limit(host, self.mbit)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _build(self) -> None:
        names = [self.switch, *(self.namespace(host) for host in self.hosts)]
        ip("", *(f"netns add {name}" for name in names))
        lines = ["link add br0 type bridge mcast_snooping 0", "link set br0 addrgenmode none up"]
        for host in self.hosts:
            peer = f"name eth0 netns {self.namespace(host)}"
            lines.append(f"link add p{host} type veth peer {peer}")
            lines.append(f"link set p{host} master br0 addrgenmode none up")
        ip(self.switch, *lines)
        for host in self.hosts:
            ip(
                self.namespace(host),
                "link set lo up",
                "link set eth0 addrgenmode none up",
                f"addr add {self.address(host)}/24 dev eth0",
            )

    def close(self) -> None:
        """Kill what runs on the hosts and remove them.  Nothing happens when it is done already."""
        atexit.unregister(self.close)
        _remove(name for name in _names() if name.startswith(self.prefix))

    # --- what runs on a host ----------------------------------------------------------------------

    def namespace(self, host: int) -> str:
        """The name under which ``ip netns`` knows it."""
        if host not in self.hosts:
            raise ValueError(f"there is no host {host!r} among {len(self.hosts)}")
        return f"{self.prefix}h{host}"

    def address(self, host: int) -> str:
        """Its address, the same in every network."""
        self.namespace(host)
        return f"10.0.0.{host + 1}"

    def entering(self, host: int) -> list[str]:
        """The words before a command that runs it there."""
        return ["ip", "netns", "exec", self.namespace(host)]

    def popen(
        self, host: int, argv: Sequence[str], env: dict[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[str]:
        """Start a program there; the process is the program itself, not a wrapper.

        Args:
            host: where.
            argv: the program and its arguments.
            env: variables besides those of this process.
            **more: as for :class:`subprocess.Popen`.
        """
        return subprocess.Popen(
            [*self.entering(host), *argv], env={**os.environ, **(env or {})}, text=True, **more
        )

    def places(self) -> Places:
        """The hosts as machines: what :class:`freehold.ext.cluster.Cluster` takes."""
        return Places(
            namespaces=[self.namespace(host) for host in self.hosts],
            hosts=[self.address(host) for host in self.hosts],
        )

    @contextlib.contextmanager
    def inside(self, host: int) -> Iterator[None]:
        """Within the block this thread is on that host.

        The sockets it makes, the threads it starts and the processes it forks are and stay there.
        """
        with entered(self.namespace(host)):
            yield

    # --- what a cable carries ---------------------------------------------------------------------

    def limit(self, host: int, mbit: float | None) -> None:
        """Let its cable carry that many 10^6 bits a second in each direction; None: all it can."""
        for namespace, device in ((self.namespace(host), "eth0"), (self.switch, f"p{host}")):
            if mbit is None:
                with contextlib.suppress(NetworkError):  # there was no limit
                    _tc(namespace, f"qdisc del dev {device} root")
            else:
                bits = int(mbit * 1e6)
                burst = max(64 * 1024, bits // 8 // 250)  # a tick's worth
                shape = f"tbf rate {bits}bit burst {burst} latency {QUEUE_MS}ms"
                _tc(namespace, f"qdisc replace dev {device} root {shape}")

    def traffic(self, host: int) -> Traffic:
        """What its cable has carried."""
        text = _call(["ip", "-n", self.namespace(host), "-j", "-s", "link", "show", "dev", "eth0"])
        count = json.loads(text)[0]["stats64"]
        out, into = count["tx"], count["rx"]
        return Traffic(out["bytes"], into["bytes"], out["packets"], into["packets"])


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread is in that namespace within the block."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(PLACE / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(back)
    finally:
        os.close(back)


def forbidden() -> str:
    """Why no network can be built here, or '' when one can."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"network namespaces need {tool!r} (Debian: iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network(1, mbit=1000):
            return ""
    except NetworkError as error:
        return f"the kernel forbids network namespaces: {error}"


# --- what is left ---------------------------------------------------------------------------------


def left() -> list[str]:
    """The namespaces of this process that are still there."""
    mine = _owner(os.getpid())
    return [name for name in _names() if name.startswith(mine + "-")]


def sweep() -> list[str]:
    """Remove what killed processes have left; the names of the namespaces."""
    stale = [name for name in _names() if not _lives(name)]
    _remove(stale)
    return stale


def inhabitants(namespaces: Iterable[str]) -> list[int]:
    """The processes in any of the namespaces."""
    wanted = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            wanted.add((PLACE / name).stat().st_ino)
    found = []
    for entry in os.listdir("/proc") if wanted else ():
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}/ns/net").st_ino in wanted:
                found.append(int(entry))
    return sorted(found)


def _remove(names: Iterable[str], within: float = 5.0) -> None:
    names = list(names)
    end = time.monotonic() + within
    while pids := inhabitants(names):  # what they fork meanwhile is found the next time
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise NetworkError(f"processes {pids} do not end")
        time.sleep(0.001)
    for name in names:
        with contextlib.suppress(NetworkError):  # somebody else has swept it
            ip("", f"netns del {name}")


def _names() -> list[str]:
    try:
        return sorted(name for name in os.listdir(PLACE) if name.startswith("fh-"))
    except FileNotFoundError:
        return []


def _owner(pid: int) -> str:
    """The beginning of its names; '' when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return f"fh-{pid}-{fields[19]}" if fields[0] != "Z" else ""


def _lives(name: str) -> bool:
    parts = name.split("-")
    return not parts[1].isdigit() or name.startswith(_owner(int(parts[1])) + "-")


# --- the system's commands ------------------------------------------------------------------------


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def ip(namespace: str, *lines: str) -> None:
    """Commands of ``ip`` in that namespace, all in one process; in this one if it is empty.

    Raises:
        NetworkError: it refused.
    """
    place = ["-n", namespace] if namespace else []
    _call(["ip", *place, "-batch", "-"], "\n".join(lines) + "\n")


def _tc(namespace: str, line: str) -> None:
    _call(["tc", "-n", namespace, *line.split()])


def _call(argv: list[str], given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        what = " ".join(argv) + (f" <<< {given.strip()!r}" if given else "")
        raise NetworkError(f"{done.stderr.strip()} ({what})")
    return done.stdout
