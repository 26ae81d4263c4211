"""The worker's half of a call: a queue of runs, and what to answer when one is over.

The host takes a run from ``queue``, loads its arguments, calls the function, and hands the
serialized results back with ``finish``.  The rules:

* Runs start in the order in which they came; ``started`` names the last one, and the host keeps it
  where the node can read it after a crash.
* What a run still needs of its arguments when it ends (a reference stored somewhere, a live view
  into the arena) is listed as *kept*; the caller registers it before it lets the arguments go.
* When the running task waits in ``get``, every run behind it is returned to its caller, since it
  might be waiting for one of them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED, INLINE, PENDING, SHARED
from freehold.core.places import is_at_hand
from freehold.core.process.owner import Owner
from freehold.core.process.rows import CONSTRUCTOR, FUNCTION_TASK, Row

_new = object.__new__
Output = tuple[int, Any, list[Row]]  # state, data, the references inside


class Full:
    """What most runs do not have."""

    __slots__ = ("deps", "guards", "kind", "options", "outputs")

    def __init__(self, outputs: int, kind: int, options: dict[str, Any]) -> None:
        self.outputs = outputs
        self.kind = kind
        self.options = options
        self.deps: list[Any] = []  # [position, row or None, state, data]
        self.guards: list[Row] = []  # shared objects that the run reads; each is held


class Run:
    """One task on its way through this worker."""

    __slots__ = ("args", "full", "id", "key", "missing", "peer", "refs")

    def __init__(self, peer: Peer, id: bytes, key: bytes, args: Any, full: Full | None) -> None:
        self.peer = peer
        self.id = id
        self.key = key
        self.args = args
        self.full = full
        self.missing = 0  # shared arguments that are on their way from other nodes
        self.refs: list[Row] | None = None  # references that its arguments brought

    @property
    def kind(self) -> int:
        """A function, a constructor or a method; a plain run's method counts as a function."""
        return FUNCTION_TASK if self.full is None else self.full.kind

    @property
    def outputs(self) -> int:
        """How many results it has."""
        return 1 if self.full is None else self.full.outputs

    @property
    def options(self) -> dict[str, Any]:
        """The options that matter to the worker."""
        return {} if self.full is None else self.full.options


class Copies(Protocol):
    """What this file needs of ``process.fetches``."""

    home: bytes

    def missing(self, run: Run) -> int:
        """How many shared arguments are on their way."""


