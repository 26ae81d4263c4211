"""Detached actors, from the public face to the head (``core.head.detached``).

The maker describes the actor to the head, and is told when that is recorded; from then on it is the
head's to make, and the maker holds a handle like anybody else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from freehold.core.ids import detached_id
from freehold.core.process.requests import fields_of
from freehold.core.process.rows import Row, Spec
from freehold.errors import NameTaken
from freehold.proc import calls
from freehold.proc.names import TIMEOUT, Again, where_is
from freehold.proc.questions import asking
from freehold.proc.runtime import Runtime
from freehold.proc.session import drops


def make(
    here: Runtime, spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any], references: type,
    space: str, methods: dict[str, int], again: Again,
) -> Row:  # fmt: skip
    """Have a detached actor made; its row, with one handle.

    Raises:
        NameTaken: another has the name.
        Unschedulable: no node could ever have it.
        FreeholdError: the head does not answer, or cannot take it.
    """
    id, packed, args_row, deps, nested = calls.pack(here, spec.name, args, kwargs, references)
    rows = [*nested, *(row for _, row in deps), *([args_row] if args_row is not None else [])]
    with here.lock:
        for row in rows:
            row.handles += 1  # until the node holds them
        actor = detached_id(id)
        job = here.client.leases.requests.job
        path = job[2] if len(job) > 2 else []
        plan = here.process.embodying.plan(spec, packed, path, args_row, deps, nested)
    value = msgspec.msgpack.encode([actor, b"", "", methods, again])
    try:
        asking(here).ask(
            "detach", TIMEOUT, actor=actor, namespace=space, name=spec.name, value=value,
            cpus=spec.cpus, resources=dict(spec.resources), where=fields_of(spec.where),
            restarts=again[0], plan=list(plan),
        )  # fmt: skip
        with here.lock:
            here.process.embodying.trust(actor, rows)
            made = here.process.embodying.seek(actor)
            here.flush()
    except NameTaken:
        raise NameTaken(f"another actor has the name {spec.name!r} {where_is(space)}") from None
    except BaseException:
        if not here.client.lost and not here.closed:
            asking(here).start("end", lambda error: None, actor=actor)  # it may be made yet
        raise
    finally:
        drops.extend(rows)
    return made


def end(here: Runtime, actor: bytes) -> None:
    """End a detached actor for good: its name is free when this returns.

    Raises:
        FreeholdError: the head does not answer.
    """
    asking(here).ask("end", TIMEOUT, actor=actor)
