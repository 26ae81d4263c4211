"""The one contract between the protocol and whatever hosts it.

A machine takes frames in (``handlers[op](peer, now, *fields)``) and leaves frames in per-peer
outboxes; it is told the time and asked for its deadline.  There is no other door.  The wire tuple
is the event and the handler's signature is its schema, so there are no event classes and no
dispatch by name.  Near things (the process spawner, the task runner) are peers like the far ones.
A host may first offer messages that came together to ``in_bulk``, which does what the handlers of
some of them would, faster, and returns the rest.

The host swaps ``dirty`` for a new list, encodes each listed peer's outbox and sends it.  Whether a
peer is reachable yet is the host's business; a machine may write to it at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from freehold.core.ids import PROC_ID_BYTES
from freehold.errors import ProtocolError

HELLO_TYPES = (bytes, str, int, str, dict)  # of its fields, see ``core.messages``
Handler = Callable[..., None]
Bulk = Callable[["Peer", float, list[Any]], list[Any]]
Frame = tuple[Any, ...]
NEVER = math.inf


class Peer:
    """Another process, or a near thing, by identity.

    Attributes:
        id: its process id (``ids.ProcId``), empty until it has said hello.
        address: where it can be dialled, ``""`` if nowhere.
        outbox: frames that wait for the host's next flush.
        port: the host's own handle for it; the core never looks at it.
        lease: what the client has leased or placed there (see ``process.leases``), or None.
        down: it has died or gone; what is sent to it now is dropped.
    """

    __slots__ = ("address", "down", "id", "kind", "known", "lease", "outbox", "pid", "port")

    def __init__(self, id: bytes = b"", address: str = "", kind: str = "") -> None:
        self.id = id
        self.address = address
        self.kind = kind
        self.pid = 0
        self.outbox: list[Frame] = []
        self.port: Any = None
        self.lease: Any = None
        self.known: set[bytes] = set()  # digests of the functions that it has been sent
        self.down = False

    def __repr__(self) -> str:
        return f"<{self.kind or 'peer'} {self.id.hex()[:8]}>"


def _unexpected(op: int) -> Handler:
    def refuse(peer: Peer, now: float, *fields: object) -> None:
        raise ProtocolError(f"{peer!r} sent opcode {op}, which this process does not take")

    return refuse


class Machine:
    """A protocol participant.  Parts (owner, executor, ...) add their handlers with ``on``."""

    def __init__(self, id: bytes, opcodes: int) -> None:
        self.id = id
        self.now = 0.0  # as of the last frame, timer or call; never read from a clock
        self.dirty: list[Peer] = []
        self.peers: dict[bytes, Peer] = {}
        self.silent = False
        self._table: list[Handler] = [_unexpected(op) for op in range(opcodes)]
        self.handlers: tuple[Handler, ...] = tuple(self._table)
        self.bulk: dict[int, Bulk] = {}  # handlers of the messages that mostly come together

    def on(self, handlers: dict[int, Handler]) -> None:
        """Take these opcodes."""
        for op, handler in handlers.items():
            self._table[op] = handler
        self.handlers = tuple(self._table)

    def in_bulk(self, peer: Peer, now: float, messages: list[Any]) -> list[Any]:
        """Do what can be done together of these messages, beginning with the first; the others."""
        if len(messages) < 2:
            return messages
        bulk = self.bulk.get(messages[0][0])
        return messages if bulk is None else bulk(peer, now, messages)

    def send(self, peer: Peer, *frame: object) -> None:
        """Append ``(op, *fields)`` to the peer's outbox."""
        if peer.down:
            return
        if not peer.outbox:
            self.dirty.append(peer)
        peer.outbox.append(frame)

    def send_all(self, peers: Iterable[Peer], *frame: object) -> None:
        """Send the same to all of them: one tuple, which a host can encode once."""
        for peer in peers:
            if not peer.down:
                if not peer.outbox:
                    self.dirty.append(peer)
                peer.outbox.append(frame)

    def flush_first(self, peer: Peer) -> None:
        """In the next flush, send what waits for that peer before what waits for others."""
        dirty = self.dirty
        if dirty and dirty[0] is not peer and peer in dirty:
            dirty.remove(peer)
            dirty.insert(0, peer)

    def peer(self, id: bytes, address: str = "") -> Peer:
        """The peer of that identity, made if it is new; the host dials it when it is written to."""
        known = self.peers.get(id)
        if known is None:
            known = self.peers[id] = Peer(id, address)
        elif address and not known.address:
            known.address = address
        return known

    def meet(self, dialled: Peer | None, hello: list[Any]) -> Peer:
        """Who speaks on a connection, by its HELLO; ``dialled`` is whom the host has called there.

        Addresses are used again, ids are not.  So a caller who knows whom it wants says it
        (``to``), and nothing that was meant for one process ever reaches another.
        """
        if tuple(map(type, hello[1:])) != HELLO_TYPES or len(hello[1]) != PROC_ID_BYTES:
            raise ProtocolError("a peer sent a malformed HELLO")
        _, proc, kind, pid, address, info = hello
        if info.get("to", self.id) != self.id:
            raise ProtocolError("a peer took this process for one that listened here before")
        peer = self.peer(proc, address) if dialled is None else dialled
        if not peer.id:
            peer.id = proc
            self.peers[proc] = peer
        elif peer.id != proc:
            raise ProtocolError(f"{peer!r} is not where it was: another process listens there")
        peer.kind, peer.pid = kind, pid
        if address:
            peer.address = address
        return peer

    def fall_silent(self) -> None:
        """Say nothing more to anybody: it would not be true."""
        self.silent = True
        for peer in self.peers.values():
            peer.down = True
            peer.outbox.clear()

    # What a host calls; subclasses say more.
    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        """The peer has said hello: it is reachable, and its identity is proven."""

    def on_down(self, peer: Peer, now: float) -> None:
        """The connection to the peer is gone."""

    def deadline(self) -> float:
        """When ``on_timer`` wants to be called next; ``NEVER`` if it does not."""
        return NEVER

    def on_timer(self, now: float) -> None:
        """The deadline has come."""

    def settle(self, now: float) -> None:
        """Every frame that has arrived is handled: do what they have made possible together."""

    def check(self) -> None:
        """Assert every invariant of the tables (simulator only: it may be slow)."""

    def snapshot(self) -> dict[str, Any]:
        """Counts and tables, for people and for the simulator's checkers."""
        return {}
