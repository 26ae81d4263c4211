"""Actors of dead drivers: they live while other programs hold them, and not longer."""

from __future__ import annotations

from fleets import Fleet
from freehold.core.messages import FAILED
from freehold.core.process.rows import CONSTRUCTOR, Spec
from freehold.sim.bench import function, method


def program(fleet: Fleet, name: str, home: str) -> None:
    """A driver with a job of its own."""
    desk = fleet.driver(name, home)
    desk.process.client.leases.requests.job = [desk.machine.id, fleet.address(name), []]


def made(restarts: int = 0) -> Fleet:
    """Actor ``k`` of program ``maker`` lives on n2."""
    fleet = Fleet("n1", cpus=0.0)
    fleet.join("n2", 2.0)
    fleet.join("n3", 0.0)
    fleet.deliver()
    program(fleet, "maker", "n1")
    program(fleet, "user", "n3")
    options = {"max_restarts": restarts}
    fleet.submit("maker", ["k"], Spec(b"K", "K", b"code", kind=CONSTRUCTOR, options=options))
    fleet.start_workers()
    assert fleet.do(home(fleet), "none") == "runs k"
    return fleet


def home(fleet: Fleet) -> str:
    """The process that is the actor."""
    workers = [name for name, slot in fleet.slot_of.items() if slot and fleet.desks[name].alive]
    queued = [name for name in workers if fleet.desks[name].process.executor.is_actor]
    return queued[0]


def hand_over(fleet: Fleet, user: str = "user", restarts: int = 0) -> None:
    """Another program finds the actor by its name."""
    row, desk = fleet.row("maker", "k"), fleet.desks[user]
    maker = fleet.desks["maker"].machine.id
    desk.refs["k"] = desk.process.owner.meet(row.id, maker, fleet.address("maker"))
    desk.process.client.actors.line(desk.refs["k"], restarts)
    fleet.settle()
    fleet.deliver()


def call(fleet: Fleet, name: str, where: str = "user") -> str:
    """What a call comes to."""
    actor = home(fleet)
    fleet.submit(where, [name], method("m"), actor="k")
    fleet.deliver()
    assert fleet.do(actor, f"value of {name}") == f"runs {name}"
    return fleet.get(where, name)


def test_an_actor_that_another_program_holds_outlives_its_maker() -> None:
    fleet = made()
    hand_over(fleet)
    assert call(fleet, "a") == "inline value of a"
    actor = home(fleet)
    fleet.kill("maker")
    fleet.deliver()
    assert call(fleet, "b") == "inline value of b"
    fleet.check()
    for name in ("a", "b"):
        fleet.drop("user", name)
    fleet.drop("user", "k")
    fleet.deliver()
    assert not fleet.desks[actor].alive
    assert not fleet.node_at("n2").workers.leases
    assert not fleet.node_at("n1").estates.adopted


def test_one_that_nobody_else_holds_ends_with_it() -> None:
    fleet = made()
    actor = home(fleet)
    fleet.kill("maker")
    fleet.deliver()
    assert not fleet.desks[actor].alive
    assert not fleet.node_at("n2").workers.leases


def test_the_maker_s_own_processes_do_not_keep_it() -> None:
    """Two actors of one program that hold each other would else live for ever."""
    fleet = made()
    fleet.submit("maker", ["t"], function("keeps", cpus=1.0), nested=["k"])
    fleet.start_workers()
    workers = [name for name, slot in fleet.slot_of.items() if slot]
    (keeper,) = [name for name in workers if fleet.run(name) == "runs t"]
    fleet.desks[keeper].process.client.leases.requests.job = [fleet.id("maker"), "", []]
    fleet.finish(keeper, "done", keep=["k"])
    fleet.deliver()
    actor = home(fleet)
    fleet.kill("maker")
    fleet.deliver()
    assert not fleet.desks[actor].alive


def test_it_outlives_its_maker_s_node_and_the_adopter() -> None:
    fleet = made()
    fleet.join("n4", 0.0)
    hand_over(fleet)
    assert call(fleet, "a") == "inline value of a"
    fleet.lose("n1")
    assert call(fleet, "b") == "inline value of b"
    adopters = [name for name in fleet.nodes() if fleet.node_at(name).estates.adopted]
    assert len(adopters) == 1
    if adopters == ["n4"]:
        fleet.lose("n4")
        assert call(fleet, "c") == "inline value of c"
    fleet.check()


def test_a_later_holder_finds_it_at_the_adopter() -> None:
    fleet = made()
    program(fleet, "later", "n1")
    hand_over(fleet)
    fleet.kill("maker")
    fleet.deliver()
    row, desk = fleet.row("user", "k"), fleet.desks["later"]
    maker = fleet.id("maker")
    desk.refs["k"] = desk.process.owner.meet(row.id, maker, f"{fleet.id('n1').hex()}|maker|")
    desk.process.client.actors.line(desk.refs["k"])
    fleet.settle()
    fleet.deliver()
    assert call(fleet, "a", "later") == "inline value of a"
    actor = home(fleet)
    fleet.drop("user", "k")
    fleet.deliver()
    assert fleet.desks[actor].alive
    fleet.drop("later", "a")
    fleet.drop("later", "k")
    fleet.deliver()
    assert not fleet.desks[actor].alive


def test_its_death_is_final_for_nobody_can_make_it_again() -> None:
    fleet = made(restarts=5)
    hand_over(fleet, restarts=5)
    assert call(fleet, "a") == "inline value of a"
    actor = home(fleet)
    fleet.kill("maker")
    fleet.deliver()
    fleet.kill(actor)
    fleet.deliver()
    fleet.submit("user", ["b"], method("m"), actor="k")
    fleet.deliver()
    assert fleet.row("user", "b").state == FAILED
    assert fleet.row("user", "b").data[0] == "ActorDied"
    assert not fleet.node_at("n2").workers.leases
    for name in ("a", "b", "k"):
        fleet.drop("user", name)
    fleet.deliver()
    assert not fleet.node_at("n1").estates.adopted
