"""Sessions for the tests of the public functions: one of its own, and one of a real cluster."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import cloudpickle
import pytest

import freehold as fh
from freehold.ext.cluster import Cluster


@contextlib.contextmanager
def joined(nodes: int = 2, **options: float | dict[str, float] | None) -> Iterator[Cluster]:
    """A cluster, and this process a driver of it."""
    with Cluster(nodes=nodes, **options) as made:  # type: ignore[arg-type]
        fh.init(address=made.address, token=made.token)
        try:
            yield made
        finally:
            fh.shutdown()


@contextlib.contextmanager
def travelling(module: str) -> Iterator[None]:
    """The functions of a test module travel to workers, which do not have it."""
    cloudpickle.register_pickle_by_value(sys.modules[module])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[module])


@pytest.fixture(scope="module", params=["embedded", "cluster"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """A session of two CPUs and two GPUs: on one node, or on two."""
    with travelling(request.module.__name__):
        if request.param == "cluster":
            with joined(2, num_cpus=1, resources={"GPU": 1.0}):
                yield request.param
        else:
            fh.init(num_cpus=2, resources={"GPU": 2.0})
            yield request.param
            fh.shutdown()
