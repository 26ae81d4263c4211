"""References against a naive model of who holds what, and by example.

The model is what a person would draw: each process has a number of handles of each object, and
objects contain objects.  An object must be there while anybody can reach it, and gone, everywhere,
as soon as nobody can and all frames have arrived.  The machines speak through bytes, over links in
any order that chance picks.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.core.messages import INLINE, PENDING
from freehold.core.process.heirs import ask_heir
from freehold.core.process.owner import Owner
from freehold.core.process.process import Process
from freehold.core.process.rows import Links, Row, Task
from freehold.core.process.shares import Share
from freehold.sim.bench import Bench, function
from freehold.wire.codec import Reader, encode
from stateful import effort

NAMES = ("a", "b", "c")


class Trio:
    """Three processes whose links deliver in order, each when it is told to."""

    def __init__(self) -> None:
        self.processes = {name: Process(name.encode() * 8, name) for name in NAMES}
        self.links: dict[tuple[str, str], list[bytes]] = {
            (one, other): [] for one in NAMES for other in NAMES
        }

    def owner(self, name: str) -> Owner:
        return self.processes[name].owner

    def peer(self, at: str, of: str) -> Peer:
        return self.processes[at].peer(of.encode() * 8, of)

    def flush(self) -> None:
        for name, process in self.processes.items():
            process.settle(0.0)
            dirty, process.dirty = process.dirty, []
            for peer in dirty:
                frames, peer.outbox = peer.outbox, []
                self.links[name, peer.id[:1].decode()].append(bytes(encode(frames)))

    def deliver(self, source: str, target: str) -> None:
        frame = self.links[source, target].pop(0)
        sender = self.peer(target, source)
        for op, *fields in Reader().feed(memoryview(frame)):
            self.processes[target].handlers[op](sender, 0.0, *fields)
        self.flush()

    def quiet(self) -> None:
        self.flush()
        while waiting := [link for link, frames in self.links.items() if frames]:
            self.deliver(*waiting[0])


class OwnerModel(RuleBasedStateMachine):
    """Puts, hand-overs inside values, opening, dropping: in any order, over links in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.trio = Trio()
        self.made = 0
        self.home: dict[bytes, str] = {}
        self.inside: dict[bytes, list[bytes]] = {}
        self.handles: dict[str, Counter[bytes]] = {name: Counter() for name in NAMES}
        self.rows: dict[tuple[str, bytes], Row] = {}

    def reachable(self) -> set[bytes]:
        ahead = [id for counter in self.handles.values() for id in +counter]
        found: set[bytes] = set()
        while ahead:
            id = ahead.pop()
            if id not in found:
                found.add(id)
                ahead += self.inside[id]
        return found

    def held(self, who: str) -> list[bytes]:
        return sorted(+self.handles[who])

    @rule(who=st.sampled_from(NAMES), data=st.data())
    def put(self, who: str, data: st.DataObject) -> None:
        held = self.held(who)
        inside = data.draw(st.lists(st.sampled_from(held), max_size=2, unique=True)) if held else []
        self.made += 1
        id = self.made.to_bytes(16, "big")
        rows = [self.rows[who, each] for each in inside]
        row = self.trio.owner(who).put(id, INLINE, b"value of " + id, rows)
        row.handles = 1
        self.home[id], self.inside[id] = who, inside
        self.handles[who][id] = 1
        self.rows[who, id] = row
        self.trio.flush()

    @precondition(lambda self: any(+counter for counter in self.handles.values()))
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        """A value with one reference inside goes to another process, as in a VALUE frame."""
        who = data.draw(st.sampled_from([name for name in NAMES if self.held(name)]))
        target = data.draw(st.sampled_from([name for name in NAMES if name != who]))
        id = data.draw(st.sampled_from(self.held(who)))
        owner = self.trio.owner(who)
        fields = owner.hand_over(self.rows[who, id], self.trio.peer(who, target))
        # The receiver reads it at once or never; the REGISTER may come much later.
        receiver = self.trio.owner(target)
        fields = Reader().feed(memoryview(encode([fields])))[0]
        (row,) = receiver.receive([fields])
        if data.draw(st.booleans()):
            row = receiver.hold(fields[0], fields[1], fields[2])
            self.handles[target][id] += 1
            self.rows[target, id] = row
        receiver.settle(row)
        self.trio.flush()

    @precondition(lambda self: any(+counter for counter in self.handles.values()))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from([name for name in NAMES if self.held(name)]))
        id = data.draw(st.sampled_from(self.held(who)))
        self.handles[who][id] -= 1
        self.trio.owner(who).drop(self.rows[who, id])
        self.trio.flush()

    @precondition(lambda self: any(+counter for counter in self.handles.values()))
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """The value of a reference that is held must come, with what is inside it."""
        who = data.draw(st.sampled_from([name for name in NAMES if self.held(name)]))
        id = data.draw(st.sampled_from(self.held(who)))
        row = self.rows[who, id]
        self.trio.owner(who).want(row)
        self.trio.quiet()
        assert row.state == INLINE
        assert row.data == b"value of " + id
        inside = row.more.contains if row.more is not None else []
        assert [inner.id for inner in inside] == self.inside[id]

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        waiting = [link for link, frames in self.trio.links.items() if frames]
        if waiting:
            self.trio.deliver(*data.draw(st.sampled_from(waiting)))

    @invariant()
    def what_is_reachable_is_there(self) -> None:
        for id in self.reachable():
            assert id in self.trio.owner(self.home[id]).rows, "freed while it is reachable"
        for name in NAMES:
            self.trio.owner(name).check()

    def teardown(self) -> None:
        self.trio.quiet()
        reachable = self.reachable()
        for name in NAMES:
            own = {id for id, row in self.trio.owner(name).rows.items() if row.owner is None}
            assert own == {id for id in reachable if self.home[id] == name}
        for name in NAMES:
            for id, count in self.handles[name].items():
                for _ in range(count):
                    self.trio.owner(name).drop(self.rows[name, id])
        self.trio.quiet()
        for name in NAMES:
            assert not self.trio.owner(name).rows, "nobody refers to anything, yet rows are left"
            assert not self.trio.owner(name)._handed


