"""Which node grants a lease: redirects and hops, strategies, groups; and how requests end."""

from __future__ import annotations

from typing import Any

import pytest

from fleets import Fleet
from freehold.core import messages as m
from freehold.core.node.scheduler import HOPS_MAX, Scheduler
from freehold.core.process.leases import Limits
from freehold.core.process.rows import Spec
from freehold.sim.bench import function


def fleet(*cpus: float, limits: Limits | None = None) -> Fleet:
    """Driver ``d`` on n1; nodes n1, n2, ... with so many CPUs."""
    made = Fleet(limits=limits)
    for number, each in enumerate(cpus, 1):
        made.join(f"n{number}", each)
    made.driver("d", "n1")
    made.deliver()
    return made


def scheduler(bench: Fleet, name: str) -> Scheduler:
    return bench.node_at(name).scheduler


def spec(name: str = "f", where: tuple[Any, ...] = (), **more: float) -> Spec:
    """A function with a strategy, and custom resources."""
    return Spec(name.encode(), name, b"code", retries=3, where=where, resources=tuple(more.items()))


def node(bench: Fleet, name: str) -> bytes:
    return bench.desks[name].machine.id


def ask(bench: Fleet, at: str, where: list[Any], hops: int = 0, cpus: float = 1.0) -> list[Any]:
    """A LEASE arrives there from ``d``; what is answered at once: name, and fields."""
    machine = bench.node_at(at)
    peer = machine.peer(node(bench, "d"), bench.address("d"))
    before = len(peer.outbox)
    machine.handlers[m.LEASE](peer, bench.now, 77, cpus, False, {}, where, hops, [])
    answers = [frame for frame in peer.outbox[before:] if frame[1] == 77]
    return [m.NAMES[answers[0][0]], *answers[0][2:]] if answers else []


# -- redirects -------------------------------------------------------------------------------------
def test_what_fits_at_home_stays_there() -> None:
    bench = fleet(1.0, 4.0)
    bench.submit("d", ["a"], spec())
    bench.start_workers()
    assert bench.home("w1") == "n1"
    assert not bench.seen("REDIRECT")


def test_what_is_full_at_home_is_sent_where_there_is_room() -> None:
    bench = fleet(1.0, 2.0)
    bench.call("d", spec(), "a", "b", "c")
    made = bench.start_workers()
    assert sorted(bench.home(name) for name in made) == ["n1", "n2", "n2"]
    assert len(bench.seen("REDIRECT")) == 2
    assert [line.split(" hops=")[1][:1] for line in bench.seen("LEASE") if "-> n2" in line] == [
        "1", "1",
    ]  # fmt: skip
    assert scheduler(bench, "n1").redirected == 2


def test_a_node_counts_what_it_has_sent_elsewhere_until_that_one_reports() -> None:
    bench = fleet(0.0, 1.0, 1.0)
    bench.call("d", spec(), "a", "b")
    made = bench.start_workers()
    assert sorted(bench.home(name) for name in made) == ["n2", "n3"]


def test_a_request_that_waits_is_sent_on_when_another_node_has_room() -> None:
    bench = fleet(1.0, 1.0)
    bench.driver("e", "n2")
    bench.call("e", spec(), "x")
    bench.call("d", spec(), "a", "b")
    bench.start_workers()
    queues = [bench.node_at(name).workers.queue for name in ("n1", "n2")]
    assert sum(map(len, queues)) == 1
    assert len(bench.seen("REDIRECT")) == 2, "two full nodes do not send it to and fro"
    bench.join("n3", 1.0)
    (worker,) = bench.start_workers()
    assert bench.home(worker) == "n3"
    assert sum(map(len, queues)) == 0
    assert bench.do(worker) == "runs b"


def test_after_so_many_hops_a_request_stays_where_it_is_if_it_can_ever_run_there() -> None:
    bench = fleet(1.0, 4.0)
    bench.call("d", spec(), "a")
    bench.start_workers()
    assert ask(bench, "n1", [], HOPS_MAX - 1)[0] == "REDIRECT"
    assert ask(bench, "n1", [], HOPS_MAX) == []
    assert [grant.request for grant in bench.node_at("n1").workers.queue] == [77]
    assert ask(bench, "n1", [], HOPS_MAX, cpus=3.0)[0] == "REDIRECT", "it can never run there"


def test_a_redirect_to_a_node_that_died_meanwhile_goes_home() -> None:
    bench = fleet(0.0, 1.0, 1.0)
    bench.submit("d", ["a"], spec())
    bench.deliver("d", "n1")
    bench.crash("n2")
    bench.bury("n2")
    for name in ("n1", "n3"):
        bench.deliver("head", name)
    bench.deliver()
    bench.start_workers()
    (worker,) = bench.start_workers() or [name for name, slot in bench.slot_of.items() if slot]
    assert bench.home(worker) == "n3"
    bench.do(worker)
    assert bench.get("d", "a") == "inline 1"


