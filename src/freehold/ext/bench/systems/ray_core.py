"""Ray Core."""

import importlib
from functools import cache
from typing import Any

from .plan import CPUS, System
from .raylike import Handles
from .raylike_objects import probes

# A small object store, so that its pages are warm after ten puts of 100 MB and not after 300.
OPTIONS = (
    f"num_cpus={CPUS}, include_dashboard=False, log_to_driver=False, logging_level='ERROR', "
    "object_store_memory=1_000_000_000"
)
COLD = (
    f"import ray; ray.init({OPTIONS}); print(ray.get(ray.remote(lambda: 1).remote()), flush=True)"
)


def system() -> System:
    """Ray Core as a system."""
    ray: Any = importlib.import_module("ray")

    @cache
    def handles() -> Handles:
        return Handles("ray", ray)

    def start() -> None:
        ray.init(
            num_cpus=CPUS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=1_000_000_000,
        )

    return System(
        version=ray.__version__,
        cold=COLD,
        start=start,
        stop=ray.shutdown,
        warm=lambda: handles().warm(),
        probes=probes(handles),
    )
