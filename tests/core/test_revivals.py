"""What the dead owned and nobody stores: who is asked to make it again, and who no more."""

from __future__ import annotations

from fleets import fleet
from freehold.core import messages as m
from freehold.core.ids import CONTEXT_BYTES


def test_who_was_to_make_an_orphan_again_and_dies_has_answered() -> None:
    """Else those who wait for it would wait for ever."""
    bench = fleet("n2")
    node, heir = bench.node_at("n2"), bench.node_at("n1")
    adopter = node.peer(heir.id, bench.address("n1"))
    maker = bench.desks["w1"].machine.id
    orphan = b"c" * CONTEXT_BYTES + b"\0" * 4
    node.handlers[m.REVIVE](adopter, bench.now, orphan, maker)
    bench.kill("w1")
    adopter.outbox.clear()
    bench.deliver("w1", "n2")
    bench.deliver("spawner@n2", "n2")
    assert "REBORN" in bench.sent("n2", "n1")
    assert not node.estates.revivals.asked


def test_an_answer_for_another_adopter_is_for_this_node_s_askers_too() -> None:
    """The first adopter has died amid the revival, and this node has adopted after it."""
    bench = fleet("n2")
    node = bench.node_at("n2")
    adopter = node.peer(bench.node_at("n1").id, bench.address("n1"))
    maker = node.peers[bench.desks["w1"].machine.id]
    orphan = b"c" * CONTEXT_BYTES + b"\0" * 4
    revivals = node.estates.revivals
    revivals.revivers[orphan] = maker.id
    node.handlers[m.REVIVE](adopter, bench.now, orphan, maker.id)
    asker = node.peer(b"asker...", "")
    revivals.find(asker, orphan)
    node.handlers[m.REBORN](maker, bench.now, orphan, b"", "")
    assert [frame[0] for frame in asker.outbox] == [m.VALUE]
    assert not revivals.reviving
    assert not revivals.asked


def test_nobody_is_asked_to_make_what_a_dead_process_could_have_made() -> None:
    bench = fleet("n2")
    node = bench.node_at("n1")
    asker = node.peers[bench.desks["d"].machine.id]
    orphan = b"c" * CONTEXT_BYTES + b"\0" * 4
    revivals = node.estates.revivals
    revivals.revivers[orphan[:CONTEXT_BYTES]] = b"someone."
    revivals.homes[b"someone."] = bench.desks["n2"].machine.id
    revivals.find(asker, orphan)
    bench.settle()
    assert "REVIVE" in bench.sent("n1", "n2")
    node.estates.on_death(b"someone.")
    bench.settle()
    assert bench.sent("n1", "d")[-1] == "VALUE"
    assert not revivals.reviving
    assert not revivals.revivers