def test_what_had_been_asked_of_a_node_that_dies_is_asked_at_home() -> None:
    bench = fleet(0.0, 1.0)
    bench.submit("d", ["a"], spec())
    bench.deliver()
    assert bench.starting()
    bench.join("n3", 1.0)
    bench.lose("n2")
    (worker,) = bench.start_workers()
    assert bench.home(worker) == "n3"
    requests = bench.desks["d"].process.client.leases.requests
    assert not requests.open
    bench.do(worker)
    assert bench.get("d", "a") == "inline 1"


def test_a_request_that_is_no_longer_needed_is_cancelled_where_it_waits() -> None:
    bench = fleet(0.0, 1.0)
    bench.driver("e", "n2")
    bench.call("e", spec(), "x")
    bench.start_workers()
    bench.submit("d", ["a"], spec())
    bench.deliver()
    assert [grant.holder.id for grant in bench.node_at("n2").workers.queue] == [node(bench, "d")]
    pools = bench.desks["d"].process.client.leases.pools.values()
    for pool in pools:
        pool.queue.clear()
    bench.tick(0.3)
    bench.deliver()
    assert any("-> n2: LEASE_CANCEL" in line for line in bench.lines)
    assert not bench.node_at("n2").workers.queue


# -- the shape of a lease --------------------------------------------------------------------------
def test_tasks_go_to_the_node_of_their_arguments_and_take_the_idle_lease_there() -> None:
    bench = fleet(1.0, 1.0)
    bench.submit("d", ["a"], spec("make", where=("node", node(bench, "n2"), False)))
    bench.start_workers()
    bench.do("w1", "big")
    assert bench.node_of("d", "a") == "n2"
    bench.tick(0.3)  # the lease goes back
    bench.deliver()
    bench.submit("d", ["b"], spec("use"), deps=["a"])
    bench.deliver()
    assert bench.do("w1") == "runs b"
    leases = len(bench.seen("LEASE"))
    bench.submit("d", ["c"], spec("use"), deps=["a"])
    bench.deliver()
    assert bench.do("w1") == "runs c"
    assert len(bench.seen("LEASE")) == leases


def test_a_lease_of_another_strategy_is_reclaimed_even_from_the_same_holder() -> None:
    """Else one that is fed for ever would starve the other."""
    bench = fleet(0.0, 1.0)
    bench.call("d", function("f", retries=3), "a", "b")
    bench.start_workers()
    bench.submit("d", ["c"], spec("near", where=("node", node(bench, "n2"), False)))
    bench.deliver()
    assert len(bench.seen("RECLAIM")) == 1
    bench.now += Limits().slice
    assert bench.do("w1") == "runs a"
    assert bench.do("w1") == "runs c"
    assert bench.do("w1") == "runs b"


# -- strategies ------------------------------------------------------------------------------------
def test_spread_goes_to_the_least_loaded() -> None:
    bench = fleet(2.0, 2.0, 2.0)
    bench.call("d", spec(where=("spread",)), "a", "b", "c")
    made = bench.start_workers()
    assert sorted(bench.home(name) for name in made) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("soft", [False, True])
def test_a_named_node_that_is_gone(soft: bool) -> None:
    bench = fleet(1.0, 1.0)
    gone = node(bench, "n2")
    bench.lose("n2")
    bench.submit("d", ["a"], spec(where=("node", gone, soft)))
    bench.start_workers()
    if soft:
        assert bench.do("w1") == "runs a"
    else:
        kind, text = bench.row("d", "a").data
        assert kind == "Unschedulable"
        assert "is dead, or was never a member" in text


def test_who_waits_for_a_node_that_dies_is_told() -> None:
    bench = fleet(1.0, 1.0)
    where = ("node", node(bench, "n2"), False)
    bench.driver("e", "n2")
    bench.call("e", spec(), "x")
    bench.start_workers()
    bench.submit("d", ["a"], spec(where=where))
    bench.deliver()
    bench.lose("n2")
    bench.tick(61.0)  # it might have come back
    bench.deliver()
    assert bench.row("d", "a").data[0] == "Unschedulable"


def test_labels_choose_among_the_nodes_that_have_them() -> None:
    bench = fleet(1.0)
    bench.join("n2", 1.0, {"disk": "ssd"})
    bench.deliver()
    bench.submit("d", ["a"], spec(where=("labels", (("disk", "ssd"),))))
    bench.start_workers()
    assert bench.home("w1") == "n2"
    bench.submit("d", ["b"], spec("g", where=("labels", (("disk", "hdd"),))))
    bench.deliver()
    kind, text = bench.row("d", "b").data
    assert kind == "Unschedulable"
    assert "no node has the labels disk=hdd" in text


