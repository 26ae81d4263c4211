"""Detached actors at the nodes: a worker becomes one, owns itself, and its node says what comes."""

from __future__ import annotations

from typing import Any

from fleets import HEAD, Fleet
from freehold.core import messages as m
from freehold.core.ids import detached_id
from freehold.core.machine import Peer
from freehold.core.messages import FAILED, PENDING
from freehold.core.node.trusts import CLAIM_MAX
from freehold.core.process.rows import CONSTRUCTOR, Row, Spec
from freehold.sim.bench import function, method

ID = detached_id(b"task............")


class Heads(Fleet):
    """A fleet whose head notes what it is asked; the test answers."""

    def __init__(self, *nodes: str, **more: Any) -> None:
        self.asked: list[tuple[str, int, str, dict[str, Any]]] = []
        super().__init__(*nodes, **more)
        self.names[ID] = "k"

    def _post(self, desk: Any, peer: Peer, frames: list[Any]) -> None:
        super()._post(desk, peer, frames)
        if peer.id == HEAD:
            for op, *fields in frames:
                if op == m.DIRECTORY:
                    self.asked.append((desk.name, *fields))

    def answer(self, verb: str, error: list[Any], **fields: Any) -> None:
        """Answer the open questions of that verb."""
        for node, number, _, _ in [one for one in self.asked if one[2] == verb]:
            self._say(node, m.ENTRY, number, error, fields)
        self.asked = [one for one in self.asked if one[2] != verb]
        self.deliver()

    def told(self) -> list[tuple[str, str]]:
        """What nodes have said of the actor: node, state."""
        return [(one[0], one[3]["state"]) for one in self.asked if one[2] == "incarnation"]

    def embody(self, node: str, number: int = 1, plan: Any = None, restarts: int = 0) -> None:
        made = plan or spec_plan(self, "driver")
        self._say(node, m.EMBODY, ID, number, 0.0, {}, [], restarts, list(made))
        self.deliver()
        self.start_workers()

    def seek(self, where: str) -> Row:
        """User code gets a handle to the actor."""
        desk = self.desks[where]
        row = desk.refs["k"] = desk.process.embodying.seek(ID)
        desk.process.client.actors.line(row, 1)
        self.settle()
        self.deliver()
        return row


def spec_plan(fleet: Fleet, where: str, deps: Any = (), args: Any = None) -> Any:
    """How that process would describe the actor."""
    spec = Spec(b"K", "K", b"code", kind=CONSTRUCTOR, cpus=0.0, options={"constructor": True})
    desk = fleet.desks[where]
    tops = [(at, desk.refs[name]) for at, name in enumerate(deps)]
    row = desk.refs[args] if args else None
    return desk.process.embodying.plan(spec, b"()", ["/there"], row, tops, [])


def body(fleet: Heads) -> str:
    """The process that is the actor, or becomes it."""
    living = [name for name in fleet.slot_of if fleet.desks[name].alive]
    (found,) = [name for name in living if fleet.desks[name].process.embodying.me is not None]
    return found


def alive(fleet: Heads, node: str = "n2") -> str:
    """The actor lives on that node; its process."""
    fleet.embody(node)
    worker = body(fleet)
    assert fleet.do(worker, "none") == "runs k"
    assert fleet.told()[-1] == (node, "alive")
    return worker


def made(*nodes: str) -> Heads:
    fleet = Heads(*(nodes or ("n1", "n2")))
    fleet.driver("driver", "n1")
    return fleet


def test_a_worker_becomes_the_actor_and_owns_itself() -> None:
    fleet = made()
    worker = alive(fleet)
    process = fleet.desks[worker].process
    assert process.owner.rows[ID].owner is None
    assert process.client.leases.requests.job == [ID[8:], "", ["/there"]]
    row = fleet.seek("driver")
    assert row.state == PENDING
    (question,) = [one for one in fleet.asked if one[2] == "locate"]
    assert question[0] == "n1"
    fleet.answer("locate", [], proc=process.id, address=fleet.address(worker))
    fleet.submit("driver", ["a"], method("m"), actor="k")
    fleet.deliver()
    assert fleet.do(worker, "answer") == "runs a"
    assert fleet.get("driver", "a") == "inline answer"
    fleet.check()


