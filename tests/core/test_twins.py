"""Two rows of one id in one process: the own one, and the one borrowed from an earlier run."""

from __future__ import annotations

from typing import Any

from fleets import Fleet
from freehold.core import messages as m
from freehold.core.address import pack_address
from freehold.core.ids import CONTEXT_BYTES, Contexts
from freehold.core.machine import Peer
from freehold.core.messages import FAILED, INLINE, PENDING, SHARED
from freehold.core.process.owner import Owner
from freehold.core.process.process import Process
from freehold.core.process.rows import Row
from freehold.core.process.shares import Share
from freehold.core.process.twins import twin
from freehold.sim.bench import function, method

CONTEXT = b"c" * CONTEXT_BYTES
ID = CONTEXT + b"\0\0\0\0"
MAKER = b"m" * 8
HOME = b"n" * 8


class Desk:
    """A process that holds what a process elsewhere had made, and whose heir is a node."""

    def __init__(self) -> None:
        self.process = Process(b"p" * 8, "p")
        self.owner: Owner = self.process.owner
        self.maker = self.process.peer(MAKER, "m")
        self.heir = self.process.peer(HOME, f"{HOME.hex()}|n|n:1")
        self.row = self.owner.hold(ID, MAKER, "m")
        self.row.extend().mine.append(b"ticket")

    def maker_dies(self) -> None:
        Share(self.owner, self.heir, asked=True, driver=b"").of_process(self.maker, [])
        del self.process.peers[MAKER]

    def make(self, value: bytes = b"again") -> Row:
        """The re-run makes the id here."""
        self.owner.twins.begin(CONTEXT)
        row = self.owner.put(ID, INLINE, value)
        row.handles += 1
        return row

    def sent(self, peer: Peer, op: int) -> list[Any]:
        return [frame[1:] for frame in peer.outbox if frame[0] == op]

    def check(self) -> None:
        self.owner.check()


def test_contexts_say_when_a_run_makes_its_first_reference() -> None:
    begun: list[bytes] = []
    contexts = Contexts(begun.append)
    first, second = contexts.base(b"task"), contexts.base(b"task")
    assert begun == [first, second]


def test_an_orphan_that_is_reborn_here_gets_the_own_row_s_value() -> None:
    desk = Desk()
    desk.maker_dies()
    desk.owner.want(desk.row)
    own = desk.make()
    desk.process.client.orphans.on_reborn(desk.heir, 0.0, ID, desk.process.id, "p")
    assert (desk.row.state, desk.row.data) == (INLINE, b"again")
    desk.check()
    desk.owner.drop(own)
    assert desk.owner.rows[ID] is own, "its twin holds it"
    desk.owner.drop(desk.row)
    assert not desk.owner.rows
    ((released,),) = desk.sent(desk.heir, m.RELEASE)
    assert [ID, b"ticket"] in released


def test_calls_of_an_orphan_actor_that_is_reborn_here_go_where_the_own_one_lives() -> None:
    """What had waited for the first actor, and what comes later, in one line with the own calls."""
    desk = Desk()
    client, process = desk.process.client, desk.process
    node = process.peer(HOME)
    node.kind = "node"
    process.on_up(node, 0.0, {})
    line = client.actors.line(desk.row, 1)
    client.plain.call(line, method("m"), b"1" * 16, b"", 0.0)
    desk.maker_dies()
    own = desk.make(pack_address(b"actor...", "a"))
    own_line = client.actors.line(own)
    client.actors.names[ID] = "space", "name", b"value"
    client.orphans.on_reborn(desk.heir, 0.0, ID, process.id, "p")
    process.settle(0.0)
    actor = process.peer(b"actor...")
    assert actor.lease is own_line
    client.plain.call(line, method("m"), b"2" * 16, b"", 0.0)
    client.plain.call(own_line, method("m"), b"3" * 16, b"", 0.0)
    assert [fields[0][:1] for fields in desk.sent(actor, m.TASK)] == [b"1", b"2", b"3"]
    desk.owner.drop(own)
    process.settle(0.0)
    for digit in (b"1", b"2", b"3"):
        client.plain.on_done(actor, 0.0, digit * 16, b"")
        desk.owner.drop(desk.owner.rows[digit * 16])
    assert client.actors.lines
    assert client.actors.names
    desk.owner.drop(desk.row)
    process.settle(0.0)
    assert not desk.owner.rows
    assert not client.actors.lines
    assert not client.actors.names
    desk.check()


def test_an_orphan_that_is_wanted_later_asks_nobody() -> None:
    desk = Desk()
    desk.maker_dies()
    desk.make()
    desk.owner.want(desk.row)
    assert desk.row.data == b"again"
    assert not desk.sent(desk.heir, m.PULL)


def test_a_twin_waits_for_the_own_row() -> None:
    desk = Desk()
    desk.maker_dies()
    desk.owner.twins.begin(CONTEXT)
    own = desk.owner.put(ID, PENDING, None)
    own.handles += 1
    desk.owner.want(desk.row)
    desk.owner.want(desk.row)
    assert desk.row.state == PENDING
    desk.owner.resolve(own, INLINE, b"at last")
    assert desk.row.data == b"at last"
    desk.check()


