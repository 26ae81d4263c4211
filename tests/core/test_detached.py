"""The head's table of detached actors: chosen, told, counted, and kept in the store."""

from __future__ import annotations

from typing import Any

from clusters import Cluster, Daemon, identity
from freehold.core import messages as m
from freehold.core.ids import detached_id, job_of
from freehold.core.machine import Peer

ID = detached_id(b"task............")
PLAN: list[Any] = ["K", b"digest", b"code", {}, b"args", [], [], [], []]
NAME = {"namespace": "n", "name": "lamp"}


class Hosts(Cluster):
    """A cluster whose nodes note what they are to have."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []  # node, incarnation
        self.over: list[str] = []  # nodes that were told of the end

    def add(self, name: str, cpus: float = 4.0, labels: Any = None, **more: float) -> Daemon:
        daemon = super().add(name, cpus, labels, **more)

        def on_embody(peer: Peer, now: float, actor: bytes, number: int, *rest: Any) -> None:
            assert actor == ID
            assert rest[-1] == PLAN
            self.told.append((name, number))

        def on_ended(peer: Peer, now: float, actor: bytes) -> None:
            self.over.append(name)

        daemon.on({m.EMBODY: on_embody, m.ENDED: on_ended})
        return daemon

    def detach(self, restarts: int = 0, **more: Any) -> list[Any]:
        fields = {
            **NAME, "actor": ID, "value": ID, "cpus": 0.0, "resources": {}, "where": [],
            "restarts": restarts, "plan": PLAN, **more,
        }  # fmt: skip
        return self.says("detach", **fields)[0]

    def report(self, state: str, error: list[Any] | None = None) -> None:
        """The node that was told last says what has become of it."""
        name, number = self.told[-1]
        fields = {"state": state, "proc": b"p" * 8, "address": "there", "error": error or []}
        self.says("incarnation", name, actor=ID, number=number, **fields)

    def where(self) -> tuple[list[Any], dict[str, Any]]:
        """What somebody is told who asks where it is."""
        return self.says("locate", "a", actor=ID)

    def waits(self, where: str, request: int) -> bool:
        return (where, request) not in self.answers


def made(*names: str) -> Hosts:
    cluster = Hosts()
    cluster.join(*(names or ("a", "b")))
    return cluster


def test_it_is_recorded_told_to_a_node_and_found_when_it_lives() -> None:
    cluster = made()
    assert cluster.detach() == []
    assert cluster.says("find", **NAME)[1] == {"found": True, "value": ID}
    cluster.ask("b", 7, "locate", actor=ID)
    cluster.deliver()
    assert cluster.waits("b", 7)
    assert len(cluster.told) == 1
    cluster.report("alive")
    assert cluster.answer("b", 7) == ([], {"proc": b"p" * 8, "address": "there"})
    assert cluster.where()[0] == []
    (shown,) = cluster.says("detached")[1]["detached"]
    assert (shown["state"], shown["node"]) == ("alive", identity(cluster.told[0][0]))


def test_nobody_is_told_before_it_is_durable() -> None:
    cluster = made()
    cluster.disk = False
    cluster.ask("a", 1, "detach", **NAME, actor=ID, value=ID, cpus=0.0, resources={}, where=[],
                restarts=0, plan=PLAN)  # fmt: skip
    cluster.deliver()
    assert cluster.told == []
    assert cluster.waits("a", 1)
    cluster.flush()
    assert len(cluster.told) == 1
    assert cluster.answer("a", 1) == ([], {})


def test_a_name_has_one_actor_and_the_same_question_twice_makes_one() -> None:
    cluster = made()
    assert cluster.detach() == []
    assert cluster.detach() == []
    other = detached_id(b"another.........")
    assert cluster.detach(actor=other, value=other)[0] == "NameTaken"
    assert len(cluster.told) == 1


def test_what_no_node_can_have_is_refused_and_leaves_nothing() -> None:
    cluster = made()
    assert cluster.detach(cpus=9.0)[0] == "Unschedulable"
    assert cluster.detach(where=["moon"])[0] == "ProtocolError"
    assert cluster.says("find", **NAME)[1]["found"] is False
    assert cluster.says("detached")[1] == {"detached": []}


def test_a_death_of_its_process_costs_a_restart_and_the_last_one_the_actor() -> None:
    cluster = made()
    cluster.detach(restarts=1)
    cluster.report("alive")
    cluster.report("died", ["ActorDied", "signal 9"])
    assert [number for _, number in cluster.told] == [1, 2]
    cluster.report("alive")
    cluster.report("died", ["ActorDied", "signal 9"])
    assert cluster.where()[0] == ["ActorDied", "signal 9"]
    assert cluster.says("find", **NAME)[1]["found"] is False
    assert sorted(cluster.over) == ["a", "b"]


def test_reports_of_older_incarnations_and_of_other_nodes_are_not_heard() -> None:
    cluster = made()
    cluster.detach(restarts=3)
    (name, _), fields = cluster.told[0], {"proc": b"", "address": "", "error": ["ActorDied", "x"]}
    other = "a" if name == "b" else "b"
    cluster.says("incarnation", other, actor=ID, number=1, state="died", **fields)
    assert len(cluster.told) == 1
    cluster.says("incarnation", name, actor=ID, number=1, state="died", **fields)
    cluster.says("incarnation", name, actor=ID, number=1, state="died", **fields)
    assert [number for _, number in cluster.told] == [1, 2]


def test_what_dies_again_and_again_rests_before_the_next_time() -> None:
    cluster = made()
    cluster.detach(restarts=-1)
    cluster.report("died", ["ActorDied", "x"])
    assert len(cluster.told) == 2  # at once
    cluster.report("died", ["ActorDied", "x"])
    assert len(cluster.told) == 2
    cluster.tick(0.5)
    assert len(cluster.told) == 3


def test_its_node_dies_and_another_has_it() -> None:
    cluster = made()
    cluster.detach(restarts=1)
    cluster.report("alive")
    ((first, _),) = cluster.told
    cluster.kill(first)
    cluster.tick(0.3)
    ((_, _), (second, number)) = cluster.told
    assert second != first
    assert number == 2


def test_a_node_that_cannot_have_it_costs_no_restart() -> None:
    cluster = made()
    cluster.detach()
    cluster.report("refused", ["Unschedulable", "no worker could be started"])
    cluster.tick(0.5)
    assert [number for _, number in cluster.told] == [1, 2]
    cluster.report("alive")
    assert cluster.where()[0] == []


def test_an_actor_that_has_lived_waits_for_a_node() -> None:
    cluster = made("a")
    cluster.join("big", cpus=8.0)
    cluster.detach(restarts=1, cpus=6.0)
    cluster.report("alive")
    cluster.kill("big")
    cluster.tick(1.0)
    (shown,) = cluster.says("detached")[1]["detached"]
    assert shown["state"] == "waiting"
    assert "6 CPU" in shown["why"]
    cluster.join("bigger", cpus=8.0)
    cluster.tick(0.5)
    assert cluster.told[-1] == ("bigger", 2)


def test_a_constructor_that_failed_is_the_end_and_the_error_is_kept() -> None:
    cluster = made()
    cluster.detach(restarts=5)
    cluster.report("failed", ["ActorDied", "its constructor raised", b"pickled"])
    assert cluster.where()[0] == ["ActorDied", "its constructor raised", b"pickled"]
    assert len(cluster.told) == 1


def test_who_kills_it_frees_the_name_and_those_who_wait_are_told() -> None:
    cluster = made()
    cluster.detach(restarts=-1)
    cluster.ask("b", 7, "locate", actor=ID)
    cluster.deliver()
    assert cluster.says("end", "b", actor=ID) == ([], {"found": True})
    assert "killed" in cluster.answer("b", 7)[0][1]
    assert cluster.says("end", actor=ID) == ([], {"found": False})
    assert cluster.says("name", **NAME, value=b"v") == ([], {})
    assert sorted(cluster.over) == ["a", "b"]


def again(cluster: Hosts) -> None:
    """The head dies, and one with the same store takes its place."""
    cluster.stop_head()
    cluster.start_head()
    for name in ("a", "b"):
        if name in cluster.machines:
            cluster.connect(name)
    cluster.deliver()


def test_a_new_head_on_the_store_knows_it_whatever_its_state() -> None:
    cluster = made()
    cluster.detach(restarts=1)
    again(cluster)
    assert cluster.told[0] == cluster.told[1]  # the node may not have heard of it
    cluster.report("alive")
    again(cluster)
    assert cluster.where() == ([], {"proc": b"p" * 8, "address": "there"})
    assert cluster.says("find", **NAME)[1] == {"found": True, "value": ID}
    assert len(cluster.told) == 2
    cluster.report("died", ["ActorDied", "x"])
    assert cluster.told[-1][1] == 2
    cluster.says("end", actor=ID)
    again(cluster)
    assert cluster.says("find", **NAME)[1]["found"] is False
    assert not [key for key in cluster.store.entries if ID in key]


def test_a_node_that_dies_with_the_head_is_noticed_by_the_next() -> None:
    cluster = made()
    cluster.detach(restarts=1)
    cluster.report("alive")
    ((first, _),) = cluster.told
    cluster.stop_head()
    del cluster.machines[first]
    cluster.start_head()
    cluster.connect("a" if first == "b" else "b")
    cluster.tick(6.0)
    assert [number for _, number in cluster.told] == [1, 2]
    assert cluster.told[1][0] != first


def test_a_large_plan_is_kept_in_parts() -> None:
    cluster = made()
    plan = [*PLAN]
    plan[2] = bytes(700_000)
    PLAN[2] = plan[2]
    try:
        assert cluster.detach() == []
        again(cluster)
        assert len(cluster.told) == 2
        cluster.says("end", actor=ID)
        assert not [key for key in cluster.store.entries if ID in key]
        assert cluster.detach(actor=detached_id(b"x" * 16), plan=[bytes(20_000_000)])[0] == (
            "LimitExceeded"
        )
    finally:
        PLAN[2] = b"code"


def test_a_node_that_missed_the_end_is_told_when_it_is_back() -> None:
    cluster = made()
    cluster.detach()
    cluster.report("alive")
    cluster.cut("b")
    cluster.says("end", actor=ID)
    assert cluster.over == ["a"]
    daemon = cluster.machines["b"]
    peer = daemon.peer(cluster.head.id, "head")
    peer.down = False
    at_head = cluster.head.peer(daemon.id, "b")
    at_head.kind = peer.kind = "node"
    peer.kind = "head"
    daemon.on_up(peer, cluster.now, cluster.head.info)
    cluster.head.on_up(at_head, cluster.now, {**daemon.info, "actors": [ID]})
    cluster.flow()
    cluster.deliver()
    assert cluster.over == ["a", "b"]


def test_nothing_is_made_for_the_job_of_an_actor_that_has_ended() -> None:
    cluster = made()
    cluster.detach()
    cluster.report("alive")
    group = {"group": b"g" * 12, "bundles": [{"CPU": 1.0}], "job": job_of(ID), "wait": False}
    name = {"namespace": "n", "value": b"v", "job": job_of(ID)}
    assert cluster.says("group", **group)[0] == []
    assert cluster.says("name", name="early", **name)[0] == []
    cluster.says("end", actor=ID)
    assert cluster.head.groups.groups == {}
    assert cluster.says("group", **{**group, "group": b"h" * 12})[0][0] == "ActorDied"
    assert cluster.says("name", name="late", **name)[0][0] == "ActorDied"
    assert cluster.head.groups.groups == {}
    assert cluster.head.directory.names == {}


def test_nothing_is_made_for_a_job_that_has_ended() -> None:
    cluster = made()
    job = {"job": b"driver01", "info": {}}
    group = {"group": b"g" * 12, "bundles": [{"CPU": 1.0}], "job": b"driver01", "wait": False}
    assert cluster.says("job", **job, alive=True)[0] == []
    cluster.says("job", **job, alive=False)
    assert cluster.says("group", **group)[0][0] == "NodeDied"
    assert cluster.head.groups.groups == {}
