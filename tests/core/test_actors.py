"""Calls to actors: in order, at most once, until the last handle is gone."""

from __future__ import annotations

from freehold.core.messages import FAILED, PENDING
from freehold.sim.bench import actor_class, function, method
from wires import Wires


def actor(cpus: float = 2.0) -> Wires:
    """Actor `k` of the driver lives in w1."""
    wires = Wires(cpus)
    wires.submit("driver", ["k"], actor_class("K"))
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
    wires.finish("w1", "none")
    wires.deliver()
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
    wires.finish("w1", "!no such file")
    wires.deliver()
    assert wires.row("driver", "a").data == [
        "ActorDied", "m: its constructor raised", b"no such file"
    ]  # fmt: skip
    assert not wires.desks["w1"].alive
    assert not wires.node.workers.leases


def test_a_constructor_is_never_run_twice() -> None:
    wires = Wires()
    wires.submit("driver", ["k"], actor_class("K"))
    wires.spawn("w1")
    wires.deliver()
    wires.run("w1")
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
    wires.finish("w1", "1")
    wires.deliver()
    assert wires.get(user, "a") == "inline 1"
    assert wires.desks["w1"].alive
    wires.finish(user, "done")
    wires.deliver()
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
