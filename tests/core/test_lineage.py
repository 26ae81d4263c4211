"""Values that are lost with a node, and made again: from what, how often, and when not."""

from __future__ import annotations

import pytest

from fleets import Fleet
from fleets import driver_apart as fleet
from freehold.core.messages import COLLECTED, FAILED, INLINE, PENDING, SHARED
from freehold.core.process.fetches import LINGER
from freehold.core.process.leases import Limits
from freehold.core.process.lineage import ROW_BYTES, Lineage
from freehold.core.process.rows import CONSTRUCTOR, Spec
from freehold.sim.bench import function, method
from wires import Wires


def call(fleet: Fleet, name: str, *deps: str, value: str = "big", retries: int = 3) -> None:
    """Task ``name`` runs wherever there is a worker for it; its value is there."""
    fleet.submit("d", [name], function("f", retries=retries), deps=deps)
    assert rerun(fleet, value) == [name]


def rerun(fleet: Fleet, value: str = "big") -> list[str]:
    """Everything runs that can; what it was, in order."""
    done = []
    fleet.start_workers()
    while busy := workers(fleet):
        done += [fleet.do(name, value).removeprefix("runs ") for name in busy]
        fleet.start_workers()
    return done


def workers(fleet: Fleet) -> list[str]:
    """The workers that have something to do."""
    return [
        name
        for name, slot in fleet.slot_of.items()
        if slot and fleet.desks[name].alive and fleet.desks[name].process.executor.queue
    ]


def lineage(fleet: Wires, where: str = "d") -> Lineage:
    return fleet.desks[where].process.client.lineage


def stored(fleet: Fleet) -> list[str]:
    """The objects that lie anywhere, copies included."""
    found = []
    for name in fleet.nodes():
        node = fleet.node_at(name)
        found += [fleet.names[own.id] for own in node.store.objects.values()]
        found += [fleet.names[copy.id] for copy in node.pulls.copies.by_offset.values()]
    return sorted(found)


def is_empty(fleet: Fleet) -> bool:
    """Whether nothing is left of anything."""
    fleet.check()
    recipes = lineage(fleet)
    return not (fleet.desks["d"].process.owner.rows or recipes.recipes or recipes.bytes)


# -- what is kept ----------------------------------------------------------------------------------
def test_alone_a_node_loses_nothing_without_its_driver_so_no_recipe_is_kept() -> None:
    wires = Wires()
    wires.call("driver", function("f", retries=3), "a")
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    wires.finish("w1", "big")
    wires.deliver()
    assert wires.row("driver", "a").state == SHARED
    assert not lineage(wires, "driver").recipes


def test_recipes_are_kept_of_what_lies_in_shared_memory_as_long_as_it_is_referred_to() -> None:
    bench = fleet()
    call(bench, "a")
    call(bench, "s", value="small")
    assert [bench.names[id] for id in lineage(bench).recipes] == ["a"]
    assert lineage(bench).bytes == ROW_BYTES
    bench.drop("d", "a")
    bench.drop("d", "s")
    bench.deliver()
    assert is_empty(bench)
    assert stored(bench) == []


def test_what_can_be_made_again_is_collected_while_only_recipes_need_it() -> None:
    bench = fleet()
    call(bench, "a")
    row = bench.row("d", "a")
    call(bench, "b", "a")
    assert (row.state, row.holds) == (SHARED, 0)
    bench.drop("d", "a")
    bench.deliver()
    assert row.state == COLLECTED
    assert stored(bench) == ["b"]
    bench.drop("d", "b")
    bench.deliver()
    assert is_empty(bench)


@pytest.mark.parametrize(("made", "value"), [("put", "big"), ("task", "small")])
def test_what_is_small_or_cannot_be_made_again_is_kept_for_the_recipe(
    made: str, value: str
) -> None:
    bench = fleet()
    if made == "put":
        bench.put("d", "a", value)
    else:
        call(bench, "a", value=value)
    row = bench.row("d", "a")
    call(bench, "b", "a")
    bench.drop("d", "a")
    bench.deliver()
    assert row.state == (SHARED if made == "put" else INLINE)
    bench.join("n3")
    bench.lose("n2")
    assert rerun(bench) == ["b"]
    bench.drop("d", "b")
    bench.deliver()
    assert is_empty(bench)
    bench.tick(LINGER)
    bench.deliver()
    assert stored(bench) == []


