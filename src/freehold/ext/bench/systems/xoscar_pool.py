"""xoscar: actors only, in a pool of two processes beside the main one."""

import asyncio
import importlib
import statistics
import time
from collections.abc import Callable, Coroutine
from importlib import metadata
from typing import Any

from .plan import CPUS, IN_FLIGHT, Plan, Probe, System

BURST = 100
LARGE_IN_FLIGHT = 50
COLD = f"""
import asyncio, xoscar
async def main():
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process={CPUS})
    place = pool.sub_processes and list(pool.sub_processes)[0] or pool.external_address
    from systems.xoscar_actors import Counter
    actor = await xoscar.create_actor(Counter, address=place)
    print(await actor.add(1), flush=True)
    await pool.stop()
asyncio.run(main())
"""
Op = Callable[[], Coroutine[Any, Any, object]]


class _Pool:
    """The pool, and the event loop that it lives on."""

    def __init__(self) -> None:
        self.xoscar: Any = importlib.import_module("xoscar")
        self.actors: Any = importlib.import_module("systems.xoscar_actors")
        self.loop = asyncio.new_event_loop()
        self.pool = self.run(self.xoscar.create_actor_pool("127.0.0.1", n_process=CPUS))
        self.place = next(iter(self.pool.sub_processes))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end on the pool's loop."""
        return self.loop.run_until_complete(work)

    def actor(self, name: str) -> Any:
        """A new actor in a process of the pool."""
        return self.run(self.xoscar.create_actor(getattr(self.actors, name), address=self.place))

    def end(self, actor: Any) -> None:
        """Destroy an actor."""
        self.run(self.xoscar.destroy_actor(actor))

    def warm(self) -> None:
        """One actor, one call, in every process."""
        for place in self.pool.sub_processes:
            actor = self.run(self.xoscar.create_actor(self.actors.Counter, address=place))
            self.run(actor.add(1))
            self.end(actor)

    def close(self) -> None:
        """End it."""
        self.run(self.pool.stop())
        self.loop.close()


def _calls(p: _Pool, plan: Plan, name: str, make: Callable[[Any], Op], units: int) -> float:
    actor = p.actor(name)
    op = make(actor)
    try:
        return plan.rate(lambda: p.run(op()), units)
    finally:
        p.end(actor)


def actor_sync(p: _Pool, plan: Plan) -> float:
    """Actor calls, one at a time."""

    def make(actor: Any) -> Op:
        async def op() -> None:
            for _ in range(BURST):
                await actor.add(1)

        return op

    return _calls(p, plan, "Counter", make, BURST)


def actor_1000(p: _Pool, plan: Plan) -> float:
    """Actor calls, 1,000 in flight."""

    def make(actor: Any) -> Op:
        async def op() -> None:
            await asyncio.gather(*[actor.add(1) for _ in range(IN_FLIGHT)])

        return op

    return _calls(p, plan, "Counter", make, IN_FLIGHT)


def async_1000(p: _Pool, plan: Plan) -> float:
    """1,000 concurrent 10 ms awaits in one actor."""

    def make(actor: Any) -> Op:
        async def op() -> None:
            await asyncio.gather(*[actor.sleep() for _ in range(IN_FLIGHT)])

        return op

    return _calls(p, plan, "Sleeper", make, IN_FLIGHT)


def arg_value(p: _Pool, plan: Plan) -> float:
    """Calls per second with a 1 MB array as argument, 50 in flight."""
    numpy: Any = importlib.import_module("numpy")

    array = numpy.ones(1_000_000, dtype=numpy.uint8)

    def make(actor: Any) -> Op:
        async def op() -> None:
            await asyncio.gather(*[actor.size(array) for _ in range(LARGE_IN_FLIGHT)])

        return op

    return _calls(p, plan, "Counter", make, LARGE_IN_FLIGHT)


def actor_create(p: _Pool, plan: Plan) -> float:
    """Milliseconds to create an actor and have its first answer; ending it is not counted."""
    taken: list[float] = []
    end = time.perf_counter() + plan.seconds
    while len(taken) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        actor = p.actor("Counter")
        p.run(actor.add(1))
        taken.append(time.perf_counter() - begin)
        p.end(actor)
    return 1e3 * statistics.median(taken)


XOSCAR_PROBES: tuple[Callable[[_Pool, Plan], float], ...] = (
    actor_sync,
    actor_1000,
    async_1000,
    arg_value,
    actor_create,
)


def system() -> System:
    """An xoscar pool as a system."""
    importlib.import_module("xoscar")
    made: list[_Pool] = []

    def warm() -> None:
        made[0].warm()

    def stop() -> None:
        while made:
            made.pop().close()

    def bind(probe: Callable[[_Pool, Plan], float]) -> Probe:
        return lambda plan: probe(made[0], plan)

    return System(
        version=metadata.version("xoscar"),
        cold=COLD,
        start=lambda: made.append(_Pool()),
        stop=stop,
        warm=warm,
        probes={probe.__name__: bind(probe) for probe in XOSCAR_PROBES},
    )
