"""Three machines, the first with a cluster where a test asks for one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests

from machines import HOST, Machine, free_port


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


class Cluster(NamedTuple):
    """A head, and a node with one CPU on the same machine."""

    machine: Machine
    port: int
    token: str

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


@pytest.fixture
def cluster(here: Machine) -> Cluster:
    port = free_port()
    return Cluster(here, port, here.start_head(port, "--num-cpus", "1"))
