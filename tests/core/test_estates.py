"""What the dead owned on several nodes: who owns it now, who knows, and when it is freed."""

from __future__ import annotations

from itertools import permutations

import pytest

from fleets import Fleet, fleet, on
from freehold.core.messages import FAILED, PENDING, SHARED
from freehold.core.node.estate import ANSWER_MAX
from freehold.core.node.estates import adopter_of


def identity(name: str) -> bytes:
    return name.encode().ljust(8, b".")


def named(wanted: str, others: list[str]) -> str:
    """A name for a node so that, when n2 dies, that one of all these adopts; "new": this one."""
    for number in range(1000):
        name = f"m{number}"
        living = {identity(each): each for each in (*others, name)}
        chosen = living[adopter_of(identity("n2"), list(living))]
        if chosen == wanted or (wanted == "new" and chosen == name):
            return name
    raise AssertionError("there is no such name")


def deliver_all_but(bench: Fleet, source: str, target: str) -> None:
    """Everything arrives but for what is on that wire."""
    while busy := [ends for ends in bench.busy() if ends != (source, target)]:
        bench.deliver(*busy[0])


def adopters(bench: Fleet, name: str = "x") -> list[str]:
    """The nodes that own it now."""
    return [
        node
        for node in bench.nodes()
        for id in bench.node_at(node).estates.adopted
        if bench.names[id] == name
    ]


def assert_freed(bench: Fleet, *where: str) -> None:
    """Those who hold ``x`` drop it; then it is nowhere any more."""
    for name in where or ("d",):
        bench.drop(name, "x")
    bench.deliver()
    bench.tick(1.0)  # some things wait for news
    bench.deliver()
    for name in bench.nodes():
        node = bench.node_at(name)
        assert not node.estates.adopted, name
        assert not [own for own in node.store.objects.values() if bench.names[own.id] == "x"]
        assert not node.pulls.copies.by_offset
        assert not node.estates.open
    bench.check()


# -- processes -------------------------------------------------------------------------------------
def test_a_process_s_own_node_adopts_what_a_process_of_another_node_holds() -> None:
    bench = fleet("n2")
    bench.kill("w1")
    bench.deliver()
    assert adopters(bench) == ["n2"]
    assert bench.names[bench.row("d", "x").owner.id] == "n2"  # type: ignore[union-attr]
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "shared [w1 0 1000 n2]"
    assert bench.fetch("d", "x") is None
    bench.deliver()
    assert bench.fetch("d", "x") is not None
    assert_freed(bench)


def test_an_object_that_lies_on_a_third_node_is_adopted_too() -> None:
    bench = fleet("n3")
    bench.kill("w1")
    bench.deliver()
    assert adopters(bench) == ["n2"]
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "shared [w2 0 1000 n3]"
    assert_freed(bench)


def test_what_nobody_holds_any_more_is_freed_wherever_it_lies() -> None:
    bench = fleet("n3")
    bench.drop("d", "x")
    bench.deliver()
    assert bench.node_at("n3").store.objects, "its owner holds it, too"
    bench.kill("w1")
    bench.deliver()
    assert not bench.node_at("n3").store.objects
    assert adopters(bench) == []


def test_a_holder_that_dies_holds_nothing() -> None:
    bench = fleet("n2")
    bench.kill("w1")
    bench.deliver()
    bench.kill("d")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert adopters(bench) == []
    assert not bench.node_at("n2").store.objects


def test_a_holder_whose_node_dies_before_all_have_answered_holds_nothing() -> None:
    """Though the adopter never had to do with it, and knows of it by its node's answer only."""
    names = [f"s{number}" for number in range(9)]
    ids = [identity(name) for name in ("n2", *names)]
    late = next(name for name in names if adopter_of(identity("n1"), ids) == identity(name))
    bench = fleet(late)
    bench.driver("e", "n1")
    bench.give("d", "e", "x")
    bench.settle()
    bench.deliver()
    bench.drop("d", "x")
    bench.deliver()
    bench.kill("w1")
    deliver_all_but(bench, late, "n2")
    (estate,) = bench.node_at("n2").estates.open.values()
    assert [bench.names[holder] for _, _, holder, *_ in estate.held] == ["e"]
    assert bench.desks["e"].machine.id not in bench.node_at("n2").peers
    bench.crash("n1")
    bench.bury("n1")
    deliver_all_but(bench, late, "n2")
    assert list(bench.node_at("n2").estates.open) == [estate.key]
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert adopters(bench) == []
    assert not bench.node_at(late).store.objects


def test_a_value_that_was_with_its_owner_is_lost_with_it() -> None:
    bench = fleet("n2")
    bench.driver("e", "n2")
    bench.put("e", "y", "small")
    row = bench.give("e", "d", "y")
    bench.settle()
    bench.deliver()
    bench.kill("e")
    bench.deliver()
    bench.get("d", "y")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert row.state == FAILED
    assert row.data[0] == "OwnerDied"


