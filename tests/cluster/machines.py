"""Machines for tests: each is a temporary directory of its own, on which nothing else runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from sessions import SOURCE, left_over, until

HOST = "127.0.0.1"


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


class Machine:
    """One machine: what runs on it has its directory as TMPDIR, by which it is known."""

    def __init__(self) -> None:
        self.home = tempfile.mkdtemp(prefix="fh-m-", dir="/tmp")

    def environment(self, **more: str) -> dict[str, str]:
        known = {k: v for k, v in os.environ.items() if not k.startswith("FREEHOLD_")}
        path = os.pathsep.join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**known, "TMPDIR": self.home, "PYTHONPATH": path, "COLUMNS": "160", **more}

    def begin(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """The command line, running."""
        return subprocess.Popen(
            [sys.executable, "-m", "freehold", *words],
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, output and errors of the command line."""
        with self.begin(*words, **environment) as command:
            out, err = command.communicate(timeout=60)
            return command.returncode, out, err

    def must(self, *words: str, **environment: str) -> str:
        """The output of a command that ends well, in silence."""
        code, out, err = self.call(*words, **environment)
        assert (code, err) == (0, ""), (code, out, err)
        return out

    def program(self, code: str, **environment: str) -> subprocess.Popen[str]:
        """A program, running."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            env=self.environment(**environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, **environment: str) -> str:
        """What a program prints that ends well, in silence."""
        with self.program(code, **environment) as program:
            out, err = program.communicate(timeout=60)
        assert (program.returncode, err) == (0, ""), (program.returncode, out, err)
        return out.strip()

    def start_head(self, port: int, *words: str, **environment: str) -> str:
        """Start a cluster here; its token."""
        words = ("start", "--head", "--host", HOST, "--port", str(port), *words)
        out = self.must(*words, **environment)
        (line,) = [line for line in out.splitlines() if "--token" in line]
        return line.rpartition(" ")[2]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("status", "--json")[1])
        return found

    def members(self) -> dict[str, dict[str, Any]]:
        """The nodes of the one cluster, as its head tells them: id -> row."""
        (cluster,) = self.status()["clusters"]
        return {node["node"]: node for node in cluster.get("nodes", [])}

    def jobs(self) -> list[dict[str, Any]]:
        (cluster,) = self.status()["clusters"]
        found: list[dict[str, Any]] = cluster["jobs"]
        return found

    def records(self) -> dict[str, dict[str, Any]]:
        """What the daemons here have written down: role -> record."""
        found = {}
        for name in os.listdir(self.home):
            path = os.path.join(self.home, name, "session.json")
            if os.path.exists(path):
                with open(path) as file:
                    record = json.load(file)
                found[record["role"]] = record
        return found

    def empty(self) -> bool:
        """Whether nothing is left: no process, no directory."""
        return not left_over(self.home)

    def remove(self) -> None:
        """End what runs here, see that nothing is left, and take the directory away."""
        self.must("stop", "--force")
        until(self.empty, 10, f"left over: {left_over(self.home)}")
        shutil.rmtree(self.home)


class Cluster(NamedTuple):
    """A head, and a node with one CPU on the same machine."""

    machine: Machine
    port: int
    token: str

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


@pytest.fixture
def here() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.remove()


@pytest.fixture
def there() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.remove()


@pytest.fixture
def elsewhere() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.remove()


@pytest.fixture
def cluster(here: Machine) -> Cluster:
    port = free_port()
    return Cluster(here, port, here.start_head(port, "--num-cpus", "1"))