TestOwner = OwnerModel.TestCase
TestOwner.settings = effort(100, 40)


# -- by example -----------------------------------------------------------------------------------


def test_a_release_may_come_before_its_registration() -> None:
    owner = Trio().owner("a")
    row = owner.put(b"x" * 16, INLINE, b"1")
    row.holds = 1
    peer = Peer(b"b" * 8)
    owner.on_release(peer, 0.0, [[row.id, b"t"]])
    owner.on_register(peer, 0.0, row.id, peer.id, b"t", b"")
    assert not row.extend().tickets
    assert not row.extend().early
    owner.unhold(row)
    assert not owner.rows


def test_nobody_registers_a_dead_process() -> None:
    owner = Trio().owner("a")
    row = owner.put(b"x" * 16, INLINE, b"1")
    row.handles = 1
    dead = Peer(b"b" * 8)
    owner.on_death(dead, Peer(b"n" * 8))
    owner.on_register(Peer(b"c" * 8), 0.0, row.id, dead.id, b"t", b"")
    owner.drop(row)
    assert not owner.rows


def test_a_borrower_asks_the_heir_for_what_it_had_asked_of_a_dead_owner() -> None:
    trio = Trio()
    row = trio.owner("a").hold(b"x" * 16, b"b" * 8, "b")
    heir = trio.peer("a", "c")
    trio.owner("a").want(row)
    share = Share(trio.owner("a"), heir, asked=True, driver=b"driver")
    share.of_process(trio.peer("a", "b"), [])
    ask_heir(trio.owner("a"), heir)
    assert [id for id, *_ in share.held] == [row.id]
    assert heir.outbox == [(m.PULL, [row.id])]


def test_what_names_a_dead_owner_is_asked_of_the_heir_of_its_heir() -> None:
    """An old value still names the first owner; the heir of that has died since."""
    trio = Trio()
    owner = trio.owner("a")
    first, heir = trio.peer("a", "b"), Peer(b"n" * 8, "n")
    owner.on_death(first, heir)
    owner.on_death(heir, trio.peer("a", "c"))
    row = owner.hold(b"x" * 16, b"b" * 8, "b")
    assert row.owner is trio.peer("a", "c")
    owner.want(row)
    assert [frame[0] for frame in trio.peer("a", "c").outbox] == [m.REGISTER, m.PULL]


