"""Names that go with a process or its node, and groups of which only the word is waited for."""

from __future__ import annotations

from clusters import Cluster, identity
from freehold.core.machine import Peer

NAME = {"namespace": "n", "name": "lamp"}
G = b"g" * 12
P = b"p" * 8  # the process by which ``Cluster.ask`` asks


def made() -> Cluster:
    cluster = Cluster()
    cluster.join("a", "b")
    return cluster


def is_there(cluster: Cluster, where: str = "b") -> bool:
    return bool(cluster.says("find", where, **NAME)[1]["found"])


def die(cluster: Cluster, node: str, process: bytes = P) -> None:
    """That process of the node is dead."""
    daemon = cluster.machines[node]
    asked = [question.asker for question in daemon.members.relay.questions.values()]
    peers = [peer for peer in asked if peer is not None and peer.id == process]
    daemon.members.relay.forget(peers[0] if peers else Peer(process, "", "process"))
    cluster.flow()
    cluster.deliver()


def test_a_name_goes_with_its_process() -> None:
    cluster = made()
    assert cluster.says("name", **NAME, value=b"v", proc=P) == ([], {})
    assert is_there(cluster)
    die(cluster, "a", b"other...")
    assert is_there(cluster)
    die(cluster, "a")
    assert not is_there(cluster)


def test_a_name_without_a_process_stays() -> None:
    cluster = made()
    cluster.says("name", **NAME, value=b"v")
    die(cluster, "a")
    cluster.kill("a")
    cluster.tick(3.0)
    assert is_there(cluster)


def test_a_name_goes_with_the_node_of_its_process_also_after_a_restart_of_the_head() -> None:
    for restart in (False, True):
        cluster = made()
        cluster.says("name", **NAME, value=b"v", proc=P)
        if restart:
            cluster.stop_head()
            cluster.start_head()
            cluster.connect("a")
            cluster.connect("b")
            cluster.deliver()
            assert is_there(cluster)
        cluster.kill("a")
        cluster.tick(3.0)
        assert not is_there(cluster)


def test_a_process_that_dies_before_the_answer_leaves_no_name() -> None:
    cluster = made()
    cluster.disk = False
    cluster.ask("a", 1, "name", **NAME, value=b"v", proc=P)
    cluster.deliver()  # the head has it, and writes it
    die(cluster, "a")
    cluster.disk = True
    cluster.flush()
    cluster.deliver()
    assert not is_there(cluster)


def test_a_name_that_has_been_given_up_is_not_taken_from_the_next() -> None:
    cluster = made()
    cluster.says("name", **NAME, value=b"v", proc=P)
    cluster.says("forget", **NAME, value=b"v")
    assert cluster.says("name", "b", **NAME, value=b"w") == ([], {})
    die(cluster, "a")
    assert cluster.says("find", **NAME)[1]["value"] == b"w"


def test_a_malformed_question_of_a_process_that_dies_is_forgotten() -> None:
    cluster = made()
    cluster.disk = False
    cluster.ask("a", 1, "name", namespace=["n"], proc=P)
    die(cluster, "a")
    assert cluster.machines["a"].members.relay.questions == {}


def test_a_group_is_made_at_once_and_waited_for_apart() -> None:
    cluster = made()
    bundles = [{"CPU": 3.0}, {"CPU": 3.0}]
    assert cluster.says("group", group=G, bundles=bundles, wait=False) == ([], {})
    error, fields = cluster.says("placed", "b", group=G)
    assert error == []
    assert sorted(fields["nodes"]) == sorted(identity(name) for name in "ab")
    error, _ = cluster.says("group", group=b"h" * 12, bundles=[{"CPU": 9.0}], wait=False)
    assert error[0] == "Unschedulable"


def test_who_waits_for_a_group_that_is_removed_is_told() -> None:
    cluster = made()
    cluster.says("group", group=G, bundles=[{"CPU": 4.0}] * 2, wait=False)
    cluster.says("group", group=b"h" * 12, bundles=[{"CPU": 1.0}], wait=False)
    cluster.ask("a", 1, "placed", group=b"h" * 12)
    cluster.tick(0.3)
    assert ("a", 1) not in cluster.answers
    cluster.says("ungroup", group=b"h" * 12)
    assert cluster.answer("a", 1)[0][0] == "GroupRemoved"
    assert cluster.says("placed", group=b"h" * 12)[0][0] == "GroupRemoved"


def test_the_node_s_own_questions_are_answered_to_it() -> None:
    cluster = made()
    heard: list[list[str]] = []
    relay = cluster.machines["a"].members.relay
    relay.inquire("placed", {"group": G}, lambda error, fields, now: heard.append(error))
    cluster.flow()
    cluster.deliver()
    assert [error[0] for error in heard] == ["GroupRemoved"]
    assert relay.questions == {}


def test_an_answer_that_meets_a_node_which_was_refused_is_nobody_s() -> None:
    """The head answers what came before it heard that the node is no member any more."""
    cluster = made()
    relay = cluster.machines["a"].members.relay
    head = relay.head
    assert head is not None
    relay.end("it is refused")
    relay.on_entry(head, 0.0, 1, [], {})


def test_a_node_that_is_given_up_knows_no_names_any_more() -> None:
    cluster = made()
    cluster.says("name", **NAME, value=b"v", proc=P)
    relay = cluster.machines["a"].members.relay
    assert relay.names
    relay.end("it is refused")
    assert not relay.names
