"""The node daemon: it hosts ``core.node.node``, and forks the fork server before it opens anything.

An *embedded* node is started by a driver and gone with it.  A *standing* one is started by
``freehold start``, serves any number of drivers, and ends when it is told to.  Extents' pages are
allocated here, ahead of demand, so that no process ever meets a missing page.

A node of a cluster (``proc.member``) listens on a TCP port too, and keeps a connection to the head.
Any other node answers questions to the directory by itself: at the first one it takes a head in
(``proc.near``), so that a session that asks nothing does not pay for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from freehold.core import messages as m
from freehold.core.ids import PROC_ID_BYTES
from freehold.core.machine import NEVER, Peer
from freehold.core.node.node import Node
from freehold.errors import FreeholdError, ObjectStoreFull
from freehold.io import clock, limits, net, procs
from freehold.io.shm import Arena
from freehold.proc import daemon, forkserver
from freehold.proc.host import Host
from freehold.proc.session import now

if TYPE_CHECKING:
    from freehold.proc.near import Resident

RESERVE_STEP = 2 * 1024 * 1024
RESERVE_PAUSE = 2e-3  # seconds between two steps, so that nobody waits for this daemon
QUIET_AFTER = 0.3  # seconds after the start, or after a new extent
BUSY_PAUSE = 0.01  # seconds, while no processor is free: that may be over in a moment


class NodeHost(Host):
    """The host of the node's machine."""

    def __init__(self, config: dict[str, Any], arena: Arena, spawner_sock: Any) -> None:
        self.node = Node(
            config["id"],
            address=config["node"],
            labels=config.get("labels", {}),
            cpus=config["cpus"],
            arena_bytes=arena.size,
            resources=config["resources"],
            prestart=config["prestart"],
            idle_seconds=config["worker_idle"],
            workers_max=config["workers_max"],
            standing="cluster" in config,
        )
        super().__init__(self.node, config["secret"], "node", config["node"])
        self.forgiving = True
        self.arena = arena
        self.store = self.node.store
        self.reserve_ahead = min(config["reserve"], arena.size)
        self.reserve_most = arena.size  # lowered when the machine has no more
        self.quiet_at = 0.0
        self._high = 0
        self.alone = True  # there is no cluster
        self._resident: Resident | None = None
        self.set_home(self.node.id)
        self.attach(spawner_sock, self.node.spawner)

    def _hello(self, to: bytes, call: list[int] | None = None) -> bytearray:
        self.info = {**self.node.info, "fd": self.arena.fd}
        return super()._hello(to, call)

    def _finish(self, when: float) -> None:
        super()._finish(when)
        members = self.node.members
        if members.relay.questions and members.head is None and self.alone:
            self._take_head_in(when)
        resident = self._resident
        if resident is not None:
            resident.on_timer(when)
            if self.machine.dirty:
                self.flush()
            self.next_timer = min(self.next_timer, self.machine.deadline(), resident.deadline())

    def _take_head_in(self, when: float) -> None:
        """Somebody asks the directory, and there is no cluster: be one's own head."""
        from freehold.core.head.head import Head  # here, since few sessions need them
        from freehold.proc.near import Resident

        head = Head(clock.random_bytes(8), entries=[], unreachable_s=NEVER)
        seat = Peer(head.id, "", "head")
        self._resident = Resident(self.node, seat, head, head.store, self.address)
        head.start(when)
        self._resident.open(when, self.node.info, head.info)

    def flush(self) -> None:
        """Answer the arena's frames, which are for this process, and send the rest."""
        self.reserve()
        if self._resident is not None:
            self._resident.carry(now())
        super().flush()

    def reserve(self) -> None:
        """Answer the arena's frames."""
        arena = self.store.arena
        while arena.outbox:
            frames, arena.outbox = arena.outbox, []
            for _, end in frames:
                reason = self._reserve(end)
                self.node.handlers[m.RESERVED](arena, now(), end, reason)

    def _reserve(self, end: int) -> str:
        start = self.store.reserved
        if end > start:
            try:
                self.arena.reserve(start, end - start)
            except OSError as error:
                return f"the machine has no memory left ({error.strerror})"
            self.store.reserved = end
        return ""

    def reserve_some(self) -> bool:
        """Allocate and clear some pages ahead of demand; False when there are enough.

        It is left for quiet times: while objects arrive, their writers need the memory's bandwidth,
        and what they lack is allocated without clearing (``_reserve``).
        """
        high, start = self.store.extents.high, self.store.reserved
        if high != self._high:
            self._high = high
            self.quiet_at = now() + QUIET_AFTER
        goal = min(high + self.reserve_ahead, self.reserve_most)
        step = min(RESERVE_STEP, goal - start)
        if step <= 0:
            return False
        if now() >= self.quiet_at:
            if limits.is_busy():
                self.quiet_at = now() + BUSY_PAUSE
                return True
            try:
                self.arena.prepare(start, step)
            except OSError:
                self.reserve_most = start
                return False
            self.store.reserved = start + step
        return True

    @property
    def over(self) -> bool:
        """Whether there is nothing to serve any more: no driver, or no fork server."""
        return self.node.finished or self.node.spawner.port is None

    def serve(self) -> None:
        """Until it is over."""
        with self.lock:
            self.node.start(now())
            self._finish(now())
        self.quiet_at = now() + QUIET_AFTER
        while not self.over:
            self.pump(max(self.quiet_at, now() + RESERVE_PAUSE) if self.reserve_some() else NEVER)


def main() -> None:
    """The embedded node's life."""
    config = configuration()
    try:
        host = NodeHost(config, *fork_server(config)[:2])
    except FreeholdError as error:
        daemon.say_error(error)
        procs.exit_now(1)
    host.listen(config["node"])
    embed(host)
    net.remove_session_dir(config["dir"])
    procs.exit_now(0)


def configuration() -> dict[str, Any]:
    """What the starter has written to standard input, and the node's identity."""
    procs.open_standard_files()
    procs.allow_many_files()
    config: dict[str, Any] = msgspec.msgpack.decode(procs.read_config())
    sys.path[:] = config["path"]
    procs.set_name("freehold-node")
    config["id"] = clock.random_bytes(PROC_ID_BYTES)
    return config


def embed(host: NodeHost) -> None:
    """Serve the driver that has started this process, until it is gone."""
    host.watch(0, lambda mask, when: _starter_gone(host))
    daemon.say_ready(node=host.node.id.hex(), address=host.address)
    with contextlib.suppress(KeyboardInterrupt):
        host.serve()


def fork_server(config: dict[str, Any]) -> tuple[Arena, Any, int]:
    """Make the arena, and fork the fork server: the socket that leads to it, and its pid.

    Raises ObjectStoreFull when there can be no arena of that size.
    """
    try:
        arena = Arena.create(config["arena"])
    except (OSError, OverflowError) as error:
        size = f"an arena of {config['arena']:,} bytes"
        raise ObjectStoreFull(f"{size} cannot be had ({error}): lower arena_bytes_max") from None
    ours, theirs = net.pair()

    def serve_forks() -> None:
        os.close(0)
        os.close(1)
        os.open(os.devnull, os.O_RDWR)
        os.open(os.devnull, os.O_RDWR)
        ours.close()
        forkserver.main(theirs, config, arena)

    pid = procs.fork(serve_forks, tied=False)  # it cleans up behind a node that was killed
    theirs.close()
    procs.reset_signals()
    return arena, ours, pid


def _starter_gone(host: NodeHost) -> None:
    """The process that started this one has died, perhaps before it ever connected."""
    host.node.finished = True
