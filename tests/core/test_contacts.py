"""An owner dies while the links between the nodes are still being made: whoever has something of
it, or it of them, is asked all the same.

``chill`` keeps from the owner's node what others tell it, their WATCHes first of all.
"""

from __future__ import annotations

import pytest

from fleets import Fleet
from freehold.core import messages as m
from freehold.core.process.claims import GRACE
from freehold.core.process.rows import CONSTRUCTOR, Spec
from freehold.sim.bench import function


def on(bench: Fleet, node: str, name: str = "f", retries: int = 0) -> Spec:
    """A function that runs on that node."""
    spec = function(name, retries=retries)
    spec.where = ("node", bench.desks[node].machine.id, False)
    return spec


def fleet(*more: str) -> Fleet:
    """Driver o on n1, which others have nothing to do with yet, and driver d on n2."""
    made = Fleet("n1", cpus=0.0)
    made.join("n2", 0.0)
    for name in more:
        made.join(name)
    made.driver("o", "n1")
    made.driver("d", "n2")
    made.deliver()
    return made


def hand_over(bench: Fleet, giver: str, taker: str, name: str) -> None:
    """The taker has found the giver, which hands it a reference."""
    source, target = bench.desks[giver].process, bench.desks[taker].process
    fields = source.owner.hand_over(
        bench.row(giver, name), source.peer(target.id, bench.address(taker))
    )
    (row,) = target.owner.receive([fields])
    row.handles += 1
    bench.desks[taker].refs[name] = row
    bench.settle()


def assert_read(bench: Fleet, where: str, name: str, how: str) -> None:
    bench.get(where, name)
    bench.deliver()
    assert bench.get(where, name) == how


def assert_clean(bench: Fleet, where: str, *names: str) -> None:
    """The last holders let go: nothing is left anywhere."""
    for name in names:
        bench.drop(where, name)
    bench.deliver()
    bench.tick(1.5)  # some things wait for news
    bench.deliver()
    for name in bench.nodes():
        node = bench.node_at(name)
        assert not node.estates.adopted, name
        assert not node.estates.loans.by_id, name
        assert not node.estates.open, name
        assert not node.store.objects, name
        assert not node.workers.leases, name
        assert not node.neighbours.contacts.keys() & node.store.gone, name
    for desk in bench.desks.values():
        assert (
            not desk.alive
            or not isinstance(desk.machine, type(bench.desks[where].machine))
            or (not desk.process.owner.rows)
        )
    bench.check()


def test_what_is_held_and_stored_where_nobody_watches_yet_is_adopted() -> None:
    bench = fleet("n3")
    bench.chill("n1")
    bench.cold.discard(("n3", "n1"))  # it has to grant the lease
    bench.submit("o", ["x"], on(bench, "n3"))
    bench.start_workers()
    bench.chill("n1")
    assert bench.do("w1", "big") == "runs x"
    hand_over(bench, "o", "d", "x")
    bench.deliver()
    bench.kill("o")
    bench.deliver()
    assert bench.node_at("n1").estates.open, "it waits for those whose links are being made"
    bench.warm()
    assert len(bench.node_at("n1").estates.adopted) == 1
    assert_read(bench, "d", "x", "shared [w1 0 1000 n3]")
    assert_clean(bench, "d", "x")


def test_what_nobody_holds_is_freed_where_nobody_watches_yet() -> None:
    bench = fleet("n3")
    bench.submit("o", ["x"], on(bench, "n3"))
    bench.start_workers()
    bench.chill("n1")
    assert bench.do("w1", "big") == "runs x"
    bench.kill("o")
    bench.deliver()
    bench.warm()
    assert_clean(bench, "d")


def test_what_the_dead_had_of_a_process_that_does_not_watch_yet_is_kept_inside() -> None:
    """Else its owner, who is not asked, would free what is inside of an adopted value."""
    bench = fleet()
    bench.chill("n1")
    bench.put("d", "y", "big")
    hand_over(bench, "d", "o", "y")
    bench.deliver()
    bench.put("o", "x", "big", inside=["y"])
    hand_over(bench, "o", "d", "x")
    bench.drop("d", "y")
    bench.deliver()
    bench.kill("o")
    bench.deliver()
    bench.warm()
    bench.get("d", "x")
    bench.deliver()
    bench.open("d", "x")
    bench.deliver()
    assert bench.get("d", "y") == "shared [d 0 1000 n2]"
    assert_clean(bench, "d", "x", "y")


