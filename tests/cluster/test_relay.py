"""The relay: it carries, and each of its faults does what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cluster import talk
from cluster.netns import Network
from cluster.processes import eventually
from cluster.relay import Relay

SILENCE_S = 0.2


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """An echo server."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=talk.echo, args=(link,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in [accepting, *threads]:
        thread.join(5.0)
        assert not thread.is_alive()


@contextmanager
def dial(relay: Relay) -> Iterator[socket.socket]:
    with socket.create_connection(relay.address, timeout=10.0) as link:
        yield link


def take(link: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := link.recv(1 << 16)):
        got += data
    return got


def is_silent(link: socket.socket) -> bool:
    link.settimeout(SILENCE_S)
    try:
        link.recv(1)
    except TimeoutError:
        link.settimeout(10.0)
        return True
    return False


def test_bytes_and_ends_are_carried_both_ways(server: tuple[str, int]) -> None:
    data = bytes(range(256)) * 8000
    with Relay(server) as relay, dial(relay) as link:
        sender = threading.Thread(target=link.sendall, args=(data,))
        sender.start()
        assert take(link, len(data)) == data
        sender.join()
        assert relay.connections == 1
        assert relay.forward.carried == relay.backward.carried == len(data)
        link.shutdown(socket.SHUT_WR)
        assert link.recv(1) == b""
        eventually(lambda: relay.connections == 0, what="the link has ended")


def test_each_direction_is_delayed_without_loss_of_rate(server: tuple[str, int]) -> None:
    with Relay(server) as relay, dial(relay) as link:
        relay.forward.delay_s, relay.backward.delay_s = 0.1, 0.05
        start = time.monotonic()
        for _ in range(50):
            link.sendall(b"x" * 1000)
        assert len(take(link, 50_000)) == 50_000
        assert 0.15 <= time.monotonic() - start < 2.0  # one after the other: 7.5


def test_a_rate_is_kept(server: tuple[str, int]) -> None:
    with Relay(server) as relay, dial(relay) as link:
        relay.backward.bytes_per_s = 1e6
        start = time.monotonic()
        link.sendall(bytes(300_000))
        assert len(take(link, 300_000)) == 300_000
        assert 0.28 <= time.monotonic() - start < 2.0


def test_a_frozen_way_carries_nothing_and_loses_nothing(server: tuple[str, int]) -> None:
    with Relay(server) as relay, dial(relay) as link:
        relay.freeze()
        link.sendall(b"late")
        assert is_silent(link)
        assert relay.forward.carried == 0
        relay.resume(relay.forward)
        eventually(lambda: relay.forward.carried == 4, what="it has been carried there")
        assert is_silent(link)
        relay.resume()
        assert take(link, 4) == b"late"


def test_a_dropping_way_is_silent_for_good_and_new_connections_are_not(
    server: tuple[str, int],
) -> None:
    with Relay(server) as relay, dial(relay) as link:
        link.sendall(b"spam")
        assert take(link, 4) == b"spam"
        relay.backward.dropping = True
        link.sendall(b"eggs")
        eventually(lambda: relay.backward.dropped == 4, what="the answer is dropped")
        assert relay.forward.carried == 8
        relay.backward.dropping = False
        link.sendall(b"more")
        assert is_silent(link)  # a stream with a hole in it would be none
        link.shutdown(socket.SHUT_WR)
        assert is_silent(link)  # not even the end is told
        with dial(relay) as other:
            other.sendall(b"spam")
            assert take(other, 4) == b"spam"


def test_a_reset_and_a_refusal_end_hard(server: tuple[str, int]) -> None:
    with Relay(server) as relay:
        with dial(relay) as link:
            link.sendall(b"spam")
            assert take(link, 4) == b"spam"
            relay.reset()
            with pytest.raises(ConnectionResetError):
                link.recv(1)
        relay.refusing = True
        with pytest.raises(ConnectionResetError), dial(relay) as link:
            link.recv(1)
        relay.refusing = False
        with dial(relay) as link:
            link.sendall(b"spam")
            assert take(link, 4) == b"spam"
        assert relay.accepted == 3


def test_a_target_that_is_not_there_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with Relay(address) as relay:
        with pytest.raises(ConnectionResetError), dial(relay) as link:
            link.recv(1)
        eventually(lambda: relay.connections == 0)


def test_the_seed_draws_the_pieces_and_the_resets(server: tuple[str, int]) -> None:
    def carried(seed: int) -> int:
        """How much one connection carries until a reset is drawn; bytes go one by one."""
        with Relay(server, seed=seed) as relay, dial(relay) as link:
            relay.forward.reset_rate = 0.05
            try:
                while True:
                    link.sendall(b"x")
                    if not link.recv(1):
                        return relay.forward.carried
            except OSError:
                return relay.forward.carried

    first = carried(7)
    assert carried(7) == first
    assert len({first, *map(carried, range(5))}) > 1


def test_random_pieces_and_jitter_keep_the_stream(server: tuple[str, int]) -> None:
    data = bytes(range(256)) * 2000
    with Relay(server, seed=3) as relay, dial(relay) as link:
        for way in (relay.forward, relay.backward):
            way.pieces, way.jitter_s = True, 0.005
        sender = threading.Thread(target=link.sendall, args=(data,))
        sender.start()
        assert take(link, len(data)) == data
        sender.join()


def test_the_end_of_a_relay_ends_its_connections_and_its_thread(server: tuple[str, int]) -> None:
    before = threading.active_count()
    with Relay(server) as relay, dial(relay) as link:
        link.sendall(b"spam")
        assert take(link, 4) == b"spam"
        relay.freeze()
        relay.close()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(relay.address)
        relay.close()  # twice does not matter
    eventually(lambda: threading.active_count() <= before, what="its thread has ended")


def test_a_relay_made_on_a_host_is_on_that_host(
    network: Callable[..., Network], server: tuple[str, int]
) -> None:
    hosts = network(1)
    with hosts.inside(0):
        listener = socket.create_server((hosts.address(0), 0))
        relay = Relay(listener.getsockname(), (hosts.address(0), 0))
        relay.__enter__()
    with listener:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection(relay.address, timeout=0.2)
        with hosts.inside(0):
            link = socket.create_connection(relay.address, timeout=10.0)
        with link:
            there, _ = listener.accept()
            with there:
                link.sendall(b"spam")
                assert there.recv(4) == b"spam"
        relay.close()
