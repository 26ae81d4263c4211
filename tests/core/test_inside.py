"""References inside values whose owner dies: whoever adopts the value holds them, too."""

from __future__ import annotations

import pytest

from fleets import Fleet
from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import INLINE
from freehold.core.node.adoptions import Adopted
from freehold.core.node.estates import adopter_of
from freehold.core.process.rows import Spec
from freehold.sim.bench import function


def on(bench: Fleet, node: str, name: str) -> Spec:
    """A function that runs on that node."""
    spec = function(name)
    spec.where = ("node", bench.desks[node].machine.id, False)
    return spec


def fleet(*inside: str) -> Fleet:
    """Driver ``d`` on n1 has got ``box`` from w1 on n2, and has not opened it.

    In it is ``outer``, which w1 owns, and in that are ``own`` (a large value of w1's, made on n3),
    ``tiny`` (a small one) and ``lent`` (d's, which has forgotten it), as far as named.
    """
    bench = Fleet("n1", cpus=0.0)
    bench.join("n2")
    bench.join("n3")
    bench.driver("d", "n1")
    bench.put("d", "lent", "big one of the driver's")
    bench.deliver()
    bench.submit("d", ["box"], on(bench, "n2", "f"), nested=["lent"])
    bench.start_workers()
    assert bench.run("w1") == "runs box"
    bench.submit("w1", ["own"], on(bench, "n3", "g"))
    bench.start_workers()
    assert bench.do("w2", "big") == "runs own"
    bench.put("w1", "tiny", "1")
    bench.put("w1", "outer", "big", inside)
    bench.finish("w1", "box", inside=["outer"], keep=["outer"])
    bench.drop("w1", "outer")
    bench.deliver()
    bench.drop("d", "lent")
    bench.open("d", "box")
    bench.drop("d", "box")
    bench.deliver()
    return bench


def read(bench: Fleet, name: str) -> str:
    bench.get("d", name)
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    return bench.get("d", name)


def open_outer(bench: Fleet) -> None:
    """The driver reads the outer value, which it had not before."""
    assert read(bench, "outer").startswith("shared")
    bench.open("d", "outer")
    bench.deliver()


def assert_freed(bench: Fleet, *names: str) -> None:
    for name in names:
        bench.drop("d", name)
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    for name in bench.nodes():
        node = bench.node_at(name)
        assert not node.estates.adopted, name
        assert not node.estates.loans.by_id, name
        assert not node.store.objects, name
    assert bench.table("d") == ["nothing"]
    bench.check()


def test_what_a_dead_owner_s_value_contains_of_its_own_is_adopted_with_it() -> None:
    bench = fleet("own")
    bench.kill("w1")
    bench.deliver()
    assert len(bench.node_at("n2").estates.adopted) == 2
    open_outer(bench)
    assert read(bench, "own") == "shared [w2 0 1000 n3]"
    bench.drop("d", "outer")
    bench.deliver()
    assert read(bench, "own") == "shared [w2 0 1000 n3]"
    assert_freed(bench, "own")


def test_what_it_contains_of_others_is_held_by_the_adopter() -> None:
    bench = fleet("own", "lent")
    bench.kill("w1")
    bench.deliver()
    assert len(bench.node_at("n2").estates.loans.by_id) == 1
    assert bench.table("d")[0].startswith("lent (own, shared)"), "nobody else would keep it"
    open_outer(bench)
    assert read(bench, "lent") == "shared [d 0 1000 n1]"
    assert_freed(bench, "outer", "own", "lent")


def test_unread_values_take_what_they_contain_with_them() -> None:
    bench = fleet("own", "lent")
    bench.kill("w1")
    bench.deliver()
    assert_freed(bench, "outer")


def test_what_nobody_adopts_holds_nothing() -> None:
    bench = fleet("own", "lent")
    bench.drop("d", "outer")
    bench.deliver()
    assert bench.table("d") == ["nothing"]
    bench.kill("w1")
    bench.deliver()
    assert_freed(bench)


def test_when_the_adopter_dies_its_heir_holds_what_it_held() -> None:
    """The outer value is lost with its node; the inner ones go with it."""
    bench = fleet("own", "lent")
    bench.kill("w1")
    bench.deliver()
    bench.lose("n2")
    bench.tick(1.0)
    bench.deliver()
    assert read(bench, "outer").startswith("failed")
    assert_freed(bench, "outer")


