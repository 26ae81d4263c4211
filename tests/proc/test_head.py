"""The head's connections to its nodes, which are one for each."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.core import messages as m
from freehold.io.control import SqliteStore
from freehold.proc.head import HeadHost
from freehold.proc.session import now
from freehold.proc.token import Token
from freehold.wire.codec import Reader
from stations import LOCAL, closed, enter, running, until

NODE = b"a node.."


@pytest.fixture
def head(tmp_path: Path) -> Iterator[HeadHost]:
    token = Token.make(False)
    host = HeadHost(token, SqliteStore(str(tmp_path / "head.db"), token.cluster.hex()))
    host.listen_tcp(LOCAL, 0, "")
    with host.lock:
        host.head.start(now())
        host.flush()
    with running(host):
        yield host
    host.close()
    host.store.close()


def join(head: HeadHost) -> socket.socket:
    """A connection of the node, which is a member by it."""
    info = {
        "total": {"CPU": 1.0}, "labels": {}, "retiring": False, "cpus": 1.0, "arena": 1 << 20,
        "standing": True, "node": NODE, "bundles": [], "actors": [],
    }  # fmt: skip
    hello = (m.HELLO, NODE, "node", os.getpid(), "somewhere", info)
    sock = enter(head.address, tls=False, secret=head.secret, first=[hello])
    reader, seen = Reader(), [m.HELLO]
    while m.JOINED not in seen:
        data = sock.recv(65_536)
        assert data, "the head has closed the connection"
        seen += [message[0] for message in reader.feed(memoryview(data))]
    return sock


def test_a_node_that_comes_back_before_its_old_connection_is_missed(head: HeadHost) -> None:
    """Only the node may have noticed that the old one is lost; what is said there is lost, too."""
    first = join(head)
    second = join(head)
    assert closed(first)
    until(lambda: head.head.nodes[NODE].peer is not None)
    assert not head.head.nodes[NODE].peer.down
    second.close()
    until(lambda: head.head.nodes[NODE].peer is None)
    first.close()
