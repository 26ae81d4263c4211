"""What a standing daemon writes down about itself, so that others on its machine find it.

A session directory belongs to one daemon.  That of a daemon started by ``freehold start`` also has
``session.json``: its role, its cluster, its process.  A process is named by pid *and* start time,
since pids return; a directory whose process is gone is stale, and whoever meets it removes it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec

from freehold.io import net, procs

NAME = "session.json"


class Record(NamedTuple):
    """A standing daemon.

    Attributes:
        dir: its session directory.
        role: ``head`` or ``node``.
        pid: its process.
        started: when that was started, in the kernel's own unit.
        cluster: the head's address, ``HOST:PORT``.
        address: where the daemon itself listens, ``HOST:PORT``.
        node: a node's id in hex; empty for a head.
        store: the file in which a head keeps its tables; empty for a node.
    """

    dir: str
    role: str
    pid: int
    started: int
    cluster: str
    address: str
    node: str = ""
    store: str = ""

    @property
    def alive(self) -> bool:
        """Whether the daemon still runs."""
        return self.started == procs.start_time(self.pid)

    @property
    def token(self) -> str:
        """The cluster's token."""
        return net.read_file(os.path.join(self.dir, "token")).decode()

    def write(self, token: str) -> None:
        """Write it down, and the token; both at once become visible to :func:`standing`."""
        net.replace_private(os.path.join(self.dir, "token"), token.encode())
        fields = {name: value for name, value in self._asdict().items() if name != "dir"}
        net.replace_private(os.path.join(self.dir, NAME), msgspec.json.encode(fields))


def read(path: str) -> Record | None:
    """The record in that session directory, if there is one."""
    try:
        return Record(dir=path, **msgspec.json.decode(net.read_file(os.path.join(path, NAME))))
    except (OSError, ValueError, TypeError):
        return None


def standing() -> list[Record]:
    """This user's standing daemons on this machine, the newest first; stale ones are removed."""
    found = []
    for path in net.session_dirs():
        record = read(path)
        if record is None:
            continue
        if record.alive:
            found.append(record)
        else:
            net.remove_session_dir(path)
    return found
