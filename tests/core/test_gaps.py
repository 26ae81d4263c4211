"""Two members that cannot reach each other: one goes, the right one, and once."""

from __future__ import annotations

import itertools

import pytest

from clusters import Cluster, alive, drive, identity, quiet, reason, until_dead
from freehold.core import messages as m

BOUND_S = 2.0  # from the first dialling in vain to the death


def test_of_two_that_do_not_reach_each_other_one_goes_within_the_bound() -> None:
    cluster = quiet("a", "b", "c")
    cluster.part("a", "b")
    assert until_dead(cluster) < BOUND_S
    assert alive(cluster) == ["a", "c"]
    assert "cannot reach each other" in reason(cluster, "b")
    assert identity("a").hex()[:8] in reason(cluster, "b")
    (refusal,) = [entry for entry in cluster.machines["b"].log if entry[0] == "refused"]
    assert "cannot reach each other" in refusal[1]
    cluster.tick(20.0)
    assert alive(cluster) == ["a", "c"]
    assert not cluster.head.roll.gaps.complaints


def test_one_side_s_word_is_enough() -> None:
    """The other one has nothing to do with it, and so does not notice."""
    cluster = quiet("a", "b")
    cluster.gaps.add(frozenset("ab"))
    cluster.machines["a"].members.suspects.add(identity("b"), cluster.now)
    assert until_dead(cluster) < BOUND_S


@pytest.mark.parametrize("seconds", [0.1, 0.5, 0.8, 1.0])
def test_a_gap_that_closes_in_time_is_no_death(seconds: float) -> None:
    cluster = quiet("a", "b")
    cluster.part("a", "b")
    cluster.tick(seconds)
    cluster.gaps.clear()
    for one, other in ("ab", "ba"):  # the links are mended
        cluster.machines[one].members.suspects.clear(identity(other))
    cluster.tick(10.0)
    assert alive(cluster) == ["a", "b"]
    assert not cluster.head.roll.gaps.complaints


def test_who_is_out_of_the_reach_of_most_goes() -> None:
    """a is cut off from all others: b, which it needs, is not to blame, as c and d can tell."""
    cluster = quiet("a", "b", "c", "d")
    drive(cluster, "a")  # which would be spared among equals
    for other in "cd":
        cluster.gaps.add(frozenset(("a", other)))
    cluster.part("a", "b")
    until_dead(cluster)
    assert alive(cluster) == ["b", "c", "d"]
    cluster.tick(10.0)
    assert alive(cluster) == ["b", "c", "d"]


def test_witnesses_do_not_complain_of_what_they_do_not_need() -> None:
    """c does not reach b, nor needs it: when a does again, nobody goes."""
    cluster = quiet("a", "b", "c")
    cluster.gaps.add(frozenset("bc"))
    cluster.part("a", "b")
    cluster.tick(1.0)
    assert cluster.seen("WITNESS")
    cluster.gaps.discard(frozenset("ab"))
    cluster.tick(10.0)
    assert alive(cluster) == ["a", "b", "c"]
    assert not cluster.head.roll.gaps.evidence


def test_among_equals_the_one_with_a_driver_stays() -> None:
    cluster = quiet("a", "b")
    drive(cluster, "b")
    cluster.part("a", "b")
    until_dead(cluster)
    assert alive(cluster) == ["b"]


def test_among_equals_the_one_that_retires_goes() -> None:
    cluster = quiet("a", "b")
    cluster.says("retire", "b", node=identity("a"))
    cluster.part("a", "b")
    until_dead(cluster)
    assert alive(cluster) == ["b"]


def test_of_two_halves_one_goes_one_by_one_and_what_heals_meanwhile_is_spared() -> None:
    cluster = quiet(*"abcdef")
    for one, other in itertools.product("abc", "def"):
        cluster.part(one, other)
    until_dead(cluster)
    assert len(alive(cluster)) == 5
    assert until_dead(cluster) == pytest.approx(2.0, abs=0.15)
    assert len(alive(cluster)) == 4
    cluster.gaps.clear()
    cluster.tick(10.0)
    assert len(alive(cluster)) == 4


def test_of_two_halves_all_of_one_go_in_the_end() -> None:
    cluster = quiet(*"abcdef")
    for one, other in itertools.product("abc", "def"):
        cluster.part(one, other)
    cluster.tick(20.0)
    assert alive(cluster) in (["a", "b", "c"], ["d", "e", "f"])


