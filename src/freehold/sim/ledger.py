"""What the world knows about a run, beside the machines: the evidence for what user code may see.

The machines promise what they can keep when processes die.  An error is excused by a death:

* ``WorkerDied``: some worker has died, and its task could not be retried.
* ``OwnerDied``: a process that owned the object named in the error has died.
* ``ObjectLost``: a node is gone where the value that the error names had been placed.
* ``ActorUnavailable``: a process in which the actor lived has died.
* ``ObjectFreed``: a process that had held the reference has died.  Whoever hands a reference on
  keeps its hold until the owner has confirmed the new holder; if it dies before, the hand-over
  was never made, and the object may go with the last confirmed holder.  Nobody else's death
  excuses it.
* ``ActorDied``: the actor was killed, its constructor failed, its owner has ended, or the process
  that it lived in did not end in good order.  In particular a call whose handle is dropped while it
  is pending must be answered.
* ``ObjectStoreFull``: the arena was asked for room.  ``Unschedulable``: more was asked for than
  the node has, or workers could not be started.

A process counts as dead from when it ends, or from when somebody has declared its node dead.  To be
cut off, or to stand still, excuses nothing by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from freehold.sim.values import Violation, brief

Proc = bytes
_OBJECT = re.compile(r"\bobject ((?:[0-9a-f]{2})+)")


class Failure(Exception):
    """What user code gets where a real ``get`` or ``put`` would raise."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.data = data  # as in a FAILED row


