"""Values from which others are made again: how far back a loss can reach.

A value that is lost is made again from its recipe, and first what it is made from: of a long chain
whose links lay on one node, the whole chain.  This file bounds that.  The owner knows of each large
value what it would *cost*: the seconds of the longest path of runs back to what is safe.  When that
comes to ``seconds_max``, the value becomes a *savepoint*:

1. Another node is asked to keep a copy of it (``process.keeping``); what lies on the owner's own
   node needs none, since it is lost only together with its owner.  The copy must be worth it: no
   more than ``RATE`` bytes are moved for each second that it saves.
2. What is made from a savepoint costs no more than what it took since then.  Its recipe holds the
   savepoint's value, where others hold their arguments as lineage only.
3. Once a savepoint is safe, those behind it are needed no longer: the recipes on the way back to
   them let go of their values (``Links.cut``), and keep only the recipes, for the day on which both
   nodes die.  The same is done when no copy can be had; so values do not pile up.
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.core.messages import SHARED
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Row, Task

RATE = 20 << 20  # bytes that may be moved to save a second
COPIES = 2


class Savepoints:
    """Which values of one owner are kept safe."""

    def __init__(self, owner: Owner, seconds_max: float) -> None:
        self.owner = owner
        self.seconds_max = seconds_max  # 0: never
        self.rate: float = RATE
        self.alone = True  # there is no other node
        self.copy: Callable[[Row, int], object]  # have so many copies of it kept
        self.forget: Callable[[bytes], None]  # the row is gone
        self.made = 0  # savepoints

    def weigh(self, task: Task, rows: list[Row], seconds: float) -> None:
        """These results of the task, which ran for so long, lie in shared memory."""
        cost = seconds + max((_cost(row) for _, row in task.deps), default=0.0)
        for row in rows:
            more = row.extend()
            more.cost, more.saved = cost, False
            if 0 < self.seconds_max <= cost and row.data[2] <= cost * self.rate and not self.alone:
                self._save(row)

    def _save(self, row: Row) -> None:
        more = row.extend()
        more.cost, more.saved = 0.0, True
        self.made += 1
        node = self.owner.node
        if node is not None and row.data[3] == node.id:
            self.settled(row)
        else:
            self.copy(row, COPIES)

    def settled(self, row: Row) -> None:
        """The value is safe now, or nobody can keep it: what it was made from may be collected."""
        more = row.more
        if row.state != SHARED or more is None or not more.saved or more.recipe is None:
            return
        ahead = [more.recipe]
        while ahead:
            task = ahead.pop()
            links = task.links
            if links is None or links.cut or any(row.task is task for row in task.rows):
                continue
            links.cut = True
            for arg in [arg for arg in links.held if is_saved(arg)]:
                links.loosen(arg)
                self.owner.unhold(arg)
            args = [*links.lineage, *links.held]  # these, if the task has only just ended
            recipes = [arg.more.recipe for arg in args if arg.more is not None]
            ahead += [recipe for recipe in recipes if recipe is not None]


def is_saved(row: Row) -> bool:
    """Whether it is a savepoint."""
    return row.more is not None and row.more.saved


def _cost(row: Row) -> float:
    return row.more.cost if row.more is not None else 0.0
