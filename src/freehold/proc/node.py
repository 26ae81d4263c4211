"""The node daemon: one for each machine, started by its first driver, gone with it.

It hosts ``core.node`` and, before it opens anything, forks the fork server.  Extents' pages are
allocated here, ahead of demand, so that no process ever meets a missing page.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import msgspec

from freehold.core import messages as m
from freehold.core.machine import NEVER
from freehold.core.node import Node
from freehold.io import clock, net, procs
from freehold.io.shm import Arena
from freehold.proc import daemon, forkserver
from freehold.proc.host import Host
from freehold.proc.session import now

RESERVE_STEP = 2 * 1024 * 1024
RESERVE_PAUSE = 2e-3  # seconds between two steps, so that nobody waits for this daemon
BUSY_PAUSE = 0.1  # the same while workers are leased
QUIET_AFTER = 0.3  # seconds after the start, or after a new extent


class NodeHost(Host):
    """The host of the node's machine."""

    def __init__(self, config: dict[str, Any], arena: Arena, spawner_sock: Any) -> None:
        self.node = Node(
            clock.random_bytes(8),
            cpus=config["cpus"],
            arena_bytes=arena.size,
            resources=config["resources"],
            prestart=config["prestart"],
            idle_seconds=config["worker_idle"],
            workers_max=config["workers_max"],
        )
        super().__init__(self.node, config["secret"], "node", config["node"])
        self.forgiving = True
        self.arena = arena
        self.store = self.node.store
        self.reserve_ahead = min(config["reserve"], arena.size)
        self.reserve_most = arena.size  # lowered when the machine has no more
        self.quiet_at = 0.0
        self._high = 0
        self.info = {**self.node.info, "fd": arena.fd}
        self.attach(spawner_sock, self.node.spawner)

    def flush(self) -> None:
        """Answer the arena's frames, which are for this process, and send the rest."""
        arena = self.store.arena
        while arena.outbox:
            frames, arena.outbox = arena.outbox, []
            for _, end in frames:
                reason = self._reserve(end)
                self.node.handlers[m.RESERVED](arena, now(), end, reason)
        super().flush()

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
        and what they lack is allocated without clearing (``_reserve``); while tasks run, they need
        the processor.
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
            if self.node.workers.leases:
                self.quiet_at = now() + BUSY_PAUSE
            try:
                self.arena.prepare(start, step)
            except OSError:
                self.reserve_most = start
                return False
            self.store.reserved = start + step
        return True

    def serve(self) -> None:
        """Until the driver is gone, or the fork server is."""
        self.node.start(now())
        self._finish(now())
        self.quiet_at = now() + QUIET_AFTER
        while not self.node.finished and self.node.spawner.port is not None:
            self.pump(max(now() + RESERVE_PAUSE, self.quiet_at) if self.reserve_some() else NEVER)


def main() -> None:
    """The node daemon's life; its configuration comes on standard input."""
    procs.open_standard_files()
    procs.allow_many_files()
    config = msgspec.msgpack.decode(procs.read_config())
    sys.path[:] = config["path"]
    procs.set_name("freehold-node")
    arena = Arena.create(config["arena"])
    ours, theirs = net.pair()

    def serve_forks() -> None:
        os.close(0)
        os.close(1)
        os.open(os.devnull, os.O_RDWR)
        os.open(os.devnull, os.O_RDWR)
        ours.close()
        forkserver.main(theirs, config, arena)

    procs.fork(serve_forks, tied=False)  # it cleans up behind a node that was killed
    theirs.close()
    procs.reset_signals()
    host = NodeHost(config, arena, ours)
    host.listen(config["node"])
    host.watch(0, lambda mask, when: _starter_gone(host))
    daemon.say_ready()
    with contextlib.suppress(KeyboardInterrupt):
        host.serve()
    net.remove_session_dir(config["dir"])
    procs.exit_now(0)


def _starter_gone(host: NodeHost) -> None:
    """The process that started this one has died, perhaps before it ever connected."""
    host.node.finished = True
