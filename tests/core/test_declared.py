"""Who was declared dead without a head, and lives: one of the two goes, and it is the right one."""

from __future__ import annotations

import itertools

import pytest

from clusters import Cluster, alive, drive, identity, quiet, reason, until_dead
from freehold.core import messages as m

ORDERS = ["".join(names) for names in itertools.permutations("abc")]
BOUND_S = 2.5  # from the return of the last one to the death


def lose(cluster: Cluster, losses: dict[str, str]) -> None:
    """Each of them finds these others silent, without a head, until it has declared them dead."""
    cluster.silent |= set("".join(losses.values()))
    for name, others in losses.items():
        for other in others:
            cluster.machines[name].members.suspects.add(identity(other), cluster.now)
    cluster.tick(2.2)
    cluster.silent.clear()
    for name, others in losses.items():
        assert set(cluster.machines[name].members.declared) == {identity(id) for id in others}


def return_to_a_head(cluster: Cluster, names: str) -> None:
    """A new head; they come to it in this order."""
    cluster.start_head()
    for name in names:
        cluster.connect(name)
        cluster.deliver()


def headless(*names: str) -> Cluster:
    cluster = quiet(*names)
    cluster.stop_head()
    return cluster


@pytest.mark.parametrize("order", ORDERS)
def test_who_has_lost_most_was_cut_off_and_goes_whoever_comes_back_first(order: str) -> None:
    cluster = headless("a", "b", "c")
    lose(cluster, {"a": "bc"})  # with which the others have nothing to do
    return_to_a_head(cluster, order)
    assert until_dead(cluster) < BOUND_S
    assert "cut off" in reason(cluster, "a")
    assert cluster.machines["a"].log[-1][0] == "refused"
    cluster.tick(5.0)
    assert alive(cluster) == ["b", "c"]
    assert not cluster.head.roll.gaps.complaints


@pytest.mark.parametrize("order", ORDERS)
def test_whom_most_have_lost_goes_whoever_comes_back_first(order: str) -> None:
    cluster = headless("a", "b", "c")
    lose(cluster, {"b": "a", "c": "a"})  # a stood still, say, and does not know it
    return_to_a_head(cluster, order)
    until_dead(cluster)
    assert "declared it dead" in reason(cluster, "a")
    cluster.tick(5.0)
    assert alive(cluster) == ["b", "c"]
    assert not cluster.machines["b"].members.declared


@pytest.mark.parametrize("order", ORDERS)
def test_of_those_who_have_lost_each_other_no_more_go_than_must(order: str) -> None:
    cluster = headless("a", "b", "c")
    lose(cluster, {"a": "bc", "b": "a", "c": "a"})
    return_to_a_head(cluster, order)
    cluster.tick(5.0)
    assert alive(cluster) == ["b", "c"]


@pytest.mark.parametrize("driver", ["a", "b"])
@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("losses", [{"a": "b"}, {"b": "a"}, {"a": "b", "b": "a"}])
def test_of_two_the_one_with_a_driver_stays(
    driver: str, order: str, losses: dict[str, str]
) -> None:
    cluster = quiet("a", "b")
    drive(cluster, driver)
    cluster.stop_head()
    lose(cluster, losses)
    return_to_a_head(cluster, order)
    until_dead(cluster)
    cluster.tick(5.0)
    assert alive(cluster) == [driver]


def test_nobody_goes_before_all_could_say_whom_they_have_lost() -> None:
    """a and b have lost each other, among equals b would go; c knows better, and is late."""
    cluster = headless("a", "b", "c")
    lose(cluster, {"a": "b", "c": "a"})
    return_to_a_head(cluster, "ab")
    cluster.tick(1.5)
    assert alive(cluster) == ["a", "b", "c"]
    cluster.connect("c")
    assert until_dead(cluster) < BOUND_S
    cluster.tick(5.0)
    assert alive(cluster) == ["b", "c"]


def test_who_is_awaited_in_vain_keeps_nobody_waiting_for_ever() -> None:
    cluster = headless("a", "b", "c")
    lose(cluster, {"a": "b"})
    cluster.silent.add("c")
    return_to_a_head(cluster, "ab")
    until_dead(cluster)  # c
    assert until_dead(cluster) < BOUND_S
    assert alive(cluster) == ["a"]


def test_who_is_dead_indeed_is_found_so_at_once() -> None:
    cluster = headless("a", "b")
    del cluster.machines["b"]
    cluster.machines["a"].members.suspects.add(identity("b"), cluster.now)
    cluster.tick(0.1)
    return_to_a_head(cluster, "a")
    assert alive(cluster) == ["a"]
    assert "does not listen" in reason(cluster, "b")


def test_a_head_that_was_there_knows_who_was_cut_off() -> None:
    """Though a driver would keep it among equals."""
    cluster = quiet("a", "b")
    drive(cluster, "a")
    cluster.cut("a")
    cluster.machines["a"].members.suspects.add(identity("b"), cluster.now)
    cluster.silent |= {"b"}
    while not cluster.machines["a"].members.declared:
        cluster.head.roll._alive(cluster.head.nodes[identity("a")], cluster.now)  # hears the prober
        cluster.tick(0.1)
    cluster.connect("a")
    until_dead(cluster)
    assert "cut off" in reason(cluster, "a")


def test_what_was_said_at_the_first_hello_is_no_worse_at_the_second() -> None:
    cluster = quiet("a", "b")
    drive(cluster, "a")
    cluster.stop_head()
    lose(cluster, {"a": "b"})
    return_to_a_head(cluster, "ab")
    cluster.cut("a")
    cluster.connect("a")
    until_dead(cluster)
    cluster.tick(5.0)
    assert alive(cluster) == ["a"]


def test_who_says_so_of_one_that_has_just_died_is_not_to_blame() -> None:
    """Its own connection to the head broke for a moment, and it heard of the death first."""
    cluster = quiet("a", "b")
    cluster.cut("a")
    at_head = cluster.head.peers[identity("b")]
    del cluster.machines["b"]
    cluster.machines["a"].members.suspects.add(identity("b"), cluster.now)
    cluster.tick(0.05)
    cluster.connect("a")
    cluster.deliver()
    cluster.head.on_down(at_head, cluster.now)
    cluster.tick(5.0)
    assert alive(cluster) == ["a"]


def test_to_reach_each_other_again_takes_nothing_back() -> None:
    cluster = headless("a", "b")
    lose(cluster, {"a": "b"})
    return_to_a_head(cluster, "ab")
    peer = cluster.head.peers[identity("a")]
    cluster.head.handlers[m.REACH](peer, cluster.now, identity("b"), True, False)
    until_dead(cluster)
    assert alive(cluster) == ["a"]
    assert not cluster.head.roll.gaps.stayed  # b may come back, as another
