"""The head: joining, reports and gossip, deaths, leaving, restarts."""

from __future__ import annotations

import pytest

from clusters import identity, joined, node, text
from freehold.core import messages as m
from freehold.core.head.head import Head
from freehold.core.machine import NEVER, Peer
from freehold.core.records import decode, encode
from freehold.errors import ProtocolError

# -- joining --------------------------------------------------------------------------------------


def test_a_node_is_a_member_when_it_is_recorded_and_not_before() -> None:
    cluster = joined("a")
    cluster.disk = False
    cluster.add("b")
    cluster.deliver()
    assert not node(cluster, "b").members.joined
    assert not cluster.seen("NODE_UP")
    cluster.flush()
    assert node(cluster, "b").members.joined
    assert cluster.views() == [["a", "b"], ["a", "b"]]
    assert b"node/" + identity("b") in cluster.store.entries
    assert decode(cluster.store.entries[b"epoch"][0]) == 2 == node(cluster, "b").members.epoch


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({}, "resources"),
        ({"total": {"CPU": -1.0}, "labels": {}}, "amount"),
        ({"total": {"CPU": float("nan")}, "labels": {}}, "amount"),
        ({"total": {"CPU": True}, "labels": {}}, "amount"),
        ({"total": {"": 1.0}, "labels": {}}, "name"),
        ({"total": {}, "labels": {"zone": 3}}, "label"),
        ({"total": {}, "labels": []}, "labels"),
        ({"total": {}, "labels": {}, "bundles": [[b"g"]]}, "bundles"),
        ({"total": {}, "labels": {f"{i}": "x" * 1000 for i in range(300)}}, "larger"),
    ],
)
def test_a_malformed_hello_is_refused_with_the_reason(info: dict[str, object], says: str) -> None:
    cluster = joined("a")
    peer = Peer(identity("x"), "x", "node")
    cluster.head.on_up(peer, 0.0, info)
    (frame,) = peer.outbox
    assert frame[0] == m.REFUSED
    assert says in frame[1]
    assert identity("x") not in cluster.head.nodes


def test_tools_are_no_members() -> None:
    cluster = joined("a")
    tool = Peer(identity("t"), "", "tool")
    cluster.head.on_up(tool, 0.0, {})
    assert not tool.outbox
    assert list(cluster.head.nodes) == [identity("a")]


def test_what_changes_is_gossiped_to_all_in_batches() -> None:
    cluster = joined("a", "b", "c")
    cluster.tick(1.0)
    before = len(cluster.seen("GOSSIP"))
    cluster.tick(2.0)  # heartbeats alone are no news
    assert len(cluster.seen("GOSSIP")) == before
    node(cluster, "a").free["CPU"] = 1.0
    node(cluster, "b").waiting = 7
    cluster.tick(0.3)
    view = node(cluster, "c").members.view
    assert view[identity("a")].free == {"CPU": 1.0}
    assert view[identity("b")].waiting == 7
    assert len(cluster.seen("GOSSIP")) == before + 3


def test_gossip_is_rarer_in_a_crowd() -> None:
    cluster = joined(*(f"n{number}" for number in range(200)))
    cluster.tick(1.0)
    sent = len(cluster.seen("GOSSIP"))
    for step in range(10):
        node(cluster, "n0").free["CPU"] = float(step)
        cluster.tick(0.1)
    assert 4 * 200 <= len(cluster.seen("GOSSIP")) - sent <= 6 * 200


# -- deaths ---------------------------------------------------------------------------------------


def test_a_closed_connection_and_a_refusal_are_a_death_at_once() -> None:
    cluster = joined("a", "b")
    cluster.kill("b")
    cluster.deliver()
    assert cluster.views() == [["a"]]
    (entry,) = [entry for entry in node(cluster, "a").log if entry[0] == "down"]
    assert entry[1] == "b"
    assert "does not listen" in entry[2]
    assert cluster.now == 0.0


def test_a_death_is_told_when_it_is_recorded() -> None:
    cluster = joined("a", "b")
    cluster.disk = False
    cluster.kill("b")
    cluster.deliver()
    assert cluster.views() == [["a", "b"]]
    cluster.flush()
    assert cluster.views() == [["a"]]
    assert b"node/" + identity("b") not in cluster.store.entries
    assert b"dead/" + identity("b") in cluster.store.entries


