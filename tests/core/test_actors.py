"""Calls to actors: in order, at most once, until the last handle is gone."""

from __future__ import annotations

from fleets import Fleet
from freehold.core import messages as m
from freehold.core.messages import FAILED, INLINE, PENDING, SHARED
from freehold.core.process.leases import Limits
from freehold.core.process.rows import CONSTRUCTOR, METHOD, Spec
from freehold.sim.bench import actor_class, function, method
from wires import Wires


def actor(cpus: float = 2.0) -> Wires:
    """Actor `k` of the driver lives in w1."""
    wires = Wires(cpus)
    wires.begin(actor_class("K"), "k")
    wires.end("w1", "none")
    return wires


def call(wires: Wires, *names: str, where: str = "driver", deps: tuple[str, ...] = ()) -> None:
    for name in names:
        wires.submit(where, [name], method("m"), deps=deps, actor="k")


def work(wires: Wires, where: str) -> list[str]:
    """Do all that waits there; what it was, in order."""
    wires.deliver()
    done = []
    while (said := wires.run(where)) != "nothing to run":
        done.append(said.removeprefix("runs "))
        wires.finish(where, f"value of {done[-1]}")
        wires.deliver()
    return done


def test_calls_before_the_actor_lives_wait_for_it_in_order() -> None:
    wires = Wires()
    wires.submit("driver", ["k"], actor_class("K"))
    call(wires, "a", "b", "c")
    wires.spawn("w1")
    assert work(wires, "w1") == ["k", "a", "b", "c"]
    assert wires.get("driver", "c") == "inline value of c"


def test_who_hears_of_the_death_before_the_owner_gets_its_word() -> None:
    """Until the owner has heard of it from its node, it is not known whether the actor is over."""
    wires = actor()
    row, node = wires.row("driver", "k"), wires.desks["node"].machine
    driver = wires.desks["driver"].process
    driver.handlers[m.LOST](driver.peers[node.id], 0.0, row.id, [wires.id("w1")])
    driver.handlers[m.PULL](driver.peers[node.id], 0.0, [row.id])
    assert row.state == PENDING
    wires.kill("w1")
    while busy := [ends for ends in wires.busy() if ends != ("driver", "node")]:
        wires.deliver(*busy[0])
    assert row.state == FAILED
    assert "VALUE" in wires.sent("driver", "node")


def test_a_call_with_a_missing_argument_holds_back_those_behind_it() -> None:
    wires = actor()
    wires.submit("driver", ["x"], function("slow"))
    call(wires, "a")
    call(wires, "b", deps=("x",))
    call(wires, "c")
    assert work(wires, "w1") == ["a"]
    while wires.starting():
        wires.worker(f"w{len(wires.desks)}")
    wires.deliver()
    (where,) = [name for name in wires.desks if name > "w1" and wires.run(name) == "runs x"]
    wires.finish(where, "1")
    assert work(wires, "w1") == ["b", "c"]


def test_a_call_whose_argument_failed_fails_and_lets_the_next_through() -> None:
    wires = actor()
    wires.submit("driver", ["x"], function("slow", cpus=99.0))
    call(wires, "b", deps=("x",))
    call(wires, "c")
    assert work(wires, "w1") == ["c"]
    assert wires.row("driver", "b").data[0] == "Unschedulable"


def test_calls_fail_with_the_actor_and_are_not_sent_again() -> None:
    wires = actor()
    call(wires, "a", "b")
    wires.deliver()
    wires.run("w1")
    wires.kill("w1")
    wires.deliver()
    for name in "ab":
        assert wires.row("driver", name).data[0] == "ActorDied"
        assert "signal 9" in wires.row("driver", name).data[1]
    call(wires, "c")
    assert wires.row("driver", "c").data[0] == "ActorDied"
    assert wires.row("driver", "k").data[0] == "ActorDied"  # for those who get the handle later


def test_an_error_in_the_constructor_is_every_calls_error_and_ends_the_worker() -> None:
    wires = Wires()
    wires.submit("driver", ["k"], actor_class("K"))
    call(wires, "a")
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    wires.end("w1", "!no such file")
    assert wires.row("driver", "a").data == [
        "ActorDied", "m: its constructor raised", b"no such file"
    ]  # fmt: skip
    assert not wires.desks["w1"].alive
    assert not wires.node.workers.leases