class Ledger:
    """Who owned and held what, who has died, what was run how often."""

    def __init__(self, faults: dict[str, int]) -> None:
        self.faults = faults
        self.owners: dict[bytes, list[Proc]] = {}
        self.holders: dict[bytes, list[Proc]] = {}
        self.contents: dict[bytes, list[bytes]] = {}  # value -> values that it has referred to
        self.dead: dict[Proc, int] = {}  # exit codes
        self.dismissed: set[Proc] = set()  # who ended in good order because their node leaves
        self.home: dict[Proc, bytes] = {}  # the node on which it lives
        self.places: dict[bytes, list[bytes]] = {}  # value -> nodes on which it was placed
        self.lost_nodes: set[bytes] = set()  # that went down
        self.away_nodes: set[bytes] = set()  # that could not be reached for a while
        self.given_up: Callable[[], set[bytes]] = set  # that somebody has declared dead
        self.actor_of: dict[bytes, bytes] = {}  # a call's first result -> the actor's reference
        self.homes: dict[bytes, list[Proc]] = {}  # actor -> processes that have begun to make it
        self.lives: dict[tuple[bytes, Proc], list[Proc]] = {}  # the same, of each of its owners
        self.failed_actors: set[bytes] = set()  # killed, or their constructor raised
        self.detached: dict[str, tuple[bytes, int]] = {}  # name -> actor, max_restarts
        self.survivors = 0  # of those, that have answered when the faults were over
        self.raised: dict[bytes, int] = {}  # task ids of runs that raised
        self.deaths = 0  # of processes that did not end in good order
        self.greedy = 0  # requests for more than the node has
        self.tries: list[list[int]] = []  # submission -> runs started, runs allowed
        # (caller, call of an actor) -> its turn; another run of the caller's task has its own
        self.turns: dict[tuple[Proc, bytes], int] = {}
        self._turns = 0
        self.latest: dict[tuple[Proc, Proc], int] = {}  # (incarnation, caller) -> the last turn
        self.errors: dict[str, int] = {}
        self.values = 0  # that were read and found right

    def owns(self, id: bytes, proc: Proc) -> None:
        """The process made the object or submitted its task."""
        self.owners.setdefault(id, []).append(proc)
        self.holds(id, proc)

    def holds(self, id: bytes, proc: Proc) -> None:
        """The process has got a reference to it."""
        holders = self.holders.setdefault(id, [])
        if proc not in holders:
            holders.append(proc)

    def died(self, proc: Proc, code: int) -> None:
        """The process has ended."""
        self.dead[proc] = code
        self.deaths += code != 0

    def away(self, node: bytes) -> None:
        """A machine is parted from the others, or stands still: it may be declared dead."""
        self.away_nodes.add(node)

    def lies(self, id: bytes, node: bytes) -> None:
        """The value has been placed in the memory of that node."""
        self.places.setdefault(id, []).append(node)

    def constructs(self, actor: bytes, proc: Proc, owner: Proc) -> None:
        """The actor begins in that process.  Raises Violation if its owner has another alive."""
        for home in self.lives.setdefault((actor, owner), []):
            if not self._is_gone(home):
                raise Violation(f"actor {brief(actor)} begins anew, and lives in {brief(home)}")
        self.lives[actor, owner].append(proc)
        self.homes.setdefault(actor, []).append(proc)

    def gone_nodes(self) -> set[bytes]:
        """Those that went down, or were declared dead."""
        return self.lost_nodes | self.given_up()

    def _is_gone(self, proc: Proc) -> bool:
        if proc in self.dismissed:
            return False  # nobody needed it
        return proc in self.dead or self.home.get(proc, b"") in self.given_up()

    def died_badly(self, proc: Proc) -> bool:
        """Whether it has ended, and not in good order."""
        return bool(self.dead.get(proc)) or self.home.get(proc, b"") in self.gone_nodes()

    def bequeaths(self, dead: Any) -> None:
        """A process has died, and its tables are still there to be looked at."""

    def living(self, actor: bytes) -> list[Proc]:
        """The processes that are the actor now, where nobody is given up."""
        return [home for home in self.homes.get(actor, []) if not self._is_gone(home)]

    def may_contain(self, outer: bytes, inner: bytes) -> bool:
        """Record that a value refers to another, unless that would close a circle."""
        reached, ahead = {inner}, [inner]
        while ahead:
            id = ahead.pop()
            if id == outer:
                return False
            for other in self.contents.get(id, ()):
                if other not in reached:
                    reached.add(other)
                    ahead.append(other)
        self.contents.setdefault(outer, []).append(inner)
        return True

    def submission(self, retries: int) -> int:
        """A task is submitted; the number to send along."""
        self.tries.append([0, retries + 1])
        return len(self.tries) - 1

    def started(self, submission: int, task: bytes) -> int:
        """A run of it starts; how many there have been.  Raises Violation if that is too many."""
        entry = self.tries[submission]
        entry[0] += 1
        if entry[0] > entry[1]:
            raise Violation(
                f"task {brief(task)} starts for the {entry[0]}th time, of {entry[1]} allowed"
            )
        return entry[0]

    def called(self, caller: Proc, task: bytes) -> None:
        """A call to an actor is handed to its caller's machine."""
        self._turns += 1
        self.turns[caller, task] = self._turns

    def takes_turn(self, actor: Proc, caller: Proc, task: bytes) -> None:
        """The call starts in the actor.  Raises Violation if a later one of its caller has."""
        last = self.latest.get((actor, caller), -1)
        turn = self.turns[caller, task]
        if turn < last:
            raise Violation(f"call {brief(task)} starts after a later one of the same caller")
        self.latest[actor, caller] = turn

    def judge(self, data: Any, id: bytes) -> None:
        """User code meets an error at reference ``id``.  Raises Violation if nothing excuses it."""
        if isinstance(data, bytes):
            self._judge_user_error(data)
            return
        kind, text = data[0], data[1]
        self.errors[kind] = self.errors.get(kind, 0) + 1
        if len(data) > 2:  # what kept an actor's constructor from running: an argument's error
            self.judge(data[2], b"")
            return
        excused = {
            "WorkerDied": self.deaths > 0 or bool(self.given_up()),
            "OwnerDied": any(map(self._is_gone, self._named(text, self.owners))),
            "ObjectFreed": any(
                map(self._is_gone, self._named(text, self.holders) + self._named(text, self.owners))
            ),
            "ActorDied": self._may_be_dead(id),
            "ObjectStoreFull": True,
            "Unschedulable": self.greedy > 0 or "failed spawn" in self.faults,
            "ObjectLost": not self.gone_nodes().isdisjoint(self._named(text, self.places)),
            "ActorUnavailable": self._has_moved(id),
        }.get(kind, False)
        if not excused:
            raise Violation(f"nothing excuses {kind} at {brief(id)}: {text}")

    def _may_be_dead(self, call: bytes) -> bool:
        actor = self.actor_of.get(call[:16])
        if actor is None:  # no call, or one with dependencies: the error may be one of theirs
            return bool(self.failed_actors or self.given_up()) or self.deaths > 0
        homes = self.homes.get(actor, [])
        if any(map(self._is_gone, self.owners.get(actor, ()))):
            return True
        if actor in self.failed_actors or any(
            self.dead.get(home) or self.home.get(home, b"") in self.given_up() for home in homes
        ):
            return True
        return not homes and (self.deaths > 0 or bool(self.gone_nodes()))

    def _has_moved(self, call: bytes) -> bool:
        actor = self.actor_of.get(call[:16])
        moved = self.homes.values() if actor is None else [self.homes.get(actor, [])]  # see above
        return any(self._is_gone(home) for homes in moved for home in homes)

    def _judge_user_error(self, data: bytes) -> None:
        self.errors["TaskError"] = self.errors.get("TaskError", 0) + 1
        if data not in self.raised:
            raise Violation(f"an error that no task raised: {data.hex()}")

    @staticmethod
    def _ids(text: str) -> list[bytes]:
        """The object that the error's text names, if it names one."""
        named = _OBJECT.search(text)
        return [bytes.fromhex(named[1])] if named is not None else []

    def _named(self, text: str, table: dict[bytes, list[bytes]]) -> list[bytes]:
        """What ``table`` has for the object that the error's text names."""
        return [entry for id in self._ids(text) for entry in table.get(id, ())]
