"""A node daemon's place in a cluster: joining, keeping in touch with the head, leaving.

Before anything is started the head is called once (``proc.reach``), so that a wrong address, token
or version is named at once.  Then the node keeps one connection to the head.  When that breaks, it
dials again and again, with growing pauses; nothing else stops meanwhile.

A node whose identity the head has declared dead is told so (REFUSED).  What it runs may have been
started anew elsewhere, so it ends its workers and becomes a fresh daemon, in the same process and
the same directory, under a new identity.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from freehold.errors import ClusterUnreachable, JoinRefused
from freehold.io import clock, net, procs
from freehold.io.sessions import Record
from freehold.proc import attach, daemon, reach
from freehold.proc.prober import Prober
from freehold.proc.session import now
from freehold.proc.token import Token

if TYPE_CHECKING:
    from freehold.proc.node import NodeHost
    from freehold.proc.ports import Port

JOIN_TIMEOUT = 5.0  # seconds
LEAVE_TIMEOUT = 1.0
PAUSE_MIN, PAUSE_MAX = 0.05, 1.0  # seconds between two tries to reach the head


class Membership:
    """The connection of a node's host to the head."""

    def __init__(self, host: NodeHost, address: str) -> None:
        self.host = host
        self.address = address
        self.prober = Prober(host, host.node.members.prober)
        self.head = reach.peer_of(address)
        self._pause = PAUSE_MIN

    def seek(self, when: float) -> None:
        """Dial the head."""
        if self.host.closed or self.host.node.members.refused:
            return
        self.head = reach.peer_of(self.address)
        self.host.dial(self.head)
        if self.head.port is None:
            self._later(when)

    def _later(self, when: float) -> None:
        self._pause = PAUSE_MIN if self.head.id else min(2 * self._pause, PAUSE_MAX)
        self.host.call_at(when + self._pause, self.seek)

    def on_close(self, port: Port, when: float) -> None:
        """A connection has ended: if it was the head's, dial it again."""
        if port.peer is self.head:
            peers = self.host.node.peers
            if peers.get(self.head.id) is self.head:
                del peers[self.head.id]
            self._later(when)

    def join(self, patient: bool) -> None:
        """Become a member; ``patient``: return even if there is no head for now.

        Raises:
            JoinRefused: the head does not take this node.
            ClusterUnreachable: it does not answer.
        """
        host, members = self.host, self.host.node.members
        with host.lock:
            self.seek(now())
            host.flush()
        until = now() + JOIN_TIMEOUT
        while not (patient or members.joined or members.refused or now() >= until):
            host.pump(until)
        if members.refused:
            raise JoinRefused(f"the head at {self.address}: {members.refused}")
        if not members.joined and not patient:
            raise ClusterUnreachable(f"the head at {self.address} does not answer")

    def leave(self) -> None:
        """Tell the head that this node goes, and wait a moment until it knows."""
        members = self.host.node.members
        if not members.joined:
            return
        with self.host.lock:
            members.leave()
            self.host.flush()
        until = now() + LEAVE_TIMEOUT
        while members.joined and now() < until:
            self.host.pump(until)


def prepare(config: dict[str, Any]) -> None:
    """Before the node forks anything: see that there is a head, and make what workers share.

    Raises:
        FreeholdError: see :func:`reach.call`.
    """
    cluster = config["cluster"]
    token = Token.parse(cluster["token"])
    if not config.get("again"):
        reach.call(reach.peer_of(cluster["address"]), token)
    if not cluster.get("host"):
        cluster["host"] = net.own_host(reach.split(cluster["address"])[0])
    cluster["tls"] = token.tls
    if token.tls:
        from freehold.io import tls  # here: only a cluster needs it

        tls.make_certificate(os.path.join(config["dir"], attach.CERTIFICATE))


def join(host: NodeHost, config: dict[str, Any]) -> Membership:
    """Listen for other machines, and join.  Raises FreeholdError when that fails."""
    cluster = config["cluster"]
    attach.listen(host, cluster["host"], cluster.get("port", 0), config["dir"], cluster["tls"])
    host.node.members.me.address = host.address
    membership = host.member = Membership(host, cluster["address"])
    membership.join(patient=bool(config.get("again")))
    return membership


def stand(host: NodeHost, config: dict[str, Any]) -> None:
    """Stand on its own: be found by others, offer the arena, let go of the terminal."""
    cluster, directory = config["cluster"], config["dir"]
    offers = net.listen(os.path.join(directory, attach.ARENA_SOCKET))
    host.watch(offers.fileno(), lambda mask, when: net.offer_descriptor(offers, host.arena.fd))
    procs.on_terminate(host.stop)
    record = Record(
        dir=directory,
        role="node",
        pid=clock.pid(),
        started=procs.start_time(clock.pid()),
        cluster=cluster["address"],
        address=host.address.rpartition("|")[2],
        node=host.node.id.hex(),
    )
    record.write(cluster["token"])
    daemon.detach(directory)


def start_over(host: NodeHost, config: dict[str, Any], spawner: int) -> NoReturn:
    """End the workers and what they share, and become a fresh node in the same process."""
    why = host.node.members.refused or "the fork server is gone"
    print(f"node {host.node.id.hex()} starts over: {why}", file=sys.stderr, flush=True)
    host.close()  # at which the fork server ends its children, removes the directory, and exits
    procs.wait(spawner)
    net.remake_session_dir(config["dir"])
    daemon.start_over("node", {**config, "again": True})
