"""What strikes a machine, when and for how long: drawn, and printed, so that it can be repeated."""

from __future__ import annotations

import random
import signal
import threading
from dataclasses import dataclass
from typing import Literal

from cluster.rows import Work
from cluster.site import DRIVER, Site

Damage = Literal["nothing", "process", "machine"]
KINDS = ("kill", "cut", "cut one way", "pause", "slow")
SHORT = (0.1, 0.8)  # seconds: nobody is given up for it
LONG = (2.6, 3.2)  # longer than it takes to be given up
DELAYS = (0.02, 0.05)  # seconds that a frame takes on a slow link
MBIT = 8.0


@dataclass
class Fault:
    """One strike.

    Attributes:
        kind: one of ``KINDS``.
        moment: when it happens: 0, as soon as the work has begun, to 1, when it may be over.
        lasts: seconds until all is mended; 0: until the outcome is known.
        way: of a cut: to or from the victims, or both.
        delay: of a slow link.
    """

    kind: str
    moment: float
    lasts: float
    way: str
    delay: float

    @classmethod
    def drawn(cls, kind: str, draw: random.Random, brief: bool) -> Fault:
        """A strike; ``brief``: none that lasts so long that somebody is given up."""
        short = brief or draw.random() < 0.5
        lasts = draw.uniform(*(SHORT if short else LONG))
        if kind == "cut" and not short:
            lasts = 0.0
        return cls(kind, draw.random(), lasts, draw.choice(["to", "from"]), draw.uniform(*DELAYS))

    def __str__(self) -> str:
        text = f"{self.kind} at {self.moment:.2f}"
        if self.kind in ("cut", "cut one way", "pause"):
            text += f" for {self.lasts:.1f} s" if self.lasts else " for good"
        return text + {"cut one way": f", {self.way} it", "slow": f", {self.delay:.3f} s"}.get(
            self.kind, ""
        )

    def damage(self, work: Work) -> Damage:
        """What may be lost at most."""
        if self.kind == "kill":
            return "machine" if work.whole else "process"
        if self.kind == "slow" or 0.0 < self.lasts <= SHORT[1]:
            return "nothing"
        return "machine"

    # --- the strike -------------------------------------------------------------------------------
    def strike(self, site: Site, work: Work) -> threading.Timer | None:
        """Let it happen; what mends it, if that is not left to ``Site.restore``."""
        if self.kind == "kill":
            work.kill()
            return None
        network = site.network
        for victim in work.victims:
            if self.kind == "cut":
                network.down(victim)
            elif self.kind == "pause":
                site.cluster.kill_node(victim, signal.SIGSTOP)
            elif self.kind == "slow":
                network.limit(victim, MBIT)
                network.delay(victim, self.delay)
            else:
                self._cut_one_way(site, victim)
        if self.kind == "slow" or not self.lasts:
            return None
        timer = threading.Timer(self.lasts, self._mend, (site, work))
        timer.start()
        return timer

    def _cut_one_way(self, site: Site, victim: int) -> None:
        for other in range(DRIVER + 1):
            if other != victim:
                pair = (other, victim) if self.way == "to" else (victim, other)
                site.network.cut(*pair)

    def _mend(self, site: Site, work: Work) -> None:
        if self.kind != "pause":
            site.network.heal()
            return
        for victim in work.victims:
            site.cluster.kill_node(victim, signal.SIGCONT)
