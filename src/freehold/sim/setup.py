"""What is drawn for a run: sizes, limits at their extremes, and how likely each fault is."""

from __future__ import annotations

import random
from typing import NamedTuple

from freehold.core.process.leases import Limits

MIB = 1024 * 1024
# Faults of a cluster (``sim.faults``), and how often each is tried in a run.
SWARM: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("node", (0, 0, 1, 1, 2)),
    ("partition", (0, 0, 0, 1)),
    ("one-way", (0, 0, 0, 1)),
    ("gap", (0, 0, 0, 1)),
    ("pause", (0, 0, 0, 1, 2)),
    ("slow", (0, 0, 0, 1, 2)),
    ("driver", (0, 1)),
    ("head", (0, 0, 0, 1, 2)),
    ("owner", (0, 0, 0, 1)),
    ("borrower", (0, 0, 0, 1)),
    ("all-but-one", (0, 0, 0, 0, 0, 0, 0, 1)),
    ("drain", (0, 0, 0, 1)),
)


class Setup(NamedTuple):
    """The parameters of one run.  Times in seconds, sizes in bytes, chances from 0 to 1."""

    cpus: int
    prestart: int
    workers_max: int
    worker_idle: float
    arena_bytes: int
    arena_async: bool  # the arena answers later rather than at once
    heap_reserve: int
    inline_max: int
    scale: int  # bytes that a byte of a large model value stands for in the arena
    limits: Limits
    cold: float  # until a first connection between two nodes is up, at most
    latency: float  # mean, of one frame
    lend_after: float
    busy: float  # mean time that user code computes
    lazy_flush: float  # chance that frames wait for a later flush
    steps: int  # of the driver's program
    depth: int  # of nested tasks
    fault_time: float  # when faults end
    crashes: int
    cuts: int
    spawn_fails: float
    arena_fails: float
    spike: float  # chance that a frame is late
    crash_at_finish: float  # between a task's end and the flush of its result
    crash_in_flush: float  # between the frames to two peers
    crash_at_start: float
    check_every: int
    nodes: int
    faults: tuple[tuple[str, int], ...]  # of ``sim.faults``, and how often each is tried
    drivers: int  # on different nodes; all but the first may die
    storm: float  # chance that a step of a program hands one reference to many
    transfer_breaks: float
    patience: float  # seconds that a copy waits for room which may never come (``core.node.pulls``)
    detached: bool  # programs make detached actors


def draw_cluster(rng: random.Random) -> Setup:
    """Draw the parameters of a run on several nodes."""
    setup = draw(rng)
    faulty = rng.random() < 0.75
    return setup._replace(
        nodes=rng.choice([2, 2, 3, 3, 4, 5, 7]),
        cpus=rng.choice([1, 1, 2]),
        arena_bytes=rng.choice([16, 64, 256]) * MIB,
        worker_idle=rng.choice([0.05, 0.5, 2.0]),
        latency=rng.choice([2e-4, 2e-3]),
        fault_time=rng.choice([0.3, 1.5, 4.0]),
        crashes=rng.choice([0, 0, 2, 4]) if faulty else 0,
        cuts=rng.choice([0, 0, 2]) if faulty else 0,
        faults=tuple((kind, rng.choice(often)) for kind, often in SWARM) if faulty else (),
        drivers=rng.choice([1, 1, 2]),
        storm=rng.choice([0.0, 0.0, 1.0]),
        transfer_breaks=rng.choice([0.0, 0.0, 0.1, 0.3]) if faulty else 0.0,
        patience=rng.choice([0.2, 1.0]),
        check_every=rng.choice([10, 50]),
        detached=rng.random() < 0.5,
    )


def draw_fault(kind: str, rng: random.Random) -> Setup:
    """The same with that one fault, one to three times, and no other."""
    setup = draw_cluster(rng)
    cold = kind == "cold"
    return setup._replace(
        cold=2.0 if cold else 0.0,
        inline_max=40 if cold else setup.inline_max,  # what is to outlive its owner must be large
        nodes=rng.choice([3, 3, 4, 5, 7]),
        drivers=rng.choice([1, 2]) if kind != "driver" else 2,
        steps=rng.choice([25, 40]),
        fault_time=rng.choice([0.3, 1.5]),
        faults=((kind, rng.choice([1, 2, 3])),),
        crashes=0,
        cuts=0,
        spawn_fails=0.0,
        arena_fails=0.0,
        spike=0.0,
        crash_at_finish=0.0,
        crash_in_flush=0.0,
        crash_at_start=0.0,
        transfer_breaks=0.0,
    )


def draw(rng: random.Random) -> Setup:
    """Draw a run's parameters."""
    faulty = rng.random() < 0.75
    chance = rng.choice([0.0, 0.0, 0.01, 0.05]) if faulty else 0.0
    cpus = rng.choice([1, 2, 2, 4])
    aside = random.Random(str(rng.getstate()[1][0]))  # draws nothing: seeds stay what they were
    return Setup(
        cpus=cpus,
        prestart=rng.choice([0, cpus, cpus + 2]),
        workers_max=rng.choice([200, 1000]),
        worker_idle=rng.choice([0.01, 0.5, 2.0]),
        arena_bytes=rng.choice([4, 8, 16, 256]) * MIB,
        arena_async=rng.random() < 0.5,
        heap_reserve=rng.choice([0, 0, 8, 256]) * MIB,
        inline_max=rng.choice([40, 200, 200, 1000, 100_000]),
        scale=rng.choice([1, 100, 4000]),
        limits=Limits(
            depth_max=rng.choice([1, 2, 64, 64]),
            ahead=rng.choice([0.0, 0.002, 0.002, 1.0]),
            stall=rng.choice([0.0, 0.002, 0.002, 0.5]),
            idle=rng.choice([0.0, 0.02, 0.2, 0.2]),
            leases_max=rng.choice([1, 4, 64]),
            retry_rest=[0.0, 0.01, 0.05][cpus % 3],  # not drawn: seeds stay what they were
            slice=aside.choice([0.0, 5e-3, 0.05]),
            remake=aside.choice([0.0, 1e-9, 1e-9, 0.01, 1.0]),
        ),
        cold=aside.choice([0.0, 0.0, 0.05, 0.5]) if faulty else 0.0,
        latency=rng.choice([2e-5, 2e-4, 2e-3]),
        lend_after=rng.choice([0.0, 1e-3, 1e-3, 0.05]),
        busy=rng.choice([0.0, 1e-4, 1e-3, 1e-2]),
        lazy_flush=rng.choice([0.0, 0.3, 0.8]),
        steps=rng.choice([10, 25, 40]),
        depth=rng.choice([0, 1, 2, 2, 3]),
        fault_time=rng.choice([0.05, 0.3, 1.5]),
        crashes=rng.choice([0, 1, 3, 6]) if faulty else 0,
        cuts=rng.choice([0, 0, 1, 3]) if faulty else 0,
        spawn_fails=rng.choice([0.0, 0.0, 0.3]) if faulty else 0.0,
        arena_fails=rng.choice([0.0, 0.0, 0.3]) if faulty else 0.0,
        spike=rng.choice([0.0, 0.0, 0.02, 0.1]) if faulty else 0.0,
        crash_at_finish=chance,
        crash_in_flush=rng.choice([0.0, 0.0, 0.005]) if faulty else 0.0,
        crash_at_start=rng.choice([0.0, 0.0, 0.02]) if faulty else 0.0,
        check_every=rng.choice([1, 10, 50]),
        nodes=1,
        faults=(),
        drivers=1,
        storm=0.0,
        transfer_breaks=0.0,
        patience=5.0,
        detached=False,
    )
