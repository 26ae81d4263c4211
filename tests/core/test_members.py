"""The node's part: reports, views, the head's absence, questions that are answered once."""

from __future__ import annotations

import pytest

from clusters import Cluster, Daemon, identity, joined, node, text
from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node.members import Members
from freehold.errors import ProtocolError


def alone() -> tuple[Machine, Members, Peer, list[str]]:
    """A node with a connection to a head that a test plays."""
    machine, calls = Machine(identity("a"), m.OPCODES), list[str]()
    members = Members(
        machine,
        address="a",
        total={"CPU": 4.0},
        on_node_down=[lambda id, why, now: calls.append(f"down {text(id)}: {why}")],
        on_joined=[lambda now: calls.append("joined")],
        on_refused=[lambda why, now: calls.append(f"refused: {why}")],
        on_change=[lambda now: calls.append("change")],
        on_retire=[lambda now: calls.append("retire")],
    )
    head = Peer(identity("h"), "h", "head")
    members.on_head_up(head, 0.0, {"cluster": "c"})
    return machine, members, head, calls


def row(name: str) -> list[object]:
    return [identity(name), name, {"CPU": 4.0}, {}, {"CPU": 4.0}, 0, False]


def join(machine: Machine, head: Peer, *names: str, epoch: int = 1, now: float = 0.0) -> None:
    machine.handlers[m.JOINED](head, now, epoch, [row(name) for name in ("a", *names)])
    head.outbox.clear()
    machine.dirty.clear()


def sent(peer: Peer) -> list[str]:
    return [m.NAMES[frame[0]] for frame in peer.outbox]


# -- reports --------------------------------------------------------------------------------------


def test_nothing_is_reported_before_the_node_is_a_member() -> None:
    machine, members, head, _ = alone()
    members.report({"CPU": 1.0}, 0, 0.0)
    assert not head.outbox
    assert members.deadline() == NEVER
    machine.handlers[m.JOINED](head, 0.0, 1, [row("a")])
    assert head.outbox == [(m.REPORT, {"CPU": 1.0}, 0)]


def test_changes_are_reported_at_once_but_not_more_often_than_allowed() -> None:
    machine, members, head, _ = alone()
    join(machine, head)
    members.report({"CPU": 3.0}, 0, 0.2)
    members.report({"CPU": 2.0}, 0, 0.21)
    members.report({"CPU": 1.0}, 5, 0.22)
    assert head.outbox == [(m.REPORT, {"CPU": 3.0}, 0)]
    assert members.deadline() == pytest.approx(0.3)
    members.on_timer(members.deadline())
    assert head.outbox[1:] == [(m.REPORT, {"CPU": 1.0}, 5)]
    assert members.deadline() == pytest.approx(0.8)  # the next sign of life


def test_a_report_that_says_the_same_waits_for_the_heartbeat() -> None:
    machine, members, head, _ = alone()
    join(machine, head)
    members.report({"CPU": 4.0}, 0, 0.4)
    members.on_timer(0.4)
    assert not head.outbox
    members.on_timer(0.5)
    assert sent(head) == ["REPORT"]


def test_what_the_caller_changes_later_has_not_been_reported() -> None:
    machine, members, head, _ = alone()
    join(machine, head)
    free = {"CPU": 3.0}
    members.report(free, 0, 0.2)
    free["CPU"] = 1.0
    members.report(free, 0, 0.4)
    assert [frame[1] for frame in head.outbox][-1] == {"CPU": 1.0}


# -- the view -------------------------------------------------------------------------------------


