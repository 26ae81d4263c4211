"""Gaps between simulated machines: two lose each other, and everybody else reaches both.

It may be one way only, since what goes one way is not confirmed then, and it may last to the end:
one of the two must go, and what waits across the gap must end all the same.  Two machines with
drivers are left alone, since the end of the first driver's machine would be that of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.sim.daemon import NodeHost
from freehold.sim.hosts import LOOK
from freehold.sim.ledger import Ledger
from freehold.sim.links import End
from freehold.sim.world import World

LASTING = 0.0
SECONDS = (0.1, 1.0, 3.0, LASTING, LASTING)


class Gaps:
    """The fault, for one fleet.

    Args:
        world: that of the fleet.
        ledger: which excuses what follows.
        hosts: all processes.
    """

    def __init__(self, world: World, ledger: Ledger, hosts: Callable[[], list[Any]]) -> None:
        self.world = world
        self.ledger = ledger
        self.hosts = hosts

    def open(self, nodes: list[NodeHost], spared: set[str]) -> None:
        """Two nodes lose each other, not both at spared places; one gap at a time."""
        world = self.world
        pairs = [
            (one, other) for one in nodes for other in nodes
            if one is not other and one.alive and other.alive
            and not {one.spot, other.spot} <= spared
        ]  # fmt: skip
        if not pairs or world.healed or world.gaps:
            return
        one, other = world.rng.choice(pairs)
        ways = {(one.spot, other.spot)}
        if world.rng.random() < 0.5:
            ways.add((other.spot, one.spot))
        lasts = world.rng.choice(SECONDS)
        world.fault("gap")
        for node in (one, other):
            self.ledger.away(node.machine.id)
        world.gaps = ways
        for end in one.ends:
            if end.other.host is other:
                miss(end)
        if lasts:
            world.after(lasts, self.close)

    def close(self) -> None:
        """They reach each other again."""
        spots = {spot for way in self.world.gaps for spot in way}
        self.world.gaps = set()
        for host in self.hosts():
            for end in list(host.ends):
                if {host.spot, end.other.host.spot} == spots:
                    end.resume()


def miss(end: End) -> None:
    """Two nodes will notice that nothing comes over their link."""
    for side in (end, end.other):
        if side.peer is not None:
            side.host.world.after(LOOK, side.host.troubled, side.peer)
