"""Networks of namespaces that fail: the hosts of ``freehold.ext.netns``, and faults between them.

A host that is ``down`` has lost its cable (its port is off): what it sends is lost, and nobody
hears of it.  ``cut`` loses silently what one host sends to one other: the sender's neighbour table
gets a hardware address that nobody has, so the kernel needs no packet filter for it.  ``delay``
puts a :class:`wire.Wire` between the port and the bridge, since ``netem`` is not in every kernel.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

from cluster.wire import Wire, send_whole_frames
from freehold.ext import netns
from freehold.ext.netns import entered, ip

NOBODY = "02:00:00:00:00:ff"  # a hardware address that no host has


class Network(netns.Network):
    """Hosts whose cables and ways can be broken."""

    def __init__(self, hosts: int, mbit: float | None = None) -> None:
        super().__init__(hosts, mbit)
        self.cuts: set[tuple[int, int]] = set()
        self.wires: dict[int, Wire] = {}

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()
        self.wires.clear()
        super().close()

    def run(
        self,
        host: int,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        within: float = 30.0,
    ) -> str:
        """What a program prints there.

        Raises:
            AssertionError: it failed, or did not end within that many seconds.
        """
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.popen(host, argv, env, **pipes) as process:
            try:
                out, err = process.communicate(timeout=within)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"no end after {within:g} s:\n{out}\n{err}") from None
        assert process.returncode == 0, f"exit code {process.returncode}:\n{out}\n{err}"
        return out

    def processes(self, host: int | None = None) -> list[int]:
        """What runs on that host, or on any."""
        hosts = self.hosts if host is None else [host]
        return netns.inhabitants(self.namespace(one) for one in hosts)

    # --- faults -----------------------------------------------------------------------------------

    def delay(self, host: int, seconds: float) -> None:
        """Let each frame take that much longer through its cable, in each direction."""
        if host in self.wires and seconds:
            self.wires[host].delay_s = seconds
        elif host in self.wires:
            self.wires.pop(host).close()
            ip(self.switch, f"link del d{host}", f"link set p{host} master br0")
        elif seconds:
            if not self.wires:
                for other in self.hosts:
                    with self.inside(other):
                        send_whole_frames("eth0")
            ip(
                self.switch,
                f"link set p{host} nomaster",
                f"link add d{host} type veth peer name e{host}",
                f"link set e{host} master br0 addrgenmode none up",
                f"link set d{host} addrgenmode none up",
            )
            with entered(self.switch):
                self.wires[host] = Wire(f"p{host}", f"d{host}", seconds)

    def down(self, host: int) -> None:
        """Take its cable out: nobody reaches it, and it reaches nobody."""
        self.namespace(host)
        ip(self.switch, f"link set p{host} down")

    def up(self, host: int) -> None:
        """Put its cable back in."""
        self.namespace(host)
        ip(self.switch, f"link set p{host} up")

    def cut(self, source: int, target: int) -> None:
        """Lose silently all that ``source`` sends to ``target``; the other way nothing changes."""
        if source == target:
            raise ValueError("a host reaches itself without a cable")
        where = f"neigh replace {self.address(target)} lladdr {NOBODY} dev eth0 nud permanent"
        ip(self.namespace(source), where)
        self.cuts.add((source, target))

    def mend(self, source: int, target: int) -> None:
        """Undo a ``cut``."""
        if (source, target) in self.cuts:
            ip(self.namespace(source), f"neigh del {self.address(target)} dev eth0")
            self.cuts.discard((source, target))

    def partition(self, *groups: Iterable[int]) -> None:
        """Cut both ways between hosts of different groups."""
        for some, others in itertools.permutations([list(group) for group in groups], 2):
            for source, target in itertools.product(some, others):
                self.cut(source, target)

    def heal(self) -> None:
        """Undo every ``cut`` and ``down``."""
        for source, target in sorted(self.cuts):
            self.mend(source, target)
        for host in self.hosts:
            self.up(host)
