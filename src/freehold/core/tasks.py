"""The caller's side of a task: what to run (``Spec``) and one submission of it (``Task``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freehold.core.actors import Line
    from freehold.core.leases import Pool
    from freehold.core.machine import Peer
    from freehold.core.objects import Row

FUNCTION_TASK, CONSTRUCTOR, METHOD = range(3)


class Spec:
    """A function with its options: everything that does not change from call to call.

    ``pace`` is the measured time from one result to the next on one worker, in seconds; the number of
    tasks kept in flight follows it.  ``None`` until the first result.
    """

    __slots__ = (
        "code", "cpus", "digest", "kind", "name", "options", "outputs", "pace", "plain", "pool",
        "resources", "retries", "retry_exceptions",
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
        retry_exceptions: bool = False,
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
        self.retry_exceptions = retry_exceptions
        self.options: dict[str, Any] = options or {}
        self.plain = outputs == 1 and not self.options and kind != CONSTRUCTOR
        self.pace: float | None = None
        self.pool: Pool | None = None


class Task:
    """One submission: pending row and lineage in one."""

    __slots__ = (
        "args", "args_row", "deps", "line", "missing", "nested", "place", "rows", "settling",
        "spec", "tries",
    )  # fmt: skip

    def __init__(self, spec: Spec, args: bytes) -> None:
        self.spec = spec
        self.args = args  # serialized; empty when the task has none, or they are in args_row
        self.args_row: Row | None = None  # large arguments: an object of their own
        self.rows: tuple[Row, ...] = ()  # of its outputs
        self.deps: Sequence[tuple[int | str, Row]] = ()  # top-level references: where, which
        self.nested: Sequence[Row] = ()  # references inside the arguments
        self.missing = 0  # deps without a value yet
        self.place: Place | None = None  # where it has been sent
        self.line: Line | None = None  # of a call to an actor
        self.tries = spec.retries
        self.settling = 0  # hand-overs to confirm before the arguments may go

    @property
    def id(self) -> bytes:
        """The task's id, which is the first result's too."""
        return self.rows[0].id

    def held(self) -> list[Row]:
        """Every row that the task keeps alive while it may run."""
        rows = [row for _, row in self.deps]
        rows += self.nested
        if self.args_row is not None:
            rows.append(self.args_row)
        return rows


class Place:
    """A worker that this process sends tasks to: a lease or an actor's line."""

    __slots__ = ("inflight", "peer")

    def __init__(self, peer: Peer | None) -> None:
        self.peer = peer
        self.inflight: dict[bytes, Task] = {}


Queue = deque[Task]