@pytest.mark.parametrize("where", [["nowhere"], ["spread", 1], ["node", "x", True], [5]])
def test_a_foolish_strategy_is_denied(where: list[Any]) -> None:
    bench = fleet(1.0)
    name, reason = ask(bench, "n1", where)
    assert name == "DENIED"
    assert "no scheduling strategy" in reason


def test_what_no_node_can_ever_provide_is_denied_at_once() -> None:
    bench = fleet(1.0, 2.0)
    bench.submit("d", ["a"], spec(GPU=1.0))
    bench.deliver()
    kind, text = bench.row("d", "a").data
    assert kind == "Unschedulable"
    assert "no node can ever provide" in text


# -- groups ----------------------------------------------------------------------------------------
def bundle(bench: Fleet, at: str, step: str, cpus: float = 2.0, index: int = 0) -> bool:
    """The head says so; whether it is done."""
    machine = bench.node_at(at)
    head = machine.peer(b"head....")
    head.outbox.clear()
    machine.handlers[m.BUNDLE](head, bench.now, b"G" * 8, index, step, {"CPU": cpus})
    (answer,) = [frame for frame in head.outbox if frame[0] == m.BUNDLED]
    assert answer[1:4] == (b"G" * 8, index, step)
    done: bool = answer[4]
    machine.check()
    return done


def in_group(bench: Fleet) -> Spec:
    return Spec(b"g", "g", b"c", cpus=0.0, retries=3, resources=((f"CPU/{GROUP}", 1.0),))


GROUP = (b"G" * 8).hex()


def test_a_bundle_is_set_aside_then_given_out_then_given_back() -> None:
    bench = fleet(4.0)
    workers = bench.node_at("n1").workers
    assert bundle(bench, "n1", "prepare")
    assert bundle(bench, "n1", "prepare"), "it may come twice"
    assert (workers.free["CPU"], workers.total["CPU"]) == (2.0, 4.0)
    assert f"CPU/{GROUP}" not in workers.total
    for _ in range(2):
        assert bundle(bench, "n1", "commit")
        assert (workers.free["CPU"], workers.total[f"CPU/{GROUP}"]) == (2.0, 2.0)
    for _ in range(2):
        assert bundle(bench, "n1", "drop")
        assert (workers.free["CPU"], workers.total) == (4.0, {"CPU": 4.0})


def test_what_is_not_free_is_not_set_aside() -> None:
    bench = fleet(4.0)
    assert bundle(bench, "n1", "prepare", 3.0)
    assert not bundle(bench, "n1", "prepare", 2.0, index=1)
    assert bundle(bench, "n1", "drop", 3.0)
    assert bench.node_at("n1").workers.free["CPU"] == 4.0


def test_what_needs_a_group_that_is_not_there_yet_waits_for_it() -> None:
    bench = fleet(4.0)
    bench.submit("d", ["a"], in_group(bench))
    bench.deliver()
    assert len(scheduler(bench, "n1").parked) == 1
    (waits,) = scheduler(bench, "n1").requests()
    assert f"CPU/{GROUP}" in waits["lacks"]
    bundle(bench, "n1", "prepare")
    bundle(bench, "n1", "commit")
    bench.settle()
    bench.gossip()
    bench.deliver()
    assert bench.start_workers() == ["w1"]
    assert bench.do("w1") == "runs a"


def test_the_requests_of_a_dead_process_that_wait_for_a_group_go_with_it() -> None:
    """Else they would be granted to nobody, and never come back."""
    bench = fleet(4.0)
    bench.driver("e", "n1")
    bench.submit("e", ["a"], in_group(bench))
    bench.deliver()
    bench.kill("e")
    bench.deliver()
    assert scheduler(bench, "n1").parked == []
    bundle(bench, "n1", "prepare")
    bundle(bench, "n1", "commit")
    bench.gossip()
    bench.deliver()
    assert not bench.node_at("n1").workers.queue
    assert not bench.node_at("n1").workers.leases


def test_when_a_group_is_removed_what_runs_in_it_ends() -> None:
    bench = fleet(4.0)
    bundle(bench, "n1", "prepare")
    bundle(bench, "n1", "commit")
    bench.submit("d", ["a"], in_group(bench))
    bench.start_workers()
    bench.run("w1")
    bundle(bench, "n1", "drop")
    bench.settle()
    bench.deliver()
    assert not bench.desks["w1"].alive
    workers = bench.node_at("n1").workers
    assert workers.free["CPU"] == 4.0
    assert not workers.leases
