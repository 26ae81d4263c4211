"""Addresses of processes: ``NODE|PATH|HOST:PORT``, or only a path in an embedded session."""

from __future__ import annotations


def node_of(address: str) -> bytes:
    """The id of the node that the process lives on; empty if the address does not say."""
    head, bar, _ = address.partition("|")
    return bytes.fromhex(head) if bar else b""