def test_what_a_worker_kept_is_registered_where_it_will_let_it_go() -> None:
    """Of the owner that the worker knows, though the caller knows another run's."""
    trio = Trio()
    owner, id, other = trio.owner("a"), b"x" * 16, Peer(b"n" * 8, "n")
    row = owner.hold(id, b"c" * 8, "c")
    task = Task(function("f"), b"")
    owner.take_kept([[id, other.id, other.address, b"ticket"]], trio.peer("a", "b"), task)
    assert not trio.peer("a", "c").outbox
    there = owner.machine.peer(other.id)
    assert [(op, ticket) for op, _, _, ticket, _ in there.outbox] == [(m.REGISTER, b"ticket")]
    assert not owner.is_uncertain(row)


def test_what_a_worker_kept_of_the_dead_is_registered_with_the_heir_and_asked_for() -> None:
    """The worker may have let go already: of one that was dead, before it had heard of that."""
    trio = Trio()
    owner, id, dead, heir = trio.owner("a"), b"x" * 16, trio.peer("a", "c"), Peer(b"n" * 8, "n")
    row = owner.hold(id, dead.id, "c")
    Share(owner, heir, asked=True, driver=b"driver").of_process(dead, [])
    dead.down = True
    kept = [id, dead.id, "c", b"ticket"]
    task = Task(function("f"), b"")
    task.links = Links()
    owner.take_kept([kept], trio.peer("a", "b"), task)
    assert row.owner is heir
    assert [(op, ticket) for op, _, _, ticket, _ in heir.outbox] == [(m.REGISTER, b"ticket")]
    (claim,) = trio.peer("a", "b").outbox
    assert (claim[0], claim[-1]) == (m.CLAIM, [[id, b"ticket"]])


def test_a_reference_to_what_was_released_fails_and_never_hangs() -> None:
    trio = Trio()
    row = trio.owner("a").hold(b"x" * 16, b"a" * 8, "a")
    assert row.data[0] == "ObjectFreed"
    borrowed = trio.owner("b").hold(b"y" * 16, b"a" * 8, "a")
    trio.owner("b").want(borrowed)
    trio.quiet()
    assert borrowed.data[0] == "ObjectFreed"


def test_a_value_is_asked_for_once() -> None:
    trio = Trio()
    row = trio.owner("b").hold(b"y" * 16, b"a" * 8, "a")
    trio.owner("b").want(row)
    trio.owner("b").want(row)
    box = trio.peer("b", "a").outbox
    assert [frame[0] for frame in box] == [m.PULL]
    assert row.state == PENDING


def test_deep_containment_is_freed_without_recursion() -> None:
    owner = Trio().owner("a")
    inner: list[Row] = []
    for number in range(5000):
        row = owner.put(number.to_bytes(16, "big"), INLINE, b"", inner)
        inner = [row]
    row.handles = 1
    owner.drop(row)
    assert not owner.rows


def test_an_error_is_kept_for_those_who_borrowed_it() -> None:
    """The reference of a failed task is kept by a task: it must read the error, not `freed`."""
    bench = Bench(cpus=2)
    bench.submit("driver", ["bad"], function("f"))
    bench.deliver()
    bench.worker("w1")
    bench.deliver()
    bench.run("w1")
    bench.finish("w1", "!it raised")
    bench.deliver()
    bench.submit("driver", ["a"], function("store"), nested=["bad"])
    bench.deliver()
    bench.run("w1")
    bench.drop("driver", "bad")
    bench.finish("w1", "ok", keep=["bad"])
    bench.deliver()
    bench.get("w1", "bad")
    bench.deliver()
    assert bench.get("w1", "bad") == "failed it raised"


def test_a_worker_that_leases_itself_frees_what_it_hands_to_itself() -> None:
    trio = Trio()
    owner = trio.owner("a")
    row = owner.put(b"x" * 16, INLINE, b"1")
    fields: list[Any] = owner.hand_over(row, trio.peer("a", "a"))
    (back,) = owner.receive([fields])
    assert back is row
    owner.settle(back)
    assert not owner.rows