# -- nodes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("adopter", ["n1", "new"])
def test_when_the_node_dies_too_one_of_the_living_adopts(adopter: str) -> None:
    store = named(adopter, ["n1"])
    bench = fleet(store)
    bench.lose("n2")
    assert adopters(bench) == [store if adopter == "new" else "n1"]
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == f"shared [w2 0 1000 {store}]"
    assert_freed(bench)


def test_what_lay_on_the_dead_node_and_was_owned_there_is_lost() -> None:
    bench = fleet("n2")
    bench.lose("n2")
    bench.get("d", "x")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert bench.row("d", "x").data[0] in ("OwnerDied", "ObjectLost")
    assert adopters(bench) == []


def test_a_copy_of_what_lay_there_is_read_by_who_has_it() -> None:
    """Nobody owns it any more: it goes with its last reader."""
    bench = fleet("n2")
    bench.get("d", "x")
    bench.deliver()
    bench.fetch("d", "x")
    bench.deliver()
    bench.lose("n2")
    assert bench.fetch("d", "x") is not None
    assert_freed(bench)


@pytest.mark.parametrize("who", ["d", "a process that has just come"])
def test_a_copy_for_a_process_that_takes_the_dead_for_the_owner_is_freed(who: str) -> None:
    """Its node knows better: nobody would ever free what is copied in the name of the dead."""
    bench = fleet("n3", named("new", ["n1", "n3"]))
    bench.get("d", "x")
    bench.deliver()
    row, owner, address = bench.row("d", "x"), bench.desks["w1"].machine.id, bench.address("w1")
    bench.crash("n2")
    bench.bury("n2")
    bench.deliver("head", "n1")
    if who != "d":  # it was not there when its node told of the death
        process = bench.driver("e", "n1").process
        bench.desks["e"].refs["x"] = process.owner.hold(row.id, owner, address)
        process.owner.resolve(bench.row("e", "x"), SHARED, row.data)  # as a task's argument is
        who = "e"
    bench.fetch(who, "x")
    bench.deliver()
    assert bench.fetch(who, "x") is not None
    assert_freed(bench, *dict.fromkeys(["d", who]))


@pytest.mark.parametrize("when", ["afterwards", "before it answers"])
def test_when_the_adopter_dies_as_well_another_one_adopts(when: str) -> None:
    adopter = named("new", ["n1", "n3"])
    bench = fleet("n3", adopter)
    if when == "afterwards":
        bench.lose("n2")
        assert adopters(bench) == [adopter]
        bench.lose(adopter)
    else:
        bench.crash(adopter)
        bench.lose("n2")
        assert adopters(bench) == []
        bench.bury(adopter)
        bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert len(adopters(bench)) == 1
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "shared [w2 0 1000 n3]"
    assert_freed(bench)


def test_the_adopter_of_what_is_only_kept_elsewhere_dies_before_it_answers() -> None:
    """All that is left of the value is a copy that another node keeps."""
    adopter = named("new", ["n1", "n3"])
    bench = fleet("n2", adopter)
    bench.join("n3")
    bench.deliver()
    bench.desks["w1"].process.keeping.want(bench.row("w1", "x"), 2)
    bench.settle()
    bench.deliver()
    bench.crash(adopter)
    bench.lose("n2")
    bench.bury(adopter)
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert len(adopters(bench)) == 1
    bench.get("d", "x")
    bench.deliver()
    assert bench.node_of("d", "x") == "n3"
    assert_freed(bench)


def heirs() -> tuple[str, str]:
    """Names for two nodes so that the first one adopts when n2 dies, and then the second one."""
    names = [f"m{number}" for number in range(20)]
    for first, second in permutations(names, 2):
        rest = [identity(each) for each in ("n1", "n3", second)]
        chosen = adopter_of(identity("n2"), [*rest, identity(first)])
        if chosen == identity(first) and adopter_of(chosen, rest) == identity(second):
            return first, second
    raise AssertionError("there are no such names")


def test_two_adopters_die_before_anybody_has_answered() -> None:
    """The third one hears of what was the first one's part of the second one's part."""
    first, second = heirs()
    bench = fleet("n3", first, second)
    for node in ("n2", first, second):
        bench.crash(node)
    for node in ("n2", first, second):
        bench.bury(node)
    bench.deliver("head", "n1")
    bench.deliver("head", "n3")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert len(adopters(bench)) == 1
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "shared [w2 0 1000 n3]"
    assert_freed(bench)


def test_who_is_told_of_the_first_owner_after_two_have_died_asks_the_last_heir() -> None:
    bench = fleet("n3")
    row = bench.row("d", "x")
    owner, address = bench.desks["w1"].machine.id, bench.address("w1")
    bench.kill("w1")
    bench.deliver()
    assert bench.names[bench.row("d", "x").owner.id] == "n2"  # type: ignore[union-attr]
    bench.lose("n2")
    assert bench.desks["d"].process.owner.hold(row.id, owner, address) is row
    assert [bench.names[row.owner.id]] == adopters(bench)  # type: ignore[union-attr]
    bench.desks["d"].process.owner.drop(row)
    bench.get("d", "x")
    bench.deliver()
    assert bench.get("d", "x") == "shared [w2 0 1000 n3]"
    assert_freed(bench)


