"""What a node knows of others: who watches whom, who hears of which death, what is passed on."""

from __future__ import annotations

import pytest

from fleets import Fleet
from fleets import value_apart as fleet
from freehold.core import messages as m
from freehold.core.messages import FAILED, PENDING
from freehold.core.node.neighbours import DEATHS_MAX, Neighbours
from freehold.core.node.strangers import SOUGHT_MAX, WAIT
from freehold.sim.bench import function


def neighbours(bench: Fleet, name: str) -> Neighbours:
    return bench.node_at(name).neighbours


def told(bench: Fleet, where: str, *names: str) -> list[str]:
    """The messages of these names that came there, with who sent them."""
    return [line for line in bench.seen(*names) if f" -> {where}: " in line]


# -- watching --------------------------------------------------------------------------------------
def test_a_process_watches_a_node_once_by_way_of_its_own() -> None:
    bench = fleet()
    assert [line.split(": ")[0] for line in told(bench, "n1", "WATCH")] == ["d -> n1", "n2 -> n1"]
    assert [line.split(": ")[0] for line in told(bench, "n2", "WATCH")] == ["n1 -> n2", "w1 -> n2"]
    bench.submit("d", ["b"], function("g"))
    bench.start_workers()
    assert len(told(bench, "n2", "WATCH")) == 2


def test_a_death_is_told_to_all_who_watch_and_to_their_processes() -> None:
    bench = fleet()
    bench.driver("e", "n1")
    bench.join("n3")
    bench.deliver()
    bench.kill("w1")
    bench.deliver()
    heard = [line.split(": ")[0] for line in bench.seen("PROC_DOWN") if "orphans=True" in line]
    assert heard == ["n2 -> n1", "n1 -> d", "n1 -> e"]
    assert "adopter=[]" in told(bench, "n1", "PROC_DOWN")[0]
    assert "adopter=[n2 'n2||n2:1']" in told(bench, "d", "PROC_DOWN")[0]


def test_who_watches_later_is_told_of_what_was_before() -> None:
    bench = fleet()
    bench.kill("w1")
    bench.deliver()
    bench.join("n3", 0.0)
    bench.deliver()
    third = bench.driver("e", "n3").process
    third.peer(bench.desks["w1"].machine.id, bench.address("w1"))
    bench.settle()
    bench.deliver()
    (line,) = told(bench, "e", "PROC_DOWN")
    assert "orphans=False adopter=[n2 " in line
    assert bench.desks["w1"].machine.id in third.owner.dead
    bench.driver("f", "n3").process.peer(bench.desks["w1"].machine.id, bench.address("w1"))
    bench.settle()
    bench.deliver()
    assert len(told(bench, "f", "PROC_DOWN")) == 1
    assert len(told(bench, "n2", "WATCH")) == 3, "n3 knows it already"


def test_who_watches_is_told_of_deaths_before_there_was_any_other_node() -> None:
    """A reference that the dead had made may reach nodes that join much later."""
    bench = Fleet("n1")
    bench.driver("d", "n1")
    bench.submit("d", ["a"], function("f", retries=0))
    bench.start_workers()
    bench.kill("w1")
    bench.deliver()
    bench.join("n2", 0.0)
    bench.deliver()
    late = bench.driver("e", "n2").process
    late.peer(bench.desks["w1"].machine.id, bench.address("w1"))
    bench.settle()
    bench.deliver()
    assert bench.desks["w1"].machine.id in late.owner.dead


def test_a_process_that_comes_while_an_estate_is_collected_is_told_of_the_death() -> None:
    """It may yet be handed what the dead had owned, and would ask the dead."""
    bench = fleet()
    bench.kill("w1")
    bench.deliver("w1", "n2")
    bench.deliver("spawner@n2", "n2")
    assert bench.node_at("n2").estates.open, "n1 has not answered"
    bench.driver("e", "n2")
    bench.deliver("e", "n2")
    bench.deliver("n2", "e")
    assert bench.desks["w1"].machine.id in bench.desks["e"].process.owner.dead
    bench.deliver()
    assert not bench.node_at("n2").estates.open


def test_a_node_that_is_not_known_yet_is_watched_when_it_is() -> None:
    bench = fleet()
    bench.join("n3", 0.0)
    stranger = bench.desks["n3"].machine.id
    bench.desks["d"].process.heed(stranger)
    bench.settle()
    bench.deliver("d", "n1")
    assert stranger in neighbours(bench, "n1").strangers.sought
    assert not told(bench, "n3", "WATCH")
    bench.deliver()
    assert told(bench, "n3", "WATCH") == [f"n1 -> n3: WATCH node={bench.names[stranger]}"]


