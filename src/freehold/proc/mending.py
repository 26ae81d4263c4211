"""Connections between machines, mended: each carries a lasting link (``proc.lasting``).

*Which links last.*  Those that a driver, a worker or a node dials to another on another node.  On
one node, Unix sockets break only with a process; and with the head the members begin anew at each
connection (``core.node.members``).  Neither is touched by any of this.

*A connection is lost.*  The machine is not told: who is dead, it hears from nodes and the head.
Only that a connection to a *node* is lost, or that it cannot be had, is told (``on_down``), as a
reason to look (``core.node.suspects``); so between nodes a connection through which nothing comes
is noticed in ``SILENCE``, elsewhere when the kernel does (``net.SILENCE_MAX``).  Who had dialled
dials again, first after ``PAUSE_MIN``, then after twice as long each time, up to ``PAUSE_MAX``; it
does so even when it has nothing to say, since the other side may not know where to dial, or may
have something to say.  With nothing to say the pauses grow up to ``QUIET_MAX``.  Who had been
dialled leaves it to the other side for ``COURTESY``, and dials by itself only when it has something
to say.

*The end.*  A peer that the machine has marked as down is let go within ``SWEEP_EVERY``, with all
that was kept for it, and nothing that it says is heard any more; if it calls all the same, it is
told that it was given up (an ACK of ``GIVEN_UP``).  Another process at its address proves that it
is gone: nothing more is sent or dialled, and the news of its death comes from its node.  A peer
that breaks the protocol, whose address is none, or that confirms nothing in ``stall_timeout`` while
more than ``unsent_max`` bytes are kept for it, is given up, which is told to the machine as the
loss of a plain connection is.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from freehold.core import messages as m
from freehold.core.address import host_port_of
from freehold.core.machine import Machine, Peer
from freehold.errors import FreeholdError, ProtocolError
from freehold.io import clock, net
from freehold.io.link import Link
from freehold.proc.lasting import KINDS, Batches, Lasting, lasts, read_words
from freehold.proc.listening import Listening
from freehold.proc.ports import READ, WRITE, Port, shake
from freehold.proc.receipts import ALONG, Receipts
from freehold.wire import schema
from freehold.wire.codec import encode

PAUSE_MIN = 0.02  # seconds, like the ones below
PAUSE_MAX = 1.0
QUIET_MAX = 30.0
COURTESY = 0.1
SWEEP_EVERY = 1.0
SILENCE = 1  # second, of the other node's kernel: then its link is taken for broken
GIVEN_UP = -1


class Mending(Listening):
    """The lasting links of one process."""

    def __init__(self, machine: Machine, secret: bytes, kind: str, address: str = "") -> None:
        super().__init__(machine, secret, kind, address)
        self.links: dict[Lasting, None] = {}  # those that are not over
        self._receipts = Receipts(self.alarms, self._send)

    # -- dialling ---------------------------------------------------------------------------------
    def dial(self, peer: Peer) -> None:
        if not lasts(self.kind, self.home, peer):
            super().dial(peer)
            return
        link = self._link(peer)
        link.dials = True
        self._call(link, clock.now())

    def _link(self, peer: Peer) -> Lasting:
        """The link to that peer, made if it is new."""
        link = peer.port
        if not isinstance(link, Lasting):
            link = peer.port = Lasting(peer, self._push)
            if not self.links:
                self.call_at(clock.now() + SWEEP_EVERY, self._sweep)
            self.links[link] = None
        return link

    def _call(self, link: Lasting, when: float) -> None:
        """Dial the peer."""
        peer = link.peer
        if host_port_of(peer.address) is None and link.heard:
            return  # it can only call by itself, as it did before
        try:
            reached, _ = self.reach(peer.address)
        except ProtocolError as error:
            self._give_up(link, error, when)
            return
        except OSError as error:
            what = f"{peer.address} cannot be reached: {error.strerror}"
            self._failed(link, FreeholdError(what), when)
            return
        _notice_silence(self.kind, link, reached)
        link.calls += 1
        link.info = None
        port = link.calling = Port(reached, shake(self.secret, dialler=True), peer)
        port.lasting = link
        self._await(port, peer.address)

    def _call_out(self, port: Port, rest: bytes, when: float) -> None:
        """The peer has proven itself: say who calls whom, and from where to go on."""
        link = port.lasting
        assert link is not None
        self._begin(port)
        self._send(port, self._hello(link.peer.id, link.words()))
        if rest:
            self._hear(port, memoryview(rest), when)

    def _begin(self, port: Port) -> None:
        port.reader = Batches()
        self.ports[port.link.fd] = lambda mask, when: self._on_lasting(port, mask, when)

    def _failed(self, link: Lasting, error: FreeholdError | None, when: float) -> None:
        """A call has come to nothing."""
        if error is not None and not link.failures:  # the first one says it
            self.errors.append(error)
        link.failures += 1
        self._broken(link, when)

    def _broken(self, link: Lasting, when: float) -> None:
        """There is no connection now: have one later."""
        if link.is_node:
            self.machine.on_down(link.peer, when)
        if link.peer.down:
            self._retire(link)
        elif link.dials or link.unacked:
            self._call_later(link, when)

    def _call_later(self, link: Lasting, when: float) -> None:
        if link.redial is not None:
            link.redial.cancel()
        most = PAUSE_MAX if link.unacked else QUIET_MAX
        pause = min(PAUSE_MIN * 2.0 ** min(link.failures, 20), most)

        def again(when: float) -> None:
            link.redial = None
            if link.peer.down:
                self._retire(link)
            else:
                self._call(link, when)

        link.redial = self.call_at(when + pause + (0.0 if link.dials else COURTESY), again)

    # -- being dialled ----------------------------------------------------------------------------
    def _on_call(self, port: Port, peer: Peer, info: dict[str, Any], when: float) -> None:
        """A peer has called: this connection is to carry the link, unless it is stale."""
        call, heard, got = read_words(info["call"], peer)
        link = port.lasting = self._link(peer)
        if link.is_stale(call, heard, self.machine.id < peer.id):
            self._close(port)
            return
        self.machine.on_up(peer, when, info)
        if not link.over:
            try:
                link.confirm(got)
            except ProtocolError as error:
                self._give_up(link, error, when)
        if link.over or peer.down:
            self._send(port, encode([(m.ACK, GIVEN_UP)]))
            self._close(port)
            self._retire(link)
            return
        for old in (link.port, link.calling):
            if old is not None:
                self._close(old)
        _notice_silence(self.kind, link, port.link)
        link.heard, link.dials = call, False
        link.carry(port)
        self._begin(port)
        self._receipts.give(link)
        self._resend(link)

    def _resend(self, link: Lasting) -> None:
        """Send all that is not confirmed."""
        port = link.port
        for frame in list(link.unacked):
            if port is None or link.port is not port:  # lost again
                return
            self._send(port, frame)

    # -- frames in --------------------------------------------------------------------------------
    def _on_lasting(self, port: Port, mask: int, when: float) -> None:
        """As ``_on_port``, for connections that carry a link, or are about to."""
        try:
            if mask & WRITE and port.link.drain():
                self.epoll.modify(port.link.fd, READ)
            data = port.link.receive()
        except OSError:  # a ProtocolError is one: TLS has found that something was changed
            self.end(port, when)
            return
        if data is None:
            return
        if data:
            self._hear(port, data, when)
        else:
            self.end(port, when)

    def _hear(self, port: Port, data: memoryview, when: float) -> None:
        link = port.lasting
        assert link is not None
        if link.peer.down:
            self._retire(link)
            return
        try:
            self._take_batches(port, link, data, when)
        except ProtocolError as error:
            self._give_up(link, error, when)
        except Exception as error:
            self._give_up(link, self.malformed(link.peer, error), when)

    def _take_batches(self, port: Port, link: Lasting, data: memoryview, when: float) -> None:
        handlers, peer = self.machine.handlers, link.peer
        self.machine.now = when
        for batch in port.reader.feed(data):
            if link.port is not port or batch[0][0] == m.ACK:
                if port not in (link.port, link.calling):
                    return  # it was lost when something was sent; the peer will send the rest again
                self._on_control(port, link, batch, when)
                continue
            link.got += 1
            if self.forgiving:
                for message in batch:
                    schema.check(message)
            for message in batch:
                handlers[message[0]](peer, when, *message[1:])
        if link.port is port:
            self._receipts.owe(link, len(data), when)

    def _on_control(self, port: Port, link: Lasting, batch: list[Any], when: float) -> None:
        """What the peer says before its answer, which is who it is; its answer; an ACK."""
        schema.check(batch[0])
        op = batch[0][0]
        if op == m.ACK and batch[0][1] == GIVEN_UP:
            raise ProtocolError(f"{link.peer!r} has given this process up")
        if op == m.ACK and link.port is port:
            link.confirm(batch[0][1])
        elif op == m.ACK and link.info is not None:
            self._answered(port, link, batch[0][1], when)
        elif op == m.HELLO and link.info is None:
            try:
                self.machine.meet(link.peer, batch[0])
            except ProtocolError as error:
                self._give_up(link, error, when, moved=True)
                return
            if link.peer.kind not in KINDS:
                raise ProtocolError(f"{link.peer!r} has no lasting links")
            link.info = batch[0][-1]
        else:
            raise ProtocolError(f"{link.peer!r} sent opcode {op} before it answered a call")

    def _answered(self, port: Port, link: Lasting, got: int, when: float) -> None:
        """Our call was taken: this connection carries the link."""
        self._settle(port)
        link.answered = link.calls
        link.dials = True
        link.carry(port)
        assert link.info is not None
        self.machine.on_up(link.peer, when, link.info)
        link.confirm(got)
        if link.peer.down:
            self._retire(link)
        else:
            self._resend(link)

    # -- frames out -------------------------------------------------------------------------------
    def _push(self, link: Lasting, frame: bytearray) -> None:
        """Send a frame, and keep it until it is confirmed."""
        if link.over:
            return
        link.keep(frame)
        if link.unacked_bytes > self.unsent_max:
            self._look_later(link)
        if link.port is not None:
            if link.owed >= ALONG:
                self._receipts.give(link)
            if link.port is not None:
                self._send(link.port, frame)
        elif link.calling is None and (link.redial is None or len(link.unacked) == 1):
            self._call_later(link, clock.now())

    def _look_later(self, link: Lasting) -> None:
        """Too much is kept for the peer: see whether it confirms, or at least takes, any of it."""
        if link.crowd is not None:
            return
        before = link.progress

        def look(when: float) -> None:
            link.crowd = None
            if link.unacked_bytes <= self.unsent_max:
                return
            if link.progress != before:
                self._look_later(link)
                return
            what = (
                f"{link.peer!r} has confirmed none of {link.unacked_bytes:,} bytes in "
                f"{self.stall_timeout:g} s"
            )
            self._give_up(link, ProtocolError(what), when)

        link.crowd = self.call_at(clock.now() + self.stall_timeout, look)

    # -- the end ----------------------------------------------------------------------------------
    def end(self, port: Port, when: float) -> None:
        link = port.lasting
        if link is None:
            super().end(port, when)
        elif self._close(port):
            if link.calling is port:
                link.calling = None
                self._failed(link, None, when)
            elif link.port is port:
                link.port = None
                self._broken(link, when)

    def _fail(self, port: Port, error: FreeholdError, when: float) -> None:
        link = port.lasting
        if link is None or link.calling is not port:
            super()._fail(port, error, when)
        elif self._close(port):
            link.calling = None
            self._failed(link, error, when)

    def _give_up(
        self, link: Lasting, error: ProtocolError, when: float, moved: bool = False
    ) -> None:
        """Nothing can be had of that peer; or it has ``moved``, of which its node will tell."""
        self.errors.append(error)
        self._retire(link)
        if link.is_node or not moved:
            self.machine.on_down(link.peer, when)

    def _retire(self, link: Lasting) -> None:
        """The link is over: keep nothing for it."""
        for port in (link.port, link.calling):
            if port is not None:
                self._close(port)
        link.finish()
        self.links.pop(link, None)

    def _sweep(self, when: float) -> None:
        """Let go of the dead."""
        for link in [link for link in self.links if link.peer.down]:
            self._retire(link)
        if self.links:
            self.call_at(when + SWEEP_EVERY, self._sweep)

    def shut(self) -> None:
        super().shut()
        for link in list(self.links):
            link.peer.port = None
            link.finish()
        self.links.clear()

    # -- what it needs ----------------------------------------------------------------------------
    @abstractmethod
    def _hello(self, to: bytes, call: list[int] | None = None) -> bytearray: ...


def _notice_silence(kind: str, link: Lasting, connection: Link) -> None:
    """Between nodes, notice soon that nothing comes through."""
    if link.is_node and kind == "node":
        net.notice_silence(connection.sock, SILENCE)
