"""Reading what lies on another node: asked for once, pinned for all who read it, then let go."""

from __future__ import annotations

import pytest

from fleets import Fleet
from fleets import value_apart as fleet
from freehold.core import messages as m
from freehold.core.arena import EXTENT_MIN
from freehold.core.machine import Peer
from freehold.core.messages import FAILED, INLINE, PENDING, SHARED
from freehold.core.node.serving import EARLY_WAIT
from freehold.core.process.fetches import ARGUMENT, LINGER, Fetches
from freehold.core.process.rows import Row, Spec
from freehold.sim.bench import actor_class, function


def fetches(bench: Fleet, where: str = "d") -> Fetches:
    return bench.desks[where].process.fetches


def pins(bench: Fleet, node: str = "n1") -> int:
    count: int = bench.node_at(node).snapshot()["pulls"]["pins"]
    return count


def vanish(bench: Fleet, name: str) -> None:
    """The object is at its place no longer, as if a copy there had made room."""
    holder, _, _, node = bench.row("d", name).data
    store = bench.node_at(bench.names[node]).store
    store.free(bench.row("d", name).id, holder, bench.desks["d"].machine.id)
    bench.settle()
    bench.deliver()


def test_a_value_is_read_on_the_node_where_it_lies_and_copied_elsewhere() -> None:
    bench = fleet()
    assert bench.fetch("d", "a") is None
    assert bench.fetch("d", "a") is None
    assert bench.sent("d", "n1") == ["FETCH"], "it is asked for once"
    bench.deliver()
    place = bench.fetch("d", "a")
    assert place is not None
    assert bench.names[place[3]] == "n1"
    assert bench.row("d", "a").data[3] != place[3], "what others are told is the first place"
    bench.submit("d", ["b"], function("g"), deps=["a"])
    bench.start_workers()
    (run,) = bench.desks["w1"].process.executor.queue
    assert run.missing == 0
    assert not bench.seen("FETCH")[1:], "who lives where it lies needs no copy"


def test_a_copy_is_pinned_as_long_as_it_is_read() -> None:
    bench = fleet()
    bench.fetch("d", "a")
    bench.deliver()
    assert pins(bench) == 1
    bench.drop("d", "a")
    bench.deliver()
    assert pins(bench) == 0
    assert bench.node_at("n1").store.extents.granted == 0
    assert not fetches(bench).users
    bench.check()


def test_a_reference_of_a_session_that_is_over_may_be_dropped_in_the_next() -> None:
    past, bench = fleet(), fleet()
    past.fetch("d", "a")
    past.deliver()
    row = past.row("d", "a")
    assert past.fetch("d", "a") is not None
    bench.desks["d"].process.owner.rows.clear()  # ids are not used again; those of benches are
    bench.desks["d"].process.owner.drop(row)
    bench.settle()
    assert not bench.sent("d", "n1")


def test_a_copy_that_comes_too_late_is_let_go_at_once() -> None:
    bench = fleet()
    bench.fetch("d", "a")
    bench.drop("d", "a")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert len(bench.seen("FETCHED")) == 1
    assert pins(bench) == 0
    assert bench.node_at("n1").store.extents.granted == 0
    bench.check()


def test_a_task_waits_for_its_arguments_copies() -> None:
    bench = fleet()
    bench.join("n3")
    bench.driver("e", "n1")
    here = ("node", bench.desks["n3"].machine.id, False)
    spec = function("g", retries=3)
    spec.where = here
    bench.submit("d", ["b"], spec, deps=["a"])
    bench.start_workers()
    fetch = next(line for line in bench.lines if "w2 -> n3: FETCH " in line)
    assert fetch.endswith(f"kind={ARGUMENT}")
    assert bench.run("w2") == "runs b"
    assert pins(bench, "n3") == 1
    bench.finish("w2", "1")
    bench.deliver()
    bench.tick(LINGER)
    bench.deliver()
    assert pins(bench, "n3") == 0


def only_a_copy() -> tuple[Fleet, Spec]:
    """Of ``a`` nothing is left but a copy on n3, which nobody reads; a function that runs there."""
    bench = fleet()
    bench.join("n3")
    spec = function("g", retries=3)
    spec.where = ("node", bench.desks["n3"].machine.id, False)
    bench.submit("d", ["b"], spec, deps=["a"])
    bench.start_workers()
    assert bench.do("w2") == "runs b"
    bench.tick(LINGER)
    bench.lose("n2")
    assert bench.node_of("d", "a") == "n3"
    assert pins(bench, "n3") == 0
    return bench, spec


def test_a_copy_that_is_the_only_place_is_pinned_by_who_reads_it_on_that_node() -> None:
    """It may make room like any other copy: else another value would be read there."""
    bench, spec = only_a_copy()
    bench.submit("d", ["c"], spec, deps=["a"])
    bench.deliver()
    assert bench.run("w2") == "runs c"
    assert pins(bench, "n3") == 1
    bench.check()


