"""Fleets repeat exactly, are clean, meet every fault, and planted bugs in them are found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from freehold.core import messages as m
from freehold.core.node.estates import Estates
from freehold.core.node.scheduler import Scheduler
from freehold.core.node.store import Store
from freehold.sim import __main__ as command
from freehold.sim.fleet import Fleet
from freehold.sim.ledger import Ledger
from freehold.sim.setup import draw_cluster
from freehold.sim.values import Violation

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Many nodes die, and nothing else goes wrong: what a planted bug breaks is met soon.
DEATHS: dict[str, Any] = {
    "nodes": 4, "faults": (("node", 3),), "crashes": 3, "fault_time": 1.5,
    "inline_max": 40, "scale": 100, "depth": 2, "steps": 40, "spike": 0.0, "drivers": 1,
    "spawn_fails": 0.0, "arena_fails": 0.0, "arena_bytes": 1 << 28,
}  # fmt: skip


# At least one in ten runs meets each of the bugs that are planted here, so that it is found soon
# whatever is drawn, and never missed.  What is met less often is planted in the small world.
SEEDS_MAX = 200


def run_elsewhere(seed: int, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-m", "freehold.sim", "--fleet", "--seed", str(seed)],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return done.stdout.strip().rpartition(" ")[2]


def first_found(storm: dict[str, Any]) -> tuple[int, Exception] | None:
    """The first seed that fails, and how; some limits are not drawn but given."""
    for seed in range(SEEDS_MAX):
        setup = draw_cluster(random.Random(seed))._replace(**storm)
        try:
            Fleet(seed, setup).run()
        except Exception as error:
            return seed, error
    return None


def test_the_swarm_is_clean_and_meets_every_fault() -> None:
    faults: set[str] = set()
    errors: set[str] = set()
    for seed in range(50, 90):
        outcome = Fleet(seed).run()
        faults |= set(outcome.faults)
        errors |= set(outcome.errors)
    assert faults >= {
        "broken transfer", "crash", "crash of a driver", "crash of a node", "crash of an owner",
        "crash of the head", "drain", "one-way partition", "partition", "pause of a node",
        "slow link",
    }  # fmt: skip
    assert errors >= {"ActorDied", "ObjectStoreFull", "TaskError", "WorkerDied"}


@pytest.mark.parametrize("seed", [3, 14])
def test_a_seed_repeats_exactly_under_any_hash_seed(seed: int) -> None:
    here = Fleet(seed).run().trace_hash
    assert Fleet(seed).run().trace_hash == here
    assert run_elsewhere(seed, "1") == here
    assert run_elsewhere(seed, "2") == here


def test_fleets_differ() -> None:
    assert len({draw_cluster(random.Random(seed)) for seed in range(50)}) == 50


# -- planted bugs ---------------------------------------------------------------------------------


def test_finds_leases_of_the_dead_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that does not hear of the death of those who have leased its workers."""
    monkeypatch.setattr(Scheduler, "forget_holder", lambda self, holder, now: None)
    found = first_found(DEATHS)
    assert found is not None


def test_finds_a_redirect_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node names another, and its answer never comes."""

    def redirect(self: Scheduler, *fields: Any) -> bool:
        if self.redirected % 4 != 3:
            return original(self, *fields)
        self.redirected += 1
        return True

    original = Scheduler._redirect
    monkeypatch.setattr(Scheduler, "_redirect", redirect)
    found = first_found(DEATHS)
    assert found is not None
    assert "hang" in str(found[1]) or "left over" in str(found[1])


def test_finds_an_estate_that_frees_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def free_others(self: Store, key: bytes, kept: set[bytes]) -> None:
        original(self, key, set())

    original = Store.free_others
    monkeypatch.setattr(Store, "free_others", free_others)
    assert first_found(DEATHS) is not None


def test_finds_an_estate_that_is_never_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Estates, "_settle", lambda self, id, entry: None)
    found = first_found(DEATHS)
    assert found is not None
    assert "left over" in str(found[1])


def test_finds_a_copy_that_is_used_after_it_was_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy's pin is taken back while a process still reads it."""
    from freehold.core.process.fetches import Fetches

    def on_fetched(
        self: Fetches, peer: Any, now: float, id: bytes, source: Any, place: Any, why: str
    ) -> None:
        original(self, peer, now, id, source, place, why)
        if place and self.users.get(place[1]):
            self.machine.send(peer, m.UNPIN, [place[1]])

    original = Fetches.on_fetched
    monkeypatch.setattr(Fetches, "on_fetched", on_fetched)
    assert first_found({**DEATHS, "arena_bytes": 1 << 24}) is not None


def test_calls_of_one_caller_must_start_in_order() -> None:
    ledger = Ledger({})
    for task in (b"1", b"2", b"3"):
        ledger.called(b"caller", task)
        ledger.called(b"its re-run", task)
    ledger.takes_turn(b"actor", b"caller", b"1")
    ledger.takes_turn(b"actor", b"caller", b"3")
    ledger.takes_turn(b"another", b"caller", b"2")  # another incarnation
    with pytest.raises(Violation, match="after a later one"):
        ledger.takes_turn(b"actor", b"caller", b"2")


def begun() -> Fleet:
    """A fleet whose nodes have joined, and whose driver has met its own."""
    fleet = Fleet(0, draw_cluster(random.Random(0))._replace(**DEATHS))
    fleet._start()
    owner = fleet.driver.owner
    fleet._until(lambda: all(node.node.members.joined for node in fleet.nodes), 1.0)
    fleet._until(lambda: owner.node is not None, 1.0)
    assert owner.node is not None
    return fleet


def test_a_drain_waits_for_the_driver_that_is_to_ask_for_it() -> None:
    fleet = begun()
    owner = fleet.driver.owner
    node, owner.node = owner.node, None
    assert not fleet.faults.kinds["drain"]()
    owner.node = node
    assert fleet.faults.kinds["drain"]()


def test_the_late_driver_keeps_no_node_that_is_to_drain() -> None:
    """Nor one that does not know it yet, since there is no head."""
    fleet = begun()
    fleet.head.crash(-9)
    fleet.faults.kinds["drain"]()
    (drained,) = fleet.faults.drained
    fleet.nodes.sort(key=lambda node: node.machine.id != drained)
    assert not fleet.nodes[0].node.members.me.retiring
    fleet._begin_late()
    assert fleet.last is fleet.nodes[1]


def test_the_first_node_too_ends_when_it_is_refused_and_so_does_its_driver() -> None:
    fleet = begun()
    first = fleet.nodes[0]
    fleet.head.head.roll._bury(fleet.head.head.nodes[first.machine.id], fleet.world.now, "why")
    fleet.head.finish()
    fleet._until(lambda: not first.alive, 1.0)
    assert not first.alive
    assert not fleet.driver.alive
    fleet._until(lambda: fleet.nodes[0].node.members.joined, 2.0)
    assert fleet.nodes[0].node.members.joined


# -- the command line -----------------------------------------------------------------------------


def test_command_replays_a_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--fleet", "--seed", "3"]) == 0
    assert "trace " in capsys.readouterr().out
    assert command.main(["--fleet", "--seeds", "2"]) == 0
    assert "2 seeds," in capsys.readouterr().out


def test_a_late_driver_that_has_just_come_is_let_finish() -> None:
    fleet = Fleet(1)
    fleet.run()
    fleet._begin_late()
    fleet._let_go()  # its node has not said hello yet
    assert fleet._left() == ["a driver's job"]
    assert fleet._until(lambda: not fleet._let_go() and not fleet._left(), fleet.world.now + 60.0)