def test_the_view_follows_the_head() -> None:
    machine, members, head, calls = alone()
    join(machine, head, "b")
    machine.handlers[m.NODE_UP](head, 0.0, 2, identity("c"), "c", {"CPU": 2.0}, {"zone": "x"})
    assert members.view[identity("c")].labels == {"zone": "x"}
    gossip = [[identity("c"), {"CPU": 1.0}, 3, True, {"CPU": 2.0, "GPU": 1.0}],
              [identity("a"), {"CPU": 0.0}, 9, False, {}],
              [identity("x"), {"CPU": 0.0}, 9, False, {}]]  # fmt: skip
    machine.handlers[m.GOSSIP](head, 0.0, gossip)
    third = members.view[identity("c")]
    assert (third.free, third.waiting, third.retiring) == ({"CPU": 1.0}, 3, True)
    assert third.total == {"CPU": 2.0, "GPU": 1.0}
    assert members.view[identity("a")].free == {"CPU": 4.0}  # of itself it knows better
    machine.handlers[m.NODE_DOWN](head, 0.0, 3, identity("b"), "it fell")
    assert [text(id) for id in members.view] == ["a", "c"]
    assert "down b: it fell" in calls
    assert members.epoch == 3
    machine.handlers[m.NODE_UP](head, 0.0, 4, identity("b"), "b", {}, {})
    assert identity("b") not in members.view  # the dead do not return
    members.check()


def test_a_death_is_called_once() -> None:
    machine, members, head, calls = alone()
    join(machine, head, "b")
    for epoch in (2, 3):
        machine.handlers[m.NODE_DOWN](head, 0.0, epoch, identity("b"), "it fell")
    assert [call for call in calls if call.startswith("down")] == ["down b: it fell"]
    assert members.epoch == 3


def test_who_is_missing_when_the_head_is_back_has_gone_meanwhile() -> None:
    machine, members, head, calls = alone()
    join(machine, head, "b", "c")
    members.on_head_down(head, 1.0)
    again = Peer(identity("h2"), "h", "head")
    members.on_head_up(again, 1.0, {"cluster": "c"})
    join(machine, again, "c", "d", epoch=5)
    assert [call for call in calls if "down" in call] == [
        "down b: it died or left while this node had no head"
    ]
    assert [text(id) for id in members.view] == ["a", "c", "d"]


@pytest.mark.parametrize(
    "frame",
    [
        (m.JOINED, 9, []),
        (m.REFUSED, "no"),
        (m.NODE_DOWN, 9, b"b" * 8, "no"),
        (m.NODE_UP, 9, b"b" * 8, "b", {}, {}),
        (m.GOSSIP, []),
        (m.RETIRE, identity("a")),
        (m.WITNESS, identity("b"), "b"),
        (m.ENTRY, 1, [], {}),
    ],
    ids=lambda frame: m.NAMES[frame[0]],
)
def test_only_the_head_may_say_so(frame: tuple[object, ...]) -> None:
    machine, members, head, _ = alone()
    join(machine, head, "b")
    before = members.snapshot()
    op, *fields = frame
    assert isinstance(op, int)
    with pytest.raises(ProtocolError, match="is not this node's head"):
        machine.handlers[op](Peer(identity("x"), "", "driver"), 0.0, *fields)
    assert members.snapshot() == before


def test_a_head_of_another_cluster_or_of_the_past_is_refused() -> None:
    machine, members, head, _ = alone()
    join(machine, head, epoch=7)
    with pytest.raises(ProtocolError, match="cluster d"):
        members.on_head_up(Peer(identity("h2"), "h", "head"), 0.0, {"cluster": "d"})
    members.on_head_down(head, 0.0)
    old = Peer(identity("h3"), "h", "head")
    members.on_head_up(old, 0.0, {"cluster": "c"})
    with pytest.raises(ProtocolError, match="epoch 6"):
        machine.handlers[m.JOINED](old, 0.0, 6, [row("a")])


def test_a_node_is_told_to_retire_once() -> None:
    machine, members, head, calls = alone()
    join(machine, head, "b")
    for id in (identity("b"), identity("a"), identity("a")):
        machine.handlers[m.RETIRE](head, 0.0, id)
    assert calls.count("retire") == 1
    assert members.info["retiring"]
    members.leave()
    assert sent(head) == ["LEAVE"]


# -- without a head -------------------------------------------------------------------------------


def headless() -> tuple[Machine, Members, list[str]]:
    machine, members, head, calls = alone()
    join(machine, head, "b", "c")
    members.on_head_down(head, 10.0)
    return machine, members, calls


