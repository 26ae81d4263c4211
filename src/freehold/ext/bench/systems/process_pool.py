"""concurrent.futures.ProcessPoolExecutor."""

import platform
from concurrent.futures import ProcessPoolExecutor

from . import pools
from .plan import CPUS, System

COLD = (
    "from concurrent.futures import ProcessPoolExecutor\n"
    f"with ProcessPoolExecutor({CPUS}) as pool:\n"
    "    print(pool.submit(int, 1).result(), flush=True)"
)


def system() -> System:
    """The standard library's process pool as a system."""
    made: list[ProcessPoolExecutor] = []

    def stop() -> None:
        while made:
            made.pop().shutdown()

    return System(
        version=platform.python_version(),
        cold=COLD,
        start=lambda: made.append(ProcessPoolExecutor(CPUS)),
        stop=stop,
        warm=lambda: pools.warm(made[0]),
        probes=pools.probes(lambda: made[0]),
    )
