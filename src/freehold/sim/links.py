"""Links between simulated processes.

Each direction delivers its frames in order, after a random latency; when an end crashes, what it
has sent still arrives, and then the end of the stream, as with a real socket.  A cut link loses
what is under way.

Between machines a link outlives its connections (``proc.sessions``): a cut is a delay, and while
the network is parted its frames wait.  Only the head's links are plain ones there too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from freehold.core.machine import Peer
from freehold.sim.world import World
from freehold.wire.codec import Reader


class Station(Protocol):
    """What a link needs of the processes at its ends (``hosts.Host``)."""

    world: World
    alive: bool
    kind: str
    name: str
    spot: str
    ends: list[End]

    def hello(self, to: bytes = b"") -> bytearray:
        """The first frame on every link; ``to`` is whom it calls, if that is known."""

    def on_frame(self, end: End, data: bytes | bytearray) -> None:
        """A frame has arrived."""

    def on_end(self, end: End) -> None:
        """The other side is gone."""

    def troubled(self, peer: Peer) -> None:
        """Another node has not been heard of for a while."""


class End:
    """One end of a link."""

    __slots__ = (
        "arrival", "greeting", "held", "host", "open", "other", "peer", "reader",
        "waiting",
    )  # fmt: skip

    def __init__(self, host: Station, peer: Peer | None) -> None:
        self.host = host
        self.peer = peer
        self.reader = Reader()
        self.open = True
        self.arrival = 0.0  # of the last frame that was sent here
        self.greeting = bytearray()  # to be sent when the other side has said hello
        self.waiting: list[bytes | bytearray] = []  # frames that go after it
        self.other: End = self
        self.held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # by a parted network

    @property
    def lasting(self) -> bool:
        """Whether the link outlives its connections."""
        one, other = self.host, self.other.host
        return one.spot != other.spot and "head" not in (one.kind, other.kind)

    def send(self, data: bytes | bytearray) -> None:
        """Send a frame to the other end."""
        if self.greeting:
            self.waiting.append(data)
        elif self.open:
            self._deliver(self.other.host.on_frame, self.other, data)

    def greet(self) -> None:
        """The other side has said hello: answer, and send what has waited."""
        frames = [self.greeting, *self.waiting]
        self.greeting, self.waiting = bytearray(), []
        for frame in frames:
            self.send(frame)

    def close(self) -> None:
        """This end is gone; what was sent still arrives."""
        if self.open:
            self.open = False
            self._deliver(self.other.host.on_end, self.other)

    def cut(self) -> None:
        """The link breaks: both ends notice, and what is under way is lost."""
        if self.lasting:
            for end in (self, self.other):
                end.arrival = max(end.arrival, end.host.world.now + end.host.world.rng.random())
            return
        for end in (self, self.other):
            if end.open:
                end.open = False
                world = end.host.world
                world.after(world.latency(), end.host.on_end, end)

    def shut(self) -> None:
        """This end hears that the link is gone; what it has sent arrives all the same."""
        self.close()
        self.host.on_end(self)

    def _deliver(self, call: Callable[..., None], *args: Any) -> None:
        world = self.host.world
        other = self.other
        late = 0.05 if other.host.kind == "node" else 1.0  # see core.workers.SUSPECT_GRACE
        took = world.latency(late) + world.slowness(self.host, other.host)
        other.arrival = max(other.arrival + 1e-9, world.now + took)
        if self.lasting:
            world.at(other.arrival, self._cross, call, args)
        else:
            world.at(other.arrival, call, *args)

    def _cross(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Arrive, or wait until the network is whole again."""
        world = self.host.world
        if self.held or world.holds(self.host, self.other.host):
            if self.host.alive:  # the dead send nothing again
                self.held.append((call, args))
        else:
            call(*args)

    def resume(self) -> None:
        """The network is whole again."""
        held, self.held = self.held, []
        if self.host.alive:
            for call, args in held:
                call(*args)


def connect(dialler: Station, peer: Peer, acceptor: Station) -> End:
    """A new link; each side says HELLO.

    The handshake makes a process hear the node before the node hears it; so nobody can be granted a
    worker that does not know its node yet.  One between two nodes may take its time to be up.
    """
    ours, theirs = End(dialler, peer), End(acceptor, None)
    ours.other, theirs.other = theirs, ours
    if dialler.world.setup.cold and dialler.kind == acceptor.kind == "node":
        ours.arrival = theirs.arrival = dialler.world.coldness()
    dialler.ends.append(ours)
    acceptor.ends.append(theirs)
    theirs.send(acceptor.hello())
    if acceptor.kind == "node":
        ours.greeting = dialler.hello(peer.id)
    else:
        ours.send(dialler.hello(peer.id))
    return ours
