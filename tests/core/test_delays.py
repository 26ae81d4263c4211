"""Who waits long for a lease is told on what: at the second look, then ever more rarely."""

from __future__ import annotations

from fleets import Fleet
from freehold.core.machine import NEVER
from freehold.core.node.delays import AFTER_S
from freehold.core.process.rows import Spec
from freehold.sim.bench import function
from wires import Wires

LOOK = AFTER_S * 1.001


def held(cpus: float = 1.0) -> Wires:
    """Driver ``other`` has the only CPU for as long as the test lasts; ``driver`` wants it."""
    wires = Wires(cpus)
    wires.add("other")
    wires.call("other", function("hog"), "h")
    wires.spawn("w1")
    wires.deliver()
    assert wires.run("w1") == "runs h"
    wires.call("driver", function("f"), "a", "b")
    wires.deliver()
    wires.node.deadline()
    return wires


def look(wires: Wires, times: int = 1) -> list[str]:
    """So many looks; what the driver has to show."""
    for _ in range(times):
        wires.tick(LOOK)
        wires.deliver()
        wires.node.deadline()
    questions = wires.desks["driver"].process.questions
    shown, questions.logs = questions.logs, []
    return [line for _, _, _, lines in shown for line in lines]


def test_who_waits_is_told_at_the_second_look() -> None:
    wires = held()
    assert look(wires) == []
    (line,) = look(wires)
    name = wires.node.id.hex()[:8]
    assert line == (
        f"f has waited for 5 s: it needs 1 CPU: node {name} has 0 of 1 CPU free, "
        "the rest is in use by 1 x a worker that has run nothing yet"
    )


def test_what_waits_for_a_worker_process_is_told_so() -> None:
    wires = held()
    wires.node.workers.workers_max = len(wires.node.workers.workers)
    wires.call("driver", function("g", cpus=0.0), "c")
    wires.deliver()
    assert wires.node.scheduler.requests()[-1]["lacks"] == ["a worker process (workers_max)"]
    look(wires)
    assert any("g has waited for 5 s: it needs a worker: node" in line for line in look(wires))


def test_it_is_told_ever_more_rarely() -> None:
    wires = held()
    told = [bool(look(wires)) for _ in range(18)]
    assert [number for number, any_ in enumerate(told) if any_] == [1, 2, 4, 8, 16]


def test_nobody_is_looked_at_when_nobody_waits() -> None:
    wires = held()
    wires.finish("w1", "1")
    wires.deliver()
    wires.tick(1.0)  # the lease is idle and goes back
    wires.deliver()
    assert wires.run("w1") == "runs a"
    assert look(wires, 3) == []
    assert wires.node.delays.look_at == NEVER


def test_what_waits_for_a_node_to_return_says_so() -> None:
    bench = Fleet("n1", cpus=0.0)
    bench.join("n2")
    bench.driver("d", "n1")
    bench.deliver()
    bench.lose("n2")
    bench.submit("d", ["a"], Spec(b"f", "f", b"code", retries=3))
    bench.deliver()
    for _ in range(2):
        bench.node_at("n1").deadline()
        bench.tick(LOOK)
        bench.deliver()
    ((_, _, _, (line,)),) = bench.desks["d"].process.questions.logs
    assert line == "f has waited for 5 s: it needs 1 CPU, and waits for a node that could run it"
