"""What a process knows, as rows: references, tasks, and the places where tasks run.

Data and nothing else; the machines beside this file change it.

A ``Row`` stands for one value, owned (``owner is None``) or borrowed.  It lives as long as
something needs it:

* ``handles``: references in the user's hands, and live views into the arena;
* ``holds``: what the protocol itself needs: pending tasks that take it as an argument, objects that
  contain it, hand-overs that are not yet confirmed;
* ``more.tickets`` (owner only): borrowers, one entry for each hand-over.

Tickets make borrowing indifferent to order: each is registered once and released once, and
whichever comes first waits for the other (``more.early``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from freehold.core.machine import NEVER, Peer
from freehold.core.messages import INLINE, PENDING, SHARED

_new = object.__new__
FUNCTION_TASK, CONSTRUCTOR, METHOD = range(3)
Where = tuple[Any, ...]  # a strategy: (), ("spread",), ("node", id, soft), ("labels", pairs)
Shape = tuple[float, tuple[tuple[str, float], ...], Where]  # CPUs, custom resources, strategy


class Waiter:
    """Somebody who waits for rows; the host reads ``left``, the core counts it down.

    ``port`` is the host's: None for a thread that pumps for itself, else what to wake.
    """

    __slots__ = ("left", "port")

    def __init__(self, left: int, port: Any = None) -> None:
        self.left = left
        self.port = port


class More:
    """The part of a row that most rows never need."""

    __slots__ = (
        "actor", "asked", "contains", "copies", "cost", "dependents", "early", "evicted", "here",
        "lineage", "mine", "pulled", "pullers", "recipe", "refused", "saved", "site", "sure",
        "tickets", "twins",
    )  # fmt: skip

    def __init__(self) -> None:
        self.actor = False  # the value says where an actor is
        self.tickets: dict[bytes, bytes] = {}  # owner: ticket -> borrower's process id
        self.early: set[bytes] = set()  # owner: released before they were registered
        self.pullers: list[Peer] = []  # owner: who waits for the value
        self.contains: list[Row] = []  # rows that the value refers to; each is held
        self.twins: list[Row] = []  # owner: borrowed ones that get the same value (process.twins)
        self.dependents: list[Task] = []  # tasks that cannot start before the value is there
        self.mine: list[bytes] = []  # borrower: tickets registered in this process's name
        self.sure = False  # borrower: this process has registered one of those by itself
        self.pulled = False  # borrower: the value has been asked for
        self.site = ""  # where in the user's program the reference was made
        self.recipe: Task | None = None  # owner: how a value in shared memory is made again
        self.lineage = 0  # owner: recipes that it is an argument of
        self.cost = 0.0  # owner: seconds that it would take to make it again
        self.saved = False  # owner: it is a savepoint (``process.savepoints``)
        self.evicted = False  # owner: there was a recipe
        self.copies: list[Any] = []  # owner: further places of the value
        self.here: Any = None  # the place of this node's copy, if the value lies elsewhere
        self.asked = False  # this node has been asked for one
        self.refused = ""  # why there can be none


class Row:
    """One reference, as this process knows it."""

    __slots__ = (
        "data", "handles", "holds", "id", "more", "owner", "state", "task", "waiters",
    )  # fmt: skip

    def __init__(self, id: bytes, task: Task | None, owner: Peer | None = None) -> None:
        self.id = id
        self.state = PENDING
        self.data: Any = None
        self.handles = 0
        self.holds = 0
        self.task = task
        self.owner = owner
        self.more: More | None = None
        self.waiters: list[Waiter] | None = None

    def extend(self) -> More:
        """The rest of the row, made when first needed."""
        more = self.more
        if more is None:
            more = self.more = More()
        return more

    @property
    def needed(self) -> bool:
        """Whether anything keeps the row alive."""
        if self.handles or self.holds:
            return True
        return self.more is not None and bool(self.more.tickets or self.more.lineage)

    @property
    def may_outlive(self) -> bool:
        """Whether the value may survive its owner: it is not (only) with that one."""
        actor = self.more is not None and self.more.actor and self.state == INLINE
        return actor or self.state in (PENDING, SHARED)

    def __repr__(self) -> str:
        whose = "owned" if self.owner is None else f"of {self.owner!r}"
        return (
            f"<row {self.id.hex()} {whose} state {self.state} "
            f"handles {self.handles} holds {self.holds}>"
        )


class Spec:
    """A function with its options: everything that does not change from call to call.

    ``pace`` is the measured time from one result to the next on one worker, in seconds; the number
    of tasks kept in flight follows it.  ``None`` until the first result.
    """

    __slots__ = (
        "code", "cpus", "digest", "kind", "lease", "name", "options", "outputs", "pace", "plain",
        "pool", "resources", "retries", "room", "where",
    )  # fmt: skip

    def __init__(
        self,
        digest: bytes,
        name: str,
        code: bytes = b"",
        *,
        kind: int = FUNCTION_TASK,
        cpus: float = 1.0,
        resources: tuple[tuple[str, float], ...] = (),
        outputs: int = 1,
        retries: int = 0,
        where: Where = (),
        options: dict[str, Any] | None = None,
    ) -> None:
        self.digest = digest
        self.name = name
        self.code = code
        self.kind = kind
        self.cpus = cpus
        self.resources = resources
        self.outputs = outputs
        self.retries = retries
        self.where = where
        self.options: dict[str, Any] = options or {}
        self.plain = outputs == 1 and not self.options and kind != CONSTRUCTOR
        self.pace: float | None = None
        self.pool: Pool | None = None
        self.lease: Lease | None = None  # the busy worker that takes the next tasks,
        self.room = 0  # and how many of them before another look at the pool

    @property
    def shape(self) -> Shape:
        """What a lease for it asks for."""
        return self.cpus, self.resources, self.where


class Links:
    """The references that a task was submitted with; most tasks have none."""

    __slots__ = ("args_row", "cut", "deps", "held", "line", "lineage", "missing", "settling")

    def __init__(self) -> None:
        self.args_row: Row | None = None  # large arguments: an object of their own
        self.deps: Sequence[tuple[int | str, Row]] = ()  # top-level references: where, which
        self.held: list[Row] = []  # all that the task keeps alive while it may run
        self.lineage: list[Row] = []  # what a recipe could make again, and does not hold
        self.cut = False  # a recipe that holds no savepoints any more (``process.savepoints``)
        self.missing = 0  # deps without a value yet
        self.settling = 0  # hand-overs to confirm before the references may go
        self.line: Line | None = None  # of a call to an actor

    def loosen(self, row: Row) -> None:
        """Need no more of that argument than its recipe; whoever calls this lets go of it."""
        assert row.more is not None
        if row in self.held:
            self.held.remove(row)
        row.more.lineage += 1
        self.lineage.append(row)


class Task:
    """One submission: pending row and lineage in one."""

    __slots__ = ("args", "links", "others", "place", "row", "spec", "tries")

    row: Row  # of its result, the first one if there are several

    def __init__(self, spec: Spec, args: bytes) -> None:
        self.spec = spec
        self.args = args  # serialized; empty when there are none, or they are in the arena
        self.others: tuple[Row, ...] = ()  # of its further results
        self.links: Links | None = None
        self.place: Place | None = None  # where it has been sent
        self.tries = spec.retries

    @property
    def id(self) -> bytes:
        """The task's id, which is the first result's too."""
        return self.row.id

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of all its results."""
        return self.row, *self.others

    def pin(self) -> None:
        """Keep its references after its end, until ``unpin``."""
        if self.links is None:
            self.links = Links()
        self.links.settling += 1

    @property
    def deps(self) -> Sequence[tuple[int | str, Row]]:
        """Its top-level references."""
        return self.links.deps if self.links is not None else ()


