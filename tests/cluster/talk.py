"""A small program for tests of networks: an echo server, or a client that is told what to send.

``python talk.py serve HOST PORT`` prints ``listening`` and returns to each what it sends.
``python talk.py dial HOST PORT`` reads lines, sends each and prints what has come by the line's
deadline (``TEXT SECONDS``), or ``-`` when nothing has.  ``python talk.py pour HOST PORT BYTES``
sends that many bytes, waits for the other side's end and prints how many seconds it took.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
import time


def serve(address: tuple[str, int]) -> None:
    """Echo for ever."""
    with socket.create_server(address) as listener:
        print("listening", flush=True)
        while True:
            link, _ = listener.accept()
            threading.Thread(target=echo, args=(link,), daemon=True).start()


def echo(link: socket.socket) -> None:
    """Return what comes, or only count it when it begins with ``pour``."""
    with link:
        silent = False
        try:
            while data := link.recv(1 << 16):
                silent = silent or data.startswith(b"pour")
                if not silent:
                    link.sendall(data)
        except OSError:
            return


def dial(address: tuple[str, int]) -> None:
    """Send lines as they are told, and print what comes back."""
    with socket.create_connection(address) as link, selectors.DefaultSelector() as waiting:
        waiting.register(link, selectors.EVENT_READ)
        print("connected", flush=True)
        for line in sys.stdin:
            text, seconds = line.split()
            link.sendall(text.encode())
            got = ""
            end = time.monotonic() + float(seconds)
            while text not in got and waiting.select(max(0.0, end - time.monotonic())):
                got += link.recv(1 << 16).decode()
            print(got or "-", flush=True)


def pour(address: tuple[str, int], size: int) -> None:
    """Send so many bytes; the seconds until the other side has them all."""
    start = time.monotonic()
    with socket.create_connection(address) as link:
        link.sendall(b"pour" + bytes(size - 4))
        link.shutdown(socket.SHUT_WR)
        link.recv(1)
    print(time.monotonic() - start)


if __name__ == "__main__":
    verb, host, port, *rest = sys.argv[1:]
    if verb == "serve":
        serve((host, int(port)))
    elif verb == "dial":
        dial((host, int(port)))
    else:
        pour((host, int(port)), int(rest[0]))
