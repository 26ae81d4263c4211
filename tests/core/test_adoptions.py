"""What a node owns in the stead of the dead, by example: who holds it, and who leaves what."""

from __future__ import annotations

from fleets import Fleet
from freehold.core.claims import GRACE
from freehold.core.rows import Spec
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


def test_a_worker_that_had_let_go_of_what_its_caller_registers_for_it_holds_nothing() -> None:
    """It has told only the owner, which was dead already; then the caller tells the heir."""
    bench = adopting()
    bench.submit("d", ["b"], on(bench, "n3", "keeper"), nested=["x"])
    (keeper,) = bench.start_workers()
    assert bench.run(keeper) == "runs b"
    bench.kill("w1")
    bench.finish(keeper, "kept it", keep=["x"])
    bench.drop(keeper, "x")
    for source in ("spawner@n2", "w1"):
        bench.deliver(source, "n2")
    bench.deliver("n2", "n1")
    bench.deliver("n1", "d")
    assert bench.sent(keeper, "d") == ["DONE_FULL"]
    bench.deliver()
    for name in ("a", "b", "x"):
        bench.drop("d", name)
    bench.deliver()
    node = bench.node_at("n2")
    assert node.estates.adopted
    bench.tick(GRACE)
    bench.deliver()
    assert not node.estates.adopted
    assert not node.store.objects
    bench.check()
