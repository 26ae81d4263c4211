"""The floor of the chains of 1 MiB: what the same work costs without any system around it.

    python benchmarks/nsdi21/floor.py

An owner and two workers, forked from it, share one mapping.  The owner makes 80 values and writes
them there; then, ten times over, each value is read by a worker as ``bytes`` and written to another
place, as ``scalability.py``'s task does.  A message of a few bytes over a socket names the places;
eight are on their way to a worker at a time.  Nothing is owned, counted, retried or freed.  The
first run has to touch its pages; the others find them mapped.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import time

SIZE, CHAINS, ROUNDS, WORKERS, DEPTH, RUNS = 1 << 20, 80, 10, 2, 8, 5
_places = struct.Struct("<II")


def main() -> None:
    fd = os.memfd_create("floor")
    os.ftruncate(fd, 2 * CHAINS * SIZE)
    shared = memoryview(mmap.mmap(fd, 2 * CHAINS * SIZE))
    ends = []
    for _ in range(WORKERS):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            ours.close()
            for end in ends:
                end.close()
            work(shared, theirs)
        theirs.close()
        ends.append(ours)
    for run in range(RUNS):
        rate = drive(shared, ends)
        print(f"{'first touch' if run == 0 else 'warm'}: {rate:,.0f} tasks/s")
    for end in ends:
        end.close()
        os.wait()


def work(shared: memoryview, end: socket.socket) -> None:
    """A worker: until the owner is gone."""
    while message := end.recv(_places.size):
        source, target = _places.unpack(message)
        value = bytes(shared[source * SIZE : (source + 1) * SIZE])
        shared[target * SIZE : (target + 1) * SIZE] = value
        end.send(message)
    os._exit(0)


def drive(shared: memoryview, ends: list[socket.socket]) -> float:
    """The owner: tasks a second."""
    start = time.perf_counter()
    for place in range(CHAINS):
        shared[place * SIZE : (place + 1) * SIZE] = bytes(SIZE)
    for number in range(ROUNDS):
        here, there = (0, CHAINS) if number % 2 == 0 else (CHAINS, 0)
        left = list(range(CHAINS))
        waiting = dict.fromkeys(ends, 0)
        while left or any(waiting.values()):
            for end, count in waiting.items():
                for place in left[: DEPTH - count]:
                    end.send(_places.pack(here + place, there + place))
                    waiting[end] += 1
                del left[: DEPTH - count]
            ready, _, _ = select.select([end for end in ends if waiting[end]], [], [])
            for end in ready:
                end.recv(_places.size)
                waiting[end] -= 1
    return CHAINS * ROUNDS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