def test_silence_is_judged_as_before_and_not_as_a_gap() -> None:
    """b stands still: everybody misses it, the head as well."""
    cluster = quiet("a", "b", "c")
    cluster.paused.add("b")
    for one in "ac":
        cluster.machines[one].members.suspects.add(identity("b"), cluster.now)
    assert until_dead(cluster) > 1.4
    assert "silent" in reason(cluster, "b")


def test_a_pause_that_ends_in_time_is_no_death_whoever_has_complained() -> None:
    cluster = quiet("a", "b", "c")
    cluster.paused.add("b")
    for one in "ac":
        cluster.machines[one].members.suspects.add(identity("b"), cluster.now)
    cluster.tick(1.4)
    cluster.paused.clear()
    cluster.tick(10.0)
    assert alive(cluster) == ["a", "b", "c"]


def test_a_restart_of_the_head_forgets_no_gap() -> None:
    cluster = quiet("a", "b", "c")
    cluster.part("a", "b")
    cluster.tick(0.8)
    cluster.stop_head()
    cluster.start_head()
    for name in "abc":
        cluster.connect(name)
    assert until_dead(cluster) < BOUND_S
    assert alive(cluster) == ["a", "c"]


# -- the way back ---------------------------------------------------------------------------------


@pytest.fixture
def parted(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """b has gone for a's sake; the hosts of the bench are the first letters of the names."""
    monkeypatch.setattr("freehold.core.head.gaps._host_of", lambda address: address[0])
    cluster = quiet("a", "b", "c")
    cluster.part("a", "b")
    until_dead(cluster)
    return cluster


def test_who_comes_back_waits_until_the_other_one_reaches_it(parted: Cluster) -> None:
    parted.gaps.add(frozenset(("a", "b2")))
    parted.add("b2")
    parted.tick(20.0)
    assert alive(parted) == ["a", "c"]
    assert not parted.machines["b2"].members.refused
    parted.gaps.clear()
    parted.tick(1.5)
    assert alive(parted) == ["a", "b2", "c"]
    assert parted.machines["b2"].members.joined
    parted.add("b3")  # nothing is held against that host any more
    parted.deliver()
    assert parted.machines["b3"].members.joined


def test_who_is_reached_at_once_is_let_in_at_once(parted: Cluster) -> None:
    parted.add("b2")
    parted.tick(0.1)
    assert alive(parted) == ["a", "b2", "c"]


def test_who_waits_is_let_in_when_the_other_one_dies(parted: Cluster) -> None:
    parted.gaps.add(frozenset(("a", "b2")))
    parted.add("b2")
    parted.tick(1.0)
    parted.kill("a")
    parted.tick(0.1)
    assert alive(parted) == ["b2", "c"]


def test_who_has_stayed_makes_no_second_one_go(parted: Cluster) -> None:
    """a keeps b's host out; of a and c it is a that has more gaps then."""
    parted.gaps.add(frozenset(("a", "b2")))
    drive(parted, "a")
    parted.add("b2")
    parted.part("a", "c")
    until_dead(parted)
    parted.tick(1.0)
    assert alive(parted) == ["b2", "c"]


def test_who_waits_may_give_up(parted: Cluster) -> None:
    parted.gaps.add(frozenset(("a", "b2")))
    parted.add("b2")
    parted.tick(1.0)
    parted.kill("b2")
    parted.gaps.clear()
    parted.tick(5.0)
    assert alive(parted) == ["a", "c"]
    assert not parted.head.roll.gaps.waiting


def test_only_members_are_heard() -> None:
    cluster = quiet("a", "b")
    gaps = cluster.head.roll.gaps
    stranger = cluster.head.peer(identity("x"), "x")
    for peer, node in ((stranger, "b"), (cluster.head.peer(identity("a")), "x")):
        cluster.head.handlers[m.REACH](peer, cluster.now, identity(node), False, False)
    itself = cluster.head.peer(identity("a"))
    cluster.head.handlers[m.REACH](itself, cluster.now, identity("a"), False, False)
    assert not gaps.complaints


def test_of_two_that_declare_each_other_dead_without_a_head_one_stays() -> None:
    """Who has gone has no say any more, though it has said that the other one is dead."""
    cluster = quiet("a", "b", "c")
    cluster.stop_head()
    cluster.silent |= {"a", "b"}
    for one, other in ("ab", "ba"):
        cluster.machines[one].members.suspects.add(identity(other), cluster.now)
    cluster.tick(2.2)
    cluster.silent.clear()
    cluster.start_head()
    for name in "abc":
        cluster.connect(name)
    cluster.deliver()
    until_dead(cluster)
    cluster.tick(4.0)
    (dead,) = cluster.head.roll.dead
    assert alive(cluster) == [name for name in "abc" if identity(name) != dead]
