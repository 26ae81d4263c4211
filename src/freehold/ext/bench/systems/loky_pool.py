"""loky's reusable executor."""

import importlib
from concurrent.futures import Executor
from typing import Any

from . import pools
from .plan import CPUS, System

COLD = (
    "from loky import get_reusable_executor\n"
    f"pool = get_reusable_executor(max_workers={CPUS})\n"
    "print(pool.submit(int, 1).result(), flush=True)\n"
    "pool.shutdown()"
)


def system() -> System:
    """The loky executor as a system."""
    loky: Any = importlib.import_module("loky")
    made: list[Executor] = []

    def stop() -> None:
        while made:
            made.pop().shutdown()

    return System(
        version=loky.__version__,
        cold=COLD,
        start=lambda: made.append(loky.get_reusable_executor(max_workers=CPUS, timeout=600)),
        stop=stop,
        warm=lambda: pools.warm(made[0]),
        probes=pools.probes(lambda: made[0]),
    )