class Executor:
    """The runs of one worker."""

    def __init__(self, machine: Machine, owner: Owner) -> None:
        self.machine = machine
        self.owner = owner
        self.queue: deque[Run] = deque()
        self.code: dict[bytes, tuple[str, bytes]] = {}
        self.started = b""
        self.gpus: list[int] = []  # that its runs may use
        self.blocked = 0
        self.callers: dict[bytes, Peer] = {}  # whom UNBLOCKED is owed; empty while nothing waits
        self.is_actor = False  # its runs are calls, which are never recalled
        self.fetches: Copies  # set by process.fetches
        machine.on(
            {
                m.FUNCTION: self.on_function,
                m.TASK: self.on_task,
                m.TASK_FULL: self.on_task_full,
                m.RECALL: self.on_recall,
                m.LEASED: self.on_leased,
            }
        )
        machine.bulk[m.TASK] = self.take_tasks

    # -- frames -----------------------------------------------------------------------------------
    def on_leased(self, peer: Peer, now: float, gpus: list[int]) -> None:
        self.gpus = gpus

    def on_function(self, peer: Peer, now: float, digest: bytes, name: str, code: bytes) -> None:
        self.code[digest] = (name, code)

    def on_task(self, peer: Peer, now: float, id: bytes, key: bytes, args: bytes) -> None:
        self.queue.append(Run(peer, id, key, args, None))
        if self.callers:
            self._turn_back(peer)

    def take_tasks(self, peer: Peer, now: float, messages: list[Any]) -> list[Any]:
        """``on_task`` for tasks that came together; what is none of them is returned."""
        if self.callers:
            return messages
        append, task = self.queue.append, m.TASK
        for at, message in enumerate(messages):
            run = _new(Run)  # without a constructor's frame
            try:
                op, run.id, run.key, run.args = message
            except (TypeError, ValueError):
                return messages[at:]
            if op != task:
                return messages[at:]
            run.peer = peer
            run.missing = 0
            run.full = run.refs = None
            append(run)
        return []

    def on_task_full(
        self,
        peer: Peer,
        now: float,
        id: bytes,
        key: bytes,
        args: Any,
        args_id: bytes,
        deps: list[Any],
        outputs: int,
        kind: int,
        options: dict[str, Any],
    ) -> None:
        if peer.down:
            return  # it died, and what it says to be in the arena may be gone
        full = Full(outputs, kind, options)
        run = Run(peer, id, key, args, full)
        home = self.fetches.home
        away = False
        if args_id:
            self._guard(full, args_id, peer.id, peer.address, args)
            away = not is_at_hand(args, home)
        for position, ref, owner, address, state, data in deps:
            row = self._guard(full, ref, owner, address, data) if state == SHARED else None
            full.deps.append([position, row, state, data])
            if row is not None and not is_at_hand(data, home):
                away = True
        if away:
            run.missing = self.fetches.missing(run)
        self.queue.append(run)
        if kind == CONSTRUCTOR:
            self.is_actor = True
        if self.callers:
            self._turn_back(peer)

    def _guard(self, full: Full, id: bytes, owner: bytes, address: str, data: Any) -> Row:
        """Hold the row of a shared object while the run may read it."""
        row = self.owner.hold(id, owner, address)
        row.handles -= 1
        if row.state == PENDING and row.owner is not None:
            self.owner.resolve(row, SHARED, data)
        elif row.data != data and not self._is_copy(row, owner, data):
            # this process knows the id of another run, as another object
            row = Row(id, None, self.machine.peer(owner, address))
            row.state, row.data = SHARED, data
        row.holds += 1
        full.guards.append(row)
        return row

    def _is_copy(self, row: Row, owner: bytes, data: Any) -> bool:
        """Whether the row stands for the same object, which has copies on several nodes."""
        whose = self.machine.id if row.owner is None else row.owner.id
        return row.state == SHARED and whose == owner and row.data[3] != data[3]

    def on_recall(self, peer: Peer, now: float, count: int) -> None:
        back = [run for run in self.queue if run.peer is peer and not self.is_actor]
        self._return(peer, back[len(back) - min(count, len(back)) :], False)

    def _turn_back(self, peer: Peer) -> None:
        """The running task waits in ``get``, perhaps for what has just come: return that too."""
        self._return(peer, [self.queue[-1]], True)
        self.callers[peer.id] = peer

    def _return(self, peer: Peer, runs: list[Run], blocked: bool) -> None:
        for run in runs:
            self.queue.remove(run)
            self._abandon(run)
        self.machine.send(peer, m.RETURNED, [run.id for run in runs], blocked)

    # -- runs -------------------------------------------------------------------------------------
    def next(self) -> Run | None:
        """The run to start now; None while the first one's arguments are on their way."""
        if not self.queue or self.queue[0].missing:
            return None
        run = self.queue.popleft()
        self.started = run.id
        return run

    def fetched(self, row: Row) -> None:
        """A shared argument has come."""
        for run in self.queue:
            if run.missing and run.full is not None:
                run.missing -= run.full.guards.count(row)

    def lost(self, row: Row, place: list[Any]) -> None:
        """It is not where it was: return the runs that read it to their callers.

        An actor's calls behind them go too, so that each caller's order is kept.
        """
        callers: set[bytes] = set()
        for run in list(self.queue):
            reads = run.full is not None and row in run.full.guards
            if reads and run.peer.id not in callers:
                callers.add(run.peer.id)
                self.machine.send(run.peer, m.LOST, row.id, place)
            if reads or (self.is_actor and run.peer.id in callers):
                self._return(run.peer, [run], False)

    def refused(self, row: Row, reason: str) -> None:
        """This node has no room for it: the runs that read it fail."""
        for run in list(self.queue):
            if run.full is not None and row in run.full.guards:
                self.queue.remove(run)
                error = (FAILED, ["ObjectStoreFull", reason], list[Row]())
                self.finish(run, [error] * max(run.outputs, 1))

    def block(self, run: Run | None) -> None:
        """The running task waits in ``get``: lend its CPUs, return what is stuck behind it."""
        self.blocked += 1
        if self.blocked > 1 or self.owner.node is None:
            return
        self.machine.send(self.owner.node, m.BLOCKED, True)
        if run is None or self.is_actor:
            return
        stuck: dict[bytes, tuple[Peer, list[Run]]] = {run.peer.id: (run.peer, [])}
        for other in self.queue:
            stuck.setdefault(other.peer.id, (other.peer, []))[1].append(other)
        for peer, runs in stuck.values():
            self._return(peer, runs, True)
            self.callers[peer.id] = peer

    def unblock(self) -> None:
        """It runs again."""
        self.blocked -= 1
        if self.blocked or self.owner.node is None:
            return
        self.machine.send(self.owner.node, m.BLOCKED, False)
        for peer in self.callers.values():
            self.machine.send(peer, m.UNBLOCKED)
        self.callers.clear()

    def finish_plain(self, run: Run, value: bytes) -> None:
        """The common case: one small result, and nothing of the arguments can have been kept."""
        peer = run.peer
        if peer.down:
            return
        box = peer.outbox
        if not box:
            self.machine.dirty.append(peer)
        box.append((m.DONE, run.id, value))

    def finish(self, run: Run, outputs: list[Output]) -> None:
        """The run is over; answer its caller.  The host has dropped the arguments before."""
        peer = run.peer
        kept = self._let_go(run)
        if len(outputs) == 1 and not kept:
            state, data, inner = outputs[0]
            if state == INLINE and not inner and run.kind != CONSTRUCTOR:
                self.finish_plain(run, data)
                return
        fields = [
            [state, data, [self.owner.hand_over(row, peer) for row in inner]]
            for state, data, inner in outputs
        ]
        kept += self._let_go(run)  # a hand-over may have made a reference needed
        self.machine.send(peer, m.DONE_FULL, run.id, fields, kept)
        for _, _, inner in outputs:
            for row in inner:
                self.owner.settle(row)

    def _let_go(self, run: Run) -> list[Any]:
        """Release the run's arguments; the fields of those that are still needed here."""
        full, refs = run.full, run.refs
        if full is None and not refs:
            return []
        guards: list[Row] = []
        if full is not None:
            guards, full.guards = full.guards, []
        for row in guards:
            row.holds -= 1
        kept = []
        for row in {row.id: row for row in guards + (refs or [])}.values():
            more = row.more
            if row.owner is not None and row.needed and not (more is not None and more.mine):
                kept.append(self.owner.keep(row))
            else:
                self.owner.settle(row)
        return kept

    def _abandon(self, run: Run) -> None:
        """The run will not start: nobody is told what is kept, so nothing may be."""
        if run.full is not None:
            for row in run.full.guards:
                self.owner.unhold(row)

    def on_death(self, peer: Peer) -> None:
        """A caller died: nobody waits for its runs."""
        for run in [run for run in self.queue if run.peer is peer]:
            self.queue.remove(run)
            self._abandon(run)
        self.callers.pop(peer.id, None)
