"""A directory of its own for each cluster test, networks, and the check that nothing is left."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

from cluster import netns
from cluster.machines import cluster, elsewhere, here, there  # noqa: F401 (fixtures)
from cluster.processes import Before


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The temporary directory of all that the test starts; nothing may be left in it at the end."""
    path = tempfile.mkdtemp(prefix="fhc-", dir="/tmp")  # short: sockets will be in it
    monkeypatch.setenv("TMPDIR", path)
    monkeypatch.setattr(tempfile, "tempdir", path)
    before = Before(path)
    try:
        yield path
        before.assert_nothing_left()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def allowed() -> None:
    """Skips what needs network namespaces where they cannot be had."""
    if reason := netns.forbidden():
        pytest.skip(reason)


@pytest.fixture
def network(allowed: None) -> Iterator[Callable[..., netns.Network]]:
    """Builds networks that last as long as the test: ``network(3, mbit=100)``."""
    with contextlib.ExitStack() as stack:

        def build(hosts: int, mbit: float | None = None) -> netns.Network:
            return stack.enter_context(netns.Network(hosts, mbit))

        yield build
    assert netns.left() == []