def test_a_small_value_inside_is_lost_with_its_owner() -> None:
    bench = fleet("tiny", "own")
    bench.kill("w1")
    bench.deliver()
    open_outer(bench)
    owner = bench.desks["w1"]
    (id,) = [id for id, name in bench.names.items() if name == "tiny"]
    row = bench.desks["d"].process.owner.hold(id, owner.machine.id, bench.address("w1"))
    bench.desks["d"].refs["tiny"] = row
    assert "OwnerDied" in read(bench, "tiny")
    assert read(bench, "own") == "shared [w2 0 1000 n3]"
    assert_freed(bench, "outer", "own", "tiny")


def test_who_leaves_in_good_order_leaves_what_it_has_of_others_too() -> None:
    bench = fleet("own", "lent")
    bench.desks["w1"].process.bequeath()
    bench.settle()
    bench.kill("w1", 0)
    bench.deliver()
    open_outer(bench)
    assert read(bench, "lent") == "shared [d 0 1000 n1]"
    assert read(bench, "own") == "shared [w2 0 1000 n3]"
    assert_freed(bench, "outer", "own", "lent")


def test_the_owner_of_what_is_inside_leaves_it_to_the_node_that_holds_it() -> None:
    bench = fleet("lent")
    bench.kill("w1")
    bench.deliver()
    node = bench.node_at("n2")
    (lent,) = node.estates.loans.by_id
    owner = Peer(node.estates.loans.by_id[lent].owner)  # if it lived on that node
    node.handlers[m.BEQUEST](owner, 0.0, [[lent, INLINE, b"1", []]])
    assert node.estates.adopted[lent].holds == 1
    assert not node.estates.loans.by_id
    node.estates.check()


@pytest.mark.parametrize("value", ["1", "big"])
@pytest.mark.parametrize("first", ["the holder lets go", "the process ends"])
def test_who_leaves_what_is_adopted_already_takes_nothing_from_its_holders(
    value: str, first: str
) -> None:
    """A second run has made the same id in a process that ends in good order."""
    bench = fleet("own", "lent")
    bench.kill("w1")
    bench.deliver()
    node = bench.node_at("n2")
    own, outer = (id for id in node.estates.adopted if bench.names[id] in ("own", "outer"))
    if bench.names[own] == "outer":
        own, outer = outer, own
    bench.driver("f", "n2")
    state, data = bench._place(bench.desks["f"], own, bench.id("f"), value)
    bench.settle()
    bench.deliver()
    node.handlers[m.BEQUEST](node.peers[bench.id("f")], bench.now, [[own, state, data, []]])
    assert node.estates.adopted[own].holds == 1
    open_outer(bench)
    assert read(bench, "own") == "shared [w2 0 1000 n3]"
    if first == "the process ends":
        bench.kill("f", 0)
        bench.deliver()
        assert read(bench, "own") == "shared [w2 0 1000 n3]"
        assert_freed(bench, "outer", "own", "lent")
        return
    for name in ("outer", "own", "lent"):
        bench.drop("d", name)
    bench.deliver()
    assert list(node.estates.adopted) == [own], "others may hold it of the process that ends"
    bench.kill("f", 0)
    assert_freed(bench)


def test_what_was_lost_is_there_again_when_it_is_left_again() -> None:
    bench = fleet("own")
    bench.kill("w1")
    bench.deliver()
    bench.lose("n3")
    node = bench.node_at("n2")
    (own,) = (id for id in node.estates.adopted if bench.names[id] == "own")
    assert not node.estates.adopted[own].place
    bench.driver("f", "n2")
    leaver = node.peers[bench.id("f")]
    node.handlers[m.BEQUEST](leaver, bench.now, [[own, INLINE, b"1", []]])
    bench.kill("f", 0)
    bench.deliver()
    open_outer(bench)
    assert read(bench, "own") == "inline 1"
    assert_freed(bench, "outer", "own")


