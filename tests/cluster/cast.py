"""What failure tests run on the nodes: tasks and actors that make, own and hold values.

The nodes import this module, so it imports little.  A value is ``bytes`` of one repeated byte, its
*tag*; large ones live in shared memory.  What reading it came to is told by ``outcome``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import freehold as fh
from freehold.options import NodeAffinity

LARGE = 300_000  # bytes: lives in shared memory
SMALL = 100  # travels in messages
Found = tuple[str, Any]


def outcome(ref: fh.Ref[Any], timeout: float = 20.0) -> Found:
    """("value", tag and size), or the error's class and text."""
    try:
        value = fh.get(ref, timeout=timeout)
    except fh.FreeholdError as error:
        return type(error).__name__, str(error)
    return "value", (value[0], len(value)) if isinstance(value, bytes) else value


def there(node: str, soft: bool = True) -> dict[str, Any]:
    """The option of a task or an actor that belongs on that node."""
    return {"scheduling_strategy": NodeAffinity(node, soft)}


def here() -> int:
    """The number of the machine on which this runs; -1: the driver's."""
    name = Path(os.environ["TMPDIR"]).name
    return int(name) if name.isdecimal() else -1


def note(log: str, line: str) -> None:
    """Add a line to a file; lines of several processes do not mix."""
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def await_file(path: str) -> None:
    """Wait until there is such a file."""
    while not os.path.exists(path):
        time.sleep(0.002)


# --- tasks ----------------------------------------------------------------------------------------


@fh.remote
def make(size: int, tag: int, log: str = "", name: str = "make") -> bytes:
    """A value."""
    note(log, name)
    return bytes([tag]) * size


@fh.remote
def grow(value: bytes, log: str = "", name: str = "grow") -> bytes:
    """The value with the next tag."""
    note(log, name)
    return bytes([value[0] + 1]) * len(value)


@fh.remote
def whoami() -> tuple[int, int]:
    """Machine and process."""
    return here(), os.getpid()


@fh.remote
def hold_on(log: str, gate: str, tag: int) -> int:
    """Say who runs it, then wait for the gate; the tag."""
    note(log, f"{here()} {os.getpid()}")
    await_file(gate)
    return tag


@fh.remote
def work(ms: float, tag: int) -> int:
    """The tag, after a while."""
    time.sleep(ms / 1e3)
    return tag


@fh.remote
def read_late(gate: Any, value: bytes) -> tuple[int, int]:
    """An argument, once another one has come."""
    return value[0], len(value)


@fh.remote
def wait_for(gate: str) -> str:
    """The gate, when it is there."""
    await_file(gate)
    return gate


@fh.remote
def put_inside(size: int, tag: int, log: str = "") -> list[fh.Ref[bytes]]:
    """A reference to a value that this task has put."""
    note(log, "put_inside")
    return [fh.put(bytes([tag]) * size)]


@fh.remote
def submit_inside(node: str, size: int, tag: int, log: str = "") -> list[fh.Ref[bytes]]:
    """A reference to the result of a task that this task has submitted to that node."""
    note(log, "submit_inside")
    ref = make.options(**there(node)).remote(size, tag, log)
    fh.wait([ref])
    return [ref]


# --- actors ---------------------------------------------------------------------------------------


@fh.remote
class Keeper:
    """Owns values, and holds references to others'."""

    def __init__(self) -> None:
        self.refs: list[fh.Ref[Any]] = []

    def whoami(self) -> tuple[int, int]:
        """Machine and process."""
        return here(), os.getpid()

    def make(self, node: str, size: int, tag: int) -> list[fh.Ref[bytes]]:
        """Own a value that a task makes on that node."""
        self.refs = [make.options(**there(node)).remote(size, tag)]
        fh.wait(self.refs)
        return self.refs

    def begin(self, node: str, gate: str) -> list[fh.Ref[str]]:
        """Own a value that a task there will make when the gate opens."""
        self.refs = [wait_for.options(**there(node)).remote(gate)]
        return self.refs

    def hire(self, node: str, log: str) -> Any:
        """An actor on that node, of which this one keeps a handle."""
        self.actor = Counter.options(max_restarts=3, **there(node)).remote(log)
        return self.actor

    def put(self, size: int, tag: int) -> list[fh.Ref[bytes]]:
        """Own a value on this node."""
        self.refs = [fh.put(bytes([tag]) * size)]
        return self.refs

    def give(self, size: int, tag: int) -> bytes:
        """A result of the actor's own."""
        return bytes([tag]) * size

    def nest(self) -> list[fh.Ref[Any]]:
        """A reference to a large value that holds the references of this actor."""
        return [fh.put([self.refs, bytes(LARGE)])]

    def keep(self, refs: Sequence[fh.Ref[Any]]) -> None:
        """Hold these."""
        self.refs = list(refs)

    def read(self, timeout: float = 20.0) -> Found:
        """What the reference held comes to."""
        return outcome(self.refs[0], timeout)

    def drop(self) -> None:
        """Hold nothing."""
        self.refs.clear()

    def leave(self) -> None:
        """The process exits."""
        os._exit(0)


@fh.remote
class Counter:
    """Counts its calls, and says in which process."""

    def __init__(self, log: str = "") -> None:
        self.count = 0
        self.log = log
        note(log, f"born {here()} {os.getpid()}")

    def add(self, caller: str = "", number: int = 0) -> tuple[int, int]:
        """The process and the number of calls so far."""
        self.count += 1
        note(self.log, f"{caller} {number} {os.getpid()}")
        return os.getpid(), self.count

    def spend(self, ms: float, caller: str = "", number: int = 0) -> tuple[int, int]:
        """As ``add``, after a while."""
        time.sleep(ms / 1e3)
        return self.add(caller, number)

    def pause(self, gate: str, number: int = 0) -> tuple[int, int]:
        """As ``add``, once the gate is there."""
        note(self.log, f"pause {number} {os.getpid()}")
        await_file(gate)
        self.count += 1
        return os.getpid(), self.count

    def whoami(self) -> tuple[int, int]:
        """Machine and process."""
        return here(), os.getpid()


@fh.remote
class Bearer:
    """Has what its constructor was given."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def read(self) -> bytes:
        """A copy of it."""
        return bytes(self.value)


@fh.remote
def call_often(counter: Any, caller: str, calls: int) -> list[Found]:
    """What that many calls of an actor came to, all under way at a time."""
    refs = [counter.add.remote(caller, number) for number in range(calls)]
    return [outcome(ref) for ref in refs]


def lines(path: str) -> list[str]:
    """The lines of a file; none when there is no file."""
    with contextlib.suppress(FileNotFoundError):
        return Path(path).read_text("utf-8").splitlines()
    return []
