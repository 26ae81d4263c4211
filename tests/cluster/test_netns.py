"""Networks of namespaces: traffic flows, faults do what they say and no more, nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import talk
from cluster.netns import Network
from cluster.processes import eventually
from freehold.ext import netns
from freehold.ext.netns import NetworkError
from sessions import SOURCE, line_of

TALK = [sys.executable, str(Path(talk.__file__))]
PORT = "7000"
MB = 1_000_000
SOON, LATE = "5", "0.3"  # seconds: of answers that come, of answers that must not

Build = Callable[..., Network]


def serve(network: Network, host: int) -> subprocess.Popen[str]:
    server = network.popen(
        host, [*TALK, "serve", network.address(host), PORT], stdout=subprocess.PIPE
    )
    assert line_of(server) == "listening"
    return server


class Client:
    """Sends words from one host to the server on another."""

    def __init__(self, network: Network, host: int, target: int) -> None:
        argv = [*TALK, "dial", network.address(target), PORT]
        self.process = network.popen(
            host, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert line_of(self.process) == "connected"

    def says(self, word: str, within: str = SOON) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word} {within}\n")
        self.process.stdin.flush()
        return line_of(self.process)


def close(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def test_hosts_talk_and_their_bytes_are_counted(network: Build) -> None:
    hosts = network(3)
    server = serve(hosts, 1)
    before = [hosts.traffic(host) for host in hosts.hosts]
    seconds = float(hosts.run(0, [*TALK, "pour", hosts.address(1), PORT, str(4 * MB)]))
    moved = [hosts.traffic(host).since(before[host]) for host in hosts.hosts]
    assert 0 < seconds < 10
    assert 4 * MB < moved[0].sent_bytes < 5 * MB
    assert 4 * MB < moved[1].received_bytes < 5 * MB
    assert moved[0].received_bytes < MB
    assert moved[2].sent_bytes + moved[2].received_bytes < 10_000
    assert moved[0].sent_packets > 10
    close(server)


def test_a_program_on_a_host_sees_its_environment_and_only_its_host(network: Build) -> None:
    hosts = network(2)
    code = "import os, socket; print(os.environ['WORD'], [n for _, n in socket.if_nameindex()])"
    told = hosts.run(1, [sys.executable, "-c", code], env={"WORD": "spam"})
    word, devices = told.split(None, 1)
    assert word == "spam"
    assert "eth0" in devices
    assert "p0" not in devices
    with pytest.raises(AssertionError, match="exit code 3"):
        hosts.run(0, [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(AssertionError, match="no end"):
        hosts.run(0, [sys.executable, "-c", "import signal; signal.pause()"], within=0.2)


def test_a_limited_cable_carries_about_as_much_as_it_may(network: Build) -> None:
    hosts = network(2, mbit=80)  # 10 MB/s
    server = serve(hosts, 1)
    command = [*TALK, "pour", hosts.address(1), PORT, str(5 * MB)]
    slow = float(hosts.run(0, command))
    assert 0.35 < slow < 2.5  # ideal: 0.5
    hosts.limit(0, None)
    hosts.limit(1, None)
    hosts.limit(1, None)  # twice does not matter
    assert float(hosts.run(0, command)) < slow / 2
    close(server)


def test_a_delay_holds_both_ways_and_costs_no_bytes(network: Build) -> None:
    hosts = network(2)
    server = serve(hosts, 1)
    client = Client(hosts, 0, 1)
    assert client.says("spam") == "spam"

    def took() -> float:
        start = time.monotonic()
        assert client.says("spam") == "spam"
        return time.monotonic() - start

    assert took() < 0.05
    hosts.delay(1, 0.05)
    assert 0.1 < took() < 0.3
    hosts.delay(1, 0.01)
    assert 0.02 < took() < 0.1
    assert float(hosts.run(0, [*TALK, "pour", hosts.address(1), PORT, str(2 * MB)])) < 5.0
    hosts.delay(1, 0.0)
    hosts.delay(1, 0.0)  # twice does not matter
    assert took() < 0.02
    close(server, client.process)


def test_a_host_that_is_down_is_silent_and_comes_back(network: Build) -> None:
    hosts = network(2)
    server = serve(hosts, 1)
    client = Client(hosts, 0, 1)
    assert client.says("spam") == "spam"
    hosts.down(1)
    assert client.says("lost", LATE) == "-"
    hosts.up(1)
    assert "eggs" in client.says("eggs")  # on the same connection: TCP has sent it all again
    close(server, client.process)


def test_a_cut_is_one_way_and_between_two_hosts_only(network: Build) -> None:
    hosts = network(3)
    servers = [serve(hosts, 1), serve(hosts, 2)]
    near, other = Client(hosts, 0, 1), Client(hosts, 0, 2)
    assert near.says("spam") == other.says("spam") == "spam"
    hosts.cut(1, 0)
    before = hosts.traffic(1)
    assert near.says("arrives", LATE) == "-"  # what the host says arrives; the answer does not
    assert hosts.traffic(1).since(before).received_bytes > len("arrives")
    assert other.says("eggs") == "eggs"
    hosts.mend(1, 0)
    assert "again" in near.says("again")
    close(*servers, near.process, other.process)


def test_datagrams_pass_only_the_way_that_is_not_cut(network: Build) -> None:
    hosts = network(2)
    ends = []
    for host in hosts.hosts:
        with hosts.inside(host):
            ends.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        ends[host].bind((hosts.address(host), 7001))
        ends[host].settimeout(0.3)
    for host in hosts.hosts:
        ends[host].sendto(b"warm", (hosts.address(1 - host), 7001))
        assert ends[1 - host].recv(10) == b"warm"
    hosts.cut(0, 1)
    ends[0].sendto(b"lost", (hosts.address(1), 7001))
    ends[1].sendto(b"back", (hosts.address(0), 7001))
    assert ends[0].recv(10) == b"back"
    with pytest.raises(TimeoutError):
        ends[1].recv(10)
    for end in ends:
        end.close()


def test_a_partition_parts_the_groups_and_heals(network: Build) -> None:
    hosts = network(3)
    servers = [serve(hosts, 1), serve(hosts, 2)]
    inner, outer = Client(hosts, 0, 1), Client(hosts, 0, 2)
    hosts.partition([0, 1], [2])
    assert hosts.cuts == {(0, 2), (1, 2), (2, 0), (2, 1)}
    assert inner.says("spam") == "spam"
    assert outer.says("lost", LATE) == "-"
    hosts.heal()
    assert hosts.cuts == set()
    assert "eggs" in outer.says("eggs")
    close(*servers, inner.process, outer.process)


def test_a_thread_comes_back_from_a_host(network: Build) -> None:
    hosts = network(1)
    before = os.stat("/proc/thread-self/ns/net").st_ino
    with hosts.inside(0):
        assert os.stat("/proc/thread-self/ns/net").st_ino != before
        with socket.create_server((hosts.address(0), 0)):
            pass
    assert os.stat("/proc/thread-self/ns/net").st_ino == before


def test_the_end_of_a_network_is_the_end_of_all_that_runs_there(allowed: None) -> None:
    with Network(2) as hosts:
        names = [hosts.namespace(host) for host in hosts.hosts]
        code = r"import os, sys; os.fork(); os.write(1, b'%d\n' % os.getpid()); sys.stdin.read()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = hosts.popen(1, [sys.executable, "-c", code], **pipes)
        pids = sorted(int(line_of(process)) for _ in range(2))
        assert hosts.processes() == hosts.processes(1) == pids
        assert hosts.processes(0) == []
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert netns.inhabitants(names) == []
    assert netns.left() == []
    hosts.close()  # twice does not matter


def test_what_a_killed_process_leaves_is_swept_by_the_next_network(allowed: None) -> None:
    code = "from freehold.ext.netns import Network as N; N(1).__enter__(); print('up', flush=True)"
    orphan = subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert line_of(orphan) == "up"
    mark = f"fh-{orphan.pid}-"

    def there() -> list[str]:
        return [name for name in os.listdir(netns.PLACE) if name.startswith(mark)]

    assert len(there()) == 2
    with Network(1):
        assert len(there()) == 2  # its owner lives
    close(orphan)
    with Network(1):
        eventually(lambda: not there(), what="the orphan's namespaces are removed")


def test_impossible_networks_are_refused_at_once() -> None:
    for hosts in (0, 1000):
        with pytest.raises(ValueError, match="1 to 200"):
            Network(hosts)
    network = Network(2)
    with pytest.raises(ValueError, match="no host 2"):
        network.address(2)
    with pytest.raises(ValueError, match="itself"):
        network.cut(1, 1)


def test_a_refusal_of_the_system_is_an_error_with_its_text(allowed: None) -> None:
    with Network(1) as hosts, pytest.raises(NetworkError, match="tbf"):
        hosts.limit(0, 0)
    with pytest.raises(NetworkError):
        hosts.down(0)  # it has been removed
    assert netns.left() == []