def test_a_constructor_is_never_run_twice() -> None:
    wires = Wires()
    wires.begin(actor_class("K"), "k")
    wires.kill("w1")
    wires.deliver()
    assert wires.row("driver", "k").state == FAILED
    assert "K.__init__" in wires.row("driver", "k").data[1]


def test_the_last_handle_ends_the_actor_after_its_calls() -> None:
    wires = actor()
    call(wires, "a")
    wires.drop("driver", "k")
    wires.deliver()
    assert wires.desks["w1"].alive
    assert work(wires, "w1") == ["a"]
    assert not wires.desks["w1"].alive
    assert not wires.desks["driver"].process.client.actors.lines


def test_a_handle_that_was_handed_on_keeps_the_actor() -> None:
    wires = actor()
    wires.submit("driver", ["t"], function("user"), nested=["k"])
    wires.deliver()
    while wires.starting():
        wires.worker(f"w{len(wires.desks)}")
    wires.deliver()
    (user,) = [name for name in wires.desks if name > "w1" and wires.run(name) == "runs t"]
    call(wires, "a", where=user)
    wires.drop("driver", "k")
    wires.deliver()
    assert wires.run("w1") == "runs a"
    wires.end("w1", "1")
    assert wires.get(user, "a") == "inline 1"
    assert wires.desks["w1"].alive
    wires.end(user, "done")
    assert not wires.desks["w1"].alive


def test_killing_an_actor_that_is_not_there_yet_takes_back_the_request() -> None:
    wires = Wires()
    wires.submit("driver", ["k"], actor_class("K"))
    call(wires, "a")
    actors = wires.desks["driver"].process.client.actors
    actors.kill(actors.line(wires.row("driver", "k")))
    wires.settle()
    assert wires.sent("driver", "node")[-1] == "LEASE_CANCEL"
    wires.spawn("w1")
    wires.deliver()
    assert wires.run("w1") == "nothing to run"
    assert wires.row("driver", "a").data[0] == "ActorDied"


def test_killing_an_actor_fails_its_calls_at_once_and_keeps_their_arguments_until_it_is_dead() -> (
    None
):
    wires = actor()
    wires.put("driver", "x", "big")
    call(wires, "a", deps=("x",))
    wires.deliver()
    wires.run("w1")
    wires.drop("driver", "x")
    actors = wires.desks["driver"].process.client.actors
    actors.kill(actors.line(wires.row("driver", "k")))
    wires.settle()
    assert wires.row("driver", "a").data[0] == "ActorDied"
    assert len(wires.node.store.objects) == 1  # it may still read its argument
    wires.deliver()
    assert not wires.desks["w1"].alive
    assert not wires.node.store.objects


def test_a_pending_call_waits_while_its_actor_is_pending() -> None:
    wires = Wires()
    wires.submit("driver", ["k"], actor_class("K"))
    call(wires, "a")
    wires.deliver()
    assert wires.row("driver", "a").state == PENDING


# -- restarts --------------------------------------------------------------------------------------
def restarting(restarts: int = 1, cpus: float = 4.0) -> Wires:
    """The same as ``actor``, but it may start again so often, and never rests before that."""
    wires = Wires(cpus, Limits(retry_rest=0.0))
    spec = actor_class("K")
    spec.options["max_restarts"] = restarts
    wires.submit("driver", ["k"], spec)
    wires.spawn("w1")
    assert work(wires, "w1") == ["k"]
    return wires


def home(wires: Wires) -> str:
    """Where the actor lives."""
    (found,) = [name for name in workers(wires) if wires.desks[name].process.executor.is_actor]
    return found


def workers(wires: Wires) -> list[str]:
    return [name for name, slot in wires.slot_of.items() if slot and wires.desks[name].alive]


def again(wires: Wires) -> list[str]:
    """Workers come, as many as are asked for, and do what waits for them; what that was."""
    wires.deliver()
    while wires.starting():
        wires.worker(f"w{len(wires.slot_of)}+")
        wires.deliver()
    return [done for each in workers(wires) for done in work(wires, each)]


def retried(name: str, retries: int) -> Spec:
    return Spec(name.encode(), name, kind=METHOD, retries=retries)


