"""What a link between machines remembers, so that it outlives its connections.

Two processes on different nodes have one *lasting link*, and at any time at most one TCP connection
that carries it.  Every frame goes over it exactly once and in order, as long as both processes
live.  Each side counts the frames that it has got, and keeps what it has sent until the other side
confirms it (ACK); when a connection is lost, the next one begins with both counts, and goes on
from there.  A process that comes back has a new id, and so a new link.

*Who is right when both dial.*  Each side numbers its calls.  A call says in its HELLO
``[number, heard, got]``: its number, the other side's last call that was answered here, and how
many frames have been got.  The answer is an ACK with the same count of the other side; from then on
the connection carries the link.  A call is *stale*, and refused, when

* a later one of the same caller has been answered, or
* the caller had not heard of a call of ours that it has answered since, or
* ours is under way, the caller has not heard of it, and our id is the smaller one.

So of two calls that cross, the one of the smaller id survives on both sides, and no connection is
given up for one that was dialled before it.  Whatever survives, the counts keep the order: a frame
is taken only from the connection whose beginning told this side's count, and that count stands
still until then.

This file is bookkeeping alone; ``proc.mending`` makes the connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from freehold.core.address import node_of
from freehold.core.machine import Peer
from freehold.errors import ProtocolError
from freehold.proc.alarms import Alarm
from freehold.wire.codec import Reader

WORDS = 3  # what a call says: its number, heard, got
KINDS = ("driver", "worker", "node")  # processes that have lasting links


class Lasting:
    """One side of the link to one peer; it stands in ``peer.port``.

    Attributes:
        hold: takes a frame to be sent.
        unacked: frames that the other side has not confirmed, in order.
        unacked_bytes: their size.
        confirmed: how many frames before those it has confirmed.
        got: how many frames of the other side have come.
        told: what it was last told of that.
        got_bytes: how much has come since then.
        port: the connection that carries the link, None while there is none.
        calling: the connection by which we are calling, None if we are not.
        calls: how many times we have called.
        answered: the last of our calls that was answered.
        heard: the last of the other side's calls that we have answered.
        dials: it is for us to call when the connection is lost.
        failures: calls in a row that came to nothing.
        redial: when to call again.
        crowd: when to look whether the other side confirms anything.
        info: what its HELLO said on the connection by which we are calling, None before that.
        over: nothing travels any more.
    """

    __slots__ = (
        "answered", "calling", "calls", "confirmed", "crowd", "dials", "failures", "got",
        "got_bytes", "heard", "hold", "info", "over", "peer", "port", "redial", "told", "unacked",
        "unacked_bytes",
    )  # fmt: skip

    unsent = 0  # as a port's: nothing waits here, and what is kept has its own limit

    def __init__(self, peer: Peer, send: Callable[[Lasting, bytearray], None]) -> None:
        self.peer = peer
        self.hold: Callable[[bytearray], None] = lambda frame: send(self, frame)
        self.unacked: deque[bytearray] = deque()
        self.unacked_bytes = 0
        self.confirmed = self.got = self.told = self.got_bytes = 0
        self.port: Any = None
        self.calling: Any = None
        self.calls = self.answered = self.heard = 0
        self.dials = False
        self.failures = 0
        self.redial: Alarm | None = None
        self.crowd: Alarm | None = None
        self.info: dict[str, Any] | None = None
        self.over = False

    @property
    def is_node(self) -> bool:
        """Whether trouble with the connection is news to the machine: see ``core.node.members``."""
        return self.peer.kind == "node"

    @property
    def owed(self) -> int:
        """Frames that have come and are not confirmed yet."""
        return self.got - self.told

    @property
    def progress(self) -> tuple[int, int]:
        """What changes while the other side confirms or takes anything."""
        return self.confirmed, 0 if self.port is None else self.port.link.drained

    # -- frames -----------------------------------------------------------------------------------
    def keep(self, frame: bytearray) -> None:
        """A frame is about to be sent."""
        self.unacked.append(frame)
        self.unacked_bytes += len(frame)

    def confirm(self, got: int) -> None:
        """The other side has got so many frames.  Raises ProtocolError when that cannot be."""
        fresh = got - self.confirmed
        if not 0 <= fresh <= len(self.unacked):
            sent = self.confirmed + len(self.unacked)
            raise ProtocolError(
                f"{self.peer!r} has got {got} frames of {sent}, and said {self.confirmed} before"
            )
        for _ in range(fresh):
            self.unacked_bytes -= len(self.unacked.popleft())
        self.confirmed = got

    def tell(self) -> int:
        """How many frames have come, which is told to the other side now."""
        self.told, self.got_bytes = self.got, 0
        return self.got

    # -- calls ------------------------------------------------------------------------------------
    def words(self) -> list[int]:
        """What our call says."""
        return [self.calls, self.heard, self.tell()]

    def is_stale(self, call: int, heard: int, ours_first: bool) -> bool:
        """Whether that call is to be refused; ``ours_first``: ours has the smaller id."""
        if call <= self.heard or heard < self.answered:
            return True
        said = self.calling is not None and self.calling.handshake is None
        return ours_first and said and heard < self.calls

    def carry(self, port: Any) -> None:
        """From now on that connection carries the link."""
        self.port, self.calling = port, None
        self.failures = 0
        if self.redial is not None:
            self.redial.cancel()
            self.redial = None

    def finish(self) -> None:
        """The link is over."""
        self.over = True
        self.port = self.calling = None
        self.unacked.clear()
        self.unacked_bytes = 0
        for alarm in (self.redial, self.crowd):
            if alarm is not None:
                alarm.cancel()


def lasts(kind: str, home: bytes, peer: Peer) -> bool:
    """Whether a process of that kind, on that node, has a lasting link to that peer."""
    if kind not in KINDS or peer.kind not in ("", *KINDS) or not (peer.id and home):
        return False
    try:
        return node_of(peer.address) not in (b"", home)
    except ProtocolError:  # it will be found out by who dials it
        return False


def read_words(words: Any, peer: Peer) -> list[int]:
    """What a call says, checked.  Raises ProtocolError."""
    sound = type(words) is list and len(words) == WORDS
    if not sound or not all(type(word) is int and word >= 0 for word in words):
        raise ProtocolError(f"{peer!r} called with {words!r:.50}")
    return list(words)


class Batches(Reader):
    """Bytes as they arrive, cut into frames: each is a list of messages, since they are counted."""

    __slots__ = ()

    @staticmethod
    def _messages(body: memoryview) -> list[Any]:
        return [Reader._messages(body)]
