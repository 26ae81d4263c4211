"""Calling actors: one ``Line`` for each actor that this process holds a handle of.

An actor is an object whose value is where its process can be dialled (``pack_address``), so handles
are references: counted, borrowed and handed on like any other, and the actor ends when its
reference is freed.  Calls go straight to the actor's process, in the order of their submission: a
call whose arguments are not there yet holds back those behind it.

When the process dies, its owner runs the constructor again, up to ``max_restarts`` times; the
reference is pending meanwhile, and then says the new address.  Calls are at most once: those that
had been sent fail, with ``ActorUnavailable`` while the actor restarts, else with ``ActorDied``,
unless they have tries left (``max_task_retries``); then they go first, in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import is_address, node_of, unpack_address
from freehold.core.backoff import STEADY
from freehold.core.ids import is_detached
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED, INLINE, PENDING, SHARED
from freehold.core.process.leases import Leases
from freehold.core.process.owner import Owner
from freehold.core.process.rows import Line, Place, Row, Task

Push = Callable[[Task, Place, float], None]
Finish = Callable[[Task, int, Any], None]


def missing(task: Task) -> bool:
    """Whether an argument of the task has no value yet."""
    return task.links is not None and task.links.missing > 0


class Actors:
    """The lines of one process; part of its client."""

    def __init__(
        self, machine: Machine, owner: Owner, leases: Leases, push: Push, finish: Finish
    ) -> None:
        self.machine = machine
        self.owner = owner
        self.leases = leases
        self.push = push
        self.finish = finish
        self.is_ready: Callable[[Task], bool] = bool  # whether a task's arguments are there
        self.start: Callable[[Task, int, float], None]  # a constructor, after so many failures
        self.lines: dict[Row, Line] = {}
        leases.reclaim_actor = self.reclaim
        self.myself: Peer | None = None  # of a process that becomes a detached actor
        self.names: dict[bytes, tuple[str, str, bytes]] = {}  # RefId -> what the directory has
        self._doomed: dict[bytes, list[Task]] = {}  # calls to killed processes that may still run

    def line(self, row: Row, restarts: int = 0) -> Line:
        """The line to the actor whose reference that is, and which may restart so often."""
        line = self.lines.get(row)
        if line is None:
            line = self.lines[row] = Line(row)
            line.restarts = restarts
            row.extend().actor = True
            self.follow(line)
        return line

    def follow(self, line: Line) -> None:
        """Find out where the actor is, or that it is dead."""
        row = line.row
        if line.error is not None or line.peer is not None or line.own is not None:
            return
        own = self.owner.twins.own(row)
        if own is not None and row.state == INLINE:
            self._join(line, self.line(own))
        elif row.state in (INLINE, SHARED) and not is_address(row.data):
            why = "its task has run again, and made something else under that name"
            self.died(line, ["ActorDied", f"actor {row.id.hex()[:12]}: {why}"])
        elif row.state == INLINE:
            proc, address = unpack_address(row.data)
            peer = self.machine.peer(proc, address)
            if (peer.down or proc in self.owner.dead) and line.restarts and row.owner:
                self._ask_owner(line)
            elif peer.down or proc in self.owner.dead:
                self.died(line, ["ActorDied", f"actor {row.id.hex()[:12]}: its process died"])
            else:
                line.peer = peer
                peer.lease = line
        elif row.state == FAILED:
            self.died(line, _as_death(row.data))
        elif row.owner is not None:
            self.owner.want(row)

    def _join(self, line: Line, own: Line) -> None:
        """The actor of a dead maker is made again by this process: it is the one of that line."""
        line.own = own
        tasks = list(line.queue)
        line.queue.clear()
        for task in tasks:
            self.call(own, task, self.machine.now)
        if tasks:
            self.owner.unhold(line.row)

    def call(self, line: Line, task: Task, now: float) -> None:
        """Send the call now, or when its turn comes."""
        line = line.own or line
        if line.error is not None:
            self.finish(task, FAILED, _for_call(task, line.error))
            return
        if not line.outstanding:
            line.row.holds += 1
            self.leases.lone = True
        if line.queue or line.peer is None or missing(task):
            line.queue.append(task)
        else:
            self.push(task, line, now)

    def flush(self, line: Line, now: float) -> None:
        """Send the calls whose turn has come."""
        self.follow(line)
        line = line.own or line
        while line.queue and line.peer is not None and self.is_ready(line.queue[0]):
            self.push(line.queue.popleft(), line, now)

    def returned(self, line: Line, peer: Peer, tasks: list[bytes], now: float) -> None:
        """Calls came back unrun: what their arguments need must be made again first."""
        if line.building is not None and line.building.id in tasks:
            self._unmade(line, line.building, peer, now)
        for id in reversed(tasks):
            task = line.inflight.pop(id, None)
            if task is not None:
                task.place = None
                line.queue.appendleft(task)
        self.flush(line, now)

    def _unmade(self, line: Line, task: Task, peer: Peer, now: float) -> None:
        """The constructor came back: another worker gets it when its arguments are there."""
        line.building = task.place = None
        peer.lease = None
        self._end_lease(line)
        self.start(task, 0, now)

    def answered(self, line: Line) -> None:
        """A call came back; let the actor's reference go after the last one."""
        if not line.inflight and not line.queue:
            self.owner.unhold(line.row)

    def died(self, line: Line, error: list[Any]) -> None:
        """The actor will answer no more: fail what it has been sent, and what waits."""
        if line.error is not None:
            return
        line.error = error
        self.unname(line.row)
        tasks = [*line.inflight.values(), *line.queue]
        line.inflight.clear()
        line.queue.clear()
        for task in tasks:
            task.place = None
            self.finish(task, FAILED, _for_call(task, error))
        if tasks:
            self.owner.unhold(line.row)

    def lost(self, line: Line, text: str, now: float) -> None:
        """The actor's process died: its owner makes it again, if that was asked for."""
        building, line.building = line.building, None
        row, maker = line.row, line.maker
        if line.restarts != 0 and line.error is None and (maker is not None or row.owner):
            self._unsend(line, text)
            if self.owner.rows.get(row.id) is not row:  # what had failed was all that needed it
                line.error = ["ActorDied", text]
            elif maker is not None:
                line.restarts -= 1
                line.failures = line.failures + 1 if now - line.born < STEADY else 1
                line.lease = 0
                maker.place = None
                row.state, row.data, row.task = PENDING, None, maker
                self.start(maker, line.failures, now)
            else:
                self._ask_owner(line)
            return
        if building is not None:
            building.place = None
            self.finish(building, FAILED, ["ActorDied", f"{building.spec.name}.__init__: {text}"])
        self.died(line, ["ActorDied", text])
        if row.owner is None and row.state == INLINE:
            row.state, row.data = FAILED, ["ActorDied", text]  # for those who ask later
        elif row.owner is None and row.state == PENDING:  # others had heard of it before
            self.owner.fail(row, "ActorDied", text)

    def _unsend(self, line: Line, text: str) -> None:
        """Calls that had been sent wait for the next incarnation, or fail: they may have run."""
        sent = list(line.inflight.values())
        line.inflight.clear()
        line.peer = None
        again = []
        for task in sent:
            task.place = None
            if task.tries != 0:
                task.tries -= 1
                again.append(task)
            else:
                why = f"{task.spec.name}: {text}; the actor starts again, the call may have run"
                self.finish(task, FAILED, ["ActorUnavailable", why])
        line.queue.extendleft(reversed(again))
        if sent and not line.queue:
            self.owner.unhold(line.row)

    def _ask_owner(self, line: Line) -> None:
        """Ask the actor's owner where it is now, or whether it is dead."""
        row = line.row
        if row.state != INLINE or row.owner is None or not is_address(row.data):
            return
        proc, _ = unpack_address(row.data)
        self.owner.forget_value(row)
        self.machine.send(row.owner, m.LOST, row.id, [proc])
        self.owner.want(row)

    def moving(self, row: Row, proc: bytes) -> None:
        """Somebody has heard before its owner that the actor's process is dead."""
        if row.state != INLINE or not is_address(row.data):
            return
        if unpack_address(row.data)[0] == proc:
            row.state, row.data = PENDING, None  # until the node says so here too

    def unname(self, row: Row) -> None:
        """The actor is no more, nor is its name; nobody waits for the directory's answer."""
        known = self.names.pop(row.id, None) if row.owner is None else None
        node = self.owner.node
        if known is not None and node is not None:
            namespace, name, value = known
            fields = {"namespace": namespace, "name": name, "value": value}
            self.machine.send(node, m.DIRECTORY, 0, "forget", fields)

    def reclaim(self, node: Peer, lease: int) -> None:
        """The node leaves: if the actor may start again, let it end there."""
        for line in self.lines.values():
            if line.node is node and line.lease == lease and line.restarts and line.maker:
                self._end_lease(line)

    def make(self, task: Task, now: float) -> None:
        """The constructor's arguments are there: have it run, in a worker or in this process."""
        if self.myself is None or not is_detached(task.id):
            self.leases.requests.ask(task)
        else:
            assert self.owner.node is not None
            self.construct(task, 0, self.owner.node, self.myself, now)

    def construct(self, task: Task, lease: int, node: Peer, worker: Peer, now: float) -> None:
        """A worker was granted for the actor: run its constructor there."""
        line = self.line(task.row)
        line.lease, line.node = lease, node
        if line.maker is None:
            line.restarts = int(task.spec.options.get("max_restarts", 0))
            line.maker = task
            task.pin()  # its arguments may be needed again, while ``restarts`` are left
        line.building, line.born = task, now
        worker.lease = line
        self.push(task, Place(worker), now)

    def constructed(self, task: Task, state: int, data: Any) -> tuple[int, Any]:
        """The constructor is over: the state and data of the actor's reference."""
        line = self.lines[task.row]
        line.building = None
        assert task.place is None or task.place.peer is not None
        if state != INLINE:
            self._end_lease(line)
        if line.restarts == 0:
            self._let_maker_go(line)  # it is not run again: what it was given may go
        return state, data

    def _let_maker_go(self, line: Line) -> None:
        maker, line.maker = line.maker, None
        if maker is not None:
            self.owner.unpin(maker)

    def _end_lease(self, line: Line) -> None:
        """End the lease on the actor's worker, and with it the worker."""
        lease, line.lease = line.lease, 0
        if lease and line.node is not None:
            self.machine.send(line.node, m.LEASE_RETURN, lease, False)

    def kill(self, line: Line) -> None:
        """End the actor's process now, or never begin it; what is pending fails."""
        node, why = self.owner.node, "it was killed by freehold.kill()"
        line = line.own or line
        line.restarts = 0
        row, building = line.row, line.building
        if node is None:
            return
        if building is not None and building.place is not None:
            assert building.place.peer is not None
            self.machine.send(
                node,
                m.KILL,
                building.place.peer.id,
                node_of(building.place.peer.address),
                why,
                False,
            )
            self.lost(line, why, self.machine.now)
        elif row.state == PENDING and row.task is not None:
            self.leases.requests.cancel(row.task)
            self.finish(row.task, FAILED, ["ActorDied", why])
        elif line.peer is not None:
            self.machine.send(node, m.KILL, line.peer.id, node_of(line.peer.address), why, False)
            for task in line.inflight.values():  # it may still run until it is really dead
                task.pin()
                self._doomed.setdefault(line.peer.id, []).append(task)
            self.lost(line, why, self.machine.now)

    def on_death(self, peer: Peer, now: float, reason: str) -> None:
        """A process is dead: so are the actors that lived there, killed or not."""
        for task in self._doomed.pop(peer.id, ()):
            self.owner.lost_outputs(task, peer)
            self.owner.unpin(task)
        if isinstance(peer.lease, Line):
            for task in peer.lease.inflight.values():
                self.owner.lost_outputs(task, peer)
            self.lost(peer.lease, f"the actor's process died: {reason}", now)

    def end(self, row: Row) -> None:
        """Nobody here refers to the actor: forget it; if it is ours, its process ends."""
        line = self.lines.pop(row, None)
        if line is None:
            return
        self.unname(row)
        self._let_maker_go(line)
        if row.owner is None and line.lease and line.error is None:
            line.error = ["ActorDied", "its last handle is gone"]
            self._end_lease(line)


def _for_call(task: Task, error: list[Any]) -> list[Any]:
    """The error of a call to a dead actor, which names what was called."""
    return [error[0], f"{task.spec.name}: {error[1]}", *error[2:]]


def _as_death(data: Any) -> list[Any]:
    """What a call to an actor gets whose reference failed with ``data``."""
    if isinstance(data, bytes):  # the constructor's exception, which only user processes can read
        return ["ActorDied", "its constructor raised", data]
    kind, text = str(data[0]), str(data[1])
    if kind == "ActorUnavailable":  # another actor, for an argument: this one will never answer
        return ["ActorDied", f"its constructor could not run: {text}", data]
    if kind == "OwnerDied":
        text = (
            "the process that had made it died, and an actor ends with its owner.  Let a "
            "longer-lived process (the driver) make it."
        )
    return ["ActorDied" if kind in ("WorkerDied", "OwnerDied") else kind, text, *data[2:]]
