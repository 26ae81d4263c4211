"""What is measured, in which order, and which goal it has; and the systems that are measured."""

from dataclasses import dataclass
from typing import Literal

Against = Literal["ray", "floor", "value"]


@dataclass(frozen=True)
class Goal:
    """A bound: on how many times better than Ray or the floor freehold is, or on its value."""

    against: Against
    bound: float

    def text(self, row: "Row") -> str:
        """The goal in words."""
        if self.against == "value":
            return f"{'≥' if row.higher else '≤'} {self.bound:,g} {row.unit}"
        return f"≥ {self.bound:g}x {'Ray' if self.against == 'ray' else 'floor'}"


@dataclass(frozen=True)
class Row:
    """One metric."""

    key: str
    label: str
    unit: str = "/s"
    goals: tuple[Goal, ...] = ()
    probe: str = ""  # the probe that measures it, when that measures several
    higher: bool = True  # higher is better

    @property
    def source(self) -> str:
        """Name of the probe that gives this metric."""
        return self.probe or self.key


def _ray(bound: float) -> Goal:
    return Goal("ray", bound)


def _floor(bound: float) -> Goal:
    return Goal("floor", bound)


def _value(bound: float) -> Goal:
    return Goal("value", bound)


def _less(key: str, label: str, unit: str, *goals: Goal, probe: str = "") -> Row:
    return Row(key, label, unit, goals, probe, higher=False)


# In the order of measuring: what needs a fresh system comes first, what breaks it comes last.
PROBES = (
    "startup",
    "idle",
    "ref_memory",
    "refs_10k",
    "put_first",
    "put_warm",
    "put_small",
    "get_small",
    "task_sync",
    "task_1000",
    "actor_sync",
    "actor_1000",
    "async_1000",
    "actor_create",
    "chain_1000",
    "sleep_1ms",
    "nested_100",
    "threads_10",
    "wait_1000",
    "fanin_1000",
    "arg_value",
    "arg_ref",
    "kill",
)

ROWS = (
    Row("task_sync", "no-op tasks, one at a time", goals=(_ray(30), _floor(0.6))),
    Row("task_1000", "no-op tasks, 1,000 in flight", goals=(_ray(45), _floor(0.35))),
    Row("actor_sync", "actor calls, one at a time", goals=(_ray(15),)),
    Row("actor_1000", "actor calls, 1,000 in flight", goals=(_ray(25),)),
    Row("async_1000", "async actor, 1,000 awaits of 10 ms", goals=(_value(20_000),)),
    _less("actor_create", "actor created and first called", "ms", _value(15)),
    Row("chain_1000", "chain of 1,000 dependent tasks", goals=(_ray(20),)),
    Row("sleep_1ms", "1 ms sleeps on 2 workers", goals=(_value(1700),)),
    Row("put_small", "put of 100 bytes", goals=(_ray(150),)),
    Row("get_small", "get of 100 bytes", goals=(_ray(40),)),
    Row("put_dict", "put of a small dict", probe="put_small"),
    Row("get_dict", "get of a small dict", probe="get_small"),
    Row("put_warm", "put of 100 MB numpy, warm pages", "GB/s", (_floor(0.9),)),
    Row("put_first", "put of 100 MB numpy, first touch", "GB/s", (_ray(2),)),
    Row("arg_value", "1 MB numpy argument by value", goals=(_ray(10),)),
    Row("arg_ref", "1 MB numpy argument by reference", goals=(_ray(20),)),
    _less("startup", "import, init, first result", "s", _value(0.35)),
    _less("kill", "worker killed: until the result", "s", _value(0.05)),
    _less("idle_mem", "idle memory, all processes (PSS)", "MB", _value(100), probe="idle"),
    _less("idle_cpu", "idle processor use", "%", _value(0.5), probe="idle"),
    _less("ref_put", "a held put, in all", "B", _value(500), probe="ref_memory"),
    _less("ref_put_owner", "a held put, at its owner", "B", probe="ref_memory"),
    _less("ref_task", "a held task result, in all", "B", _value(500), probe="ref_memory"),
    _less("ref_task_owner", "a held task result, at its owner", "B", probe="ref_memory"),
    Row("nested_100", "tasks of a task that submits 100"),
    Row("threads_10", "no-op tasks from 10 threads"),
    _less("refs_10k", "10,000 references in one list", "ms"),
    _less("wait_1000", "1,000 tasks, wait for each in turn", "ms"),
    _less("fanin_1000", "1,000 references into one task", "ms"),
    Row("floor_free", "floor: blocking, any core", probe="task_sync"),
    Row("floor_one_core", "floor: blocking, one core", probe="task_sync"),
    Row("floor_spin", "floor: spinning on the socket", probe="task_sync"),
)


@dataclass(frozen=True)
class Contender:
    """A system: its name here, its adapter, its title, and what pip may install for it."""

    name: str
    module: str
    title: str
    requirements: tuple[str, ...] = ()  # the first that can be installed is used
    own: bool = False  # runs with this interpreter, not with the peers'


FREEHOLD, RAY, FLOOR = "freehold", "ray", "floor"
CONTENDERS = (
    Contender(FREEHOLD, "fh", "freehold", own=True),
    Contender(RAY, "ray_core", "Ray", ("ray==2.60.0", "ray")),
    Contender("pool", "process_pool", "ProcessPool"),
    Contender("loky", "loky_pool", "loky", ("loky",)),
    Contender("grpc", "grpc_echo", "gRPC echo", ("grpcio",)),
    Contender("dask", "dask_cluster", "Dask", ("distributed",)),
    Contender("xoscar", "xoscar_pool", "xoscar", ("xoscar",)),
    Contender(FLOOR, "floor", "floor"),
)