def test_the_oldest_recipes_are_forgotten_first_and_the_error_says_so() -> None:
    bench = fleet(Limits(lineage_bytes_max=2 * ROW_BYTES))
    for name in "abc":
        call(bench, name)
    assert [bench.names[id] for id in lineage(bench).recipes] == ["b", "c"]
    bench.join("n3")
    bench.lose("n2")
    assert bench.row("d", "a").state == FAILED
    kind, text = bench.row("d", "a").data
    assert kind == "ObjectLost"
    assert "lineage_bytes_max" in text
    assert sorted(rerun(bench)) == ["b", "c"]
    bench.check()


def test_a_forgotten_recipe_lets_its_arguments_go() -> None:
    bench = fleet(Limits(lineage_bytes_max=3 * ROW_BYTES))
    call(bench, "a")
    call(bench, "b", "a")
    bench.drop("d", "a")
    bench.deliver()
    assert stored(bench) == ["b"]
    for name in "xyz":
        call(bench, name)
    assert [bench.names[id] for id in lineage(bench).recipes] == ["x", "y", "z"]
    assert bench.row("d", "b").state == SHARED, "the value itself is still there"
    assert len(bench.desks["d"].process.owner.rows) == 4
    bench.check()


# -- losses ----------------------------------------------------------------------------------------
def test_another_copy_is_read_before_anything_is_made_again() -> None:
    bench = fleet()
    call(bench, "a")
    bench.fetch("d", "a")
    bench.deliver()
    bench.lose("n2")
    assert bench.node_of("d", "a") == "n1"
    assert bench.fetch("d", "a") is not None
    assert lineage(bench).revived == 0
    bench.drop("d", "a")
    bench.deliver()
    assert is_empty(bench)
    assert stored(bench) == []


def test_a_copy_that_made_room_is_not_counted_on() -> None:
    bench = fleet()
    call(bench, "a")
    bench.fetch("d", "a")
    bench.deliver()
    node, row = bench.node_at("n1"), bench.row("d", "a")
    (copy,) = node.pulls.copies.by_offset.values()
    node.pulls.copies.unpin(bench.desks["d"].machine.id, copy.offset)
    assert node.pulls.copies.evict(1 << 26) is True
    bench.settle()
    bench.deliver()
    assert row.more is not None
    assert row.more.copies == []
    bench.join("n3")
    bench.lose("n2")
    assert rerun(bench) == ["a"]
    assert bench.node_of("d", "a") == "n3"
    assert copy.doomed


def test_what_is_lost_and_referred_to_is_made_again_at_once_and_costs_a_try() -> None:
    bench = fleet()
    call(bench, "a", retries=1)
    bench.join("n3")
    bench.lose("n2")
    assert bench.row("d", "a").state == PENDING
    assert rerun(bench) == ["a"]
    assert bench.node_of("d", "a") == "n3"
    assert lineage(bench).revived == 1
    bench.join("n4")
    bench.lose("n3")
    kind, text = bench.row("d", "a").data
    assert kind == "ObjectLost"
    assert "as often as max_retries allows" in text
    bench.drop("d", "a")
    bench.deliver()
    assert is_empty(bench)


def test_the_trace_that_waits_for_ever_in_the_published_model() -> None:
    """Call 1; call 2(1); delete 1; 1 collected; the worker of 2 dies; 2 re-runs and needs 1."""
    bench = fleet()
    call(bench, "one")
    row = bench.row("d", "one")
    call(bench, "two", "one")
    bench.drop("d", "one")
    bench.deliver()
    assert row.state == COLLECTED
    bench.join("n3")
    bench.lose("n2")
    assert (row.state, bench.row("d", "two").state) == (PENDING, PENDING)
    assert rerun(bench) == ["one", "two"]
    assert bench.node_of("d", "two") == "n3"
    bench.deliver()
    assert row.state == COLLECTED, "it is needed no longer"
    assert stored(bench) == ["two"]
    bench.drop("d", "two")
    bench.deliver()
    assert is_empty(bench)
    assert stored(bench) == []