def test_silence_is_a_death_after_two_seconds_and_no_earlier() -> None:
    cluster = joined("a", "b")
    cluster.tick(1.0)
    cluster.paused.add("b")
    cluster.tick(1.4)
    assert identity("b") in cluster.head.nodes
    cluster.tick(0.7)
    assert identity("b") not in cluster.head.nodes
    assert "silent" in node(cluster, "a").log[-1][2]


def test_a_head_that_is_cut_off_from_most_declares_nobody_dead_for_a_while() -> None:
    cluster = joined("a", "b", "c", "d")
    cluster.paused |= {"b", "c", "d"}
    cluster.tick(8.0)
    assert sorted(map(text, cluster.head.nodes)) == ["a", "b", "c", "d"]
    cluster.paused -= {"b", "c"}  # they are heard again: so it is d that is gone
    cluster.tick(1.0)
    assert cluster.views()[0] == ["a", "b", "c"]


def test_most_that_stay_silent_are_dead_in_the_end() -> None:
    cluster = joined("a", "b", "c", "d")
    cluster.paused |= {"b", "c", "d"}
    cluster.tick(10.5)
    assert cluster.views()[0] == ["a"]


def test_half_of_two_is_not_most() -> None:
    cluster = joined("a", "b")
    cluster.paused.add("b")
    cluster.tick(2.1)
    assert cluster.views()[0] == ["a"]


def test_a_cut_connection_to_a_node_that_listens_is_no_death() -> None:
    cluster = joined("a", "b")
    cluster.cut("b")
    cluster.tick(1.0)
    cluster.connect("b")
    cluster.tick(3.0)
    assert cluster.views() == [["a", "b"], ["a", "b"]]
    assert not [entry for entry in node(cluster, "a").log if entry[0] == "down"]


def test_a_node_that_never_comes_back_is_dead_even_if_it_answers_the_prober() -> None:
    cluster = joined("a", "b")
    cluster.cut("b")
    cluster.tick(2.2)
    assert identity("b") not in cluster.head.nodes


def test_a_silent_prober_waits_for_the_rest_of_the_time() -> None:
    cluster = joined("a", "b")
    cluster.tick(1.0)
    cluster.silent.add("b")
    cluster.cut("b")
    cluster.tick(1.0)
    assert identity("b") in cluster.head.nodes
    cluster.tick(1.2)
    assert identity("b") not in cluster.head.nodes


def test_the_dead_are_refused_for_ever_and_are_told_so() -> None:
    cluster = joined("a", "b")
    cluster.paused.add("b")
    cluster.tick(2.2)
    cluster.paused.clear()
    cluster.deliver()
    assert node(cluster, "b").log[-1][0] == "refused"  # its old connection was still open
    for _ in range(2):
        cluster.cut("b")
        cluster.connect("b")
        cluster.deliver()
        assert "may not come back" in node(cluster, "b").log[-1][1]
        cluster.stop_head()
        cluster.start_head()
    assert not cluster.head.nodes.keys() & {identity("b")}


def test_a_node_that_dies_before_it_is_recorded_is_never_told_of() -> None:
    cluster = joined("a")
    cluster.disk = False
    cluster.add("b")
    cluster.kill("b")
    cluster.deliver()
    cluster.flush()
    assert not cluster.seen("NODE_UP")
    assert cluster.views() == [["a"]]
    assert (cluster.head.roll.epoch, cluster.head.roll.told) == (3, 3)


def test_epochs_are_told_in_order() -> None:
    cluster = joined("a", "b", "c")
    cluster.disk = False
    cluster.kill("b")
    cluster.add("d")
    cluster.deliver()
    cluster.flush()
    assert node(cluster, "a").members.epoch == 5
    assert node(cluster, "d").members.epoch == 5
    assert cluster.views() == [["a", "c", "d"]] * 3


def test_only_so_many_of_the_dead_are_remembered() -> None:
    cluster = joined("a", dead_max=2)
    for name in "wxyz":
        cluster.join(name)
        cluster.kill(name)
        cluster.deliver()
    assert [text(id) for id in cluster.head.roll.dead] == ["y", "z"]
    assert sum(key.startswith(b"dead/") for key in cluster.store.entries) == 2


# -- leaving --------------------------------------------------------------------------------------


def test_a_retiring_node_is_marked_for_all_and_leaves_in_good_order() -> None:
    cluster = joined("a", "b")
    assert cluster.says("retire", node=identity("b")) == ([], {})
    cluster.tick(0.2)
    assert node(cluster, "b").log[-1] == ("retire",)
    assert node(cluster, "a").members.view[identity("b")].retiring
    node(cluster, "b").members.leave()
    cluster.flow()
    cluster.deliver()
    assert node(cluster, "b").log[-1] == ("refused", "it has left in good order")
    assert node(cluster, "a").log[-1] == ("down", "b", "it has left in good order")


