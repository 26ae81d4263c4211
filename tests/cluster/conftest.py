"""A directory of its own for each cluster test, networks, and the check that nothing is left."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

from cluster import ground
from cluster.ground import Ground
from cluster.machines import cluster, elsewhere, here, there  # noqa: F401 (fixtures)
from cluster.netns import Network
from cluster.processes import Before
from freehold.ext import netns


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The temporary directory of all that the test starts; nothing may be left in it at the end."""
    with _own_directory(monkeypatch) as path:
        yield path


@pytest.fixture(scope="module")
def module_home() -> Iterator[str]:
    """The same for what all tests of a module share."""
    with pytest.MonkeyPatch.context() as patch, _own_directory(patch) as path:
        yield path


@contextlib.contextmanager
def _own_directory(patch: pytest.MonkeyPatch) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="fhc-", dir="/tmp")  # short: sockets will be in it
    patch.setenv("TMPDIR", path)
    patch.setattr(tempfile, "tempdir", path)
    before = Before(path)
    try:
        yield path
        before.assert_nothing_left()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def common(module_home: str) -> Iterator[Ground]:
    """The cluster that all tests of a module share."""
    with ground.make() as made:
        yield made


@pytest.fixture
def field(common: Ground, request: pytest.FixtureRequest) -> Iterator[Ground]:
    """The shared cluster; after the test its dead come back, and nothing may be left of it."""
    yield common
    common.restore()
    if request.session.testsfailed == common.failed:  # a failure's traceback keeps references
        common.assert_all_freed()
    common.failed = request.session.testsfailed


@pytest.fixture(scope="session")
def allowed() -> None:
    """Skips what needs network namespaces where they cannot be had."""
    if reason := netns.forbidden():
        pytest.skip(reason)


@pytest.fixture
def network(allowed: None) -> Iterator[Callable[..., Network]]:
    """Builds networks that last as long as the test: ``network(3, mbit=100)``."""
    with contextlib.ExitStack() as stack:

        def build(hosts: int, mbit: float | None = None) -> Network:
            return stack.enter_context(Network(hosts, mbit))

        yield build
    assert netns.left() == []
