"""How long a large object takes to one node and to eight, over links of 500 Mbit/s each.

``python benchmarks/broadcast.py [--mb 100] [--mbit 500] [--nodes 8] [--rounds 3]`` needs root: each
node is in a network namespace of its own (``freehold.ext.netns``), with a token bucket at both ends
of its cable.  The driver's node puts the object; then a task on each node reads it.  Beside it
stands a plain copy of as many bytes between two of these hosts, over a bare socket.

A broadcast costs each link about one copy, since a node passes on what it receives
(``core.node.serving``); from one source to all it would take as many times as long as there are
nodes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from freehold.ext.cluster import Cluster
from freehold.ext.netns import Network, forbidden

GOAL = 2.5  # times as long to eight as to one
DRIVER = """
import sys, time
import numpy
import freehold as fh
fh.init(log_to_driver=False)
size, rounds, nodes = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]

@fh.remote(num_cpus=0)
def read(value):
    return int(value[0]) + int(value[-1])

def to(some):
    value = fh.put(numpy.full(size, 7, numpy.uint8))
    start = time.perf_counter()
    assert fh.get([tasks[n].remote(value) for n in some], timeout=300) == [14] * len(some)
    return time.perf_counter() - start

small = fh.put(b"warm")
tasks = {n: read.options(scheduling_strategy=fh.NodeAffinity(n, soft=False)) for n in nodes}
fh.get([tasks[n].remote(small) for n in nodes])
for count in [1, len(nodes)] * rounds:
    print(count, to(nodes[:count]), flush=True)
fh.shutdown()
"""
COPY = """
import os, socket, sys, time
kind, address, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "send":
    with socket.create_server((address, 7000)) as server, open("/dev/zero", "rb") as zero:
        print("ready", flush=True)
        sock, _ = server.accept()
        data = memoryview(bytes(1 << 20))
        for at in range(0, size, 1 << 20):
            sock.sendall(data[: min(1 << 20, size - at)])
        sock.close()
else:
    start = time.perf_counter()
    sock = socket.create_connection((address, 7000))
    into, at = bytearray(size), 0
    view = memoryview(into)
    while at < size:
        at += sock.recv_into(view[at:])
    print(time.perf_counter() - start)
"""


def plain_copy(network: Network, size: int) -> float:
    """Seconds for the same bytes from host 0 to host 1 through a bare socket."""

    def run(host: int, kind: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", COPY, kind, network.address(0), str(size)]
        return network.popen(host, argv, stdout=subprocess.PIPE)

    with run(0, "send") as sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        with run(1, "receive") as receiver:
            return float(receiver.communicate()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=100, help="of the object, 10^6 bytes")
    parser.add_argument("--mbit", type=float, default=500, help="of each link, 10^6 bits a second")
    parser.add_argument("--nodes", type=int, default=8, help="that read it")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if reason := forbidden():
        sys.exit(reason)
    size = chosen.mb * 1_000_000
    with Network(chosen.nodes + 1, mbit=chosen.mbit) as network:
        plain = statistics.median(plain_copy(network, size) for _ in range(chosen.rounds))
        with Cluster(
            nodes=chosen.nodes + 1,
            num_cpus=1,
            **network.places(),
        ) as cluster:
            nodes = [machine.node for machine in cluster.machines[1:]]
            argv = [sys.executable, "-c", DRIVER, str(size), str(chosen.rounds), *nodes]
            with cluster.machines[0].popen(argv, stdout=subprocess.PIPE) as driver:
                out = driver.communicate()[0]
                if driver.returncode:
                    sys.exit(f"the driver ended with {driver.returncode}")
    found: dict[int, list[float]] = {}
    for line in out.splitlines():
        count, seconds = line.split()
        found.setdefault(int(count), []).append(float(seconds))
    one, every = (statistics.median(found[count]) for count in (1, chosen.nodes))
    ratio = every / one
    verdict = "met" if ratio < GOAL else "missed"
    print(f"{chosen.mb} MB over links of {chosen.mbit:g} Mbit/s, medians of {chosen.rounds}:")
    print(f"  a plain socket, one to one  {plain:6.2f} s")
    print(f"  freehold, to one node       {one:6.2f} s  {plain / one:.2f}x of the plain rate")
    print(
        f"  freehold, to {chosen.nodes} nodes        {every:6.2f} s  {ratio:.2f}x the time of one"
    )
    print(f"  goal: less than {GOAL:g}x the time of one: {verdict}")


if __name__ == "__main__":
    main()
