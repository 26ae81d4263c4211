"""Messages of one machine: tasks, references, processes and their node, the node's near peers."""

from __future__ import annotations

from freehold.core.opcodes import message

HELLO = message(
    "HELLO", "any", "any",
    "First on every connection, after authentication: who speaks.",
    "proc: bytes — the sender's process id",
    "kind: str — driver, worker, node or tool",
    "pid: int — its operating system process",
    "address: str — where it can be dialled, '' if nowhere",
    "info: map — node: the sender's node, b'' if it does not know; to: whom it calls, if it knows; "
    "call: its number and counts, if the link is to last (``proc.lasting``); "
    "a worker adds its slot, a node its resources and limits",
)  # fmt: skip
BYE = message("BYE", "process", "node", "The sender leaves in good order.")

# -- tasks: the caller and the worker it has leased, with no daemon between them
FUNCTION = message(
    "FUNCTION", "caller", "worker",
    "A function or class, once per worker; later messages name it by digest.",
    "digest: bytes — blake2b of the code",
    "name: str — for messages to people",
    "code: bytes — cloudpickle, opaque to all but the two user processes",
)  # fmt: skip
TASK = message(
    "TASK", "caller", "worker",
    "Run a function (or the actor's method) whose arguments hold no references; one result.",
    "task: bytes — TaskId",
    "key: bytes — digest of the function, or the method's name",
    "args: bytes — serialized (args, kwargs); empty if there are none",
)  # fmt: skip
TASK_FULL = message(
    "TASK_FULL", "caller", "worker",
    "The same, in general.",
    "task: bytes — TaskId",
    "key: bytes — digest of the function, or the method's name",
    "args: bytes | place — serialized (args, kwargs), inline or in the arena",
    "args_id: bytes — the RefId of the arguments in the arena, else empty",
    "deps: list — [id, owner, owner address, state, data] of each top-level reference",
    "outputs: int — how many results it has",
    "kind: int — 0 a function, 1 an actor's constructor, 2 an actor's method",
    "options: map — max_concurrency, name, memory",
)  # fmt: skip
RECALL = message(
    "RECALL", "caller", "worker",
    "Give back up to that many tasks that have not started, from the queue's tail.",
    "count: int",
)  # fmt: skip
DONE = message(
    "DONE", "worker", "caller",
    "The one result, small and free of references; nothing of the arguments was kept.",
    "task: bytes — TaskId",
    "value: bytes — serialized",
)  # fmt: skip
DONE_FULL = message(
    "DONE_FULL", "worker", "caller",
    "The results, in general.",
    "task: bytes — TaskId",
    "outputs: list — [state, data, contained refs] of each result",
    "kept: list — refs that came with the task and that the worker still holds",
)  # fmt: skip
RETURNED = message(
    "RETURNED", "worker", "caller",
    "Tasks that were not started and now will not be: recalled, or stuck behind a blocked one.",
    "tasks: list — TaskIds",
    "blocked: bool — send no more until UNBLOCKED",
)  # fmt: skip
UNBLOCKED = message(
    "UNBLOCKED", "worker", "caller",
    "The task that waited in `get` runs again; more tasks may be sent.",
)  # fmt: skip

# -- references: holders and the owner
REGISTER = message(
    "REGISTER", "holder", "owner",
    "`borrower` now holds the reference too.  Sent by whoever handed it on, who keeps its own "
    "hold until REGISTERED.  Each ticket is registered once and released once, in any order.",
    "id: bytes — RefId",
    "borrower: bytes — ProcId",
    "ticket: bytes — names this hand-over",
    "home: bytes — the borrower's node",
)  # fmt: skip
REGISTERED = message(
    "REGISTERED", "owner", "holder, node",
    "The hand-over is on record.",
    "ticket: bytes",
)  # fmt: skip
RELEASE = message(
    "RELEASE", "borrower", "owner",
    "The borrower holds these no longer.",
    "tickets: list — [id, ticket] pairs",
)  # fmt: skip
PULL = message(
    "PULL", "borrower", "owner",
    "Send the values, or the error, as soon as each is known.",
    "ids: list — RefIds",
)  # fmt: skip
VALUE = message(
    "VALUE", "owner", "borrower, node",
    "A value that was pulled.",
    "id: bytes — RefId",
    "state: int",
    "data: bytes | place | error",
    "contains: list — refs inside the value, already registered for the receiver",
)  # fmt: skip