def test_the_first_run_s_process_lives_and_answers_for_its_own() -> None:
    """It was the same task, tried again elsewhere: two values of one name."""
    desk = Desk()
    desk.owner.want(desk.row)
    own = desk.make(b"second")
    desk.owner.on_value(desk.maker, 0.0, ID, INLINE, b"first", [])
    assert (desk.row.data, own.data) == (b"first", b"second")
    desk.owner.drop(desk.row)
    assert desk.sent(desk.maker, m.RELEASE) == [([[ID, b"ticket"]],)]
    assert list(desk.owner.rows) == [ID]


def test_the_death_of_its_owner_reaches_a_twin() -> None:
    desk = Desk()
    desk.make()
    desk.maker_dies()
    assert desk.row.owner is desk.heir
    assert desk.owner.rows[twin(ID)] is desk.row


def test_what_is_borrowed_of_a_context_that_has_begun_is_a_twin_at_once() -> None:
    desk = Desk()
    desk.owner.drop(desk.row)
    desk.owner.twins.begin(CONTEXT)
    late = desk.owner.hold(ID, MAKER, "m")
    own = desk.make()
    assert desk.owner.rows == {twin(ID): late, ID: own}
    assert desk.owner.hold(ID, MAKER, "m") is own
    desk.check()


def test_a_twin_that_was_released_by_the_re_run_fails() -> None:
    desk = Desk()
    desk.maker_dies()
    desk.owner.want(desk.row)
    desk.owner.drop(desk.make())
    desk.process.client.orphans.on_reborn(desk.heir, 0.0, ID, desk.process.id, "p")
    assert desk.row.data[0] == "ObjectFreed"


def test_a_place_that_a_worker_could_not_read_may_be_the_twin_s() -> None:
    desk = Desk()
    place = [MAKER, 0, 10, HOME]
    desk.owner.resolve(desk.row, SHARED, place)
    own = desk.make()
    desk.process.client.lineage.on_lost(Peer(b"w" * 8), 0.0, ID, place)
    assert desk.row.state == PENDING
    assert own.state == INLINE
    assert desk.sent(desk.maker, m.LOST) == [(ID, place)]


def test_who_made_an_orphan_again_says_so_itself() -> None:
    """The one that is asked to have the parent run again has run it."""
    desk = Desk()
    desk.maker_dies()
    desk.make()
    desk.process.client.orphans.on_revive(desk.heir, 0.0, ID, desk.process.id)
    assert desk.sent(desk.heir, m.REBORN) == [(ID, desk.process.id, "p")]


def test_a_row_in_no_table_fails_when_it_is_wanted() -> None:
    desk = Desk()
    stray = Row(ID, None, desk.maker)
    desk.owner.want(stray)
    assert stray.state == FAILED


def test_contexts_of_what_is_borrowed_no_more_are_forgotten() -> None:
    desk = Desk()
    twins = desk.owner.twins
    for number in range(100_010):
        twins.key(b"%012d" % number + b"\0\0\0\0")
    assert len(twins.foreign) < 100_010
    assert CONTEXT in twins.foreign


def orphaned() -> tuple[Fleet, Row]:
    """Task ``a`` of ``d`` has put ``x`` and died; it runs again in w2, and ``e`` waits."""
    bench = Fleet("n1", cpus=0.0)
    bench.join("n2")
    bench.driver("d", "n1")
    bench.driver("e", "n1")
    bench.deliver()
    bench.submit("d", ["a"], function("maker", retries=1))
    bench.start_workers()
    assert bench.run("w1") == "runs a"
    bench.put("w1", "x", "1")
    giver, taker = bench.desks["w1"].process, bench.desks["e"].process
    fields = giver.owner.hand_over(bench.row("w1", "x"), giver.peer(taker.id, bench.address("e")))
    (row,) = taker.owner.receive([fields])
    row.handles += 1
    bench.desks["e"].refs["x"] = row
    bench.settle()
    bench.deliver()
    bench.kill("w1")
    bench.deliver()
    assert bench.get("e", "x") == "pending"
    bench.deliver()
    bench.tick(1.0)
    bench.start_workers()
    assert bench.run("w2") == "runs a"
    bench.deliver()
    assert bench.get("e", "x") == "pending"
    return bench, row


def assert_nothing_is_left(bench: Fleet) -> None:
    bench.drop("e", "x")
    bench.drop("d", "a")
    bench.deliver()
    assert not bench.desks["d"].process.client.orphans.wanted
    for name in ("d", "e", "w2"):
        assert bench.table(name) == ["nothing"]
    bench.check()


def test_an_orphan_is_found_before_the_run_that_makes_it_again_is_over() -> None:
    """The run may wait for whoever waits for the orphan."""
    bench, row = orphaned()
    bench.put("w2", "y", "1")
    bench.deliver()
    assert bench.row("w2", "y").id == row.id
    assert row.data == b"1"
    bench.finish("w2", "done")
    bench.deliver()
    assert_nothing_is_left(bench)


def test_a_run_that_did_not_make_the_orphan_again_is_over_for_who_waits() -> None:
    bench, row = orphaned()
    bench.finish("w2", "done")
    bench.deliver()
    assert row.state == FAILED
    assert_nothing_is_left(bench)
