"""Nodes that this node cannot reach: it dials them again and again, until they are met or dead.

A connection that broke, or could not be made, makes a node a suspect.  What comes of it:

* *Without a head* this node judges by the head's rule: refused means dead now, silence for
  ``unreachable_s`` means dead then.
* *With one*, deaths are its affair, and it will see what is wrong with a node that nobody reaches.
  But this one may be out of this node's own reach only, and then this node would wait for it for
  ever.  So it complains (REACH) when it has dialled ``TRIES`` times in vain, and takes that back
  when it reaches the node after all.  What follows from a complaint is in ``head.gaps``, for which
  it also dials whomever the head names (WITNESS).
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.member import Member
from freehold.errors import ProtocolError

PROBE_EVERY = 0.25  # of unreachable_s: how often a suspect is dialled
TRIES = 2  # in vain, after which the head is told
Declare = Callable[[bytes, str, float], None]


class Suspect:
    """A node that cannot be reached."""

    __slots__ = ("again", "told", "tries", "until")

    def __init__(self, again: float, until: float) -> None:
        self.again = again  # when to dial it next
        self.until = until  # when it is dead, if there is no head
        self.tries = 0  # in vain, since there is this head
        self.told = False  # this head


class Suspects:
    """The suspects of one node.

    Args:
        machine: the node.
        view: the members.
        declare: called with a node that is dead by this node's judgement, why, and the time.
        unreachable_s: seconds of silence after which a node is dead, while there is no head.

    Attributes:
        head: the head of which this node is a member; None while it has to judge by itself.
    """

    def __init__(
        self,
        machine: Machine,
        view: dict[bytes, Member],
        *,
        declare: Declare,
        unreachable_s: float,
    ) -> None:
        self.machine = machine
        self.view = view
        self.declare = declare
        self.unreachable_s = unreachable_s
        self.prober = Peer(b"", "", "prober")
        self.head: Peer | None = None
        self.open: dict[bytes, Suspect] = {}
        self.witnessing: set[bytes] = set()  # whom the head wants to be dialled
        machine.on({m.PROBED: self.on_probed, m.WITNESS: self.on_witness})

    # -- the head ---------------------------------------------------------------------------------
    def start(self, head: Peer) -> None:
        """There is a head, which is told anew."""
        self.head = head
        for suspect in self.open.values():
            suspect.tries, suspect.told = 0, False

    def stop(self, now: float) -> None:
        """There is no head for now: from here on this node judges."""
        if self.head is None:
            return
        self.head = None
        self.witnessing.clear()
        for id, suspect in self.open.items():
            suspect.until = now + self.unreachable_s
            self._dial(id, now)

    def end(self) -> None:
        """This node is no member any more, and judges nobody."""
        self.head = None
        self.open.clear()

    # -- suspects ---------------------------------------------------------------------------------
    def add(self, id: bytes, now: float) -> None:
        """A connection to that node broke, or could not be made."""
        if id in self.view and id != self.machine.id and id not in self.open:
            self.open[id] = Suspect(now, now + self.unreachable_s)
            self._dial(id, now)

    def clear(self, id: bytes) -> None:
        """The node is connected again, or has answered."""
        suspect = self.open.pop(id, None)
        if suspect is not None and suspect.told:
            self._say(id, True)

    def _dial(self, id: bytes, now: float) -> None:
        self.open[id].again = now + self.unreachable_s * PROBE_EVERY
        self.machine.send(self.prober, m.PROBE, id, self.view[id].address)

    def _say(self, id: bytes, reached: bool, asked: bool = False) -> None:
        if self.head is not None:
            self.machine.send(self.head, m.REACH, id, reached, asked)

    def on_witness(self, peer: Peer, now: float, node: bytes, address: str) -> None:
        if peer is not self.head:
            raise ProtocolError(f"{peer!r} is not this node's head")
        if node not in self.witnessing:
            self.witnessing.add(node)
            self.machine.send(self.prober, m.PROBE, node, address)

    def on_probed(self, peer: Peer, now: float, id: bytes, answer: str) -> None:
        if id in self.witnessing:
            self.witnessing.discard(id)
            self._say(id, answer == "alive", asked=True)
        suspect = self.open.get(id)
        if suspect is None:
            return
        if answer == "alive":
            self.clear(id)
        elif self.head is not None:
            suspect.tries += 1
            if suspect.tries >= TRIES and not suspect.told:
                suspect.told = True
                self._say(id, False)
        elif answer == "refused":
            self.declare(id, "nobody listens at its address any more", now)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """The next dialling or death."""
        if not self.open:
            return NEVER
        soonest = min(suspect.again for suspect in self.open.values())
        if self.head is None:
            soonest = min(soonest, *(suspect.until for suspect in self.open.values()))
        return soonest

    def on_timer(self, now: float) -> None:
        """Dial again; without a head, give up who has been silent for too long."""
        for id, suspect in list(self.open.items()):
            if now >= suspect.until and self.head is None:
                reason = f"it has been silent for {self.unreachable_s:g} s, and there is no head"
                self.declare(id, reason, now)
            elif now >= suspect.again:
                self._dial(id, now)

    def check(self) -> None:
        """They are members."""
        assert all(id in self.view for id in self.open)
