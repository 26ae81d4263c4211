"""A driver's way to its node: one of its own, or the standing node of a cluster on this machine.

``init()`` without an address starts a node that lives with the driver.  With an address, the
driver uses the standing node of that cluster on this machine, if there is one: it speaks to it over
its Unix socket, and is handed the arena's descriptor over another.  Otherwise it starts a node
without CPUs, which joins the cluster and lives with the driver.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from freehold.config import Config
from freehold.core import address as addresses
from freehold.errors import ClusterUnreachable, FreeholdError, NodeDied
from freehold.io import net, sessions
from freehold.io.sessions import Record
from freehold.io.shm import Arena
from freehold.proc import reach
from freehold.proc.listening import Listening
from freehold.proc.token import Token, demand

ARENA_SOCKET = "arena.sock"
CERTIFICATE = "tls.pem"
HAND_OVER_TIMEOUT = 5.0  # seconds
AUTO = "auto"
OF_THE_NODE = ("num_cpus", "resources", "prestart", "worker_idle_s", "workers_max")


class Way(NamedTuple):
    """How to get at a cluster: where its head is, its token, its node on this machine if any."""

    address: str
    token: Token
    record: Record | None

    @property
    def dir(self) -> str:
        """The standing node's session directory."""
        assert self.record is not None
        return self.record.dir


def way(config: Config, given: dict[str, Any]) -> Way:
    """The way to the cluster that the settings name.

    Raises:
        ValueError: ``given``, what the program has said, is in part for a node of its own.
        ClusterUnreachable: ``auto``, and no node of a cluster runs on this machine.
        AuthenticationError: there is no token.
    """
    assert config.address is not None
    for name in OF_THE_NODE:
        if given.get(name) is not None:
            raise ValueError(f"{name} is for `freehold start`, not for a program that joins")
    wanted = config.address if config.address == AUTO else reach.normal(config.address)
    nodes = [record for record in sessions.standing() if record.role == "node"]
    if wanted != AUTO:
        nodes = [record for record in nodes if record.cluster == wanted]
    record = nodes[0] if nodes else None
    if record is None and wanted == AUTO:
        raise ClusterUnreachable(
            "no node of a cluster runs on this machine: call `freehold start`, or give the "
            "address of a cluster's head"
        )
    address = wanted if record is None else record.cluster
    said = None if config.token is None else Token.parse(config.token)
    token = said or demand(None if record is None else record.token, None, address)
    return Way(address, token, record)


def take_arena(directory: str, size: int) -> Arena:
    """The arena of the standing node that has that session directory."""
    try:
        fd = net.fetch_descriptor(os.path.join(directory, ARENA_SOCKET), HAND_OVER_TIMEOUT)
    except OSError as error:
        raise NodeDied(f"the node does not hand over its arena: {error}") from None
    return Arena(fd, size)


def open_to_cluster(host: Listening, directory: str, where: Way, address: str) -> None:
    """Let the driver be dialled from other machines, at the host of its node's ``address``.

    Raises:
        FreeholdError: it cannot listen there.
    """
    place = addresses.host_port_of(address)
    assert place is not None
    listen(host, place[0], 0, directory, where.token.tls)


def listen(host: Listening, place: str, port: int, directory: str, tls: bool) -> None:
    """Accept connections from other machines; the certificate is the node's.

    Raises:
        FreeholdError: it cannot.
    """
    host.tls = tls
    try:
        host.listen_tcp(place, port, os.path.join(directory, CERTIFICATE) if tls else "")
    except OSError as error:
        where = reach.join(place, port)
        raise FreeholdError(f"nothing can listen at {where}: {error.strerror}") from None