def test_the_owner_of_what_is_inside_dies_after_the_owner_of_the_value() -> None:
    """The adopter holds it of the one that adopts it then."""
    bench = fleet("lent")
    bench.driver("e", "n3")  # a second holder of the outer value
    bench.give("d", "e", "outer")
    bench.settle()
    bench.deliver()
    bench.kill("w1")
    bench.deliver()
    bench.kill("d")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert len(bench.node_at("n1").estates.adopted) == 1, "the inner one, by its own node"
    bench.get("e", "outer")
    bench.deliver()
    bench.open("e", "outer")
    bench.deliver()
    bench.get("e", "lent")
    bench.deliver()
    assert bench.get("e", "lent") == "shared [d 0 1000 n1]"
    bench.drop("e", "outer")
    bench.drop("e", "lent")
    bench.deliver()
    assert not bench.node_at("n1").estates.adopted
    assert not bench.node_at("n2").estates.loans.by_id
    assert not bench.node_at("n1").store.objects
    bench.check()


def test_what_is_made_again_when_it_has_been_adopted_is_freed_with_it() -> None:
    """The task is repeated, and dies; who has the value from the first run keeps it."""
    bench = Fleet("n1", cpus=0.0)
    bench.join("n2")
    driver = bench.driver("d", "n1").process
    again = on(bench, "n2", "f")
    again.retries = 1
    bench.submit("d", ["box"], again)
    bench.start_workers()
    assert bench.run("w1") == "runs box"
    bench.put("w1", "x", "big")
    bench.finish("w1", "big box", inside=["x"])
    bench.deliver()
    bench.open("d", "box")
    bench.kill("w1")
    bench.deliver()
    box, node = bench.row("d", "box"), bench.node_at("n2")
    node.store.free(box.id, box.data[0], driver.id)
    driver.handlers[m.LOST](driver.peers[node.id], bench.now, box.id, box.data)
    bench.settle()
    bench.start_workers()
    assert bench.run("w2") == "runs box"
    bench.put("w2", "x", "big")
    bench.deliver()
    bench.kill("w2")
    bench.deliver()
    assert [len(entry.tickets) for entry in node.estates.adopted.values()] == [1]
    assert len([own for own in node.store.objects.values() if bench.names[own.id] == "x"]) == 2
    assert_freed(bench, "x", "box")


def test_who_adopts_after_an_adopter_hears_what_is_held_of_the_first_one_inside() -> None:
    """The adopter dies before n3 has told it what is inside of what n3 has adopted."""
    names = [f"m{number}" for number in range(20)]
    bench = Fleet("n1", "n3", cpus=0.0)
    rest = [bench.id("n1"), bench.id("n3")]
    heir = next(
        name
        for name in names
        if adopter_of(bench.id("n2"), [*rest, bench.id(name)]) == bench.id(name)
    )
    bench.join("n2", cpus=0.0)
    bench.join(heir, cpus=0.0)
    bench.driver("d", "n1")
    bench.driver("e", "n2")
    bench.driver("there", "n3")  # for whose answer n3 waits
    bench.put("e", "x", "big")
    bench.deliver()
    node, owner = bench.node_at("n3"), bench.desks["e"].process.owner
    row, outer = bench.row("e", "x"), Adopted(b"dead....", [])
    row.extend().tickets[b"ticket"] = node.id
    node.estates.adopted[b"o" * 16] = outer
    outer.tickets[b"outer"] = bench.id("d")
    outer.contains.append(row.id)
    node.estates.loans.take(row.id, owner.machine.id, owner.address, [b"ticket"])
    node.estates.revivals.homes[bench.id("d")] = bench.id("n1")
    for name in ("n2", heir):
        bench.crash(name)
    for name in ("n2", heir):
        bench.bury(name)
    for name in ("n1", "n3"):
        bench.deliver("head", name)
    bench.deliver()
    loans = node.estates.loans.by_id
    assert [bench.names[loan.owner] for loan in loans.values()] in ([], ["n1"])
    assert (row.id in outer.contains) == bool(loans)
    bench.check()
    node.estates.on_release(node.peer(bench.id("d"), ""), bench.now, [[b"o" * 16, b"outer"]])
    bench.deliver()
    for name in ("n1", "n3"):
        assert not bench.node_at(name).estates.adopted
        assert not bench.node_at(name).estates.loans.by_id