def test_a_copy_that_was_the_only_place_and_has_made_room_is_not_read() -> None:
    bench, spec = only_a_copy()
    bench.submit("d", ["c"], spec, deps=["a"])
    copies = bench.node_at("n3").pulls.copies
    assert copies.evict(copies.store.extents.size // 2 + 1)
    bench.settle()
    bench.deliver()
    assert bench.run("w2") == "runs a", "it is made again"


def test_a_copy_lingers_for_the_next_call_with_the_same_argument() -> None:
    bench = fleet()
    bench.join("n3")
    bench.put("d", "x", "big")
    spec = function("g", retries=3)
    spec.where = ("node", bench.desks["n3"].machine.id, False)
    for name in "bc":
        bench.submit("d", [name], spec, deps=["a"])
        bench.start_workers()
        assert bench.do("w2") == f"runs {name}"
        assert pins(bench, "n3") == 1
    assert sum("w2 -> n3: FETCH " in line for line in bench.lines) == 1
    bench.submit("d", ["e"], spec, deps=["x"])
    bench.deliver()
    assert pins(bench, "n3") == 1, "it is given back before anything else is asked for"
    assert bench.do("w2") == "runs e"
    bench.tick(LINGER)
    bench.deliver()
    assert pins(bench, "n3") == 0
    bench.check()


def test_a_task_behind_one_that_waits_waits_too() -> None:
    bench = fleet()
    bench.join("n3")
    spec = function("g", retries=3)
    spec.where = ("node", bench.desks["n3"].machine.id, False)
    bench.submit("d", ["b"], spec, deps=["a"])
    bench.deliver()
    bench.worker("w2")
    while not bench.desks["w2"].process.executor.queue:
        bench.step(*bench.busy()[0])
    assert bench.run("w2") == "nothing to run", "the copy is still on its way"
    bench.deliver()
    assert bench.run("w2") == "runs b"


def test_without_room_for_a_copy_it_is_refused_and_may_be_asked_for_again() -> None:
    bench = fleet(arena_bytes=EXTENT_MIN)
    bench.put("d", "x", "big")  # takes the only extent that n1 has room for
    bench.fetch("d", "a")
    while not bench.seen("FETCHED"):
        bench.deliver()
        bench.tick(max(0.0, bench.node_at("n1").deadline() - bench.now))
    row = bench.row("d", "a")
    assert row.more is not None
    assert "no room for 1,000 bytes" in row.more.refused
    assert row.state == SHARED, "others may have room for it"
    assert fetches(bench).is_settled(row)
    assert bench.fetch("d", "a") is None
    assert bench.sent("d", "n1") == []
    fetches(bench).forgive(row)
    bench.fetch("d", "a")
    assert bench.sent("d", "n1") == ["FETCH"]


def test_a_task_for_whose_argument_there_is_no_room_fails() -> None:
    bench = fleet()
    bench.join("n3")
    spec = function("g")
    spec.where = ("node", bench.desks["n3"].machine.id, False)
    bench.submit("d", ["b"], spec, deps=["a"])
    bench.deliver()
    bench.worker("w2")
    while not bench.desks["w2"].process.fetches.pending:
        bench.step(*bench.busy()[0])
    node = Peer(b"n" * 8)
    worker, row = bench.desks["w2"].process, bench.row("d", "a")
    worker.fetches.on_fetched(node, 0.0, row.id, row.data, [], "no room")
    bench.settle()
    bench.deliver("w2", "d")
    assert bench.row("d", "b").data == ["ObjectStoreFull", "no room"]


def test_a_value_that_is_lost_on_the_way_is_made_again_by_its_owner() -> None:
    bench = fleet()
    vanish(bench, "a")
    bench.fetch("d", "a")
    bench.deliver()
    bench.tick(EARLY_WAIT)  # a SEAL might yet have come
    bench.deliver()
    assert bench.row("d", "a").state == PENDING
    assert bench.do("w1", "big") == "runs a"
    assert bench.row("d", "a").state == SHARED
    bench.fetch("d", "a")
    bench.deliver()
    assert bench.fetch("d", "a") is not None


def test_a_call_whose_argument_is_lost_goes_back_to_its_caller_and_comes_again() -> None:
    bench = fleet()
    bench.join("n3")
    spec = function("g", retries=3)
    spec.where = ("node", bench.desks["n3"].machine.id, False)
    vanish(bench, "a")
    bench.submit("d", ["b"], spec, deps=["a"])
    bench.start_workers()
    bench.tick(EARLY_WAIT)
    bench.deliver()
    said = [line.split()[3] for line in bench.lines if line.startswith("w2 -> d")]
    assert said == ["LOST", "RETURNED"]
    assert bench.do("w1", "big") == "runs a"
    assert bench.do("w2") == "runs b"
    assert bench.get("d", "b") == "inline 1"
    bench.check()


def test_a_constructor_whose_argument_is_lost_is_run_in_another_worker() -> None:
    bench = fleet()
    bench.join("n3")
    spec = actor_class("K")
    spec.where = ("node", bench.desks["n3"].machine.id, False)
    vanish(bench, "a")
    bench.submit("d", ["k"], spec, deps=["a"])
    bench.start_workers()
    bench.tick(EARLY_WAIT)
    bench.deliver()
    said = [line.split()[3] for line in bench.lines if line.startswith("w2 -> d")]
    assert said[-1] == "RETURNED"
    bench.start_workers()
    assert not bench.desks["w2"].alive, "it had begun to be an actor"
    assert bench.do("w4", "big") == "runs a"
    assert bench.do("w5", "none") == "runs k"
    assert bench.row("d", "k").state == INLINE
    bench.check()


@pytest.mark.parametrize("reason", ["lost", "no room"])
def test_an_answer_about_another_place_is_not_about_this_one(reason: str) -> None:
    """While it was on its way, the value was lost there, and is somewhere else now."""
    bench = fleet()
    bench.fetch("d", "a")
    row = bench.row("d", "a")
    before = row.data
    row.data = [*before[:1], before[1] + 64, *before[2:]]
    node = bench.desks["d"].process.owner.node
    assert node is not None
    fetches(bench).on_fetched(node, 0.0, row.id, before, [], reason)
    assert row.state == SHARED
    assert row.more is None or not row.more.refused
    bench.settle()
    assert bench.sent("d", "n1") == ["FETCH", "FETCH"]


def test_what_nobody_waits_for_is_settled() -> None:
    bench = fleet()
    row = bench.row("d", "a")
    assert not fetches(bench).is_settled(row)
    row.state, row.data = FAILED, ["ObjectLost", ""]
    assert fetches(bench).is_settled(row)


def test_fetched_for_nobody_is_let_go() -> None:
    bench = fleet()
    row = bench.row("d", "a")
    node = bench.desks["d"].process.owner.node
    assert node is not None
    fetches(bench).on_fetched(node, 0.0, row.id, row.data, [node.id, 0, 1000, node.id], "")
    assert (m.UNPIN, [0]) in node.outbox


def test_a_copy_that_is_asked_for_by_its_other_name_stays_pinned() -> None:
    """By the place that it is a copy of, and by its own, when that is the only one left."""
    bench = fleet()
    process, id, first = bench.desks["d"].process, bench.row("d", "a").id, bench.row("d", "a").data
    bench.fetch("d", "a")
    bench.deliver()
    row = bench.row("d", "a")
    here = fetches(bench).here(row)
    assert here is not None
    other = Row(id, None, row.owner)
    other.state, other.data, other.handles = SHARED, list(here), 1
    assert row.data == first != other.data
    assert fetches(bench).here(other) is None
    process.owner.unpinned.append((row, here))
    fetches(bench).release()
    fetches(bench).give_back()
    bench.settle()
    bench.deliver()
    assert fetches(bench).here(other) == here
    bench.tick(LINGER)
    bench.deliver()
    assert pins(bench) == 1
    process.owner.unpinned.append((other, here))
    fetches(bench).release()
    bench.tick(LINGER)
    bench.deliver()
    assert pins(bench) == 0
    assert not fetches(bench).found


def test_two_callers_send_one_id_with_different_bytes() -> None:
    """Each of two runs of one task has made it: a call reads what its own caller has sent."""
    bench = fleet()
    bench.join("n3")
    bench.driver("e", "n1")
    spec = function("g", retries=3)
    spec.where = ("node", bench.desks["n3"].machine.id, False)
    bench.submit("d", ["b"], spec)
    bench.start_workers()
    assert bench.do("w2") == "runs b"
    worker = bench.desks["w2"].process
    id, first = bench.row("d", "a").id, bench.row("d", "a").data
    _, second = bench._place(bench.desks["e"], id, bench.id("e"), "big")
    for name, place in (("d", first), ("e", second)):
        caller = worker.peer(bench.id(name), bench.address(name))
        deps = [[0, id, caller.id, caller.address, SHARED, place]]
        task = name.encode() * 16
        worker.handlers[m.TASK_FULL](caller, bench.now, task, b"g", b"", b"", deps, 1, 0, {})
    bench.settle()
    bench.deliver()
    copies = bench.node_at("n3").pulls.copies.by_offset
    assert [run.missing for run in worker.executor.queue] == [0, 0]
    rows = [run.full.guards[0] for run in worker.executor.queue]
    assert [copies[row.more.here[1]].key[1:] for row in rows] == [
        (place[0], place[1], place[3]) for place in (first, second)
    ]
    (here,) = [place for place in copies if place != rows[0].more.here[1]]
    for left in ([here], []):
        worker.executor.finish(worker.executor.next(), [(INLINE, b"1", [])])
        bench.settle()
        bench.tick(LINGER)
        bench.deliver()
        assert [place for place, copy in copies.items() if copy.pins] == left
    assert not fetches(bench, "w2").users