def plain_row(spec: Spec, id: bytes, args: bytes) -> Row:
    """The row, with one handle, of a new task of one result without references.

    What ``Task`` and ``Row`` would make, without their frames: most calls are of this kind.
    """
    task, row = _new(Task), _new(Row)
    task.spec = spec
    task.args = args
    task.row = row
    task.others = ()
    task.links = task.place = None
    task.tries = spec.retries
    row.id = id
    row.state = PENDING
    row.handles = 1
    row.holds = 0
    row.task = task
    row.data = row.owner = row.more = row.waiters = None
    return row


class Place:
    """A worker that this process sends tasks to: a lease or an actor's line."""

    __slots__ = ("inflight", "peer")

    def __init__(self, peer: Peer | None) -> None:
        self.peer = peer
        self.inflight: dict[bytes, Task] = {}


Queue = deque[Task]


# Why a lease takes no more tasks: bits of ``Lease.shut``.
BLOCKED = 1  # its task waits in `get`
BROKEN = 2  # the connection is cut; the node will say what happened
DRAINING = 4  # reclaimed: returned when its last task is done
STALLED = 8  # silent for so long that what waited there was recalled
GONE = 16  # returned, or its worker is dead


class Lease(Place):
    """One leased worker."""

    __slots__ = ("batch", "due", "id", "last", "low", "node", "pool", "recalled", "shut", "since")

    def __init__(self, id: int, peer: Peer, pool: Pool, node: Peer, now: float) -> None:
        super().__init__(peer)
        self.id = id
        self.node = node  # that has granted it
        self.pool = pool
        self.since = now
        self.due = NEVER  # reclaimed: takes no more tasks from then on
        self.last = now  # of the last result, or of the first task after being idle
        self.batch = 1  # results that came together with the last one
        self.low = 0  # topped up when no more than that many tasks are in flight
        self.recalled = False  # a RECALL is under way
        self.shut = 0  # why it may not be sent tasks; 0 if it may


class Pool:
    """All leases of one resource shape, and the tasks that wait for them."""

    __slots__ = ("idle", "leases", "most", "queue", "requests", "shape")

    def __init__(self, shape: Shape, most: int) -> None:
        self.shape = shape
        self.most = most  # leases that the node could ever grant at a time
        self.queue: Queue = Queue()
        self.leases: list[Lease] = []
        self.idle: list[Lease] = []  # the most recently used last
        self.requests: set[int] = set()


class Line(Place):
    """The calls of this process to one actor.

    While any call is outstanding the line holds the actor's reference, so that an actor whose last
    handle is dropped ends after its pending calls.
    """

    __slots__ = (
        "born", "building", "error", "failures", "lease", "maker", "node", "own", "queue",
        "restarts", "row",
    )  # fmt: skip

    def __init__(self, row: Row) -> None:
        super().__init__(None)
        self.row = row
        self.own: Line | None = None  # the line of the row whose twin this row is, once reborn
        self.queue: Queue = Queue()
        self.lease = 0  # the owner's lease on the actor's worker,
        self.node: Peer | None = None  # and the node that has granted it
        self.building: Task | None = None  # its constructor, while that runs
        self.maker: Task | None = None  # its constructor, at its owner
        self.restarts = 0  # how often it may (still) be made again; at others, whether it may be
        self.born = 0.0  # when its constructor was last sent off
        self.failures = 0  # of its process, in a row
        self.error: list[Any] | None = None  # once it is dead: [class name, text, cause?]

    @property
    def outstanding(self) -> bool:
        return bool(self.inflight or self.queue)
