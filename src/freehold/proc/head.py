"""The head daemon: the cluster's authority on its nodes, on nobody's path.

It hosts ``core.head.head`` on a TCP port.  Its tables are in a file, written by a thread of its own
(``proc.store``); a head that is started again with that file, on the same port, goes on where the
last one was: nodes keep dialling it, and know it by the secret.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from freehold.core.head.head import Head
from freehold.core.ids import PROC_ID_BYTES
from freehold.core.machine import NEVER, Peer
from freehold.io import clock, net, procs, tls
from freehold.io.control import ControlStore, SqliteStore
from freehold.io.sessions import Record
from freehold.proc import attach, daemon, reach
from freehold.proc.host import Host
from freehold.proc.ports import Port
from freehold.proc.prober import Prober
from freehold.proc.session import now
from freehold.proc.store import StoreThread, entries
from freehold.proc.token import Token


class HeadHost(Host):
    """The host of the head's machine."""

    machine: Head

    def __init__(self, token: Token, disk: ControlStore) -> None:
        id = clock.random_bytes(PROC_ID_BYTES)
        head = Head(id, entries=entries(disk), cluster=token.cluster.hex())
        super().__init__(head, token.secret, "head")
        self.head = head
        self.tls = token.tls
        self.forgiving = True
        self.info = head.info
        self.store = StoreThread(self, head.store, disk)
        self.prober = Prober(self, head.prober)
        self.stopping = False

    def flush(self) -> None:
        self.store.take()
        self.prober.take()
        super().flush()

    def _on_waker(self, mask: int, when: float) -> None:
        super()._on_waker(mask, when)
        self.store.deliver(when)

    def _on_hello(self, port: Port, hello: list[Any], when: float) -> Peer:
        """Nodes dial the head, one connection at a time: an older one is lost, and they know it.

        What was written there would be lost as well; and its end, when it is noticed, would be
        taken for the end of the new one.
        """
        old = self.machine.peers.get(hello[1])
        if old is not None and old.kind == "node" and old.port not in (None, port):
            self.end(old.port, when)
        return super()._on_hello(port, hello, when)

    def stop(self) -> None:
        """End at the next turn; callable from a signal handler."""
        self.stopping = True
        self.waker.wake()

    def serve(self) -> str:
        """Until it is told to stop ('' is returned), or cannot go on: why."""
        with self.lock:
            self.head.start(now())
            self._finish(now())
        while not self.stopping:
            self.pump(NEVER)
            if self.head.fenced:
                return "another head has taken the store over"
            if self.store.error is not None:
                return f"the store cannot be written: {self.store.error}"
        return ""


def main() -> None:
    """The head daemon's life; its configuration comes on standard input."""
    procs.open_standard_files()
    procs.allow_many_files()
    config = msgspec.msgpack.decode(procs.read_config())
    procs.set_name("freehold-head")
    procs.reset_signals()
    try:
        daemon.log_errors(config["dir"])
        host = _open(config)
    except Exception as error:
        daemon.say_error(error)
        procs.exit_now(1)
    procs.on_terminate(host.stop)
    daemon.say_ready()
    daemon.detach(config["dir"])
    why = host.serve()
    host.close()
    host.store.close()
    if why:
        print(why, file=sys.stderr, flush=True)
    net.remove_session_dir(config["dir"])
    procs.exit_now(1 if why else 0)


def _open(config: dict[str, Any]) -> HeadHost:
    token = Token.parse(config["token"])
    if token.tls:
        tls.make_certificate(os.path.join(config["dir"], attach.CERTIFICATE))
    path = config["store"] or os.path.join(config["dir"], "head.db")
    host = HeadHost(token, SqliteStore(path, token.cluster.hex()))
    attach.listen(host, config["host"], config["port"], config["dir"], token.tls)
    place = reach.join(config["host"], config["port"])
    record = Record(
        dir=config["dir"],
        role="head",
        pid=clock.pid(),
        started=procs.start_time(clock.pid()),
        cluster=place,
        address=place,
        store=config["store"],
    )
    record.write(token.text)
    return host