def test_an_actor_on_a_node_that_does_not_watch_yet_lives_on() -> None:
    bench = fleet("n3")
    for name in ("o", "d"):
        desk = bench.desks[name]
        desk.process.client.leases.requests.job = [desk.machine.id, bench.address(name), []]
    bench.submit("o", ["k"], Spec(b"K", "K", b"code", kind=CONSTRUCTOR))
    bench.start_workers()
    bench.chill("n1")
    assert bench.do("w1", "none") == "runs k"
    row, owner = bench.row("o", "k"), bench.desks["o"].machine.id
    bench.desks["d"].refs["k"] = bench.desks["d"].process.owner.meet(
        row.id, owner, bench.address("o")
    )
    bench.settle()
    bench.deliver()
    bench.kill("o")
    bench.deliver()
    bench.warm()
    assert bench.desks["w1"].alive
    assert len(bench.node_at("n1").estates.adopted) == 1
    bench.drop("d", "k")
    bench.deliver()
    assert not bench.desks["w1"].alive


def test_a_copy_of_which_the_owner_has_not_heard_yet_is_freed() -> None:
    """The owner's node has chosen who makes it, and knows that without the owner."""
    bench = fleet("n3")
    bench.put("o", "x", "big")
    keeping = bench.desks["o"].process.keeping
    keeping.want(bench.row("o", "x"), 2)
    bench.settle()
    bench.chill("n1")
    bench.deliver("o", "n1")
    bench.kill("o")
    bench.deliver()
    bench.warm()
    for name in bench.nodes():
        assert not bench.node_at(name).pulls.copies.by_offset, name
    assert_clean(bench, "d")


def test_a_node_that_is_not_known_yet_is_asked_before_it_hears_old_news() -> None:
    """Its WATCH may come before the head's word of it: then it is told of the past."""
    bench = fleet()
    bench.put("o", "x", "big")
    hand_over(bench, "o", "d", "x")
    there, id = bench.node_at("n1").neighbours, bench.desks["n2"].machine.id
    bench.chill("n1")
    address = there.nodes.pop(id)
    bench.deliver()
    bench.kill("o")
    bench.deliver()
    assert there.unsent[id]
    assert bench.node_at("n1").estates.open
    bench.warm()
    assert not there.unsent
    assert len(bench.node_at("n1").estates.adopted) == 1
    there.node_up(id, address, [])
    assert_read(bench, "d", "x", "shared [o 0 1000 n1]")
    assert_clean(bench, "d", "x")


def test_who_is_asked_by_a_node_that_it_does_not_know_yet_answers() -> None:
    bench = fleet()
    bench.put("o", "x", "big")
    hand_over(bench, "o", "d", "x")
    there, id = bench.node_at("n2").neighbours, bench.desks["n1"].machine.id
    address = there.nodes.pop(id)
    bench.deliver()
    bench.kill("o")
    bench.deliver()
    assert len(bench.node_at("n1").estates.adopted) == 1
    there.node_up(id, address, [])
    bench.settle()
    assert_read(bench, "d", "x", "shared [o 0 1000 n1]")
    assert_clean(bench, "d", "x")


@pytest.mark.parametrize("first", ["the borrower", "nobody"])
def test_the_node_hears_of_a_contact_before_anybody_there_is_confirmed(first: str) -> None:
    """A crash amid a flush must not leave somebody confirmed of whom the node does not know."""
    bench = fleet()
    bench.put("o", "x", "1")
    process = bench.desks["o"].process
    if first == "the borrower":  # something else is to be sent there in the same flush
        other = process.peer(bench.desks["d"].machine.id)
        process.send(other, m.REGISTERED, b"t" * 12)
    where = bench.desks["n2"].machine.id
    process.owner.on_register(
        process.peer(b"another."), 0.0, bench.row("o", "x").id, b"borrower", b"t" * 12, where
    )
    assert process.dirty[0] is process.owner.node


def test_a_process_that_only_knows_its_own_node_has_no_contacts() -> None:
    bench = fleet("n3")
    bench.submit("o", ["x"], on(bench, "n3"))
    bench.start_workers()
    bench.do("w1", "1")
    nodes = {bench.desks[name].machine.id for name in ("n1", "n3")}
    contacts = bench.node_at("n3").neighbours.contacts[bench.desks["w1"].machine.id]
    assert set(contacts) == nodes - {bench.desks["n3"].machine.id}
    assert not bench.node_at("n2").neighbours.contacts
    bench.drop("o", "x")
    bench.deliver()
    bench.kill("w1")
    bench.deliver()
    assert not bench.node_at("n3").neighbours.contacts


def test_a_node_that_is_gone_is_no_contact_any_more() -> None:
    bench = fleet("n3")
    process, contacts = bench.desks["o"].process, bench.node_at("n1").neighbours.contacts
    gone = bench.desks["n3"].machine.id
    process.heed(gone)
    bench.settle()
    bench.deliver()
    assert gone in contacts[process.id]
    bench.lose("n3")
    assert not contacts[process.id]
    bench.node_at("n1").neighbours.meets(process.id, gone)
    assert not contacts[process.id]


