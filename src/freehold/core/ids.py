"""Names of things: contexts, tasks, references, processes.

Everything is ``bytes``, so that it is hashed, compared and sent as it is.

* ``TaskId`` = context (12 bytes) + submission index (4 bytes, big-endian).  A running task's own
  context is ``blake2b(its TaskId)``, so a re-run of a task submits the same ids, and a caller can
  name results before they exist.  The root context of a driver is random.
* ``RefId`` = TaskId + output index.  Output 0 is encoded as *nothing* and output i > 0 as two
  bytes, so the reference of a one-result task is byte-equal to the task's id and the hot path
  neither builds nor hashes a second name.  (16 against 18 bytes: no two ids can collide.)
* A ``put`` takes a submission index too: made again by a re-run, it has the same id.  Arguments
  that are an object of their own take none, but an output index that no task has: whether they are
  large enough for that may differ from run to run, and must not shift the ids of what follows.
* A *detached* actor, which the head knows, has an id that says so: whoever meets it, even a process
  that has never heard of the actor, knows whom to ask where it lives.
* ``ProcId`` = 8 random bytes, new for each incarnation of a process: a dead id never returns.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

CONTEXT_BYTES = 12
TASK_ID_BYTES = 16
PROC_ID_BYTES = 8
OUTPUTS_MAX = 65_535
ARGUMENTS = OUTPUTS_MAX  # the index of a task's arguments, behind those of its outputs
DETACHED = b"detached"  # how the ids of such actors begin

pack_index = struct.Struct(">I").pack
_pack_output = struct.Struct(">H").pack


def context_of(task_id: bytes) -> bytes:
    """The context in which the running task ``task_id`` submits."""
    return hashlib.blake2b(task_id, digest_size=CONTEXT_BYTES).digest()


def ref_id(task_id: bytes, output: int) -> bytes:
    """The name of output number ``output`` of a task."""
    return task_id if output == 0 else task_id + _pack_output(output)


def task_of(reference: bytes) -> bytes:
    """The task (or put) that makes the reference."""
    return reference[:TASK_ID_BYTES]


def output_of(reference: bytes) -> int:
    """Which output of its task the reference is."""
    return int.from_bytes(reference[TASK_ID_BYTES:], "big")


def detached_id(task_id: bytes) -> bytes:
    """The name of a detached actor that would else have that one."""
    return DETACHED + hashlib.blake2b(task_id, digest_size=TASK_ID_BYTES - len(DETACHED)).digest()


def is_detached(reference: bytes) -> bool:
    """Whether the reference is that of a detached actor."""
    return reference.startswith(DETACHED)


def job_of(actor: bytes) -> bytes:
    """The job for which a detached actor works: its own."""
    return actor[len(DETACHED) :]


def actor_of(job: bytes) -> bytes:
    """The detached actor whose job that is, if it is one's."""
    return DETACHED + job


class Context:
    """Where submissions are numbered: one for the driver's root, one for each running task.

    ``base`` is empty until the task submits something: most never do, and need no hash.
    """

    __slots__ = ("base", "contexts", "count", "task_id")

    def __init__(
        self, base: bytes = b"", task_id: bytes = b"", contexts: Contexts | None = None
    ) -> None:
        self.base = base
        self.task_id = task_id
        self.contexts = contexts
        self.count = 0

    def next_id(self) -> bytes:
        """The id of the next task or put of this context."""
        base = self.base
        if not base:
            contexts = self.contexts
            made = context_of(self.task_id) if contexts is None else contexts.base(self.task_id)
            base = self.base = made
        count = self.count
        self.count = count + 1
        return base + pack_index(count)


CONTEXTS_MAX = 100_000


class Contexts:
    """The contexts that have been used in this process.

    A task may run twice in one process: after it raised, or because the task that had submitted it
    ran again.  What the first run has made may still be referred to, so the second must not make
    the same ids: two objects of one owner would have one name.
    """

    __slots__ = ("_runs", "begin")

    def __init__(self, begin: Callable[[bytes], object] = len) -> None:
        self._runs: dict[bytes, int] = {}
        self.begin = begin  # told of each context before it is used

    def base(self, task_id: bytes) -> bytes:
        """The context in which this run of the task submits."""
        runs = self._runs
        before = runs.get(task_id, 0)
        runs[task_id] = before + 1
        if len(runs) > CONTEXTS_MAX:
            del runs[next(iter(runs))]
        base = context_of(task_id + pack_index(before) if before else task_id)
        self.begin(base)
        return base