def test_an_actor_is_made_again_as_often_as_was_asked_for() -> None:
    wires = restarting(2)
    for name in ("x", "y"):
        wires.kill(home(wires))
        wires.deliver()
        assert wires.row("driver", "k").state == PENDING
        assert again(wires) == ["k"]
        call(wires, f"call {name}")
        assert again(wires) == [f"call {name}"]
    wires.kill(home(wires))
    wires.deliver()
    assert wires.row("driver", "k").data[0] == "ActorDied"
    call(wires, "late")
    assert wires.row("driver", "late").data[0] == "ActorDied"


def test_calls_that_had_been_sent_fail_as_unavailable_and_later_ones_wait() -> None:
    wires = restarting()
    call(wires, "a", "b")
    wires.deliver()
    wires.run("w1")
    wires.kill("w1")
    call(wires, "before the news")
    wires.deliver()
    call(wires, "after the news")
    for name in ("a", "b", "before the news"):
        kind, text = wires.row("driver", name).data
        assert kind == "ActorUnavailable"
        assert "the call may have run" in text
    assert wires.row("driver", "after the news").state == PENDING
    assert again(wires) == ["k", "after the news"]


def test_an_actor_whose_argument_s_actor_was_unavailable_is_dead_and_not_unavailable_itself() -> (
    None
):
    """Nobody makes it again: its constructor could not run."""
    wires = restarting()
    call(wires, "a")
    wires.deliver()
    wires.run("w1")
    wires.kill("w1")
    wires.submit("driver", ["other"], actor_class("L"), deps=("a",))
    wires.submit("driver", ["b"], method("m"), actor="other")
    wires.deliver()
    unavailable = wires.row("driver", "a").data
    kind, text, cause = wires.row("driver", "b").data
    assert kind == "ActorDied"
    assert "its constructor could not run" in text
    assert cause == unavailable


def test_calls_with_tries_left_go_first_and_in_their_order() -> None:
    wires = restarting(2)
    for name, tries in (("a", 1), ("b", 0), ("c", 2), ("d", 1)):
        wires.submit("driver", [name], retried(name, tries), actor="k")
    wires.deliver()
    wires.run("w1")
    wires.kill("w1")
    wires.deliver()
    call(wires, "e")
    assert wires.row("driver", "b").data[0] == "ActorUnavailable"
    wires.worker("x1")
    wires.deliver()
    assert wires.run("x1") == "runs k"
    wires.end("x1", "none")
    queue = [wires.names[run.id] for run in wires.desks["x1"].process.executor.queue]
    assert queue == ["a", "c", "d", "e"]
    wires.run("x1")
    wires.kill("x1")
    wires.deliver()
    for name in "ade":
        assert wires.row("driver", name).data[0] == "ActorUnavailable"
    assert again(wires) == ["k", "c"]


def test_when_restarts_are_used_up_calls_fail_for_good_whatever_tries_they_have() -> None:
    wires = restarting(0)
    wires.submit("driver", ["a"], retried("a", 5), actor="k")
    wires.deliver()
    wires.kill("w1")
    wires.deliver()
    assert wires.row("driver", "a").data[0] == "ActorDied"


def test_no_answer_of_an_older_incarnation_counts() -> None:
    """The process is given up for dead, but had answered; the answer comes after the news."""
    wires = restarting()
    wires.submit("driver", ["a"], retried("a", 1), actor="k")
    wires.deliver()
    wires.run("w1")
    wires.finish("w1", "from the first")
    late = list(wires.wire("w1", "driver"))
    wires.wire("w1", "driver").clear()
    wires.kill("w1")
    wires.deliver()
    wires.wire("w1", "driver").extend(late)
    wires.deliver("w1", "driver")
    assert wires.row("driver", "a").state == PENDING
    assert again(wires) == ["k", "a"]
    assert wires.get("driver", "a") == "inline value of a"


def test_a_constructor_that_dies_runs_again_while_restarts_are_left() -> None:
    wires = Wires(4.0)
    spec = actor_class("K")
    spec.options["max_restarts"] = 1
    wires.submit("driver", ["k"], spec)
    call(wires, "a")
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    wires.kill("w1")
    assert again(wires) == ["k", "a"]


def test_a_constructor_that_fails_in_the_new_process_ends_the_actor() -> None:
    wires = restarting()
    wires.kill("w1")
    wires.deliver()
    call(wires, "a")
    wires.worker("x1")
    wires.deliver()
    wires.run("x1")
    wires.end("x1", "!no such file")
    kind, _, cause = wires.row("driver", "a").data
    assert (kind, cause) == ("ActorDied", b"no such file")
    assert not wires.node.workers.leases