# -- processes and their node
LEASE = message(
    "LEASE", "process", "node",
    "Lease a worker.",
    "request: int — the sender's number for it",
    "cpus: float — CPUs it occupies while it runs",
    "actor: bytes — the actor that the worker becomes; then it is never shared or reused",
    "resources: map — custom resources",
    "where: list — the strategy: [], [spread], [node, id, soft] or [labels, map]",
    "hops: int — nodes that have redirected the request before",
    "job: list — [driver, its address] for whom it is; [] in an embedded session",
)  # fmt: skip
LEASE_CANCEL = message(
    "LEASE_CANCEL", "process", "node", "The request is no longer needed.", "request: int"
)
LEASE_RETURN = message(
    "LEASE_RETURN", "process", "node",
    "The lease is over.",
    "lease: int",
    "reuse: bool — false: end the worker",
)  # fmt: skip
GRANT = message(
    "GRANT", "node", "process",
    "A worker is leased to the receiver.",
    "request: int",
    "lease: int",
    "proc: bytes — the worker",
    "address: str — where to dial it",
)  # fmt: skip
DENIED = message(
    "DENIED", "node", "process",
    "The request can never be satisfied.",
    "request: int",
    "reason: str",
)  # fmt: skip
DELAYED = message(
    "DELAYED", "node", "process",
    "The request has waited for long.",
    "request: int",
    "seconds: float — at least so long",
    "reason: str — on what it waits, for people",
)  # fmt: skip
RECLAIM = message(
    "RECLAIM", "node", "process",
    "Somebody waits for resources: send no more tasks there, and return it when it is empty.",
    "lease: int",
)  # fmt: skip
BLOCKED = message(
    "BLOCKED", "worker", "node",
    "The running task waits in `get` (its CPUs are lent on), or runs again.",
    "blocked: bool",
)  # fmt: skip
EXTENT = message(
    "EXTENT", "process", "node",
    "Grant a range of the arena.",
    "request: int",
    "size: int — bytes",
)  # fmt: skip
EXTENT_GRANT = message(
    "EXTENT_GRANT", "node", "process",
    "The range; size 0 means that the arena is full.",
    "request: int",
    "offset: int",
    "size: int — bytes",
    "warm: bool — its pages have been written before",
    "reason: str — who holds what, when it was refused",
)  # fmt: skip
EXTENT_BACK = message(
    "EXTENT_BACK", "process", "node", "The extent holds nothing any more.", "offset: int"
)
TRIM = message(
    "TRIM", "node", "process",
    "Memory is short: give back the extents kept in reserve.",
    "round: int",
)  # fmt: skip
TRIMMED = message(
    "TRIMMED", "process", "node",
    "What was in reserve has gone back; it may be nothing.",
    "round: int — of the TRIM",
)  # fmt: skip
SEAL = message(
    "SEAL", "process", "node",
    "An object is complete in the arena.",
    "id: bytes — RefId",
    "owner: bytes — ProcId",
    "home: bytes — the node on which the owner lives; empty: this one",
    "offset: int",
    "size: int — bytes",
    "inside: list — [owner, owner address, RefIds] of the references in it",
)  # fmt: skip
FREE = message(
    "FREE", "owner", "node",
    "The objects are no longer referred to.",
    "objects: list — [id, holder, node] of each; the node tells the others",
)  # fmt: skip
FREED = message(
    "FREED", "node", "holder",
    "Objects in the receiver's extents were freed by their owners; the memory is its own again.",
    "offsets: list",
)  # fmt: skip
BEQUEST = message(
    "BEQUEST", "process", "node",
    "The sender ends in good order: what others hold of it is the node's from now on.",
    "rows: list — [id, state, data, inside], as in SEAL; the holders say with HELD who they are",
)  # fmt: skip
HELD = message(
    "HELD", "process", "node",
    "Answer to PROC_DOWN with orphans, and to NODE_LOST: what this process still holds.",
    "dead: bytes — the process, or the node",
    "refs: list — [id, ticket, whether the sender could have it made again, whether it works for "
    "another program than the dead one's]",
    "contexts: list — of tasks that the dead ran, and that the sender has run again",
    "lent: list — [id, owner, address, ticket]: the dead one held it, and now the heir does",
    "given: list — the same: the dead one handed it to the sender, for whom it is to be registered",
)  # fmt: skip
KILL = message(
    "KILL", "process, node", "node",
    "End that worker now; or, when it is only suspected because a connection to it broke, unless "
    "its own exit explains that within a moment.",
    "proc: bytes",
    "node: bytes — its node, which is told; empty: the receiver",
    "reason: str",
    "suspected: bool",
)  # fmt: skip
PROC_DOWN = message(
    "PROC_DOWN", "node", "process, node",
    "A process died.  The node is the authority: nobody else declares it.",
    "proc: bytes",
    "reason: str — pid, signal or exit code, last output",
    "started: bytes — the last task that it had started",
    "orphans: bool — answer with HELD; false once its estate has been collected",
    "adopter: list — [node, address] of who owns in its stead; []: the sender",
)  # fmt: skip
STATUS = message(
    "STATUS", "process, tool, node", "node, process",
    "Describe yourself.  The node asks every process before it answers.",
    "request: int",
)  # fmt: skip
STATUS_REPLY = message(
    "STATUS_REPLY", "node, process", "process, tool, node",
    "The sender's tables, for people and for `freehold status`.",
    "request: int",
    "status: map",
)  # fmt: skip
LOG = message(
    "LOG", "spawner, node", "node, driver",
    "Lines that a worker printed.",
    "pid: int",
    "name: str — what the worker is doing: the function's or the actor's name",
    "stream: str — out or err",
    "lines: list",
)  # fmt: skip
LABEL = message(
    "LABEL", "worker", "node", "What the worker runs now, for status and logs.", "name: str"
)
EXIT = message(
    "EXIT", "node", "worker",
    "End in good order.  A worker that is merely idle declines while others may hold what it owns.",
    "idle: bool — it is ended only because it is idle",
)  # fmt: skip
STAY = message("STAY", "worker", "node", "Not now: references that this worker owns are in use.")

