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
from typing import Any, NoReturn

from freehold.core import messages as m
from freehold.core.address import node_of, path_of
from freehold.core.machine import Peer
from freehold.errors import ClusterUnreachable, JoinRefused
from freehold.io import clock, net, procs
from freehold.io.sessions import Record
from freehold.io.shm import Arena
from freehold.proc import attach, daemon, reach
from freehold.proc.data import DataPlane
from freehold.proc.node import NodeHost, configuration, embed, fork_server
from freehold.proc.ports import Port
from freehold.proc.prober import Prober
from freehold.proc.session import now
from freehold.proc.token import Token
from freehold.proc.transfers import Transfers

JOIN_TIMEOUT = 5.0  # seconds
LEAVE_TIMEOUT = 1.0
PAUSE_MIN, PAUSE_MAX = 0.05, 1.0  # seconds between two tries to reach the head


class MemberHost(NodeHost):
    """The host of a node of a cluster.

    Attributes:
        standing: it outlives its starter, and any driver.
        stopping: it was told to end.
    """

    def __init__(self, config: dict[str, Any], arena: Arena, spawner_sock: Any) -> None:
        super().__init__(config, arena, spawner_sock)
        self.alone = False
        self.standing = bool(config.get("standing"))
        self.stopping = False
        self.cluster: str = config["cluster"]["address"]
        self.prober = Prober(self, self.node.members.suspects.prober)
        self.head = reach.peer_of(self.cluster)
        self.data = DataPlane(self)
        self.transfers: Transfers | None = None
        self._pause = PAUSE_MIN
        self._witness = Peer()  # answers to it go nowhere

    def flush(self) -> None:
        self.prober.take()
        self.reserve()  # at which bytes may begin to move
        if self.transfers is not None:
            self.transfers.flush()
        super().flush()

    def move_objects(self) -> None:
        """This node's address is known: begin to send objects, and to fetch them."""
        made = Transfers(self, self.node.pulls, self.arena, self.data.dial, self.address)
        self.transfers = self.data.transfers = made
        self.on_data = self.data.accept

    @property
    def over(self) -> bool:
        """Whether to end: no driver, no fork server, no membership; told to; drained."""
        node = self.node
        if node.spawner.port is None or node.members.refused:
            return True
        if self.standing and node.members.me.retiring:
            self.stopping |= node.departing.departed
        return self.stopping if self.standing else node.finished

    def stop(self) -> None:
        """End at the next turn; callable from a signal handler."""
        self.stopping = True
        self.waker.wake()

    # -- the head ---------------------------------------------------------------------------------
    def seek(self, when: float) -> None:
        """Dial the head."""
        if self.closed or self.node.members.refused:
            return
        self.head = reach.peer_of(self.cluster)
        self.dial(self.head)
        if self.head.port is None:
            self._seek_later(when)

    def _seek_later(self, when: float) -> None:
        self._pause = PAUSE_MIN if self.head.id else min(2 * self._pause, PAUSE_MAX)
        self.call_at(when + self._pause, self.seek)

    def end(self, port: Port, when: float) -> None:
        super().end(port, when)
        peer = port.peer
        if peer is None:
            return
        if peer is self.head:
            if self.node.peers.get(peer.id) is peer:
                del self.node.peers[peer.id]
            self._seek_later(when)
        elif self.standing and peer.kind == "driver" and node_of(peer.address) == self.home:
            self._driver_gone(peer, when)

    def _driver_gone(self, peer: Peer, when: float) -> None:
        """See to what it may have had no time for: its socket, and its job, which has its id."""
        net.remove_file(path_of(peer.address))
        fields = {"job": peer.id, "info": {}, "alive": False}
        self.node.handlers[m.DIRECTORY](self._witness, when, 0, "job", fields)

    def join(self, patient: bool) -> None:
        """Become a member; ``patient``: return even if there is no head for now.

        Raises:
            JoinRefused: the head does not take this node.
            ClusterUnreachable: it does not answer.
        """
        members = self.node.members
        with self.lock:
            self.seek(now())
            self.flush()
        until = now() + JOIN_TIMEOUT
        while not (patient or members.joined or members.refused or now() >= until):
            self.pump(until)
        if members.refused:
            raise JoinRefused(f"the head at {self.cluster}: {members.refused}")
        if not members.joined and not patient:
            raise ClusterUnreachable(f"the head at {self.cluster} does not answer")

    def leave(self) -> None:
        """Tell the head that this node goes, and wait a moment until it knows."""
        members = self.node.members
        if not members.joined:
            return
        with self.lock:
            members.leave()
            self.flush()
        until = now() + LEAVE_TIMEOUT
        while now() < until and self.node.members.joined:
            self.pump(until)


def main() -> None:
    """The life of a node of a cluster."""
    config = configuration()
    try:
        if config.get("standing"):
            daemon.log_errors(config["dir"])
        prepare(config)
        arena, sock, spawner = fork_server(config)
        host = MemberHost(config, arena, sock)
        host.listen(config["node"])
        cluster = config["cluster"]
        attach.listen(host, cluster["host"], cluster.get("port", 0), config["dir"], cluster["tls"])
        host.node.members.me.address = host.address
        host.node.estates.address = host.address
        host.move_objects()
        host.join(patient=bool(config.get("again")))
        if host.standing:
            stand(host, config)
    except Exception as error:  # the fork server ends by itself
        daemon.say_error(error)
        net.remove_session_dir(config["dir"])
        procs.exit_now(1)
    if host.standing:
        host.serve()
    else:
        embed(host)
    host.leave()
    if host.standing and not host.stopping:
        start_over(host, config, spawner)
    net.remove_session_dir(config["dir"])
    procs.exit_now(0)


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


def stand(host: MemberHost, config: dict[str, Any]) -> None:
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
    net.write_private(os.path.join(directory, "secret"), config["secret"])  # for ``proc.tool``
    record.write(cluster["token"])
    daemon.say_ready()
    daemon.detach(directory)
    if config.get("again"):
        print(f"node {host.node.id.hex()} has started over: {config['again']}", flush=True)


def start_over(host: MemberHost, config: dict[str, Any], spawner: int) -> NoReturn:
    """End the workers and what they share, and become a fresh node in the same process."""
    why = host.node.members.refused or "the fork server is gone"
    host.close()  # at which the fork server ends its children, removes the directory, and exits
    procs.wait(spawner)
    net.remake_session_dir(config["dir"])
    daemon.start_over("member", {**config, "again": why})