def test_a_tools_retire_is_passed_on_and_survives_a_restart_of_the_head() -> None:
    cluster = joined("a", "b")
    cluster.head.handlers[m.RETIRE](Peer(b"t", "", "tool"), 0.0, identity("b"))
    cluster.flow()
    cluster.deliver()
    assert node(cluster, "b").log[-1] == ("retire",)
    cluster.stop_head()
    cluster.start_head()
    cluster.connect("a")
    cluster.deliver()
    assert node(cluster, "a").members.view[identity("b")].retiring


def test_who_is_no_member_cannot_be_retired() -> None:
    error, _ = joined("a").says("retire", node=identity("x"))
    assert error[0] == "NodeDied"


# -- restarts -------------------------------------------------------------------------------------


def test_members_rejoin_a_head_that_restarts() -> None:
    cluster = joined("a", "b")
    cluster.stop_head()
    cluster.tick(1.0)
    cluster.start_head()
    assert cluster.head.roll.epoch == 2
    for name in "ab":
        cluster.connect(name)
    cluster.tick(3.0)
    assert cluster.views() == [["a", "b"], ["a", "b"]]
    assert cluster.head.roll.epoch == 2
    assert not [entry for name in "ab" for entry in node(cluster, name).log if entry[0] == "down"]


def test_members_that_do_not_come_back_are_dialled_and_then_dead() -> None:
    cluster = joined("a", "b", "c")
    cluster.stop_head()
    del cluster.machines["b"]
    cluster.silent.add("c")
    cluster.start_head()
    cluster.connect("a")
    cluster.tick(1.9)
    assert set(cluster.head.nodes) == {identity(name) for name in "abc"}
    cluster.tick(0.3)
    assert set(cluster.head.nodes) == {identity("a")}  # refused and silent alike
    assert [entry[1] for entry in node(cluster, "a").log if entry[0] == "down"] == ["b", "c"]
    assert cluster.head.roll.epoch == 5


def test_a_slow_member_that_answers_the_prober_gets_time_to_come_back() -> None:
    cluster = joined("a", "b")
    cluster.stop_head()
    cluster.start_head()
    cluster.connect("a")
    cluster.tick(3.0)
    assert identity("b") in cluster.head.nodes
    cluster.connect("b")
    cluster.tick(3.0)
    assert identity("b") in cluster.head.nodes


def test_deaths_that_were_decided_without_a_head_hold() -> None:
    cluster = joined("a", "b", "c")
    cluster.stop_head()
    cluster.paused.add("b")
    for name in "ac":
        node(cluster, name).members.suspects.add(identity("b"), cluster.now)
    cluster.tick(2.2)
    assert cluster.views() == [["a", "c"], ["a", "b", "c"], ["a", "c"]]
    cluster.start_head()
    for name in "ac":
        cluster.connect(name)
    cluster.tick(2.1)  # b is heard by nobody
    assert identity("b") in cluster.head.roll.dead
    assert not node(cluster, "a").members.declared
    cluster.paused.clear()
    cluster.connect("b")
    cluster.deliver()
    assert node(cluster, "b").log[-1][0] == "refused"


def test_an_older_head_on_the_same_store_is_fenced() -> None:
    cluster = joined("a")
    old = cluster.head
    cluster.machines["old"] = old
    cluster.start_head()
    cluster.deliver()
    peer = Peer(identity("x"), "x", "node")
    old.on_up(peer, cluster.now, {"total": {"CPU": 1.0}, "labels": {}})
    cluster.flow()
    cluster.deliver()
    assert old.fenced
    assert not peer.outbox
    assert not cluster.head.fenced
    assert b"node/" + identity("x") not in cluster.store.entries
    assert old.deadline() == NEVER
    old.on_timer(cluster.now + 100)
    assert not old.dirty


def test_a_damaged_record_is_found_at_the_start() -> None:
    for damaged in (b"", b"\xdd\0\0\0\1", b"\xc0\xc0", b"\x93abc", encode("x")[:-1], b"\xdb"):
        with pytest.raises(ProtocolError, match="damaged"):
            Head(identity("h"), entries=[(b"node/" + identity("a"), damaged, 1)])