def test_an_actor_that_was_killed_is_not_made_again() -> None:
    wires = restarting(5)
    call(wires, "a")
    actors = wires.desks["driver"].process.client.actors
    actors.kill(actors.line(wires.row("driver", "k")))
    wires.settle()
    wires.deliver()
    assert wires.row("driver", "a").data[0] == "ActorDied"
    assert wires.row("driver", "k").data[0] == "ActorDied"
    assert again(wires) == []
    assert not wires.node.workers.leases


def test_a_constructor_s_arguments_are_kept_for_the_next_time() -> None:
    wires = Wires(4.0)
    spec = actor_class("K")
    spec.options["max_restarts"] = 1
    wires.put("driver", "x", "big")
    wires.submit("driver", ["k"], spec, deps=["x"])
    wires.drop("driver", "x")
    wires.spawn("w1")
    assert work(wires, "w1") == ["k"]
    assert len(wires.node.store.objects) == 1
    wires.kill("w1")
    assert again(wires) == ["k"]
    wires.drop("driver", "k")
    wires.deliver()
    assert not wires.node.store.objects
    assert not wires.desks["driver"].process.owner.rows


def test_a_constructor_s_arguments_go_when_it_will_not_run_again() -> None:
    for restarts in 0, 1:
        wires = Wires(4.0)
        spec = actor_class("K")
        spec.options["max_restarts"] = restarts
        wires.put("driver", "x", "big")
        wires.submit("driver", ["k"], spec, deps=["x"])
        wires.drop("driver", "x")
        wires.spawn("w1")
        assert work(wires, "w1") == ["k"]
        assert len(wires.node.store.objects) == restarts
        if restarts:
            wires.kill("w1")
            assert again(wires) == ["k"]
            wires.deliver()
        assert not wires.node.store.objects
        call(wires, "a")
        assert wires.desks["driver"].process.client.actors.lines


def test_who_was_handed_the_actor_follows_it_to_its_new_process() -> None:
    wires = restarting()
    wires.submit("driver", ["t"], function("user"), nested=["k"])
    wires.deliver()
    while wires.starting():
        wires.worker(f"w{len(wires.desks)}")
    wires.deliver()
    (user,) = [name for name in wires.desks if name > "w1" and wires.run(name) == "runs t"]
    row = wires.row(user, "k")
    wires.desks[user].process.client.actors.line(row, restarts=1)
    call(wires, "a", where=user)
    assert work(wires, "w1") == ["a"]
    call(wires, "lost", where=user)
    wires.deliver()
    wires.kill("w1")
    wires.deliver()
    call(wires, "b", where=user)
    assert again(wires) == ["k", "b"]
    assert wires.row(user, "lost").data[0] == "ActorUnavailable"
    assert wires.get(user, "b") == "inline value of b"


def test_an_actor_on_another_node_is_made_again_on_a_third() -> None:
    fleet = Fleet("n1", cpus=0.0)
    fleet.join("n2")
    fleet.driver("driver", "n1")
    spec = Spec(b"K", "K", b"code", kind=CONSTRUCTOR, options={"max_restarts": 1})
    fleet.submit("driver", ["k"], spec)
    fleet.submit("driver", ["a"], retried("m", 1), actor="k")
    fleet.start_workers()
    assert fleet.do("w1", "none") == "runs k"
    fleet.run("w1")
    fleet.join("n3")
    fleet.lose("n2")
    fleet.start_workers()
    (worker,) = [name for name in workers(fleet) if fleet.do(name, "none") == "runs k"]
    assert fleet.home(worker) == "n3"
    assert fleet.do(worker, "from the second") == "runs a"
    assert fleet.get("driver", "a") == "inline from the second"
    fleet.check()


def test_what_a_re_run_has_made_instead_of_the_actor_cannot_be_called() -> None:
    """Its maker's second run did other things in another order, and put a value under that name."""
    wires = actor()
    for state, data in ((INLINE, b"\xed no address"), (SHARED, [b"p" * 8, 0, 10, b"n" * 8])):
        owner = wires.desks["w1"].process.owner
        row = owner.hold(bytes([state]) * 16, b"o" * 8, "elsewhere")
        line = wires.desks["w1"].process.client.actors.line(row)
        owner.resolve(row, state, data)
        wires.desks["w1"].process.client.advance(0.0)
        assert line.error is not None
        assert line.error[0] == "ActorDied"