def test_its_owner_is_no_driver_so_that_it_outlives_them() -> None:
    fleet = made()
    worker = alive(fleet)
    fleet.kill("driver")
    fleet.deliver()
    fleet.driver("later", "n1")
    fleet.seek("later")
    fleet.answer("locate", [], proc=fleet.id(worker), address=fleet.address(worker))
    fleet.submit("later", ["a"], method("m"), actor="k")
    fleet.deliver()
    assert fleet.do(worker, "answer") == "runs a"
    assert fleet.get("later", "a") == "inline answer"


def test_what_it_submits_runs_for_a_job_of_its_own() -> None:
    fleet = made()
    worker = alive(fleet)
    fleet.kill("driver")
    fleet.deliver()
    fleet.submit(worker, ["t"], function("f"))
    fleet.start_workers()
    (other,) = [
        name for name, slot in fleet.slot_of.items() if slot and fleet.do(name, "done") == "runs t"
    ]
    assert fleet.get(worker, "t") == "inline done"
    peer = fleet.desks[other].process
    assert fleet.node_at("n2").workers.by_proc[peer.id].job == ID[8:]
    fleet._say("n2", m.ENDED, ID)
    fleet.deliver()
    assert not fleet.desks[worker].alive


def test_a_death_is_reported_once_and_callers_ask_where_it_is_now() -> None:
    fleet = made()
    worker = alive(fleet)
    fleet.seek("driver")
    fleet.answer("locate", [], proc=fleet.id(worker), address=fleet.address(worker))
    fleet.kill(worker)
    fleet.deliver()
    assert fleet.told() == [("n2", "alive"), ("n2", "died")]
    fleet.submit("driver", ["a"], method("m"), actor="k")
    fleet.deliver()
    assert fleet.row("driver", "k").state == PENDING
    fleet.embody("n1", number=2)
    again = body(fleet)
    assert fleet.do(again, "none") == "runs k"
    fleet.answer("locate", [], proc=fleet.id(again), address=fleet.address(again))
    assert fleet.do(again, "of the second") == "runs a"
    assert fleet.get("driver", "a") == "inline of the second"


def test_the_same_incarnation_is_never_begun_twice() -> None:
    fleet = made()
    worker = alive(fleet)
    fleet.embody("n2")
    assert len(fleet.node_at("n2").bodies.bodies) == 1
    fleet.kill(worker)
    fleet.deliver()
    fleet.embody("n2")  # from a head that has not heard of the death yet
    assert fleet.node_at("n2").bodies.bodies == {}
    assert fleet.told() == [("n2", "alive"), ("n2", "died")]


def test_a_constructor_that_raises_is_reported_and_its_worker_ends() -> None:
    fleet = made()
    fleet.embody("n2")
    worker = body(fleet)
    assert fleet.do(worker, "!no such file") == "runs k"
    assert fleet.told() == [("n2", "failed")]
    (question,) = [one for one in fleet.asked if one[2] == "incarnation"]
    assert question[3]["error"] == ["ActorDied", "its constructor raised", b"no such file"]
    assert not fleet.desks[worker].alive
    assert not fleet.node_at("n2").workers.leases


def test_who_asks_for_one_that_has_ended_gets_its_error() -> None:
    fleet = made()
    row = fleet.seek("driver")
    fleet.submit("driver", ["a"], method("m"), actor="k")
    fleet.answer("locate", ["ActorDied", "its constructor raised", b"oh"])
    assert row.state == FAILED
    assert fleet.row("driver", "a").data == ["ActorDied", "m: its constructor raised", b"oh"]


def test_killed_before_it_lived_no_process_is_left() -> None:
    fleet = made()
    fleet._say("n2", m.EMBODY, ID, 1, 0.0, {}, [], 0, list(spec_plan(fleet, "driver")))
    fleet.deliver()
    fleet._say("n2", m.ENDED, ID)
    fleet.deliver()
    fleet.start_workers()
    assert not fleet.node_at("n2").workers.leases
    assert not fleet.node_at("n2").workers.queue


