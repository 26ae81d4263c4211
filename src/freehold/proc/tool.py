"""A tool: a process that looks at running nodes and heads from outside, and is part of no session.

It finds this user's session directories, speaks to each node as kind ``tool``, asks for its tables
and leaves.  A node counts a tool neither as a driver nor as a worker: it waits for none, and tells
it nothing that was not asked.
"""

from __future__ import annotations

import os
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.errors import FreeholdError, NodeDied, from_wire
from freehold.io import clock, net, sessions
from freehold.proc import reach, token
from freehold.proc.host import Host
from freehold.proc.session import now

PROTOCOL = m.VERSION
VERBS = ("nodes", "jobs", "groups", "detached")
TIMEOUT = 3.0  # seconds that a node has for its answer


class Tool(Machine):
    """Takes one answer."""

    def __init__(self, id: bytes) -> None:
        super().__init__(id, m.OPCODES)
        self.status: dict[str, Any] | None = None
        self.gone = False
        self.on({m.STATUS_REPLY: self.on_status_reply})

    def on_down(self, peer: Peer, now: float) -> None:
        self.gone = True

    def on_status_reply(self, peer: Peer, now: float, request: int, status: dict[str, Any]) -> None:
        self.status = status


def statuses(timeout: float = TIMEOUT) -> list[dict[str, Any]]:
    """The tables of every node that this user runs here, the newest first.

    Each has also ``dir``, its session's directory, and ``pid``, the daemon's; one that is there but
    does not answer has ``dir`` and ``error`` only.  What is left of ended sessions is passed over.
    """
    found = []
    for path in net.session_dirs():
        try:
            found.append({"dir": path, **status(path, timeout)})
        except (FileNotFoundError, NodeDied):
            continue
        except FreeholdError as error:
            found.append({"dir": path, "error": str(error)})
    return found


def status(path: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """The tables of the node whose session directory that is; see :func:`freehold.status`.

    Raises:
        FileNotFoundError: the session is over, or has not begun.
        NodeDied: nobody listens there.
        VersionMismatch: the node speaks another version of the protocol.
        FreeholdError: it did not answer in time, or hung up; it does on a wrong secret.
    """
    secret = net.read_file(os.path.join(path, "secret"))
    tool = Tool(clock.random_bytes(8))
    host = Host(tool, secret, "tool")
    node = Peer(b"", os.path.join(path, "node.sock"), "node")
    until = now() + timeout
    try:
        tool.send(node, m.STATUS, 1)
        host.flush()
        if node.port is None:
            raise NodeDied(f"nobody listens at {node.address}")
        while tool.status is None and not tool.gone and now() < until:
            host.pump(until)
    finally:
        host.close()
    if tool.status is not None:
        return {"pid": node.pid, **tool.status}
    if host.errors:
        raise host.errors[0]
    if tool.gone:
        raise FreeholdError("the node hung up before it had answered")
    raise FreeholdError(f"the node did not answer within {timeout:g} s")


def clusters(address: str | None, word: str | None = None) -> list[dict[str, Any]]:
    """What the heads say of the clusters that this machine belongs to, or of the one named.

    Each has ``address``, ``nodes``, ``jobs``, ``groups`` and ``detached`` (actors); one whose head
    does not answer has ``address`` and ``error`` only.

    Raises:
        ClusterUnreachable: the address that was named is none.
        AuthenticationError: there is no token for it.
    """
    if address is not None:
        address = reach.normal(address)
        known = {address: token.demand(word, None, address)}
    else:
        records = sessions.standing()
        known = {record.cluster: token.Token.parse(record.token) for record in records}
    found = []
    for place, its in known.items():
        try:
            verbs = {verb: ask_head(place, its, verb, {})[verb] for verb in VERBS}
            found.append({"address": place, **verbs})
        except FreeholdError as error:
            found.append({"address": place, "error": str(error)})
    return found


def ask_head(address: str, its: token.Token, verb: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The answer of a head's directory.  Raises the error that it names, or what hinders it."""
    question = (1, verb, fields)
    _, error, answer = reach.call(reach.peer_of(address), its, m.DIRECTORY, question, m.ENTRY)
    if error:
        raise from_wire(error[0], error[1])
    readable: dict[str, Any] = _readable(answer)
    return readable


def retire(address: str, its: token.Token, node: str) -> str:
    """Drain the node whose id begins so; its whole id.

    Raises:
        FreeholdError: there is no such node, or more than one; or see :func:`ask_head`.
    """
    known = [row["node"] for row in ask_head(address, its, "nodes", {})["nodes"]]
    matches = [id for id in known if id.startswith(node)]
    if len(matches) != 1:
        raise FreeholdError(f"{len(matches)} nodes have an id that begins with {node!r}")
    ask_head(address, its, "retire", {"node": bytes.fromhex(matches[0])})
    return str(matches[0])


def _readable(value: Any) -> Any:
    """The value with ids in hex, as JSON takes it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): _readable(item) for name, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, (list, tuple)) else value
