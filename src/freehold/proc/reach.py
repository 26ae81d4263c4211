"""Whether a cluster's head can be reached, and if not, why: before anything else is started."""

from __future__ import annotations

from typing import Any

from freehold.core import address as addresses
from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.errors import (
    AuthenticationError,
    ClusterUnreachable,
    FreeholdError,
    ProtocolError,
    VersionMismatch,
)
from freehold.io import clock, net
from freehold.proc.host import Host
from freehold.proc.session import now
from freehold.proc.token import Token

TIMEOUT = 3.0  # seconds that a head has for its answer


def split(address: str) -> tuple[str, int]:
    """Numeric host and port of ``HOST:PORT``.

    Raises:
        ClusterUnreachable: it is no address, or its host has no address.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ClusterUnreachable(f"{address!r} is no address: HOST:PORT is one")
    try:
        return net.resolve(host), int(port)
    except OSError as error:
        raise ClusterUnreachable(f"the host {host!r} is not known: {error.strerror}") from None


def join(host: str, port: int) -> str:
    """``HOST:PORT``, in the form in which addresses are compared."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normal(address: str) -> str:
    """The address in that form.  Raises ClusterUnreachable, as :func:`split`."""
    return join(*split(address))


def peer_of(address: str) -> Peer:
    """The peer that listens at ``HOST:PORT``."""
    return Peer(b"", addresses.make(b"", "", *split(address)), "")


class Caller(Machine):
    """A machine that asks one peer, and takes its answers as they are.

    Attributes:
        there: what the peer's HELLO said, once it has come.
        gone: the connection has ended.
        answers: opcode -> fields of the last such message.
    """

    def __init__(self) -> None:
        super().__init__(clock.random_bytes(8), m.OPCODES)
        self.there: dict[str, Any] | None = None
        self.gone = False
        self.answers: dict[int, tuple[Any, ...]] = {}
        for op in (m.STATUS_REPLY, m.ENTRY, m.TRIM):
            self.on({op: self._taker(op)})

    def _taker(self, op: int) -> Any:
        def take(peer: Peer, now: float, *fields: Any) -> None:
            self.answers[op] = fields

        return take

    def on_up(self, peer: Peer, now: float, info: dict[str, Any]) -> None:
        self.there = info

    def on_down(self, peer: Peer, now: float) -> None:
        self.gone = True


def call(
    peer: Peer, token: Token, op: int = -1, fields: tuple[Any, ...] = (), answer: int = -1
) -> tuple[Any, ...]:
    """Connect to the peer, ask it if there is something to ask, and hang up; its answer.

    Raises:
        ClusterUnreachable: nobody answers there who speaks this protocol.
        AuthenticationError: it has another secret.
        VersionMismatch: it speaks another version of the protocol.
        ProtocolError: it broke the protocol, or hung up.
    """
    caller = Caller()
    host = Host(caller, token.secret, "tool")
    host.tls = token.tls
    host.dial_timeout = host.answer_timeout = TIMEOUT
    until = now() + TIMEOUT
    try:
        if op >= 0:
            caller.send(peer, op, *fields)
            host.flush()
        else:
            host.dial(peer)
        done = answer in caller.answers if op >= 0 else caller.there is not None
        while not done and not caller.gone and now() < until:
            host.pump(until)
            done = answer in caller.answers if op >= 0 else caller.there is not None
    finally:
        host.close()
    if done:
        return caller.answers.get(answer, ())
    raise _failure(peer, host, caller)


def _failure(peer: Peer, host: Host, caller: Caller) -> FreeholdError:
    place = peer.address.strip("|")
    error = host.errors[0] if host.errors else None
    if caller.there is not None:
        return error or ProtocolError(f"{place} hung up, or did not answer in time")
    text = "no answer" if error is None else str(error).replace(peer.address, place)
    unsaid = "" if place in text else f"{place}: "
    if isinstance(error, (AuthenticationError, VersionMismatch)):
        return type(error)(f"{unsaid}{text}")
    return ClusterUnreachable(f"no head of a cluster: {unsaid}{text}")
