"""Sessions for tests, and the check that nothing of them is left."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import cloudpickle
import pytest

import freehold as fh
from sessions import MIB, left_over, until


@pytest.fixture(scope="session")
def home() -> Iterator[str]:
    """A temporary directory of our own, so that other sessions on the machine do not matter."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    path = tempfile.mkdtemp(prefix="fh-tests-", dir="/tmp")
    os.environ["TMPDIR"] = tempfile.tempdir = path
    yield path
    tempfile.tempdir = before[1]
    if before[0] is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before[0]
    shutil.rmtree(path)


@pytest.fixture(scope="module", autouse=True)
def nothing_left(home: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """No process, file or directory of a session outlives the module; its functions travel."""
    module = sys.modules[request.module.__name__]
    cloudpickle.register_pickle_by_value(module)
    assert not left_over(home)
    yield
    fh.shutdown()
    cloudpickle.unregister_pickle_by_value(module)
    until(lambda: not left_over(home), 3.0, f"left over: {left_over(home)}")


@pytest.fixture(scope="module")
def session(nothing_left: None) -> Iterator[None]:
    """A session of two CPUs that the tests of a module share."""
    fh.init(num_cpus=2, arena_bytes_max=256 * MIB, reserve_bytes=8 * MIB)
    yield
    fh.shutdown()


@pytest.fixture(autouse=True)
def no_leaks(home: str, nothing_left: None) -> Iterator[None]:
    """Each test lets go of all its references and memory; without a session, of everything."""
    yield
    if not fh.is_initialized():
        until(lambda: not left_over(home), 3.0, f"left over: {left_over(home)}")
        return
    until(_empty, 5.0, "references or objects are left in the session")


def _empty() -> bool:
    gc.collect()
    status = fh.status()
    return not status["objects"]["count"] and not status["references"]
