"""What tests of connections share: a certificate, and stations that are closed in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from freehold.io import tls
from stations import Make, Station


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a node's certificate."""
    path = str(tmp_path_factory.mktemp("tls") / "node.pem")
    tls.make_certificate(path)
    return path


@pytest.fixture
def make() -> Iterator[Make]:
    """Make stations."""
    made: list[Station] = []

    def build(*arguments: bytes, **options: bool) -> Station:
        made.append(Station(*arguments, **options))
        return made[-1]

    yield build
    for station in made:
        if not station.closed:
            station.close()
