"""Copies that a node keeps for others: the owner is told what has come of each."""

from __future__ import annotations

from fleets import Fleet
from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.node.estates import adopter_of
from freehold.core.node.node import Node
from freehold.sim.bench import function
from wires import Wires

HERE, THERE, OWNER = b"h" * 8, b"t" * 8, b"o" * 8
ADDRESS = f"{THERE.hex()}|o|o:1"
ID = b"i" * 16
PLACE = [OWNER, 0, 1000, THERE]


def node() -> Node:
    made = Node(HERE, cpus=0.0, arena_bytes=1 << 24, prestart=0, standing=True)
    made.neighbours.node_up(THERE, f"{THERE.hex()}|t|t:1", [])
    return made


def keep(made: Node) -> Peer:
    """The owner's node asks this one; the owner."""
    asker = made.peer(THERE)
    made.handlers[m.KEEP](asker, 0.0, ID, PLACE, OWNER, ADDRESS)
    made.settle(0.0)
    return made.peer(OWNER)


def test_the_owner_is_told_of_a_copy_for_which_the_machine_has_no_pages() -> None:
    """The arena answers while the host sends, when nothing is settled any more."""
    made = node()
    owner = keep(made)
    ((_, end),) = made.store.arena.outbox
    made.handlers[m.RESERVED](made.store.arena, 0.0, end, "no memory is left")
    ((op, id, where, place, reason),) = [one for one in owner.outbox if one[0] == m.KEPT]
    assert (op, id, where, place) == (m.KEPT, ID, HERE, [])
    assert "no memory is left" in reason
    assert not made.departing.waiting


def test_the_owner_is_told_of_a_copy_that_has_come() -> None:
    made = node()
    owner = keep(made)
    ((_, end),) = made.store.arena.outbox
    made.handlers[m.RESERVED](made.store.arena, 0.0, end, "")
    ((_, transfer, *_),) = [one for one in made.pulls.mover.outbox if one[0] == m.MOVE]
    made.handlers[m.MOVED](made.pulls.mover, 0.0, transfer, 1000, "", "")
    ((_, id, where, place, _),) = [one for one in owner.outbox if one[0] == m.KEPT]
    assert (id, where, place[0], place[3]) == (ID, HERE, HERE, HERE)
    told = [one[0] for one in owner.outbox if one[0] in (m.COPIED, m.KEPT)]
    assert told == [m.COPIED, m.KEPT], "what it is to free it has heard of"


def test_a_copy_too_many_is_freed_and_not_heard_of_again() -> None:
    """The cluster has changed while one was made, so another node was asked, too."""
    bench = Fleet("n1", "n2", "n3")
    bench.driver("d", "n1")
    bench.put("d", "x", "big")
    row, keeping = bench.row("d", "x"), bench.desks["d"].process.keeping
    entry = keeping.want(row, 2)
    keeping.retry()
    bench.settle()
    bench.deliver()
    assert keeping.is_met(entry)
    assert len([line for line in bench.lines if "KEPT" in line]) == 2
    assert row.extend().copies == entry.kept
    nodes = [bench.node_at(name) for name in ("n2", "n3")]
    assert sum(len(node.pulls.copies.by_offset) for node in nodes) == 1


def test_what_is_kept_for_the_dead_goes_when_their_adopter_dies_undecided_too() -> None:
    made = node()
    names = [bytes([number]) * 8 for number in range(1, 20)]
    other = next(name for name in names if adopter_of(THERE, [HERE, name]) == name)
    made.neighbours.node_up(other, f"{other.hex()}|n|n:1", [])
    keep(made)
    ((_, end),) = made.store.arena.outbox
    made.handlers[m.RESERVED](made.store.arena, 0.0, end, "")
    ((_, transfer, *_),) = [one for one in made.pulls.mover.outbox if one[0] == m.MOVE]
    made.handlers[m.MOVED](made.pulls.mover, 0.0, transfer, 1000, "", "")
    made.neighbours.node_down(THERE, "it crashed", 0.0)
    assert made.pulls.copies.by_offset  # it is for the other to decide
    made.neighbours.node_down(other, "it crashed", 0.0)
    assert not made.pulls.copies.by_offset


def test_nothing_is_kept_for_the_dead() -> None:
    made = node()
    made.store.gone.add(OWNER)
    made.handlers[m.KEEP](made.peer(THERE), 0.0, ID, PLACE, OWNER, ADDRESS)
    assert not made.departing.waiting
    assert not made.pulls.pulls


def test_a_node_that_drains_ends_idle_workers_and_waits_for_those_that_stay() -> None:
    wires = Wires()
    wires.begin(function("f"))
    wires.end("w1", "1")
    node = wires.node
    node.members.me.retiring = True
    (worker,) = node.workers.workers.values()
    peer = worker.peer
    assert peer is not None
    lease = next(iter(node.workers.leases))
    for process in node.processes():
        if process.kind == "driver":
            del node.locals[process.id]  # it has gone, and left its references to others
            node.handlers[m.LEASE_RETURN](process, 0.0, lease, True)
    node.settle(0.0)
    assert m.DISMISS in [frame[0] for frame in peer.outbox]
    assert not node.departing.departed
    node.handlers[m.STAY](peer, 0.0)
    assert not node.departing.departed
    assert node.workers.prestart == 0
