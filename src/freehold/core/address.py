"""Where a process can be dialled: ``NODE|PATH|HOST:PORT``.

``NODE`` is the hex id of the node on which the process runs, ``PATH`` its Unix socket there and
``HOST:PORT`` its TCP port; each may be empty.  Whoever runs on the same node dials the path, and
everybody else the port.  An address without ``|`` is a path, as in an embedded session, and the
empty address means that nobody can dial it.  Hosts are numeric, so that dialling never waits for a
name service; IPv6 stands in brackets.

Addresses come from other processes: each of these functions raises ProtocolError on garbage.
"""

from __future__ import annotations

from typing import Any

from freehold.core.ids import PROC_ID_BYTES
from freehold.errors import ProtocolError

LENGTH_MAX = 1024
MARK = b"actor "  # how the value of an actor's reference begins, and no serialized value does
PORT_MAX = 65_535


def make(node: bytes, path: str, host: str, port: int) -> str:
    """The address of a process on that node; ``b""``, ``""`` and 0 for what it has not."""
    if not node and not host:
        return path
    host = f"[{host}]" if ":" in host else host
    made = f"{node.hex()}|{path}|{host}:{port}" if host else f"{node.hex()}|{path}|"
    _split(made)
    return made


def node_of(address: str) -> bytes:
    """The id of the process's node, ``b""`` if the address does not tell."""
    if "|" not in address:
        return b""
    return _split(address)[0]


def path_of(address: str) -> str:
    """Its Unix socket, ``""`` if it has none."""
    if "|" not in address:
        return address
    return _split(address)[1]


def host_port_of(address: str) -> tuple[str, int] | None:
    """Its TCP port, if it has one."""
    if "|" not in address:
        return None
    return _split(address)[2]


# -- as the value of an actor's reference ---------------------------------------------------------
def pack_address(proc: bytes, address: str) -> bytes:
    """The value of an actor's reference."""
    return MARK + proc + address.encode()


def is_address(value: Any) -> bool:
    """Whether that is the value of an actor's reference."""
    return isinstance(value, bytes) and value.startswith(MARK)


def unpack_address(value: bytes) -> tuple[bytes, str]:
    """The actor's process id and where to dial it."""
    proc = value[len(MARK) : len(MARK) + PROC_ID_BYTES]
    return proc, value[len(MARK) + PROC_ID_BYTES :].decode()


# -- reading ---------------------------------------------------------------------------------------
def _split(address: str) -> tuple[bytes, str, tuple[str, int] | None]:
    parts = address.split("|")
    if len(parts) != 3 or len(address) > LENGTH_MAX or not address.isprintable():
        raise _garbage(address)
    node, path, place = parts
    return _node(node, address), path, _place(place, address) if place else None


def _node(text: str, address: str) -> bytes:
    try:
        node = bytes.fromhex(text)
    except ValueError:
        raise _garbage(address) from None
    if node.hex() != text or len(node) not in (0, PROC_ID_BYTES):
        raise _garbage(address)
    return node


def _place(text: str, address: str) -> tuple[str, int]:
    host, _, digits = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        sound = ":" in host
    else:
        sound = ":" not in host
    sound = sound and not set("[]").intersection(host)
    sound = sound and digits.isascii() and digits.isdigit() and len(digits) <= 5
    if not host or not sound or not 0 < int(digits) <= PORT_MAX:
        raise _garbage(address)
    return host, int(digits)


def _garbage(address: str) -> ProtocolError:
    return ProtocolError(f"{address[:100]!r} is no address: NODE|PATH|HOST:PORT is one")