def probed(machine: Machine, members: Members, now: float, name: str, answer: str) -> None:
    machine.handlers[m.PROBED](members.suspects.prober, now, identity(name), answer)


def reaches(head: Peer) -> list[tuple[str, bool, bool]]:
    """What the head has been told about whom this node reaches."""
    return [(text(frame[1]), *frame[2:]) for frame in head.outbox if frame[0] == m.REACH]


def test_with_a_head_deaths_are_its_affair() -> None:
    machine, members, head, calls = alone()
    join(machine, head, "b")
    members.suspects.add(identity("b"), 0.0)
    for _ in range(5):
        probed(machine, members, 0.1, "b", "refused")
    members.on_timer(9.0)
    assert identity("b") in members.view
    members.on_head_down(head, 10.0)  # now it is this node's
    probed(machine, members, 10.1, "b", "refused")
    assert calls[-2].startswith("down b: nobody listens")


def test_the_head_is_told_of_who_was_dialled_in_vain_and_when_that_is_over() -> None:
    machine, members, head, _ = alone()
    join(machine, head, "b")
    members.suspects.add(identity("b"), 0.0)
    assert sent(members.suspects.prober) == ["PROBE"]
    probed(machine, members, 0.4, "b", "silent")
    assert reaches(head) == []
    assert members.deadline() == 0.5
    members.on_timer(0.5)
    assert sent(members.suspects.prober) == ["PROBE", "PROBE"]
    for now in (0.9, 1.4):
        probed(machine, members, now, "b", "silent")
    assert reaches(head) == [("b", False, False)]  # once
    probed(machine, members, 1.9, "b", "alive")
    assert reaches(head) == [("b", False, False), ("b", True, False)]
    assert not members.suspects.open
    members.suspects.add(identity("b"), 2.0)
    members.suspects.clear(identity("b"))
    assert len(reaches(head)) == 2  # there had been no complaint


def test_the_next_head_is_told_again_of_who_was_dialled_in_vain() -> None:
    machine, members, head, _ = alone()
    join(machine, head, "b")
    members.suspects.add(identity("b"), 0.0)
    for _ in range(2):
        probed(machine, members, 0.4, "b", "silent")
    members.on_head_down(head, 0.5)
    head = Peer(identity("h2"), "h", "head")
    members.on_head_up(head, 0.6, {"cluster": "c"})
    join(machine, head, "b", now=0.6)
    for _ in range(2):
        assert reaches(head) == []
        probed(machine, members, 0.7, "b", "silent")
    assert reaches(head) == [("b", False, False)]


@pytest.mark.parametrize(("answer", "reached"), [("alive", True), ("silent", False)])
def test_a_witness_dials_whomever_the_head_names(answer: str, reached: bool) -> None:
    machine, members, head, _ = alone()
    join(machine, head)
    for _ in range(2):
        machine.handlers[m.WITNESS](head, 0.0, identity("x"), "x")
    assert members.suspects.prober.outbox == [(m.PROBE, identity("x"), "x")]
    probed(machine, members, 0.4, "x", answer)
    probed(machine, members, 0.4, "x", answer)
    assert reaches(head) == [("x", reached, True)]


def test_without_one_a_refusal_is_a_death() -> None:
    machine, members, calls = headless()
    members.suspects.add(identity("b"), 10.0)
    assert members.suspects.prober.outbox == [(m.PROBE, identity("b"), "b")]
    probed(machine, members, 10.0, "b", "refused")
    assert calls[-2].startswith("down b")
    assert identity("b") in members.dead
    members.check()


def test_without_one_silence_is_a_death_in_the_end_and_an_answer_is_none() -> None:
    machine, members, calls = headless()
    members.suspects.add(identity("b"), 10.0)
    members.suspects.add(identity("c"), 10.0)
    now = 10.0
    while now < 11.9:
        now += 0.1
        probed(machine, members, now, "b", "silent")
        members.on_timer(now)
    assert identity("b") in members.view
    probed(machine, members, now, "c", "alive")
    members.on_timer(12.0)
    assert [text(id) for id in members.view] == ["a", "c"]
    assert "silent for 2 s" in calls[-2]
    assert members.suspects.prober.outbox.count((m.PROBE, identity("b"), "b")) == 4
    assert members.deadline() == NEVER


