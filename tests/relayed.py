"""Stations that are processes on nodes of their own, each of which is dialled through a relay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from cluster.relay import Relay
from freehold.core import address as addresses
from freehold.core.machine import Peer
from freehold.proc.lasting import Lasting
from stations import LOCAL, Station

Make = Callable[..., "Process"]


class Process(Station):
    """A station that is a process on a node of its own, and is dialled through a relay."""

    def __init__(self, *, tls: bool = True, kind: str = "worker", id: bytes = b"") -> None:
        super().__init__(tls=tls)
        self.kind = kind
        self.machine.id = id or self.machine.id
        self.set_home(self.machine.id if kind == "node" else os.urandom(8))
        self.relay: Relay | None = None

    def begin(self, pem: str, stack: contextlib.ExitStack) -> Process:
        """Listen, behind a relay."""
        port = self.listen_tcp(LOCAL, 0, pem if self.tls else "")
        self.relay = stack.enter_context(Relay((LOCAL, port)))
        self.address = addresses.make(self.home, "", *self.relay.address)
        return self

    def know(self, other: Process) -> Peer:
        """The peer that the other one is."""
        peer = self.machine.peer(other.machine.id, other.address)
        peer.kind = other.kind if other.kind == "node" else ""  # as the core knows it
        return peer

    def link_to(self, other: Process) -> Lasting:
        link = self.know(other).port
        assert isinstance(link, Lasting)
        return link

    @property
    def numbers(self) -> list[int]:
        """What has arrived, where names are numbers."""
        return [int(name) for name in self.names]


@contextlib.contextmanager
def processes(pem: str) -> Iterator[Make]:
    """Make them; they leave no link behind."""
    made: list[Process] = []
    with contextlib.ExitStack() as stack:

        def build(**options: object) -> Process:
            made.append(Process(**options).begin(pem, stack))  # type: ignore[arg-type]
            return made[-1]

        yield build
        for process in made:
            if not process.closed:
                process.close()
            assert not process.links
            assert not process._open_ports


def settled(*processes: Process) -> Callable[[], bool]:
    """Whether everything is confirmed."""
    return lambda: all(
        not link.unacked and link.port is not None
        for process in processes
        for link in process.links
    )
