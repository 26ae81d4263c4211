"""How fast objects move between nodes: the mover beside a plain copy of the same bytes.

``python benchmarks/mover.py`` takes a few seconds.  Both sides run in this process, over loopback
TCP, in turns; memory is warm.  The plain copy is ``os.sendfile`` into ``recv_into`` (over TLS:
``send`` into ``recv_into``), and nothing else.
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable

from freehold.io.mover import Mover
from freehold.io.shm import Arena

SIZE = 256_000_000
ROUNDS = 5
Connect = Callable[[], tuple[socket.socket, socket.socket]]


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


def make_tls() -> Connect:
    with tempfile.TemporaryDirectory() as path:
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        files = ["-subj", "/CN=bench", "-keyout", f"{path}/key", "-out", f"{path}/cert"]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(f"{path}/cert", f"{path}/key")
        client = ssl.create_default_context(cafile=f"{path}/cert")
        client.check_hostname = False

    def connect() -> tuple[socket.socket, socket.socket]:
        ours, theirs = tcp()
        made: list[socket.socket] = []
        other = threading.Thread(
            target=lambda: made.append(server.wrap_socket(theirs, server_side=True))
        )
        other.start()
        client_side = client.wrap_socket(ours)
        other.join()
        return client_side, made[0]

    return connect


def plain(connect: Connect, source: Arena, target: Arena) -> float:
    ours, theirs = connect()

    def send() -> None:
        at = 0
        while at < SIZE:
            if isinstance(theirs, ssl.SSLSocket):
                at += theirs.send(source.view[at : min(SIZE, at + (1 << 18))])
            else:
                at += os.sendfile(theirs.fileno(), source.fd, at, SIZE - at)

    sender = threading.Thread(target=send)
    start = time.perf_counter()
    sender.start()
    at = 0
    while at < SIZE:
        at += ours.recv_into(target.view[at:SIZE])
    took = time.perf_counter() - start
    sender.join()
    ours.close()
    theirs.close()
    return SIZE / took / 1e9


def moved(connect: Connect, source: Arena, target: Arena) -> float:
    asked, done = threading.Semaphore(0), threading.Semaphore(0)

    def dial(address: str) -> socket.socket:
        ours, theirs = connect()
        far.serve(theirs)
        return ours

    def answer() -> None:
        asked.acquire()
        for _, transfer, *_rest in far.events():
            far.serving(transfer, 0, SIZE, SIZE, "")

    far = Mover(source, b"far.....", "far", dial, asked.release)
    near = Mover(target, b"near....", "near", dial, done.release)
    answering = threading.Thread(target=answer)
    answering.start()
    start = time.perf_counter()
    near.move(1, "far", b"i" * 16, [b"holder..", 0, SIZE, b"far....."], 0, 0, False)
    done.acquire()
    took = time.perf_counter() - start
    ((_, _, have, reason, _),) = near.events()
    assert (have, reason) == (SIZE, "")
    answering.join()
    near.close()
    far.close()
    return SIZE / took / 1e9


def main() -> None:
    source, target = Arena.create(SIZE), Arena.create(SIZE)
    for arena in (source, target):
        arena.reserve(0, SIZE)
        arena.view[:SIZE] = bytes(SIZE)
    for name, connect in (("TCP", tcp), ("TLS", make_tls())):
        rates = [
            (plain(connect, source, target), moved(connect, source, target)) for _ in range(ROUNDS)
        ]
        before, after = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"{name}: plain {before:.2f} GB/s, mover {after:.2f} GB/s, {after / before:.2f}x")


if __name__ == "__main__":
    main()
