"""The caller's half of a call: submit, send, take results, retry.

``submit -> (dependencies) -> leases.place | actors.call -> push -> ... -> on_done``.  Rows and
their counting are the owner's (``process.owner``); which worker gets a task is the leases'
(``process.leases``); what a death means for the tasks that were out there is
``process.deaths``' affair.  This file joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold.core import messages as m
from freehold.core.address import pack_address
from freehold.core.ids import ref_id
from freehold.core.machine import Machine, Peer
from freehold.core.messages import COLLECTED, FAILED, INLINE, PENDING, SHARED
from freehold.core.process.actors import Actors
from freehold.core.process.deaths import Deaths
from freehold.core.process.leases import Leases, Limits
from freehold.core.process.lineage import Lineage
from freehold.core.process.locality import near
from freehold.core.process.orphans import Orphans
from freehold.core.process.owner import Owner, RefFields
from freehold.core.process.plain import Plain
from freehold.core.process.rows import (
    CONSTRUCTOR,
    METHOD,
    Lease,
    Line,
    Links,
    Place,
    Pool,
    Row,
    Spec,
    Task,
)

RETRY = 4  # a state on the wire only: failed, in a way that the caller asked to have retried
REMOVED = "its placement group was removed"  # how the reason for a denial begins, if so
UNKNOWN = (PENDING, COLLECTED)  # states of a dependency that cannot be sent yet
Dep = tuple[int | str, Row]


class Client:
    """Submission and results; one for each process."""

    def __init__(self, machine: Machine, owner: Owner, limits: Limits) -> None:
        self.machine = machine
        self.owner = owner
        self.leases = Leases(machine, owner, self.push, self.fail, limits)
        self.leases.again = self.is_ready
        self.actors = Actors(machine, owner, self.leases, self.push, self.finish)
        self.actors.is_ready = self.is_ready
        self.lineage = Lineage(owner, limits.lineage_bytes_max, limits.remake)
        self.lineage.moving = self.actors.moving
        self.orphans = Orphans(machine, owner, self.lineage)
        self.deaths = Deaths(self, limits)
        self.actors.start = self.deaths.retry
        self.plain = Plain(machine, owner, self.leases, self.actors, self.orphans)
        self.lost = ""  # why there is no node any more
        machine.on(
            {
                m.DONE_FULL: self.on_done_full,
                m.RETURNED: self.on_returned,
                m.GRANT: self.on_grant,
                m.DENIED: self.on_denied,
                m.OUSTED: self.deaths.on_ousted,
            }
        )

    # -- submission -----------------------------------------------------------------------------
    def submit_full(
        self,
        spec: Spec,
        id: bytes,
        args: bytes,
        now: float,
        *,
        args_row: Row | None = None,
        deps: Sequence[Dep] = (),
        nested: Sequence[Row] = (),
        line: Line | None = None,
        gate: bool = False,
    ) -> tuple[Row, ...]:
        """Submit any task; the rows of its results, each with one handle.

        With ``gate`` it does not start before ``calls.open_gate``.
        """
        task = Task(spec, args)
        rows: tuple[Row, ...]
        if spec.outputs == 1:
            rows = (Row(id, task),)
        else:
            rows = tuple(Row(ref_id(id, output), task) for output in range(max(spec.outputs, 1)))
        task.row, task.others = rows[0], rows[1:]
        for row in rows:
            row.handles = 1 if spec.outputs else 0
            self.owner.rows[row.id] = row
        links = task.links = Links()
        links.args_row, links.deps, links.line = args_row, deps, line
        links.missing = int(gate)
        held = links.held
        held += nested
        if args_row is not None:
            held.append(args_row)
        for _, row in deps:
            held.append(row)
            if row.state in UNKNOWN:
                row.extend().dependents.append(task)
                links.missing += 1
                self.owner.want(row)
        for row in held:
            row.holds += 1
        if line is not None:
            self.actors.call(line, task, now)
        elif not links.missing:
            self.start(task, now)
        return rows

    def restart(self, task: Task, now: float) -> None:
        """Run a task of which it is not known whether its dependencies are (still) there."""
        if self.is_ready(task):
            self.start(task, now)

    def start(self, task: Task, now: float) -> None:
        """Every dependency has come: run the task, unless one of them is an error."""
        if task.links is not None:
            args_row = task.links.args_row
            if args_row is not None and args_row.state == FAILED:
                self.finish(task, FAILED, args_row.data)
                return
            for _, row in task.links.deps:
                if row.state == FAILED:
                    self.finish(task, FAILED, row.data)
                    return
        if task.spec.kind == CONSTRUCTOR:
            self.actors.make(task, now)
        else:
            self.leases.place(
                task, now, near(task, self.owner.node) if self.leases.nodes > 1 else b""
            )

    def is_ready(self, task: Task) -> bool:
        """Whether every argument of a task has a value; if not, it is told when they have."""
        links = task.links
        if links is None:
            return True
        if links.missing:
            return False
        rows = [row for _, row in links.deps]
        if links.args_row is not None:
            rows.append(links.args_row)  # a detached actor has borrowed it
        for row in rows:
            if row.state in UNKNOWN:
                row.extend().dependents.append(task)
                links.missing += 1
                self.owner.want(row)
        return not links.missing

    def advance(self, now: float) -> None:
        """Do what the frames of this batch have made possible."""
        owner, actors = self.owner, self.actors
        while owner.ready or owner.moved or owner.ended:
            ready, owner.ready = owner.ready, []
            for task in ready:
                if task.links is not None and task.links.line is not None:
                    actors.flush(task.links.line, now)
                elif task.place is not None or task in self.deaths.rests:
                    continue
                elif any(row.task is task for row in task.rows):
                    self.restart(task, now)
            moved, owner.moved = owner.moved, []
            for row in moved:
                line = actors.lines.get(row)
                if line is not None:
                    actors.flush(line, now)
            ended, owner.ended = owner.ended, []
            for row in ended:
                actors.end(row)

    def push(self, task: Task, place: Place, now: float) -> None:
        """Write the task to its worker's outbox."""
        peer = place.peer
        assert peer is not None
        spec = task.spec
        id = task.row.id
        place.inflight[id] = task
        task.place = place
        box = peer.outbox
        if not box and not peer.down:
            self.machine.dirty.append(peer)
        if spec.digest not in peer.known and spec.kind != METHOD:
            peer.known.add(spec.digest)
            box.append((m.FUNCTION, spec.digest, spec.name, spec.code))
        links = task.links
        if spec.plain and (links is None or (not links.deps and links.args_row is None)):
            box.append((m.TASK, id, spec.digest, task.args))
        else:
            self._push_full(task, peer)

    def _push_full(self, task: Task, peer: Peer) -> None:
        spec, links, me = task.spec, task.links, self.owner
        args: Any = task.args
        args_id = b""
        deps: list[Any] = []
        if links is not None:
            for position, row in links.deps:
                state, owner = row.state, row.owner
                if state == FAILED:  # an actor's call, whose turn has come
                    self.finish(task, FAILED, row.data)
                    return
                if owner is None:
                    deps.append([position, row.id, self.machine.id, me.address, state, row.data])
                else:
                    deps.append([position, row.id, owner.id, owner.address, state, row.data])
            if links.args_row is not None and links.args_row.state == FAILED:
                self.finish(task, FAILED, links.args_row.data)
                return
            if links.args_row is not None:
                args, args_id = links.args_row.data, links.args_row.id
        if not peer.down:
            peer.outbox.append(
                (m.TASK_FULL, task.row.id, spec.digest, args, args_id, deps, spec.outputs,
                 spec.kind, spec.options)
            )  # fmt: skip

    # -- results --------------------------------------------------------------------------------
    def on_done_full(
        self, peer: Peer, now: float, id: bytes, outputs: list[Any], kept: list[RefFields]
    ) -> None:
        row = self.owner.rows.get(id)
        task = row.task if row is not None else None
        if task is None or task.place is None or task.place.peer is not peer:
            self._refuse(id, outputs)
            return
        place = task.place
        task.place = None
        del place.inflight[id]
        links = task.links
        if links is None:
            links = task.links = Links()
        links.settling += 1  # keep the arguments while hand-overs are recorded
        self.owner.take_kept(kept, peer, task)
        if outputs and outputs[0][0] == RETRY and task.tries != 0:
            task.tries -= 1
            self.deaths.retry(task, task.spec.retries - task.tries, now)
        else:
            if task.spec.kind == CONSTRUCTOR:
                outputs = [self._constructed(task, peer, outputs[0])]
            took = now - place.last if isinstance(place, Lease) else 0.0
            self._deliver(task, outputs, peer, took)
        links.settling -= 1
        if links.settling == 0 and task.row.task is not task:
            self.owner.let_go(task)
        if isinstance(place, Lease):
            self.leases.finished(place, task.spec, now)
        elif isinstance(place, Line):
            self.actors.answered(place)

    def on_returned(self, peer: Peer, now: float, tasks: list[bytes], blocked: bool) -> None:
        place = peer.lease
        if isinstance(place, Lease):
            self.leases.returned(place, tasks, blocked, now)
        elif isinstance(place, Line):
            self.actors.returned(place, peer, tasks, now)

    def _constructed(self, task: Task, peer: Peer, output: list[Any]) -> list[Any]:
        """The actor's reference becomes its address, or the constructor's error."""
        state, data, contains = output
        if state == INLINE:
            data = pack_address(peer.id, peer.address)
        self.actors.constructed(task, state, data)
        return [state, data, contains]

    def _deliver(
        self, task: Task, outputs: list[Any], worker: Peer | None = None, took: float = 0.0
    ) -> None:
        rows = task.rows
        for row in rows:
            row.task = None
        for row, output in zip(rows, outputs, strict=False):
            if row.state != PENDING:  # only what was lost is taken from another run
                self._refuse(row.id, [output])
                if self.owner.rows.get(row.id) is row:
                    self.owner.unhold(row)  # see ``Lineage``
                continue
            state, data, contains = output
            inner = self.owner.receive(contains)
            self.owner.contain(row, inner)
            self.owner.resolve(row, FAILED if state == RETRY else state, data)
            for ref in inner:
                self.owner.settle(ref)
        self.lineage.keep(task, worker, took)
        failed = all(output[0] in (FAILED, RETRY) for output in outputs)
        self.orphans.done(task, None if failed else worker)
        for row in rows:
            if row.state == PENDING:
                self.owner.resolve(row, INLINE, b"")
            self.owner.settle(row)

    def _refuse(self, id: bytes, outputs: list[Any]) -> None:
        """A late answer of an attempt that was given up: release what came with it."""
        for output, (state, data, contains) in enumerate(outputs):
            if state == SHARED:
                self.owner.freed.append((ref_id(id, output), data))
            for row in self.owner.receive(contains):
                self.owner.settle(row)

    def finish(self, task: Task, state: int, data: Any) -> None:
        """End the task without a worker's answer."""
        place, task.place = task.place, None
        if place is not None:
            place.inflight.pop(task.id, None)
            if isinstance(place, Line):
                self.actors.answered(place)
        self._deliver(task, [[state, data, []] for _ in task.rows])
        if task.links is not None and task.links.settling == 0:
            self.owner.let_go(task)

    def fail(self, task: Task, kind: str, text: str) -> None:
        """End the task with an error that this process, or the node, describes."""
        self.finish(task, FAILED, [kind, text])

    # -- leases -----------------------------------------------------------------------------------
    def on_grant(
        self, peer: Peer, now: float, request: int, lease: int, proc: bytes, address: str
    ) -> None:
        wanted = self.leases.requests.answered(request)
        worker = self.machine.peer(proc, address)
        if wanted is None or worker.down:
            self.leases.requests.gpus.pop(request, None)
            self.machine.send(peer, m.LEASE_RETURN, lease, wanted is None)
            if wanted is not None:
                self._ask_again(wanted, request)
        elif isinstance(wanted, Pool):
            self.leases.requests.brief(worker, request)
            made = Lease(lease, worker, wanted, peer, now)
            self.leases.granted(wanted, request, made, now)
        else:
            self.leases.requests.brief(worker, request)
            self.actors.construct(wanted, lease, peer, worker, now)

    def _ask_again(self, wanted: Pool | Task, request: int) -> None:
        if isinstance(wanted, Pool):
            wanted.requests.discard(request)
            self.leases.want(wanted)
        else:
            self.leases.requests.ask(wanted)

    def on_denied(self, peer: Peer, now: float, request: int, reason: str) -> None:
        wanted = self.leases.requests.answered(request)
        kind = "GroupRemoved" if reason.startswith(REMOVED) else "Unschedulable"
        if isinstance(wanted, Task):
            self.fail(wanted, kind, f"{wanted.spec.name}: {reason}")
        elif wanted is not None:
            wanted.requests.discard(request)
            while wanted.queue:
                task = wanted.queue.popleft()
                self.fail(task, kind, f"{task.spec.name}: {reason}")