def test_who_asks_before_the_adopter_has_heard_of_the_death_is_answered_when_it_has() -> None:
    adopter = named("new", ["n1", "n3"])
    bench = fleet("n3", adopter)
    bench.crash("n2")
    bench.bury("n2")
    news = bench.wires.pop(("head", adopter))
    bench.deliver()
    bench.get("d", "x")
    bench.deliver()
    assert bench.row("d", "x").state == PENDING
    assert bench.node_at(adopter).estates.ahead
    bench.wires["head", adopter] = news
    bench.deliver()
    assert bench.get("d", "x") == "shared [w2 0 1000 n3]"
    assert_freed(bench)


def test_who_is_silent_for_too_long_is_given_up_and_told_what_to_free() -> None:
    adopter = named("new", ["n1", "n3"])
    bench = fleet("n3", adopter)
    bench.crash("n2")
    bench.bury("n2")
    for name in bench.nodes():
        bench.deliver("head", name)
    for source in ("d", "n1"):
        bench.deliver(source, "n1" if source == "d" else adopter)
    for ends in [ends for ends in bench.busy() if ends != ("n3", adopter)]:
        bench.deliver(*ends)
    late = bench.wires[("n3", adopter)].copy()
    bench.wires[("n3", adopter)].clear()
    assert late
    assert bench.node_at(adopter).estates.open
    bench.tick(ANSWER_MAX)
    bench.deliver()
    assert not bench.node_at(adopter).estates.open
    assert adopters(bench) == [], "nobody has said that it is stored anywhere"
    assert bench.node_at("n3").store.objects
    bench.wires[("n3", adopter)].extend(late)
    bench.deliver()
    assert not bench.node_at("n3").store.objects
    bench.get("d", "x")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert bench.row("d", "x").state == FAILED


def test_who_hears_of_a_node_s_death_late_registers_with_the_adopter_itself() -> None:
    bench = fleet("n3")
    row = bench.row("d", "x")
    owner, address = bench.desks["w1"].machine.id, bench.address("w1")
    bench.lose("n2")
    (adopter,) = adopters(bench)
    late = bench.driver("e", "n3").process
    mine = late.owner.hold(row.id, owner, address)
    bench.desks["e"].refs["x"] = mine
    bench.settle()
    bench.deliver()
    entry = bench.node_at(adopter).estates.adopted[row.id]
    assert sorted(bench.names[who] for who in entry.tickets.values()) == ["d", "e"]
    bench.drop("d", "x")
    bench.deliver()
    assert adopters(bench) == [adopter]
    bench.get("e", "x")
    bench.deliver()
    assert mine.state == SHARED
    assert_freed(bench, "e")


# -- as an owner -----------------------------------------------------------------------------------
def test_releases_may_come_before_what_they_release_is_adopted() -> None:
    bench = fleet("n2")
    bench.kill("w1")
    bench.deliver("spawner@n2", "n2")
    bench.deliver("w1", "n2")
    for ends in [("n2", "n1"), ("n1", "d"), ("d", "n1")]:
        bench.deliver(*ends)
    bench.drop("d", "x")
    bench.deliver("d", "n2")
    assert bench.node_at("n2").estates.early
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert adopters(bench) == []
    assert not bench.node_at("n2").estates.early
    assert not bench.node_at("n2").store.objects


def test_the_adopter_hands_on_what_it_owns_to_others() -> None:
    bench = fleet("n2")
    bench.kill("w1")
    bench.deliver()
    bench.get("d", "x")
    bench.deliver()
    bench.join("n4")
    bench.deliver()
    bench.submit("d", ["use"], on(bench, "n4", "h"), nested=["x"])
    bench.start_workers()
    (worker,) = [name for name in bench.homes if bench.homes[name] == "n4"]
    assert bench.run(worker) == "runs use"
    bench.end(worker, "kept it", keep=["x"])
    bench.drop("d", "x")
    bench.deliver()
    (entry,) = bench.node_at("n2").estates.adopted.values()
    assert {bench.names[who] for who in entry.tickets.values()} == {worker}
    bench.get(worker, "x")
    bench.deliver()
    assert bench.get(worker, "x") == "shared [w1 0 1000 n2]"
    assert_freed(bench, worker)


def test_what_is_sealed_after_its_owner_has_left_it_is_kept() -> None:
    """The worker that made it tells its owner and its node on two connections."""
    bench = fleet("n2")
    node = bench.node_at("n2")
    heir = node.estates
    maker, left, id = node.peer(b"maker..."), node.peer(b"owner..."), b"l" * 16
    place = [maker.id, 4096, 100, node.id]
    heir.on_bequest(left, bench.now, [[id, SHARED, place, []]])
    heir.adopted[id].tickets[b"ticket"] = bench.desks["d"].machine.id
    node.store.gone.add(left.id)
    node.store.on_seal(maker, bench.now, id, left.id, b"", 4096, 100, [])
    heir.check()
    node.store.on_seal(maker, bench.now, b"m" * 16, left.id, b"", 8192, 100, [])
    assert [stored.id for stored in node.store.owned_by(left.id)] == [id]