def test_the_same_when_the_first_has_been_collected_while_the_second_still_runs() -> None:
    """The worker of 2 dies before it has answered; then 1 is held, so it is not collected."""
    bench = fleet()
    call(bench, "one")
    bench.submit("d", ["two"], function("f", retries=3), deps=["one"])
    bench.drop("d", "one")
    bench.deliver()
    assert stored(bench) == ["one"]
    bench.join("n3")
    bench.lose("n2")
    assert rerun(bench) == ["one", "two"]
    assert bench.row("d", "two").state == SHARED
    bench.check()


def test_a_chain_of_collected_values_is_made_again_from_its_beginning() -> None:
    bench = fleet()
    names = [f"t{number}" for number in range(20)]
    before: list[str] = []
    for name in names:
        call(bench, name, *before)
        before = [name]
    for name in names[:-1]:
        bench.drop("d", name)
    bench.deliver()
    assert stored(bench) == names[-1:]
    bench.join("n3")
    bench.lose("n2")
    assert rerun(bench) == names
    assert bench.row("d", names[-1]).state == SHARED
    bench.drop("d", names[-1])
    bench.deliver()
    assert is_empty(bench)


def test_what_several_need_is_made_again_once() -> None:
    bench = fleet()
    call(bench, "a")
    call(bench, "b", "a")
    call(bench, "c", "a")
    call(bench, "d1", "b", "c")
    for name in ("a", "b", "c"):
        bench.drop("d", name)
    bench.deliver()
    bench.join("n3")
    bench.lose("n2")
    done = rerun(bench)
    assert sorted(done) == ["a", "b", "c", "d1"]
    assert (done[0], done[-1]) == ("a", "d1")
    bench.drop("d", "d1")
    bench.deliver()
    assert is_empty(bench)


def test_a_collected_value_is_made_again_when_somebody_asks_for_it() -> None:
    """A handle to it may have been on its way when it was collected."""
    bench = fleet()
    call(bench, "a")
    row = bench.row("d", "a")
    call(bench, "b", "a")
    bench.drop("d", "a")
    bench.deliver()
    row.handles += 1
    bench.desks["d"].refs["a"] = row
    assert bench.get("d", "a") == "pending"
    assert rerun(bench) == ["a"]
    assert bench.row("d", "a").state == SHARED
    bench.submit("d", ["c"], function("g"), deps=["a"])
    assert rerun(bench) == ["c"]
    bench.check()


def test_a_new_task_may_take_a_collected_value_as_its_argument() -> None:
    bench = fleet()
    call(bench, "a")
    row = bench.row("d", "a")
    call(bench, "b", "a")
    bench.drop("d", "a")
    bench.deliver()
    row.handles += 1
    bench.desks["d"].refs["a"] = row
    bench.submit("d", ["c"], function("g"), deps=["a"])
    assert rerun(bench) == ["a", "c"]
    for name in "abc":
        bench.drop("d", name)
    bench.deliver()
    assert is_empty(bench)


@pytest.mark.parametrize("dropped", [False, True])
def test_of_several_outputs_only_what_is_lost_is_taken_from_another_run(dropped: bool) -> None:
    bench = fleet()
    spec = function("pair", retries=3, outputs=2)
    bench.submit("d", ["p", "q"], spec)
    (worker,) = bench.start_workers()
    bench.run(worker)
    bench.finish_each(worker, "big p", "big q")
    if dropped:
        bench.drop("d", "p")  # the first, by which the task is known
    else:
        bench.fetch("d", "p")
    bench.deliver()
    bench.join("n3")
    bench.lose("n2")
    assert bench.row("d", "q").state == PENDING
    (worker,) = bench.start_workers()
    assert bench.run(worker) == "runs p"
    bench.finish_each(worker, "big p", "big q")
    assert bench.node_of("d", "q") == "n3"
    assert stored(bench) == (["q"] if dropped else ["p", "q"])
    if not dropped:
        assert bench.node_of("d", "p") == "n1"
        bench.drop("d", "p")
    bench.drop("d", "q")
    bench.deliver()
    assert is_empty(bench)
    assert stored(bench) == []


