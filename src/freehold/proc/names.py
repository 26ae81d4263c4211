"""Names of actors in the cluster's directory: claimed by owners, found by anybody.

What is kept under a name is all that a handle needs.  An actor is claimed before its constructor
starts, so that of two who want the name only one ever runs; and whoever finds a name registers with
the actor's owner by itself, since nobody has handed it the reference.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from freehold.core.ids import is_detached
from freehold.core.messages import FAILED
from freehold.core.process.rows import Row
from freehold.errors import NameTaken, NameUnknown
from freehold.proc.questions import asking
from freehold.proc.runtime import Runtime
from freehold.proc.session import now

TIMEOUT = 30.0  # seconds for the directory's answer; while the head is away, new names wait
MEET_TIMEOUT = 10.0  # seconds for the owner to confirm; if it is dead, that is known sooner
PREFIX = "actors/"
SHARED = PREFIX  # detached actors' names, if they were made without a namespace
PAUSE = 0.01  # seconds between two looks at a name that is neither there nor free
Again = tuple[int, int]  # max_restarts, max_task_retries


class Named(NamedTuple):
    """What is kept under a name; a detached actor has no owner that could be named."""

    id: bytes
    owner: bytes
    address: str
    methods: dict[str, int]
    again: Again


def space_of(here: Runtime, namespace: str | None, detached: bool = False) -> str:
    """The directory's namespace: the given one, or else the job's own, or that of all jobs."""
    if namespace is None:
        namespace = "" if detached else here.client.leases.requests.driver.hex()
    return PREFIX + namespace


def spaces_of(here: Runtime, namespace: str | None) -> list[str]:
    """Where to look for a name: the given namespace, or the job's own and then that of all."""
    found = [space_of(here, namespace)]
    return found if namespace is not None or found == [SHARED] else [*found, SHARED]


def claim(
    here: Runtime, row: Row, space: str, name: str, methods: dict[str, int], again: Again
) -> None:
    """Register the actor that this process has just submitted.

    Raises:
        NameTaken: another has the name.
        FreeholdError: the directory does not answer, or cannot take it.
    """
    me = here.process.id
    value = msgspec.msgpack.encode([row.id, me, here.owner.address, methods, again])
    here.client.actors.names[row.id] = space, name, value
    job = here.client.leases.requests.driver
    more = {"job": job} if job else {}
    try:
        asking(here).ask("name", TIMEOUT, namespace=space, name=name, value=value, proc=me, **more)
    except NameTaken:
        raise NameTaken(f"another actor has the name {name!r} {where_is(space)}") from None


def find(here: Runtime, space: str, name: str) -> tuple[Row, Named]:
    """The actor that has the name, with one more handle, and this process as a borrower.

    Raises:
        NameUnknown: nobody has it, or its actor has just ended.
        FreeholdError: the directory, or the actor's owner, does not answer.
    """
    answer = asking(here).ask("find", TIMEOUT, namespace=space, name=name)
    where = where_is(space)
    if not answer["found"]:
        raise NameUnknown(f"no actor has the name {name!r} {where}")
    named = msgspec.msgpack.decode(answer["value"], type=Named)
    if is_detached(named.id):
        with here.lock:
            return here.process.embodying.seek(named.id), named
    with here.lock:
        row = here.owner.meet(named.id, named.owner, named.address)
        here.flush()

    def over() -> bool:
        lost = bool(here.client.lost) or here.closed
        return lost or row.state == FAILED or not here.owner.is_uncertain(row)

    here.wait_until(over, now() + MEET_TIMEOUT)
    sure = not here.owner.is_uncertain(row)
    if row.state == FAILED or not sure:
        here.check_alive()
        with here.lock:
            here.owner.drop(row)
        why = "has ended" if sure else "cannot be reached: its owner does not answer"
        raise NameUnknown(f"the actor that had the name {name!r} {where} {why}")
    return row, named


def listed(here: Runtime, space: str) -> list[str]:
    """The names in that namespace, in order."""
    found: list[str] = []
    after: list[str] = []
    while True:
        fields: dict[str, Any] = {"after": after} if after else {}
        page = asking(here).ask("names", TIMEOUT, namespace=space, **fields)["names"]
        if not page:
            return found
        found += [name for _, name in page]
        after = page[-1]


def pause(here: Runtime) -> None:
    """Let a moment pass before the next look."""
    here.wait_until(lambda: False, now() + PAUSE)


def where_is(space: str) -> str:
    """The namespace, for people."""
    if space == SHARED:
        return "among the detached actors"
    return f"in the namespace {space.removeprefix(PREFIX)!r}"
