"""freehold, through its public API."""

import importlib
from functools import cache
from importlib import metadata
from typing import Any

from .plan import CPUS, System
from .raylike import Handles
from .raylike_objects import probes

COLD = (
    f"import freehold as fh; fh.init(num_cpus={CPUS}); "
    "print(fh.get(fh.remote(lambda: 1).remote()), flush=True)"
)


def _version(api: Any) -> str:
    try:
        return str(getattr(api, "__version__", "") or metadata.version("freehold"))
    except metadata.PackageNotFoundError:
        return "source"


def system() -> System:
    """The runtime of this package as a system."""
    api: Any = importlib.import_module("freehold")

    @cache
    def handles() -> Handles:
        return Handles("freehold", api)

    return System(
        version=_version(api),
        cold=COLD,
        start=lambda: api.init(num_cpus=CPUS),
        stop=api.shutdown,
        warm=lambda: handles().warm(),
        probes=probes(handles),
    )
