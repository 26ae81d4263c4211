"""Where a lease is asked for, and where bundles go: by example, and against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.head.placing import STRATEGIES, place, taking, usable
from freehold.core.member import Member, load
from freehold.core.policy import LATER, NEVER, NOW, UNKNOWN, View, choose, flaw_of_strategy
from stateful import effort


def view(*rows: tuple[str, float, float]) -> View:
    """Nodes by name, CPUs and free CPUs."""
    return {
        name.encode(): Member(name.encode(), name, {"CPU": total}, {}, {"CPU": free})
        for name, total, free in rows
    }


def where(needs: float, nodes: View, strategy: list[Any] | None = None) -> tuple[int, str]:
    chosen = choose({"CPU": needs}, strategy or [], nodes, b"a")
    return chosen.verdict, chosen.node.decode()


def test_here_if_it_fits_now_else_where_most_is_free() -> None:
    nodes = view(("a", 4, 2), ("b", 4, 3), ("c", 8, 8))
    assert where(2, nodes) == (NOW, "a")
    assert where(3, nodes) == (NOW, "c")
    nodes[b"c"].free = {"CPU": 1.0}
    assert where(3, nodes) == (NOW, "b")


def test_if_nothing_fits_now_where_the_queue_is_shortest() -> None:
    nodes = view(("a", 4, 0), ("b", 4, 0), ("c", 2, 0))
    assert where(3, nodes) == (LATER, "a")
    nodes[b"a"].waiting = 1
    assert where(3, nodes) == (LATER, "b")
    assert where(1, nodes)[1] != "a"


def test_never_names_the_nearest_node() -> None:
    nodes = view(("a", 4, 4), ("b", 16, 0))
    chosen = choose({"CPU": 32.0, "GPU": 1.0}, [], nodes, b"a")
    assert chosen.verdict == NEVER
    assert chosen.reason == (
        f"no node can ever provide 32 CPU and 1 GPU; the largest, {b'b'.hex()}, "
        "has 16 CPU and 0 GPU"
    )
    assert "there is none" in choose({"CPU": 1.0}, [], {}, b"a").reason


def test_a_groups_resources_that_nobody_has_may_yet_come() -> None:
    nodes = view(("a", 4, 4))
    needs = {"CPU/aa/0": 1.0}
    assert choose(needs, [], nodes, b"a").verdict == UNKNOWN
    nodes[b"a"].total = {"CPU": 4.0, "CPU/aa/0": 1.0}
    assert choose(needs, [], nodes, b"a").verdict == LATER
    assert choose({"CPU/aa/0": 2.0}, [], nodes, b"a").verdict == NEVER


def test_spread_takes_the_least_loaded() -> None:
    nodes = view(("a", 4, 3), ("b", 4, 4), ("c", 4, 1))
    assert where(1, nodes, ["spread"]) == (NOW, "b")
    nodes[b"b"].free = {"CPU": 0.0}
    assert where(1, nodes, ["spread"]) == (NOW, "a")
    assert where(9, nodes, ["spread"])[0] == NEVER


def test_equals_are_taken_in_turn() -> None:
    nodes = view(("a", 4, 4), ("b", 4, 4), ("c", 4, 4))
    taken = {choose({"CPU": 1.0}, ["spread"], nodes, b"a", turn).node for turn in range(3)}
    assert taken == {b"a", b"b", b"c"}


def test_one_node_and_no_other_unless_soft() -> None:
    nodes = view(("a", 4, 4), ("b", 4, 0))
    assert where(2, nodes, ["node", b"b", False]) == (LATER, "b")
    assert where(2, nodes, ["node", b"b", True]) == (LATER, "b")
    assert where(2, nodes, ["node", b"x", False])[0] == NEVER
    assert where(2, nodes, ["node", b"x", True]) == (NOW, "a")
    nodes[b"b"].retiring = True
    gone = choose({"CPU": 1.0}, ["node", b"b", False], nodes, b"a")
    assert (gone.verdict, "retiring" in gone.reason) == (NEVER, True)
    assert where(2, nodes, ["node", b"b", True]) == (NOW, "a")


def test_labels_narrow_the_choice() -> None:
    nodes = view(("a", 4, 4), ("b", 4, 4), ("c", 8, 0))
    nodes[b"b"].labels = nodes[b"c"].labels = {"zone": "x"}
    assert where(1, nodes, ["labels", {"zone": "x"}]) == (NOW, "b")
    assert where(6, nodes, ["labels", {"zone": "x"}]) == (LATER, "c")
    nowhere = choose({"CPU": 1.0}, ["labels", {"zone": "y"}], nodes, b"a")
    assert (nowhere.verdict, nowhere.reason) == (NEVER, "no node has the labels zone=y")


def test_the_retiring_take_nothing() -> None:
    nodes = view(("a", 4, 4), ("b", 4, 1))
    nodes[b"a"].retiring = True
    assert where(1, nodes) == (NOW, "b")
    assert where(2, nodes) == (LATER, "b")
    assert where(5, nodes)[0] == NEVER


def test_load_is_that_of_the_scarcest() -> None:
    total = {"CPU": 4.0, "GPU": 2.0, "CPU/aa/0": 1.0, "none": 0.0}
    member = Member(b"a", "a", total, {}, {"CPU": 3.0, "GPU": 1.0, "CPU/aa/0": 0.0})
    assert load(member) == 0.5


@pytest.mark.parametrize(
    "strategy", [["tight"], ["spread", 1], ["node"], ["node", "x", True], ["labels", []], [3], [[]]]
)
def test_a_malformed_strategy_is_told(strategy: list[Any]) -> None:
    assert "no scheduling strategy" in flaw_of_strategy(strategy)


@pytest.mark.parametrize(
    "strategy", [[], ["spread"], ["node", b"x", False], ["labels", {"zone": "x"}]]
)
def test_a_sound_strategy_passes(strategy: list[Any]) -> None:
    assert not flaw_of_strategy(strategy)


def test_an_unknown_strategy_is_never() -> None:
    assert where(1, view(("a", 4, 4)), ["tight"])[0] == NEVER


# -- bundles --------------------------------------------------------------------------------------


def cpus(**free: float) -> dict[bytes, dict[str, float]]:
    return {name.encode(): {"CPU": amount} for name, amount in free.items()}


def bundles(*sizes: float) -> list[dict[str, float]]:
    return [{"CPU": size} for size in sizes]


def test_pack_takes_few_nodes_and_spread_many() -> None:
    free = cpus(a=4, b=4, c=4)
    assert len(set(place(bundles(1, 1, 1, 1), "PACK", free) or [])) == 1
    assert len(set(place(bundles(1, 1, 1, 1), "SPREAD", free) or [])) == 3
    assert len(set(place(bundles(3, 1, 3, 1), "PACK", free) or [])) == 2


def test_the_search_goes_back_where_greed_fails() -> None:
    free = cpus(a=10, b=8)
    assert place(bundles(6, 4, 4, 4), "PACK", free) is not None  # 6+4 | 4+4
    assert place(bundles(5, 5, 4, 4), "PACK", cpus(a=9, b=9)) is not None


def test_strict_strategies_take_one_node_or_all_different() -> None:
    free = cpus(a=3, b=4, c=9)
    assert place(bundles(2, 2), "STRICT_PACK", free) == [b"b", b"b"]  # the tightest
    assert place(bundles(5, 5), "STRICT_PACK", free) is None
    assert place(bundles(1, 1), "STRICT_PACK", free, [b"c"]) == [b"c", b"c"]
    assert place(bundles(3, 4, 9), "STRICT_SPREAD", free) == [b"a", b"b", b"c"]
    assert place(bundles(9, 4, 3), "STRICT_SPREAD", free) == [b"c", b"b", b"a"]
    assert place(bundles(1, 1, 1, 1), "STRICT_SPREAD", free) is None
    assert place(bundles(4), "STRICT_SPREAD", free, [b"b"]) == [b"c"]


def test_a_hopeless_search_ends() -> None:
    free = {f"n{number}".encode(): {"CPU": 3.0 + number / 1000} for number in range(30)}
    assert place(bundles(*[2.0] * 31), "PACK", free) is None


def test_bundles_are_not_made_of_bundles_nor_on_the_retiring() -> None:
    nodes = view(("a", 4, 3), ("b", 4, 4))
    nodes[b"a"].free["CPU/aa/0"] = 1.0
    nodes[b"b"].retiring = True
    assert usable(list(nodes.values())) == {b"a": {"CPU": 3.0}}
    assert usable(list(nodes.values()), totals=True) == {b"a": {"CPU": 4.0}}


SIZES = st.lists(
    st.fixed_dictionaries({"CPU": st.integers(1, 4), "GPU": st.integers(0, 2)}),
    min_size=1,
    max_size=4,
)
ROOM = st.lists(
    st.fixed_dictionaries({"CPU": st.integers(0, 6), "GPU": st.integers(0, 3)}),
    min_size=1,
    max_size=4,
)


def holds(strategy: str, chosen: tuple[bytes, ...]) -> bool:
    if strategy == "STRICT_PACK":
        return len(set(chosen)) == 1
    return strategy != "STRICT_SPREAD" or len(set(chosen)) == len(chosen)


def possible(wanted: list[dict[str, float]], free: Any, chosen: tuple[bytes, ...]) -> bool:
    left = dict(free)
    for bundle, node in zip(wanted, chosen, strict=True):
        left[node] = taking(left[node], bundle)
    return all(amount >= 0 for have in left.values() for amount in have.values())


@effort(150, 1)
@given(SIZES, ROOM, st.sampled_from(STRATEGIES))
def test_place_finds_room_exactly_where_there_is_some(
    wanted: list[dict[str, float]], room: list[dict[str, float]], strategy: str
) -> None:
    free = {bytes([65 + number]): have for number, have in enumerate(room)}
    ways = [
        chosen
        for chosen in itertools.product(free, repeat=len(wanted))
        if holds(strategy, chosen) and possible(wanted, free, chosen)
    ]
    found = place(wanted, strategy, free)
    assert (found is not None) == bool(ways)
    if found is not None:
        assert tuple(found) in ways
