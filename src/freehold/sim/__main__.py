"""``python -m freehold.sim``: one seed, many seeds, the head at scale, or a small world wholly."""

from __future__ import annotations

import argparse
import functools
import sys
import traceback
from collections.abc import Callable, Sequence

from freehold.sim.faults import KINDS
from freehold.sim.fleet import Fleet
from freehold.sim.run import Outcome, Simulation
from freehold.sim.scale import Scale
from freehold.sim.smallcases import SCENARIOS
from freehold.sim.smallstate import Bounds
from freehold.sim.smallworld import SmallWorld

USUAL = (Bounds(1, 0), Bounds(0, 1))
Kind = Callable[..., Simulation]  # of a seed, and whether to show every frame
DEEP = (Bounds(2, 0), Bounds(1, 1), Bounds(0, 2), Bounds(0, None, 300_000))


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m freehold.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this seed")
    parser.add_argument("--seeds", type=int, metavar="COUNT", help="run that many seeds")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("-k", "--keep-going", action="store_true", help="go on after a failure")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every frame")
    parser.add_argument("--fleet", action="store_true", help="several nodes, and a head")
    parser.add_argument("--fault", choices=KINDS, default="", help="... of which only this fails")
    parser.add_argument("--scale", type=int, nargs=2, metavar=("NODES", "ACTORS"))
    parser.add_argument("--small", action="store_true", help="every order, in a small world")
    parser.add_argument("--deep", action="store_true", help="... with more deaths and delays")
    parser.add_argument("--scenario", default="", help="only those whose names contain this")
    parser.add_argument("--faults", action="store_true", help="name the kinds of --fault")
    given = parser.parse_args(arguments)
    if given.faults:
        print("\n".join(KINDS))
        return 0
    if given.small:
        return small(given.scenario, DEEP if given.deep else USUAL)
    kind: Kind = Simulation
    if given.fleet:
        kind = functools.partial(Fleet, fault=given.fault)
    if given.scale is not None:
        print("\n".join(Scale(*given.scale).run()))
        return 0
    if given.seed is not None:
        outcome = attempt(given.seed, given.verbose, kind)
        if outcome is not None:
            print(describe(outcome))
        return outcome is None
    return many(given.start, given.seeds or 200, given.keep_going, kind)


def attempt(seed: int, show: bool = False, kind: Kind = Simulation) -> Outcome | None:
    """Run one seed; None if it failed, with a report."""
    simulation = kind(seed, show=show)
    also = ""
    if isinstance(simulation, Fleet):
        also = " --fleet" + (f" --fault {simulation.fault}" if simulation.fault else "")
    try:
        return simulation.run()
    except Exception as error:
        trace = traceback.format_exc().splitlines()
        print("\n".join(trace[-20:]), file=sys.stderr)
        world = simulation.world
        print(
            f"\nseed {seed} failed at {world.now:.6f} s, after {world.events} events: "
            f"{type(error).__name__}\nreplay: python -m freehold.sim{also} --seed {seed} -v",
            file=sys.stderr,
        )
        return None


def many(start: int, count: int, keep_going: bool, kind: Kind = Simulation) -> int:
    """Run seeds until one fails; the exit status."""
    events = tasks = values = done = 0
    faults: dict[str, int] = {}
    errors: dict[str, int] = {}
    failed = []
    for seed in range(start, start + count):
        outcome = attempt(seed, False, kind)
        if outcome is None:
            failed.append(seed)
            if keep_going:
                continue
            break
        done += 1
        events += outcome.events
        tasks += outcome.tasks
        values += outcome.values
        for total, part in ((faults, outcome.faults), (errors, outcome.errors)):
            for name, number in part.items():
                total[name] = total.get(name, 0) + number
        if done % 100 == 0:
            print(f"{done} seeds, {events:,} events", flush=True)
    print(
        f"{done} seeds, {events:,} events, {tasks:,} tasks, {values:,} values read; "
        f"faults: {listed(faults)}; errors met: {listed(errors)}"
    )
    if failed:
        print(f"failed: {' '.join(map(str, failed))}")
    return bool(failed)


def small(wanted: str, bounds: Sequence[Bounds]) -> int:
    """Explore the scenarios of the small world; the exit status."""
    status = 0
    for scenario in SCENARIOS:
        for bound in bounds if wanted in scenario.name else ():
            world = SmallWorld(scenario, bound)
            delays = "every order" if bound.delays is None else f"{bound.delays} delays"
            try:
                print(f"{bound.deaths} deaths, {delays}: {world.explore()}", flush=True)
            except Exception as error:
                print("\n".join(world.story()), file=sys.stderr)
                print(f"{scenario.name}: {type(error).__name__}: {error}", file=sys.stderr)
                status = 1
    return status


def describe(outcome: Outcome) -> str:
    """One line about a run."""
    return (
        f"seed {outcome.seed}: {outcome.events:,} events, {outcome.tasks} tasks, "
        f"{outcome.values} values read; faults: {listed(outcome.faults)}; "
        f"errors met: {listed(outcome.errors)}; trace {outcome.trace_hash}"
    )


def listed(counts: dict[str, int]) -> str:
    """Names with their counts."""
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