def test_results_of_an_actor_s_methods_are_not_made_again() -> None:
    bench = fleet()
    bench.submit("d", ["k"], Spec(b"K", "K", b"code", kind=CONSTRUCTOR, cpus=1.0))
    rerun(bench, "none")
    bench.submit("d", ["a"], method("m"), actor="k")
    assert rerun(bench) == ["a"]
    assert not lineage(bench).recipes
    bench.lose("n2")
    kind, text = bench.row("d", "a").data
    assert kind == "ObjectLost"
    assert "made by an actor's method" in text


def test_a_borrower_on_another_node_is_sent_the_new_value() -> None:
    bench = fleet()
    bench.join("n3", 0.0)
    bench.driver("e", "n3")
    call(bench, "a")
    _lend(bench, "a")
    assert bench.get("e", "a") == "pending"
    bench.deliver()
    assert bench.get("e", "a") == "shared [w1 0 1000 n2]"
    bench.join("n4")
    bench.lose("n2")
    assert bench.get("e", "a") == "pending"
    assert rerun(bench) == ["a"]
    assert bench.get("e", "a") == "shared [w2 0 1000 n4]"
    bench.drop("d", "a")
    bench.drop("e", "a")
    bench.deliver()
    assert is_empty(bench)
    assert stored(bench) == []


def _lend(bench: Fleet, name: str) -> None:
    """User code hands the reference on from ``d`` to ``e``."""
    giver, taker = bench.desks["d"], bench.desks["e"]
    at_giver = giver.process.peer(taker.machine.id, bench.address("e"))
    fields = giver.process.owner.hand_over(giver.refs[name], at_giver)
    taker.process.peer(giver.machine.id, bench.address("d"))
    (row,) = taker.process.owner.receive([fields])
    row.handles += 1
    taker.refs[name] = row
    bench.settle()
    bench.deliver()


def test_a_worker_that_dies_while_it_makes_a_value_again_costs_another_try() -> None:
    bench = fleet(Limits(retry_rest=0.0))
    call(bench, "a", retries=2)
    bench.join("n3")
    bench.lose("n2")
    bench.start_workers()
    (worker,) = workers(bench)
    bench.run(worker)
    bench.kill(worker)
    assert rerun(bench) == ["a"]
    assert bench.row("d", "a").state == SHARED
    task = bench.row("d", "a").extend().recipe
    assert task is not None
    assert task.tries == 0
    bench.check()


def test_the_spec_of_a_recipe_counts_towards_its_size() -> None:
    bench = fleet()
    spec = Spec(b"g", "g", b"c" * 6400, retries=3)
    bench.submit("d", ["a"], spec)
    assert rerun(bench) == ["a"]
    assert lineage(bench).bytes == ROW_BYTES + 100


def test_the_recipes_of_a_long_chain_go_with_its_last_value() -> None:
    length = 400  # a few frames for each would be too deep
    wires = Wires(1.0)
    client = wires.desks["driver"].process.client
    client.lineage.active = True
    spec = function("f", retries=3)
    for number in range(length):
        deps = [f"v{number - 1}"] if number else []
        wires.submit("driver", [f"v{number}"], spec, deps=deps)
        if number:
            wires.drop("driver", f"v{number - 1}")
        if not number:
            wires.spawn("w1")
        wires.deliver()
        wires.run("w1")
        wires.finish("w1", "big")
        wires.deliver()
    assert len(client.lineage.recipes) == length
    wires.drop("driver", f"v{length - 1}")
    wires.deliver()
    assert not client.lineage.recipes
    assert not client.owner.rows
    assert client.lineage.bytes == 0
