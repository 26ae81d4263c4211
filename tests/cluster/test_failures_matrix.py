"""Who holds a reference x who dies: the outcome of each case, and how soon it is there.

The value (shared memory, made by a task on machine 1) is owned by an actor on machine 2, and held

* by its *caller*, the owner itself, which reads it for us;
* by a *borrower*: this process;
* *nested* in a value of the owner's, to which this process has a reference;
* in an actor's *field*, on machine 0;
* in a pending *argument*: a task of this process takes it, and waits for another argument.

Then dies the *executor* (the worker that ran the task), the *storing node* (1), the *owner* (its
process), the *owner's node* (2), or the *head*; at once the value is read.  It is there, but

* who held it and is dead cannot tell: ``ActorDied``;
* when the owner's node dies, what lay there is lost, here the outer value, which nobody had read:
  ``OwnerDied``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import freehold as fh
from cluster import cast
from cluster.cast import LARGE, Found
from cluster.ground import Ground, timed

BOUND_S = 3.0  # to the value or the error, on a busy machine; unloaded it is a tenth of that
Read = Callable[[], Found]
VALUE: Found = ("value", (7, LARGE))

ERRORS = {
    ("caller", "owner"): "ActorDied",
    ("caller", "owner's node"): "ActorDied",
    ("nested", "owner's node"): "OwnerDied",
}
HOLDERS = ("caller", "borrower", "nested", "field", "argument")
DEATHS = ("executor", "storing node", "owner", "owner's node", "head")


def prepare(field: Ground, holder: str) -> tuple[Any, Read, list[Any]]:
    """The owner, how the holder reads the value, and what must live as long as that."""
    owner = field.keeper(2)
    (ref,) = fh.get(owner.make.remote(field.node(1), LARGE, 7))
    if holder == "caller":
        return owner, lambda: _told(owner.read.remote()), [owner]
    if holder == "borrower":
        return owner, lambda: cast.outcome(ref), [owner, ref]
    if holder == "nested":
        (outer,) = fh.get(owner.nest.remote())
        fh.get(owner.drop.remote())
        return owner, lambda: _nested(outer), [owner, outer]
    if holder == "field":
        keeper = field.keeper(0)
        fh.get(keeper.keep.remote([ref]))
        return owner, lambda: _told(keeper.read.remote()), [owner, keeper]
    gate = field.path("gate")
    opened = cast.wait_for.options(num_cpus=0, **field.on(0)).remote(gate)
    result = cast.read_late.options(num_cpus=0, **field.on(0)).remote(opened, ref)

    def read() -> Found:
        open(gate, "w").close()
        return cast.outcome(result)

    return owner, read, [owner, opened, result]


def _told(ref: fh.Ref[Found]) -> Found:
    """An outcome that somebody tells, or why nobody does."""
    kind, value = cast.outcome(ref)
    return value if kind == "value" else (kind, value)


def _nested(outer: fh.Ref[Any]) -> Found:
    try:
        inner, _ = fh.get(outer, timeout=20.0)
    except fh.FreeholdError as error:
        return type(error).__name__, str(error)
    return cast.outcome(inner[0])


def let_die(field: Ground, death: str, owner: Any) -> None:
    if death == "executor":
        for pid in field.workers(1):
            field.kill_process(pid)
    elif death == "owner":
        field.kill_process(fh.get(owner.whoami.remote())[1])
    elif death == "head":
        field.cluster.kill_head()
    else:
        field.cluster.kill_node(1 if death == "storing node" else 2)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_who_holds_a_reference_gets_the_value_or_an_error(
    field: Ground, holder: str, death: str
) -> None:
    owner, read, _kept = prepare(field, holder)
    let_die(field, death, owner)
    found, seconds = timed(read)
    print(f"\n{holder:>10} x {death:<14} {seconds:6.3f} s  {found[0]}")
    assert (found == VALUE) if (holder, death) not in ERRORS else found[0] == ERRORS[holder, death]
    assert seconds < BOUND_S