def test_a_node_that_died_before_this_one_joined_is_found_dead() -> None:
    """Nobody will ever tell of it: whoever waits for one of its processes would wait for ever."""
    bench = fleet()
    lost, worker = bench.desks["n2"].machine.id, bench.desks["w1"].machine.id
    address = bench.address("w1")
    bench.lose("n2")
    bench.join("n3", 0.0)
    bench.deliver()
    late = bench.driver("e", "n3").process
    row = late.owner.hold(b"x" * 16, worker, address)
    late.owner.want(row)
    bench.desks["e"].refs["x"] = row
    bench.names[row.id] = "x"
    bench.settle()
    bench.deliver()
    assert lost in neighbours(bench, "n3").strangers.sought
    assert row.state == PENDING
    head, bench.node_at("n3").members.joined = bench.node_at("n3").members.joined, False
    bench.tick(SOUGHT_MAX)
    assert row.state == PENDING, "without a head the news may be late"
    bench.node_at("n3").members.joined = head
    bench.tick(SOUGHT_MAX)
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert row.state == FAILED
    assert row.data[0] == "OwnerDied"
    assert not neighbours(bench, "n3").strangers.sought


def test_the_word_of_a_dead_node_is_not_taken_nor_old_news_of_one_that_is_not_watched() -> None:
    bench = fleet()
    bench.join("n3")
    bench.join("n4")
    bench.deliver()
    node = bench.node_at("n1")
    dead = bench.desks["w1"].machine.id
    for name, asked in (("n3", False), ("n4", True)):
        stranger = node.peer(bench.desks[name].machine.id, bench.address(name))
        if asked:
            bench.lose(name)
        neighbours(bench, "n1").on_proc_down(stranger, 0.0, dead, "", b"", asked, [])
        assert dead not in node.store.gone


def test_deaths_are_remembered_for_so_long() -> None:
    bench = fleet()
    mine = neighbours(bench, "n2")
    for number in range(DEATHS_MAX + 5):
        mine.deaths.append((m.PROC_DOWN, b"%08d" % number, "", b"", False, []))
    mine.died(b"99999999", "", b"", 0.0)
    assert len(mine.deaths) == DEATHS_MAX
    assert mine.deaths[-1][1] == b"99999999"


# -- nodes -----------------------------------------------------------------------------------------
def test_the_death_of_a_node_is_the_death_of_all_who_lived_there() -> None:
    bench = fleet()
    bench.join("n3", 0.0)
    bench.driver("e", "n3")
    bench.deliver()
    bench.lose("n2")
    for where in ("d", "e"):
        (line,) = told(bench, where, "NODE_LOST")
        assert "orphans=True" in line
    driver = bench.desks["d"].process
    assert bench.desks["w1"].machine.id in driver.owner.dead
    assert not driver.client.leases.pools or not any(
        pool.leases for pool in driver.client.leases.pools.values()
    )
    assert bench.desks["n2"].machine.id not in neighbours(bench, "n1").nodes
    bench.check()


def test_who_comes_later_is_told_of_a_node_s_death_when_it_asks() -> None:
    bench = fleet()
    bench.lose("n2")
    late = bench.driver("e", "n1").process
    late.peer(bench.desks["w1"].machine.id, bench.address("w1"))
    bench.settle()
    bench.deliver()
    (line,) = told(bench, "e", "NODE_LOST")
    assert "orphans=False" in line
    assert not [line for line in bench.seen("HELD") if line.startswith("e ")]
    assert bench.desks["w1"].machine.id in late.owner.dead
    again = late.peer(b"another.", bench.address("w1"))
    assert again.down, "it is known now that nobody is there"


def test_everybody_chooses_the_same_adopter() -> None:
    bench = fleet()
    for name in ("n3", "n4", "n5"):
        bench.join(name, 0.0)
    bench.deliver()
    bench.lose("n2")
    chosen = set()
    for name in bench.nodes():
        _, adopter = neighbours(bench, name).lost[bench.desks["n2"].machine.id]
        chosen.add(adopter[0] if adopter else bench.desks[name].machine.id)
    assert len(chosen) == 1


def test_processes_are_told_what_all_nodes_have_together() -> None:
    bench = fleet()
    leases = bench.desks["d"].process.client.leases
    assert (leases.cpus, leases.nodes) == (1.0, 2)
    bench.join("n3", 4.0)
    bench.deliver()
    assert (leases.cpus, leases.nodes) == (5.0, 3)
    late = bench.driver("e", "n3").process.client.leases
    bench.deliver()
    assert (late.cpus, late.nodes) == (5.0, 3)
    bench.lose("n2")
    assert (leases.cpus, leases.nodes) == (4.0, 2)


