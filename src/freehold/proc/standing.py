"""Starting and stopping the daemons that stand on their own: what ``freehold start`` calls.

Starting returns when the daemon is ready, a node when it is a member of the cluster, or raises what
hinders it.  Stopping asks nodes to leave before their head is stopped, waits for all of their
processes, and kills what is still there after a while.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from freehold.config import Config
from freehold.errors import AuthenticationError, ClusterUnreachable, FreeholdError
from freehold.io import clock, limits, net, procs, sessions
from freehold.io.procs import Living
from freehold.io.sessions import Record
from freehold.proc import daemon, nodes, reach, token
from freehold.proc.token import Token, demand

__all__ = ["Record", "demand"]
PORT = 7337  # of a head, unless another is asked for
GRACE = 5.0  # seconds from SIGTERM to SIGKILL
LOOK_SOON = 5e-3  # seconds between two looks at what is about to go
LOOK_EVERY = 0.2  # seconds between two looks at daemons that are expected to run
GONE = 5.0  # seconds from there until every process is gone


def start_head(host: str, port: int, store: str, word: Token) -> Record:
    """Start a head; its store is removed with it if it is not given a name.

    Raises:
        FreeholdError: why there is none: the port is in use, the store is damaged or another's.
    """
    config = {"host": host, "port": port, "store": store, "token": word.text}
    return _start("head", config)


def start_node(
    address: str, word: Token, host: str, port: int, config: Config, labels: dict[str, str]
) -> Record:
    """Start a node that joins the cluster; ``host`` and ``port`` say where it listens.

    Raises:
        ClusterUnreachable: nobody answers at the address.
        AuthenticationError: the token is not that cluster's.
        VersionMismatch: the head speaks another version of the protocol.
        JoinRefused: the head does not take it.
        FreeholdError: whatever else hinders it: the port is in use, there is no memory.
    """
    cpus = float(config.num_cpus if config.num_cpus is not None else limits.cpu_count())
    told = {
        **nodes.common(config, cpus),
        "secret": word.secret,
        "cluster": {"address": address, "token": word.text, "host": host, "port": port},
        "labels": labels,
    }
    return _start("node", told)


def _start(role: str, config: dict[str, Any]) -> Record:
    directory = net.make_session_dir()
    socket = os.path.join(directory, f"{role}.sock")
    told = {"standing": True, "dir": directory, role: socket, **config}
    process = daemon.start("member" if role == "node" else role, told)
    try:
        daemon.answer(process, role)
        record = sessions.read(directory)
        if record is None:
            raise FreeholdError(f"the {role} daemon was ready, and is gone already")
    except BaseException:
        process.kill()
        process.wait()
        daemon.release(process)
        net.remove_session_dir(directory)
        raise
    daemon.release(process)
    return record


def head_token(text: str | None, path: str | None, store: str, tls: bool) -> Token:
    """The token of a cluster whose head is about to start: the one given, its store's, or a new.

    It is kept beside a store that has a name, since nodes that come back will use it.

    Raises:
        AuthenticationError: the store's is another than the one given, or does not say the same
            about TLS.
    """
    given = token.find(text, path, "")
    beside = f"{store}.token"
    if store and os.path.exists(beside):
        kept = token.read(beside)
        if given is not None and given != kept:
            raise AuthenticationError(f"{store} is the store of a cluster with another token")
        given = kept
    if given is None:
        given = Token.make(tls)
    if given.tls and not tls:
        raise AuthenticationError("the cluster's token says that its machines speak TLS")
    if store and not os.path.exists(beside):
        net.replace_private(beside, given.text.encode())
    return given


def cluster_of(address: str | None) -> str:
    """That address in its one form, or of the cluster to which this machine belongs.

    Raises:
        ClusterUnreachable: it is no address, or this machine belongs to none, or to several.
    """
    if address is not None:
        return reach.normal(address)
    known = sorted({record.cluster for record in sessions.standing()})
    if len(known) != 1:
        how = "to none" if not known else f"to {len(known)}: {', '.join(known)}"
        raise ClusterUnreachable(f"which cluster?  This machine belongs {how}; give an address")
    return known[0]


def node_here(address: str) -> Record | None:
    """The standing node of that cluster on this machine, if there is one."""
    found = [record for record in sessions.standing() if record.role == "node"]
    return next((record for record in found if record.cluster == address), None)


def own_host(given: str | None, toward: str = "") -> str:
    """The numeric host at which to listen: the one given, or the one that leads to ``toward``.

    Raises:
        ClusterUnreachable: the name of one of the two is not known.
    """
    if given:
        return reach.split(f"{given}:1")[0]
    return net.own_host(reach.split(toward)[0]) if toward else net.own_host()


def wait_for_any(records: list[Record]) -> Record:
    """Wait until one of these daemons ends; that one."""
    while True:
        for record in records:
            if not record.alive:
                return record
        clock.sleep(LOOK_EVERY)


def stop(force: bool = False) -> list[Record]:
    """End every standing daemon of this user on this machine; those that there were.

    Raises:
        FreeholdError: a process is still there although it was killed.
    """
    records = sessions.standing()
    end(records, force)
    return records


def end(records: list[Record], force: bool = False) -> None:
    """End these daemons, nodes before heads.  Raises FreeholdError, as :func:`stop`."""
    for role in ("node", "head"):
        _end([record for record in records if record.role == role], force)


def _end(records: list[Record], force: bool) -> None:
    daemons = [Living(record.pid, record.started) for record in records]
    others = [child for daemon in daemons for child in procs.descendants(daemon.pid)]
    _signal(daemons, signal.SIGKILL if force else signal.SIGTERM)
    if not force:
        _wait(daemons, GRACE)
        _signal(daemons, signal.SIGKILL)
    late = _wait([*daemons, *others], GONE)
    _signal(late, signal.SIGKILL)  # a program that a task had started
    late = _wait(late, GONE)
    for record in records:
        net.remove_session_dir(record.dir)
    if late:
        raise FreeholdError(f"killed, but still there: {', '.join(str(one.pid) for one in late)}")


def _signal(processes: list[Living], number: int) -> None:
    for process in processes:
        if process.lives:
            procs.send_signal(process.pid, number)


def _wait(processes: list[Living], seconds: float) -> list[Living]:
    """Wait until they are gone, or the time is over; those that still live."""
    until = clock.now() + seconds
    while (late := [one for one in processes if one.lives]) and clock.now() < until:
        clock.sleep(LOOK_SOON)
    return late
