"""What a node owns in the stead of the dead, by example: who holds it, and who leaves what."""

from __future__ import annotations

from fleets import Fleet
from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import INLINE, SHARED
from freehold.core.process.rows import Spec
from freehold.sim.bench import function


def on(bench: Fleet, node: str, name: str) -> Spec:
    """A function that runs on that node."""
    spec = function(name)
    spec.where = ("node", bench.desks[node].machine.id, False)
    return spec


def adopting() -> Fleet:
    """Driver ``d`` on n1 holds ``x``, which w1 on n2 owns and has put in its task ``a``."""
    bench = Fleet("n1", cpus=0.0)
    bench.join("n2")
    bench.join("n3")
    bench.driver("d", "n1")
    bench.deliver()
    bench.submit("d", ["a"], on(bench, "n2", "maker"))
    bench.start_workers()
    assert bench.run("w1") == "runs a"
    bench.put("w1", "x", "big")
    bench.finish("w1", "1", inside=["x"])
    bench.deliver()
    bench.get("d", "a")
    bench.open("d", "a")
    return bench


def left_again(bench: Fleet, state: int, data: object) -> Peer:
    """A process of n2 has made ``x`` again, leaves it, and is to end."""
    node = bench.node_at("n2")
    again, (id,) = node.peer(b"again..."), node.estates.adopted
    if state == SHARED:
        node.handlers[m.SEAL](again, bench.now, id, again.id, b"", *data[1:3], [])
    node.handlers[m.BEQUEST](again, bench.now, [[id, state, data, []]])
    node.estates.check()
    return again


def test_what_is_left_of_an_id_that_is_adopted_already_is_kept_beside_it() -> None:
    """Those who hold the one go on holding it, and both are freed."""
    bench = adopting()
    bench.kill("w1")
    bench.deliver()
    bench.drop("d", "a")
    bench.deliver()
    node = bench.node_at("n2")
    again = left_again(bench, SHARED, [b"again...", 8192, 100, node.id])
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "shared [w1 0 1000 n2]"
    bench.drop("d", "x")
    bench.deliver()
    assert node.estates.adopted, "others may hold what the second has made"
    node.neighbours.died(again.id, "it ended", b"", bench.now)
    bench.settle()
    bench.deliver()
    assert not node.estates.adopted
    assert not node.store.objects
    bench.check()


def test_what_was_lost_may_be_left_again() -> None:
    bench = adopting()
    bench.kill("w1")
    bench.deliver()
    (entry,) = bench.node_at("n2").estates.adopted.values()
    entry.place = []
    left_again(bench, INLINE, b"1")
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "inline 1"