def test_leases_of_a_holder_on_another_node_end_with_it() -> None:
    bench = fleet()
    bench.submit("d", ["b"], function("g"))
    bench.deliver()
    bench.run("w1")
    assert bench.node_at("n2").workers.leases
    bench.kill("d")
    bench.deliver()
    assert not bench.node_at("n2").workers.leases
    assert not bench.desks["w1"].alive, "it may still have run something for the dead"


# -- what is passed on -----------------------------------------------------------------------------
def test_objects_are_freed_where_they_lie() -> None:
    bench = fleet()
    bench.fetch("d", "a")
    bench.put("d", "x", "big")
    bench.deliver()
    for name in ("a", "x"):
        bench.drop("d", name)
    bench.deliver()
    (line,) = bench.seen("FREE_FOR")
    assert line == "n1 -> n2: FREE_FOR owner=d objects=[[a w1]]"
    for name in bench.nodes():
        node = bench.node_at(name)
        assert not node.store.objects
        assert not node.pulls.copies.by_offset


def test_what_is_to_be_freed_on_a_dead_node_is_nobody_s_affair() -> None:
    bench = fleet()
    bench.lose("n2")
    node = bench.node_at("n1")
    driver = node.peers[bench.desks["d"].machine.id]
    node.handlers[m.FREE](driver, 0.0, [[b"x" * 16, b"w" * 8, bench.desks["n2"].machine.id]])
    bench.settle()
    assert not bench.busy()


@pytest.mark.parametrize("suspected", [False, True])
def test_a_kill_goes_to_the_node_of_the_process(suspected: bool) -> None:
    bench = fleet()
    node = bench.node_at("n1")
    driver = node.peers[bench.desks["d"].machine.id]
    where = bench.desks["n2"].machine.id
    worker = bench.desks["w1"].machine.id
    node.handlers[m.KILL](driver, 0.0, worker, where, "a reason", suspected)
    bench.settle()
    bench.deliver("n1", "n2")
    assert [line.split(": ")[0] for line in bench.seen("KILL")] == ["n1 -> n2"]
    assert bench.desks["w1"].alive == suspected
    if suspected:
        bench.tick(1.0)
        bench.deliver()
    assert not bench.desks["w1"].alive


def test_what_lies_on_a_node_that_is_not_known_yet_is_fetched_when_it_is() -> None:
    """Else the owner would be told that it is lost, and would have it made again."""
    bench = fleet()
    bench.join("n3", 0.0)
    bench.deliver()
    bench.driver("e", "n3")
    neighbours(bench, "n3").nodes.pop(bench.desks["n2"].machine.id)
    row = bench.row("d", "a")
    node = bench.node_at("n3")
    reader = node.peers[bench.desks["e"].machine.id]
    fetch = (row.id, row.data, bench.desks["d"].machine.id, bench.address("d"), 0)
    node.handlers[m.FETCH](reader, bench.now, *fetch)
    bench.settle()
    bench.deliver()
    assert not bench.seen("FETCHED")
    bench.join("n4", 0.0)
    bench.deliver()
    (line,) = bench.seen("FETCHED")
    assert line.endswith("reason=''")


def test_what_is_to_be_freed_on_a_node_that_is_not_known_yet_is_freed_when_it_is() -> None:
    bench = fleet()
    there = neighbours(bench, "n1")
    id = bench.desks["n2"].machine.id
    address = there.nodes.pop(id)
    bench.drop("d", "a")
    bench.deliver()
    assert bench.node_at("n2").store.objects
    there.node_up(id, address, [])
    bench.settle()
    bench.deliver()
    assert not bench.node_at("n2").store.objects
    assert not there.unsent


def test_what_lies_on_a_node_that_nobody_ever_hears_of_is_lost() -> None:
    bench = fleet()
    node = bench.node_at("n1")
    reader = node.peers[bench.desks["d"].machine.id]
    place = [b"maker...", 0, 1000, b"nowhere."]
    fetch = (b"x" * 16, place, reader.id, bench.address("d"), 0)
    node.handlers[m.FETCH](reader, bench.now, *fetch)
    assert neighbours(bench, "n1").strangers.deadline() == bench.now + WAIT
    bench.tick(WAIT)
    bench.deliver()
    (line,) = bench.seen("FETCHED")
    assert line.endswith("reason='lost'")
