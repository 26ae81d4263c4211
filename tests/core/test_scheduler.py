"""What a node that died lately could have run waits for it, but not for ever."""

from __future__ import annotations

from freehold.core.member import Member
from freehold.core.messages import FAILED, PENDING
from freehold.core.rows import Spec
from freehold.core.scheduler import RETURN_S
from freehold.sim.bench import function
from wires import Wires


def cluster(*fallen: float) -> Wires:
    """A node of one CPU, and nodes of four that died at those times."""
    wires = Wires(1.0)
    members = wires.node.members
    members.view[members.me.id] = members.me
    for number, at in enumerate(fallen):
        total = {"CPU": 4.0}
        members.fallen.append((at, Member(bytes([number]) * 8, "", total, {}, total)))
    return wires


def big(where: tuple[object, ...] = ()) -> Spec:
    spec = function("f", retries=0)
    return Spec(spec.digest, "f", spec.code, cpus=4.0, where=where)


def test_what_no_node_could_ever_run_is_denied() -> None:
    wires = cluster()
    wires.submit("driver", ["a"], big())
    wires.deliver()
    assert wires.row("driver", "a").data[0] == "Unschedulable"


def test_what_a_dead_node_could_run_is_denied_when_it_has_not_come_back() -> None:
    wires = cluster(0.0, 5.0)
    wires.submit("driver", ["a"], big())
    wires.deliver()
    row = wires.row("driver", "a")
    assert row.state == PENDING
    assert wires.node.deadline() == RETURN_S
    wires.node.on_timer(RETURN_S)
    wires.settle()
    wires.deliver()
    assert row.state == PENDING  # the second one may
    wires.node.on_timer(5.0 + RETURN_S)
    wires.settle()
    wires.deliver()
    assert (row.state, row.data[0]) == (FAILED, "Unschedulable")
    assert not wires.node.scheduler.parked


def test_a_dead_identity_is_not_waited_for() -> None:
    wires = cluster(0.0)
    wires.submit("driver", ["a"], big(("node", bytes(8), False)))
    wires.submit("driver", ["b"], big(("node", bytes(8), True)))
    wires.deliver()
    assert wires.row("driver", "a").data[0] == "Unschedulable"
    assert wires.row("driver", "b").state == PENDING
