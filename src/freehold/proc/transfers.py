"""Between the node's machine and the data plane: frames on one side, calls and events on the other.

The mover is a near peer: what the machine writes to it is carried out at the node's next flush, and
what happens in the mover's threads wakes the node's loop and becomes frames there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from freehold.core import messages as m
from freehold.core.node.pulls import Pulls
from freehold.io.mover import IDLE_S, STALL_S, Mover
from freehold.io.shm import Arena
from freehold.io.wake import Waker
from freehold.proc.host import Host
from freehold.proc.session import now

EVENTS = {"moved": m.MOVED, "serve": m.SERVE, "served": m.SERVED}


class Transfers:
    """The mover of one node, as its host uses it."""

    def __init__(
        self,
        host: Host,
        pulls: Pulls,
        arena: Arena,
        dial: Callable[[str], socket.socket],
        address: str,
        *,
        stall_s: float = STALL_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self.host = host
        self.peer = pulls.mover
        self.waker = Waker()
        self.mover = Mover(
            arena, host.machine.id, address, dial, self.waker.wake, stall_s=stall_s, idle_s=idle_s
        )
        self._orders: dict[int, Callable[..., None]] = {
            m.MOVE: self.mover.move,
            m.SERVING: self.mover.serving,
            m.HALT: self.mover.halt,
        }
        host.watch(self.waker.fd, self._on_wake)

    def flush(self) -> None:
        """Carry out what the machine has written; the host calls it before its own flush."""
        while self.peer.outbox:
            frames, self.peer.outbox = self.peer.outbox, []
            for op, *fields in frames:
                self._orders[op](*fields)

    def _on_wake(self, mask: int, when: float) -> None:
        self.waker.clear()
        handlers = self.host.machine.handlers
        for name, *fields in self.mover.events():
            handlers[EVENTS[name]](self.peer, now(), *fields)

    def accept(self, sock: socket.socket) -> None:
        """An accepted, authenticated, blocking connection of another node's mover."""
        self.mover.serve(sock)

    def close(self) -> None:
        """End every transfer."""
        self.host.unwatch(self.waker.fd)
        self.mover.close()
        self.waker.close()
