"""How a detached actor is described to the head, and how a worker becomes it.

A *plan* is what a constructor is run with, in a form that outlives its maker: the class, the
arguments, and who owns the references among them.  A worker that is to become the actor (BECOME)
borrows those references by itself, submits the constructor *to itself*, and so owns the actor's
reference: whoever asks it for the value gets its own address, as for any actor.  There is no other
owner that could die without the actor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from freehold.core import messages as m
from freehold.core.ids import context_of, job_of, pack_index
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED, INLINE, PENDING
from freehold.core.process.client import UNKNOWN, Client, Dep
from freehold.core.process.owner import Owner
from freehold.core.process.rows import CONSTRUCTOR, Row, Spec
from freehold.errors import ProtocolError

Whose = list[Any]  # a reference: id, owner, its address


class Plan(NamedTuple):
    """What a detached actor is made of.

    Attributes:
        name: of the class, for people.
        digest: of the code.
        code: the class, pickled.
        options: those that the worker must know.
        args: serialized; empty if they are an object of their own.
        path: where modules are looked for.
        args_ref: that object, or [].
        deps: [position, small value, *reference] of each top-level reference: one of the two.
        nested: the references inside the arguments.
    """

    name: str
    digest: bytes
    code: bytes
    options: dict[str, Any]
    args: bytes
    path: list[str]
    args_ref: Whose
    deps: list[list[Any]]
    nested: list[Whose]


class Embodying:
    """The part of a process that makes detached actors, or becomes one."""

    def __init__(self, machine: Machine, owner: Owner, client: Client) -> None:
        self.machine = machine
        self.owner = owner
        self.client = client
        self.me: Peer | None = None  # this process as its own caller: what it writes stays here
        self.awaited: Row | None = None  # the actor that it is to become
        machine.on({m.BECOME: self.on_become})

    # -- making one -------------------------------------------------------------------------------
    def plan(
        self, spec: Spec, args: bytes, path: list[str], args_row: Row | None,
        deps: Sequence[Dep], nested: Sequence[Row],
    ) -> Plan:  # fmt: skip
        """Describe the actor that ``client.submit_full`` would make."""
        args_ref = [] if args_row is None else self._whose(args_row)
        return Plan(
            spec.name, spec.digest, spec.code, spec.options, args, path, args_ref,
            [[position, *self._value_or_whose(row)] for position, row in deps],
            [self._whose(row) for row in nested],
        )  # fmt: skip

    def _whose(self, row: Row) -> Whose:
        owner = row.owner
        if owner is None:
            return [row.id, self.machine.id, self.owner.address]
        return [row.id, owner.id, owner.address]

    def _value_or_whose(self, row: Row) -> list[Any]:
        """A small value goes into the plan itself: its owner may have no successor."""
        if row.state == INLINE and (row.more is None or not (row.more.contains or row.more.actor)):
            return [row.data]
        return [b"", *self._whose(row)]

    def trust(self, actor: bytes, rows: Sequence[Row]) -> None:
        """Have this process's node hold these for the actor."""
        node = self.owner.node
        if node is not None and rows:
            refs = [self.owner.hand_over(row, node) for row in rows]
            self.machine.send(node, m.TRUST, actor, refs)

    def seek(self, actor: bytes) -> Row:
        """The row of a detached actor, wherever that lives, with one more handle."""
        row = self.owner.rows.get(actor)
        if row is None:
            row = self.owner.rows[actor] = Row(actor, None, self.owner.node)
        row.handles += 1
        return row

    # -- becoming one -----------------------------------------------------------------------------
    def on_become(self, peer: Peer, now: float, actor: bytes, fields: list[Any]) -> None:
        if len(fields) != len(Plan._fields) or self.me is not None:
            raise ProtocolError(f"{peer!r} has no plan, or this is an actor already")
        plan = Plan(*fields)
        owner = self.owner
        self.me = Peer(self.machine.id, owner.address, "self")
        self.client.actors.myself = self.me
        self.client.leases.requests.job = [job_of(actor), "", plan.path]
        spec = Spec(
            plan.digest, plan.name, plan.code, kind=CONSTRUCTOR, cpus=0.0, options=plan.options
        )
        args_row = owner.meet(*plan.args_ref) if plan.args_ref else None
        nested = [owner.meet(*whose) for whose in plan.nested]
        deps = [
            (position, owner.meet(*whose) if whose else self._given(actor, at, value))
            for at, (position, value, *whose) in enumerate(plan.deps)
        ]
        (row,) = self.client.submit_full(
            spec, actor, plan.args, now, args_row=args_row, deps=deps, nested=nested, gate=True
        )
        borrowed = [*nested, *(dep for _, dep in deps), *([args_row] if args_row else [])]
        self.awaited = row
        self._await(args_row, row, now)
        self.trust(actor, [each for each in borrowed if each.owner is not None])
        for each in borrowed:
            owner.drop(each)  # the task holds them

    def _given(self, actor: bytes, at: int, value: bytes) -> Row:
        """An argument that came with the plan."""
        id = context_of(actor) + pack_index(0xFFFF_FFFF - at)  # which no submission will have
        return self.owner.put_small(id, value)

    def _await(self, args_row: Row | None, row: Row, now: float) -> None:
        """Open the gate when the arguments are known, if they are an object of their own."""
        task = row.task
        assert task is not None
        assert task.links is not None
        if args_row is not None and args_row.state in UNKNOWN:
            args_row.extend().dependents.append(task)
            self.owner.want(args_row)
        else:
            task.links.missing -= 1
            if not task.links.missing:
                self.client.start(task, now)

    def settle(self, now: float) -> None:
        """Handle what this process has written to itself; tell the node when it is the actor."""
        me = self.me
        if me is None:
            return
        while me.outbox:
            frames, me.outbox = me.outbox, []
            for op, *fields in frames:
                self.machine.handlers[op](me, now, *fields)
        row = self.awaited
        if row is not None and row.state != PENDING and self.owner.node is not None:
            self.awaited = None
            error = _death(row.data) if row.state == FAILED else []
            self.machine.send(self.owner.node, m.BORN, row.id, error)


def _death(data: Any) -> list[Any]:
    """What a call to an actor gets whose constructor failed with ``data``."""
    raised = isinstance(data, bytes)  # else it could not even begin
    text = "its constructor raised" if raised else f"its constructor could not run: {data[1]}"
    return ["ActorDied", text, data]