def test_nobody_suspects_strangers_itself_or_who_is_connected_again() -> None:
    _, members, _ = headless()
    members.suspects.add(identity("x"), 10.0)
    members.suspects.add(identity("a"), 10.0)
    assert not members.suspects.open
    members.suspects.add(identity("b"), 10.0)
    members.suspects.clear(identity("b"))
    members.on_timer(20.0)
    assert identity("b") in members.view


def test_the_next_head_is_told_what_was_decided_without_one() -> None:
    machine, members, _ = headless()
    members.suspects.add(identity("b"), 10.0)
    probed(machine, members, 10.0, "b", "refused")
    head = Peer(identity("h2"), "h", "head")
    members.on_head_up(head, 11.0, {"cluster": "c"})
    machine.handlers[m.JOINED](head, 11.0, 3, [row(name) for name in "abc"])
    assert sent(head)[0] == "NODE_DOWN"
    assert identity("b") not in members.view
    assert list(members.declared) == [identity("b")]
    machine.handlers[m.JOINED](head, 11.0, 4, [row(name) for name in "ac"])
    assert not members.declared  # it is known


# -- questions ------------------------------------------------------------------------------------


def test_questions_wait_for_the_head_and_are_answered_once_each() -> None:
    cluster = Cluster()
    cluster.machines["a"] = daemon = Daemon("a", {"CPU": 1.0}, {})
    cluster.ask("a", 7, "name", namespace="", name="n", value=b"1")
    cluster.deliver()
    assert not cluster.answers
    cluster.connect("a")
    cluster.deliver()
    assert cluster.answer("a", 7) == ([], {})
    assert not daemon.members.relay.questions


@pytest.mark.parametrize("moment", range(10))
def test_a_head_that_restarts_at_any_moment_answers_everything_once(moment: int) -> None:
    cluster = joined("a", "b")
    cluster.ask("a", 1, "name", namespace="", name="n", value=b"1")
    cluster.ask("b", 2, "find", namespace="", name="n")
    cluster.ask("a", 3, "job", job=b"j", info={}, alive=True)
    for _ in range(moment):
        busy = [ends for ends, box in cluster.wires.items() if box]
        if busy:
            cluster.step(*busy[0])
    cluster.stop_head()
    cluster.ask("b", 4, "names")
    cluster.start_head()
    for name in "ab":
        cluster.connect(name)
    cluster.tick(1.0)
    assert cluster.answer("a", 1) == ([], {})
    assert cluster.answer("b", 2)[0] == []
    assert cluster.answer("a", 3) == ([], {})
    assert cluster.answer("b", 4)[0] == []
    assert cluster.says("find", namespace="", name="n")[1]["value"] == b"1"
    assert not node(cluster, "a").members.relay.questions


def test_the_answers_for_a_dead_process_are_for_nobody() -> None:
    machine, members, head, _ = alone()
    join(machine, head)
    process, other = Peer(b"p"), Peer(b"q")
    for number, asker in enumerate((process, other)):
        machine.handlers[m.DIRECTORY](asker, 0.0, number, "names", {})
    members.relay.forget(process)
    for number in (1, 2):
        machine.handlers[m.ENTRY](head, 0.0, number, [], {"names": []})
    assert not process.outbox
    assert other.outbox == [(m.ENTRY, 1, [], {"names": []})]


def test_a_node_that_is_refused_leaves_no_question_open() -> None:
    machine, members, head, calls = alone()
    process = Peer(b"p")
    machine.handlers[m.DIRECTORY](process, 0.0, 1, "names", {})
    machine.handlers[m.REFUSED](head, 0.0, "it is dead")
    machine.handlers[m.DIRECTORY](process, 0.0, 2, "names", {})
    assert [(frame[1], frame[2][0]) for frame in process.outbox] == [
        (1, "NodeDied"),
        (2, "NodeDied"),
    ]
    assert calls == ["refused: it is dead"]
    assert (members.head, members.refused) == (None, "it is dead")
