"""Values that are lost, and how they are made again.

The owner of a result in shared memory keeps its *recipe*, the task that made it, as long as the
result is referred to, or something is that may have to be made from it.  The rules:

1. A recipe holds its arguments.  Those that have a recipe themselves are held as *lineage* only:
   their values may be collected (``COLLECTED``), for they can be made again.  Small values, and
   those that cannot be made again (a ``put``, another owner's), are kept; so are savepoints
   (``process.savepoints``).
2. A value whose last place is gone is made again at once if anybody refers to it, else when it is
   needed (``revive``): its outputs become ``PENDING``, its task runs again after its arguments
   have been revived in the same way, and only what is gone is taken from the new run.
3. Each new run costs one of the task's retries.  Recipes have a budget in bytes; the oldest are
   forgotten first, and the error of what is then lost says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import COLLECTED, FAILED, PENDING, SHARED
from freehold.core.places import Place
from freehold.core.process.owner import Owner
from freehold.core.process.rows import FUNCTION_TASK, Links, Row, Task
from freehold.core.process.savepoints import Savepoints, is_saved

ROW_BYTES = 300  # what a recipe takes beside its arguments: the task, its rows and links


class Lineage:
    """The recipes of one owner."""

    def __init__(self, owner: Owner, bytes_max: int, remake_s_max: float = 0.0) -> None:
        self.owner = owner
        self.savepoints = Savepoints(owner, remake_s_max)
        self.bytes_max = bytes_max
        self.bytes = 0
        self.active = False  # only a cluster can lose shared memory and go on
        self.recipes: dict[bytes, Task] = {}  # by task id, the oldest first
        self.revived = 0  # tasks that have run again because their results were lost
        self.moving: Callable[[Row, bytes], None]  # an actor's process is said to be dead
        self._ending: list[Task] = []  # tasks that are being forgotten
        owner.lineage = self
        owner.machine.on(
            {
                m.COPIED: self.on_copied,
                m.UNCOPIED: self.on_uncopied,
                m.LOST: self.on_lost,
            }
        )

    # -- recipes ----------------------------------------------------------------------------------
    def keep(self, task: Task, worker: Peer | None, seconds: float = 0.0) -> None:
        """Remember how results were made that could be lost: they, or what they refer to.

        It took so many seconds.
        What an actor's method has made is not made again: the call may have changed the actor.
        """
        if task.spec.kind != FUNCTION_TASK:
            return
        rows = [row for row in task.rows if self.owner.rows.get(row.id) is row]
        kept = [row for row in rows if row.state == SHARED and self.active]
        if not kept and is_parent(task, worker):
            kept = [row for row in rows if row.more is not None and row.more.contains]
        for row in kept:
            row.extend().recipe = task
        if kept and task.id not in self.recipes:
            self.recipes[task.id] = task
            self.bytes += _size(task)
            while self.bytes > self.bytes_max:
                self._evict(next(iter(self.recipes.values())))
        if kept and kept[0].state == SHARED:
            self.savepoints.weigh(task, kept, seconds)

    def _evict(self, task: Task) -> None:
        for row in task.rows:
            if row.more is not None and row.more.recipe is task:
                row.more.recipe = None
                row.more.evicted = True
        self._forget(task)

    def dropped(self, row: Row) -> None:
        """The row is freed: its recipe goes with the last of the task's rows."""
        assert row.more is not None
        if row.more.saved:
            self.savepoints.forget(row.id)
        task, row.more.recipe = row.more.recipe, None
        if task is not None and not any(
            other.more is not None and other.more.recipe is task for other in task.rows
        ):
            self._forget(task)

    def _forget(self, task: Task) -> None:
        if self.recipes.pop(task.id, None) is None:
            return
        self.bytes -= _size(task)
        if task.row.task is task or any(row.task is task for row in task.rows):
            return  # it runs: its end lets the arguments go
        self._ending.append(task)
        if len(self._ending) == 1:  # else one more link of a chain, however long
            for ending in self._ending:
                self.owner.let_go(ending)
            self._ending = []

    def is_kept(self, task: Task) -> bool:
        """Whether the task is anybody's recipe."""
        return self.recipes.get(task.id) is task

    def loosen(self, links: Links) -> None:
        """The task is over: hold as lineage what can be made again."""
        held, links.held = links.held, []
        for row in held:
            more = row.more
            again = row.owner is None and more is not None and more.recipe is not None
            if again and (links.cut or not is_saved(row)):
                links.loosen(row)
                self.owner.unhold(row)
            else:
                links.held.append(row)

    def tighten(self, links: Links) -> None:
        """The task runs again: hold its arguments as any task does."""
        links.cut = False
        for row in links.lineage:
            assert row.more is not None
            row.more.lineage -= 1
            row.holds += 1
        links.held += links.lineage
        links.lineage = []

    # -- copies and losses ------------------------------------------------------------------------
    def on_copied(self, peer: Peer, now: float, id: bytes, place: Place) -> None:
        row = self.owner.rows.get(id)
        if row is None or row.owner is not None or row.state != SHARED:
            self.owner.freed.append((id, place))
        elif place != row.data and place not in row.extend().copies:
            row.extend().copies.append(place)

    def on_uncopied(self, peer: Peer, now: float, id: bytes, place: Place) -> None:
        row = self.owner.rows.get(id)
        if row is not None and row.owner is None:
            self.lost(row, place)

    def on_lost(self, peer: Peer, now: float, id: bytes, place: Place) -> None:
        row = self.owner.rows.get(id)
        if row is None or (row.owner is None and row.data != place):
            row = self.owner.twins.borrowed(id)
        if row is None:
            return
        if row.more is not None and row.more.actor:
            self.moving(row, place[0])
        elif row.owner is not None or self.owner.node is None or place[3] != self.owner.node.id:
            # else it is on this very node: whoever could not read it is cut off
            self.unreadable(row, place)

    def unreadable(self, row: Row, place: Place) -> None:
        """Somebody could not read the value there; if it is borrowed, its owner is told."""
        if row.owner is None:
            self.lost(row, place)
        elif row.state == SHARED and row.data == place:
            self.owner.forget_value(row)
            self.owner.machine.send(row.owner, m.LOST, row.id, place)
            self.owner.want(row)

    def lost(self, row: Row, place: Place) -> None:
        """The value of an own row cannot be read at that place any more."""
        if row.state != SHARED:
            return
        more = row.extend()
        if place in more.copies:
            more.copies.remove(place)
        if row.data != place:
            return
        if more.copies:
            row.data = more.copies.pop(0)
        elif more.recipe is not None:
            row.state, row.data = COLLECTED, None
            if row.handles or row.holds or more.tickets:
                self.revive(row)
        else:
            row.state, row.data = FAILED, _lost(row)
            self.owner.failures += 1

    def node_died(self, node: bytes) -> None:
        """Nothing can be read on that node any more."""
        lost = []
        for row in self.owner.rows.values():
            more = row.more
            if more is not None and more.copies:
                more.copies = [place for place in more.copies if place[3] != node]
            if row.state == SHARED and row.data[3] == node:
                lost.append(row)
        for row in lost:
            if row.owner is None:
                self.lost(row, row.data)
            elif row.more is not None and row.more.here is not None:
                row.data = row.more.here  # what is read here stays
            else:
                self._displace(row)

    def _displace(self, row: Row) -> None:
        """The node is dead where a borrowed value lay: read it here, or ask where it is now."""
        more = row.extend()
        if more.here is not None:
            row.data = more.here
            return
        asked = more.pulled
        self.owner.forget_value(row)
        if asked:  # somebody may wait for it, who has not seen that it had come
            self.owner.want(row)

    def revive(self, row: Row) -> None:
        """Make a collected value again, and first what it is made from."""
        ahead = [row]
        while ahead:
            row = ahead.pop()
            if row.state != COLLECTED:
                continue
            assert row.more is not None
            task = row.more.recipe
            if task is not None and row.task is task:  # it runs already, for another result
                row.state = PENDING
                self.owner.unhold(row)  # see ``_again``: it has no value to keep any more
                continue
            if task is None or task.tries == 0:
                why = "its task has been run again as often as max_retries allows"
                self.owner.resolve(row, FAILED, _lost(row, why if task is not None else ""))
                self.owner.settle(row)
                continue
            ahead += self._again(task)

    def _again(self, task: Task) -> list[Row]:
        """Have the task run again; the arguments that must be made before."""
        task.tries -= 1
        task.place = None
        self.revived += 1
        first = task.row  # by which the answer is known
        if self.owner.rows.get(first.id) is not first:
            first.state, first.data, first.more = PENDING, None, None
            self.owner.rows[first.id] = first
        for row in task.rows:
            if self.owner.rows.get(row.id) is not row:
                continue
            row.task = task
            if row.state == COLLECTED:
                row.state = PENDING
            elif row.state != PENDING:
                row.holds += 1  # until the run is over; it keeps its value
        links = task.links
        if links is None:
            self.owner.ready.append(task)
            return []
        self.tighten(links)
        collected = []
        links.missing = 0
        for _, dep in links.deps:
            if dep.state == COLLECTED:
                collected.append(dep)
            if dep.state in (PENDING, COLLECTED):
                dep.extend().dependents.append(task)
                links.missing += 1
                if dep.owner is not None:
                    self.owner.want(dep)
        if not links.missing:
            self.owner.ready.append(task)
        return collected

    def run_again(self, task: Task) -> bool:
        """Run a task again for what its results refer to; they themselves stay as they are."""
        if any(row.task is task for row in task.rows):
            return True  # it runs already
        if task.tries == 0:
            return False
        for dep in self._again(task):
            self.revive(dep)
        return True

    def check(self) -> None:
        """Recipes are counted once, and each is some row's."""
        assert self.bytes == sum(_size(task) for task in self.recipes.values())
        for task in self.recipes.values():
            assert any(row.more is not None and row.more.recipe is task for row in task.rows)


def _size(task: Task) -> int:
    links = task.links
    return ROW_BYTES + len(task.spec.code) // 64 + (64 * len(links.deps) if links else 0)


def _lost(row: Row, why: str = "") -> list[Any]:
    """The error of a value that nothing can bring back."""
    more = row.more
    site = f" made at {more.site}" if more is not None and more.site else ""
    if not why and more is not None and more.evicted:
        why = "its recipe had been forgotten, to keep within lineage_bytes_max: raise that"
    elif not why:
        why = "it was put, or made by an actor's method, and neither is run again"
    return ["ObjectLost", f"object {row.id.hex()}{site} was lost with its node, and {why}"]


def is_parent(task: Task, worker: Peer | None) -> bool:
    """Whether the task's results refer to what its worker owns."""
    if worker is None:
        return False
    return any(
        inner.owner is worker
        for row in task.rows
        if row.more is not None
        for inner in row.more.contains
    )