# -- hand-overs that the dead has not confirmed ----------------------------------------------------
def handed_on(bench: Fleet) -> None:
    """``o`` dies before it hears that ``d`` has handed ``x`` to a driver on n3."""
    bench.driver("e", "n3")
    bench.put("o", "x", "big")
    hand_over(bench, "o", "d", "x")
    bench.deliver()
    bench.chill("n1")
    hand_over(bench, "d", "e", "x")
    assert "REGISTER" in bench.sent("d", "o")
    bench.kill("o")
    bench.drop("d", "x")


def test_a_holder_of_whom_only_another_holder_knows_is_registered_with_the_heir() -> None:
    bench = fleet("n3")
    handed_on(bench)
    bench.cold = {("n3", "n1")}
    bench.deliver()
    assert not bench.node_at("n1").estates.open, "it need not wait for n3, of which nobody has told"
    assert len(bench.node_at("n1").estates.adopted) == 1
    assert not bench.desks["d"].process.owner.rows, "the heir has confirmed"
    bench.tick(GRACE)
    bench.warm()
    assert_read(bench, "e", "x", "shared [o 0 1000 n1]")
    assert_clean(bench, "e", "x")


@pytest.mark.parametrize("order", ["before it is asked", "afterwards", "before it knows"])
def test_who_has_released_such_a_hand_over_to_the_dead_releases_it_to_the_heir(order: str) -> None:
    bench = fleet("n3")
    handed_on(bench)
    bench.cold = {("n3", "n1"), ("d", "e")}
    if order == "before it is asked":
        bench.drop("e", "x")
    bench.deliver()
    assert len(bench.node_at("n1").estates.adopted) == 1
    bench.cold.discard(("d", "e"))
    bench.deliver()
    bench.tick(GRACE)
    bench.deliver()
    assert len(bench.node_at("n1").estates.adopted) == 1, "who does not know does not answer"
    if order == "before it knows":
        bench.drop("e", "x")
        bench.deliver()
    bench.warm()
    bench.tick(GRACE)
    bench.deliver()
    assert_clean(bench, "e", *(["x"] if order == "afterwards" else []))


def running_elsewhere() -> tuple[Fleet, str]:
    """A worker on n3 runs a task of ``d`` with ``x``; ``o``, which owns it, has died; nobody has
    told n3."""
    bench = fleet("n3")
    bench.put("o", "x", "big")
    hand_over(bench, "o", "d", "x")
    bench.deliver()
    bench.submit("d", ["y"], on(bench, "n3"), nested=["x"])
    bench.start_workers()
    bench.chill("n1")
    bench.cold.discard(("n2", "n1"))
    assert bench.run("w1") == "runs y"
    bench.kill("o")
    bench.deliver()
    assert len(bench.node_at("n1").estates.adopted) == 1
    return bench, "w1"


@pytest.mark.parametrize("knows", [False, True])
def test_who_keeps_an_argument_of_a_dead_owner_releases_it_to_the_heir(knows: bool) -> None:
    bench, worker = running_elsewhere()
    bench.finish(worker, "1", keep=["x"])
    bench.deliver()
    bench.drop("d", "x")
    if not knows:
        bench.drop(worker, "x")
    bench.deliver()
    assert len(bench.node_at("n1").estates.adopted) == 1, "the caller has registered the worker"
    bench.warm()
    bench.tick(GRACE)
    bench.deliver()
    if knows:
        assert_read(bench, worker, "x", "shared [o 0 1000 n1]")
        bench.drop(worker, "x")
    bench.deliver()
    bench.drop("d", "y")
    bench.deliver()
    bench.tick(1.0)
    bench.deliver()
    assert not bench.node_at("n1").estates.adopted


def test_what_a_worker_keeps_of_a_dead_owner_is_not_registered_with_who_has_made_it_again() -> None:
    """It will hear of that, and register itself; until then it would release it to the dead."""
    bench, worker = running_elsewhere()
    process = bench.desks["d"].process
    bench.driver("e", "n2")
    bench.put("e", "new", "1")
    row, maker = bench.row("d", "x"), bench.desks["e"].machine.id
    bench.desks["e"].process.owner.rows[row.id] = bench.row("e", "new")
    process.owner.attach(row, maker, bench.address("e"))
    bench.settle()
    bench.deliver()
    bench.finish(worker, "1", keep=["x"])
    bench.deliver()
    tickets = bench.row("e", "new").more.tickets  # type: ignore[union-attr]
    assert set(tickets.values()) == {process.id}
