"""Placement groups: two phases, all or nothing, whatever dies in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clusters import Cluster, identity, joined, node, text
from freehold.core.head.groups import ROOM, extras
from stateful import effort

G = b"g" * 8


def make(cluster: Cluster, *sizes: float, strategy: str = "PACK", **more: Any) -> None:
    """Ask from node a, as question 1."""
    bundles = [{"CPU": size} for size in sizes]
    cluster.ask("a", 1, "group", **{"group": G, "bundles": bundles, "strategy": strategy, **more})
    cluster.deliver()


def held(cluster: Cluster) -> dict[str, list[int]]:
    """Which bundles are committed where."""
    return {
        name: sorted(index for (_, index), step in daemon.bundles.items() if step == "committed")
        for name, daemon in cluster.machines.items()
        if name != "head"
    }


def test_a_group_is_answered_when_all_its_bundles_are_committed() -> None:
    cluster = joined("a", "b", "c")
    make(cluster, 2, 2, 2, strategy="STRICT_SPREAD")
    error, fields = cluster.answer("a", 1)
    assert not error
    assert sorted(text(id) for id in fields["nodes"]) == ["a", "b", "c"]
    assert sorted(held(cluster).values()) == [[0], [1], [2]]
    assert [row["state"] for row in cluster.says("groups")[1]["groups"]] == ["placed"]


def test_what_a_committed_bundle_adds_is_gossiped_as_its_nodes_total() -> None:
    cluster = joined("a", "b")
    make(cluster, 1, 2, strategy="STRICT_PACK")
    cluster.tick(0.3)
    (where,) = {text(id) for id in cluster.answer("a", 1)[1]["nodes"]}
    name = G.hex()
    expected = {"CPU": 4.0, f"CPU/{name}/0": 1, f"CPU/{name}/1": 2, f"CPU/{name}": 3}
    expected |= {f"bundle/{name}/0": ROOM, f"bundle/{name}/1": ROOM, f"bundle/{name}": 2 * ROOM}
    for other in "ab":
        assert node(cluster, other).members.view[identity(where)].total == expected
    assert node(cluster, where).members.info["total"] == {"CPU": 4.0}
    cluster.says("ungroup", group=G)
    cluster.tick(0.3)
    assert node(cluster, "b").members.view[identity(where)].total == {"CPU": 4.0}
    assert extras(b"\xaa", 3, {"CPU": 2.0}) == {
        "CPU/aa/3": 2.0,
        "CPU/aa": 2.0,
        "bundle/aa/3": ROOM,
        "bundle/aa": ROOM,
    }


@pytest.mark.parametrize(
    ("sizes", "strategy"),
    [((5,), "PACK"), ((3, 3, 3), "SPREAD"), ((3, 3), "STRICT_PACK"), ((1,) * 3, "STRICT_SPREAD")],
)
def test_what_can_never_fit_is_an_error_at_once(sizes: tuple[float, ...], strategy: str) -> None:
    cluster = joined("a", "b")
    make(cluster, *sizes, strategy=strategy)
    error, _ = cluster.answer("a", 1)
    assert error[0] == "Unschedulable"
    assert cluster.says("groups")[1] == {"groups": []}


def test_a_group_waits_until_there_is_room() -> None:
    cluster = joined("a", "b")
    node(cluster, "a").free["CPU"] = node(cluster, "b").free["CPU"] = 1.0
    cluster.tick(0.2)
    make(cluster, 3, 3)
    cluster.tick(3.0)
    assert not cluster.answers
    assert held(cluster) == {"a": [], "b": []}
    node(cluster, "a").free["CPU"] = 4.0
    cluster.tick(2.0)
    assert held(cluster) == {"a": [], "b": []}  # all or nothing
    node(cluster, "b").free["CPU"] = 3.0
    cluster.tick(2.0)
    assert cluster.answer("a", 1)[0] == []
    assert sorted(held(cluster).values()) == [[0], [1]]


def test_a_group_that_finds_no_room_holds_up_no_other() -> None:
    cluster = joined("a")
    node(cluster, "a").free["CPU"] = 1.0
    cluster.tick(0.2)
    make(cluster, 3)
    assert cluster.says("group", group=b"small", bundles=[{"CPU": 1.0}])[0] == []
    assert not cluster.answers.get(("a", 1))


def test_if_one_node_refuses_the_others_give_back_and_it_is_tried_again() -> None:
    cluster = joined("a", "b")
    node(cluster, "b").stubborn = True
    make(cluster, 2, 2, strategy="STRICT_SPREAD")
    assert node(cluster, "a").bundles == {}
    assert node(cluster, "a").free == {"CPU": 4.0}
    assert not cluster.answers
    node(cluster, "b").stubborn = False
    cluster.tick(1.0)
    assert cluster.answer("a", 1)[0] == []


def test_two_groups_at_once_do_not_take_the_same_resources() -> None:
    cluster = joined("a", "b")
    for number, group in enumerate((b"one", b"two")):
        cluster.ask("a", number, "group", group=group, bundles=[{"CPU": 3.0}])
    cluster.deliver()
    nodes = [cluster.answer("a", number)[1]["nodes"][0] for number in (0, 1)]
    assert sorted(text(id) for id in nodes) == ["a", "b"]


def test_bundles_of_the_dead_are_placed_anew_and_only_they() -> None:
    cluster = joined("a", "b", "c")
    make(cluster, 2, 2, strategy="STRICT_SPREAD")
    before = held(cluster)
    victim = next(name for name in "bc" if before[name])
    (index,) = before[victim]
    cluster.kill(victim)
    cluster.tick(1.0)
    after = held(cluster)
    spare = next(name for name in "bc" if name != victim)
    assert after == {"a": before["a"], spare: [index]} or after["a"] == [0, 1]
    assert len(cluster.answers["a", 1]) == 1
    assert [row["state"] for row in cluster.says("groups")[1]["groups"]] == ["placed"]


def test_a_bundle_waits_for_a_new_node_if_no_other_has_room() -> None:
    cluster = joined("a", "b")
    make(cluster, 3, 3, strategy="STRICT_SPREAD")
    cluster.kill("b")
    cluster.tick(1.0)
    assert [row["state"] for row in cluster.says("groups")[1]["groups"]] == ["pending"]
    cluster.join("c")
    cluster.tick(2.0)
    assert sorted(held(cluster).values()) == [[0], [1]]


def test_a_node_that_dies_in_the_middle_of_a_round_ends_the_round() -> None:
    cluster = joined("a", "b")
    cluster.paused.add("b")
    make(cluster, 3, 3, strategy="STRICT_SPREAD")
    assert list(node(cluster, "a").bundles.values()) == ["prepared"]
    cluster.paused.clear()
    cluster.kill("b")
    cluster.tick(1.0)
    assert node(cluster, "a").bundles == {}
    assert node(cluster, "a").free == {"CPU": 4.0}
    cluster.join("c")
    cluster.tick(2.0)
    assert cluster.answer("a", 1)[0] == []


def asked_for_two(moment: int) -> Cluster:
    """A group of two bundles is wanted, one on each node; so many frames have arrived since."""
    cluster = joined("a", "b")
    bundles = [{"CPU": 2.0}, {"CPU": 2.0}]
    cluster.ask("a", 1, "group", group=G, bundles=bundles, strategy="STRICT_SPREAD")
    for _ in range(moment):
        busy = [ends for ends, box in cluster.wires.items() if box]
        if busy:
            cluster.step(*busy[0])
    return cluster


@pytest.mark.parametrize("moment", range(12))
def test_a_cut_connection_at_any_moment_changes_nothing(moment: int) -> None:
    cluster = asked_for_two(moment)
    cluster.cut("b")
    cluster.connect("b")
    cluster.tick(2.0)
    assert cluster.answer("a", 1)[0] == []
    assert sorted(held(cluster).values()) == [[0], [1]]
    assert sum(node(cluster, name).free["CPU"] for name in "ab") == 4.0


@pytest.mark.parametrize("moment", range(14))
def test_a_head_that_restarts_at_any_moment_finishes_what_was_begun(moment: int) -> None:
    cluster = asked_for_two(moment)
    cluster.stop_head()
    cluster.start_head()
    for name in "ab":
        cluster.connect(name)
    cluster.tick(2.0)
    assert cluster.answer("a", 1)[0] == []
    assert sorted(held(cluster).values()) == [[0], [1]]
    assert sum(node(cluster, name).free["CPU"] for name in "ab") == 4.0


@pytest.mark.parametrize("moment", range(5))
def test_a_head_that_ends_while_it_buries_a_node_leaves_the_rest_to_the_next(moment: int) -> None:
    cluster = joined("a", "b", "c")
    cluster.ask("b", 1, "job", job=b"j" * 8, info={}, alive=True)
    make(cluster, 3, 3, strategy="STRICT_SPREAD")
    victim = next(name for name in "bc" if held(cluster)[name])
    cluster.kill(victim)
    for _ in range(moment):
        busy = [ends for ends, box in cluster.wires.items() if box and ends[1] != "a"]
        if busy:
            cluster.step(*busy[0])
    cluster.stop_head()
    cluster.start_head()
    spare = next(name for name in "bc" if name != victim)
    for name in ("a", spare):
        cluster.connect(name)
    cluster.tick(4.0)
    cluster.head.check()
    assert sorted(held(cluster).values()) == [[0], [1]]
    assert [job["alive"] for job in cluster.says("jobs")[1]["jobs"]] == [victim != "b"]


def test_an_ungroup_gives_everything_back_also_where_nobody_was_connected() -> None:
    cluster = joined("a", "b")
    make(cluster, 2, 2, strategy="STRICT_SPREAD")
    cluster.cut("b")
    assert cluster.says("ungroup", group=G)[1] == {"found": True}
    assert cluster.says("ungroup", group=G)[1] == {"found": False}
    cluster.connect("b")
    cluster.tick(0.5)
    assert held(cluster) == {"a": [], "b": []}
    assert all(node(cluster, name).free == {"CPU": 4.0} for name in "ab")
    assert not [key for key in cluster.store.entries if key.startswith(b"group/")]


def test_who_waits_for_a_group_that_is_removed_is_told() -> None:
    cluster = joined("a")
    node(cluster, "a").free["CPU"] = 0.0
    cluster.tick(0.2)
    make(cluster, 2)
    cluster.says("ungroup", group=G)
    assert cluster.answer("a", 1)[0][0] == "GroupRemoved"


def test_a_question_for_the_same_group_is_answered_like_the_first() -> None:
    cluster = joined("a", "b")
    make(cluster, 2)
    first = cluster.answer("a", 1)
    assert cluster.says("group", "b", group=G, bundles=[{"CPU": 2.0}]) == first


@pytest.mark.parametrize("step", ["prepare", "commit"])
def test_what_a_node_has_set_aside_for_nobody_is_given_back(step: str) -> None:
    """A prepare that was sent again to a new connection, and done when the bundle was elsewhere."""
    cluster = joined("a", "b")
    make(cluster, 2)
    (where,) = {text(id) for id in cluster.answer("a", 1)[1]["nodes"]}
    other = node(cluster, "b" if where == "a" else "a")
    for group in (G, b"unknown"):
        other.on_bundle(cluster.dialler(other.name), 0.0, group, 0, "prepare", {"CPU": 1.0})
        if step == "commit":
            other.on_bundle(cluster.dialler(other.name), 0.0, group, 0, "commit", {"CPU": 1.0})
    assert other.free == {"CPU": 2.0}
    cluster.flow()
    cluster.deliver()
    assert (other.bundles, other.free) == ({}, {"CPU": 4.0})
    assert held(cluster)[where] == [0]


class Model(RuleBasedStateMachine):
    """Nodes come and go, groups are made and removed, connections break, the head restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = joined("n0", "n1", "n2")
        self.count = 3
        self.groups: set[bytes] = set()

    def names(self) -> list[str]:
        return sorted(name for name in self.cluster.machines if name != "head")

    @rule(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), kind=st.integers(0, 3))
    def make(self, sizes: list[int], kind: int) -> None:
        group = b"g%d" % len(self.groups)  # each time a new one
        strategy = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")[kind]
        bundles = [{"CPU": float(size)} for size in sizes]
        number = 10_000 + len(self.groups)
        self.groups.add(group)
        if self.names():
            fields = {"group": group, "bundles": bundles, "strategy": strategy}
            self.cluster.ask(self.names()[0], number, "group", **fields)

    @rule(which=st.integers(0, 9))
    def remove(self, which: int) -> None:
        made = sorted(self.cluster.head.groups.groups)
        if made:
            self.cluster.head.groups.remove(self.cluster.now, made[which % len(made)])
            self.cluster.flow()

    @rule()
    def come(self) -> None:
        if len(self.names()) < 5:
            self.cluster.add(f"n{self.count}")
            self.count += 1

    @rule(which=st.integers(0, 9))
    def die(self, which: int) -> None:
        names = self.names()
        if names:
            self.cluster.kill(names[which % len(names)])

    @rule(which=st.integers(0, 9))
    def cut(self, which: int) -> None:
        names = self.names()
        if names:
            name = names[which % len(names)]
            self.cluster.cut(name)
            self.cluster.connect(name)

    @rule()
    def restart(self) -> None:
        self.cluster.stop_head()
        self.cluster.start_head()
        for name in self.names():
            self.cluster.connect(name)

    @rule(steps=st.integers(1, 8), which=st.integers(0, 9))
    def step(self, steps: int, which: int) -> None:
        for _ in range(steps):
            busy = [ends for ends, box in self.cluster.wires.items() if box]
            if busy:
                self.cluster.step(*busy[which % len(busy)])

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.cluster.tick(seconds)

    @invariant()
    def tables_are_sound(self) -> None:
        for machine in self.cluster.machines.values():
            machine.check()

    def teardown(self) -> None:
        """In the end everybody agrees on who holds what, and nothing is left set aside."""
        self.cluster.tick(6.0)
        expected = {
            (group.id, index): text(bundle.node)
            for group in self.cluster.head.groups.groups.values()
            for index, bundle in enumerate(group.bundles)
            if bundle.node
        }
        found = {key: name for name in self.names() for key in node(self.cluster, name).bundles}
        assert found == expected
        for name in self.names():
            daemon = node(self.cluster, name)
            assert set(daemon.bundles.values()) <= {"committed"}
            assert daemon.free["CPU"] + sum(n["CPU"] for n in daemon.sizes.values()) == 4.0
        for group in list(self.cluster.head.groups.groups):
            self.cluster.head.groups.remove(self.cluster.now, group)
        self.cluster.tick(1.0)
        for name in self.names():
            assert node(self.cluster, name).bundles == {}
            assert node(self.cluster, name).free == {"CPU": 4.0}
            assert not node(self.cluster, name).members.relay.questions


TestModel = Model.TestCase
TestModel.settings = effort(40, 30)