# -- the node daemon and its process spawner: a near peer, the same mechanism
SPAWN = message("SPAWN", "node", "spawner", "Start a worker.", "slot: int — 1, 2, ...")
SPAWNED = message("SPAWNED", "spawner", "node", "It runs.", "slot: int", "pid: int")
SPAWN_FAILED = message(
    "SPAWN_FAILED", "spawner", "node", "It could not be started.", "slot: int", "reason: str"
)
EXITED = message(
    "EXITED", "spawner", "node",
    "It has exited.",
    "slot: int",
    "code: int — exit code, or minus the signal",
    "tail: str — the last lines it printed",
    "started: bytes — the last task it had started, else empty",
)  # fmt: skip
RESERVE = message(
    "RESERVE", "node", "arena",
    "Allocate the arena's pages up to that offset, so that writing there cannot fail.",
    "end: int",
)  # fmt: skip
RESERVED = message(
    "RESERVED", "arena", "node",
    "Done, or why not.",
    "end: int — as asked",
    "reason: str — '' if it is done",
)  # fmt: skip
SIGNAL = message("SIGNAL", "node", "spawner", "Send it a signal.", "slot: int", "signal: int")
DRAIN = message(
    "DRAIN", "driver, node", "node, spawner",
    "Forward what workers have printed until now, then answer.",
    "request: int",
)  # fmt: skip
DRAINED = message(
    "DRAINED", "spawner, node", "node, driver",
    "Every LOG until then has been sent.",
    "request: int",
)  # fmt: skip