def trusted(fleet: Heads, deps: bool = True) -> Any:
    """The driver has put a large value, described an actor that takes it, and entrusted it."""
    fleet.put("driver", "x", "big x")
    plan = spec_plan(fleet, "driver", ("x",))
    desk = fleet.desks["driver"]
    desk.process.embodying.trust(ID, [desk.refs["x"]])
    fleet.drop("driver", "x")
    fleet.deliver()
    assert len(fleet.node_at("n1").store.objects) == 1
    return plan


def test_arguments_outlive_their_owner_and_each_incarnation() -> None:
    fleet = made()
    plan = trusted(fleet)
    fleet.kill("driver")
    fleet.deliver()
    assert len(fleet.node_at("n1").estates.adopted) == 1
    for number, where in ((1, "n2"), (2, "n2"), (3, "n1")):
        fleet.embody(where, number, plan, restarts=3)
        worker = body(fleet)
        assert fleet.do(worker, "none") == "runs k"
        fleet.kill(worker)
        fleet.deliver()
    assert [state for _, state in fleet.told()] == ["alive", "died"] * 3
    for node in fleet.nodes():
        fleet._say(node, m.ENDED, ID)
    fleet.deliver()
    assert not fleet.node_at("n1").store.objects
    assert not fleet.node_at("n1").estates.adopted
    fleet.check()


def test_what_is_entrusted_for_one_that_has_ended_is_let_go() -> None:
    fleet = made()
    trusted(fleet)
    fleet.answer("locate", ["ActorDied", "it has ended"])
    assert not fleet.node_at("n1").trusts.held
    assert not fleet.node_at("n1").store.objects


def test_a_small_argument_travels_in_the_plan() -> None:
    fleet = made()
    fleet.put("driver", "x", "small")
    plan = spec_plan(fleet, "driver", ("x",))
    assert plan.deps == [[0, b"small"]]
    fleet.kill("driver")
    fleet.deliver()
    fleet.embody("n2", plan=plan)
    run = fleet.desks[body(fleet)].process.executor.next()
    assert run is not None
    assert run.full is not None
    assert [(at, data) for at, _, _, data in run.full.deps] == [(0, b"small")]


def test_an_argument_that_is_lost_is_the_actor_s_death() -> None:
    fleet = made("n1", "n2", "n3")
    plan = trusted(fleet)
    fleet.lose("n1")
    fleet.embody("n2", plan=plan)
    fleet.tick(1.0)  # the adopter gives the news a moment
    fleet.deliver()
    ((_, _, _, said),) = [one for one in fleet.asked if one[2] == "incarnation"]
    assert said["state"] == "failed"
    assert "could not run" in said["error"][1]


def test_a_refused_node_ends_what_lives_there() -> None:
    fleet = made()
    worker = alive(fleet)
    fleet._say("n2", m.REFUSED, "it was silent")
    fleet.deliver()
    assert not fleet.desks[worker].alive


def test_a_node_does_not_keep_what_was_to_be_entrusted_to_it() -> None:
    """Who was to entrust it died after it had told the owner, and before it told the node."""
    fleet = made()
    fleet.put("driver", "x", "big x")
    plan = spec_plan(fleet, "driver", ("x",))
    node, owner = fleet.node_at("n2"), fleet.desks["driver"].process
    fleet.embody("n2", plan=plan)
    worker = body(fleet)
    ticket = fleet.desks[worker].machine.id + b"late"
    row = fleet.desks["driver"].refs["x"]
    fields = (row.id, node.id, ticket, node.id)
    owner.handlers[m.REGISTER](owner.peers[fleet.desks[worker].machine.id], 0.0, *fields)
    assert fleet.do(worker, "none") == "runs k"
    fleet.kill(worker)
    fleet.deliver()
    known = [held.ticket for held in node.trusts.held[ID]]
    assert ticket in row.more.tickets
    fleet.tick(CLAIM_MAX)
    fleet.deliver()
    assert ticket not in row.more.tickets
    assert set(known) <= set(row.more.tickets), "what it was told of it holds"
