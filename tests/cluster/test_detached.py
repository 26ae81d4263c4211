"""Detached actors outlive their makers, their nodes and the head, until somebody kills them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import freehold as fh
from cluster import cast
from cluster.cast import LARGE, outcome
from cluster.ground import Ground, timed
from cluster.processes import eventually
from freehold.proc import tool
from freehold.proc.token import Token

BOUND_S = 3.0
DETACHED: dict[str, Any] = {"lifetime": "detached"}
MAKER = """
import os, signal, sys
import freehold as fh
from cluster import cast
fh.init(log_to_driver=False)
how, node, log, restarts = sys.argv[1:]
options = {"lifetime": "detached", "max_restarts": int(restarts), "max_task_retries": -1}
there = cast.there(node) if node else {}
counter = cast.Counter.options(name="counter", **options, **there).remote(log)
large, small = fh.put(bytes([3]) * cast.LARGE), fh.put(bytes([4]) * cast.SMALL)
bearer = cast.Bearer.options(name="bearer", **options, **there).remote(large)
by_value = cast.Bearer.options(name="by value", **options, **there).remote(bytes(cast.LARGE))
pair = cast.Pair.options(name="pair", **options, **there).remote(small, [large])
if how != "at once":
    fh.get([each.whoami.remote() for each in (counter, bearer, by_value, pair)], timeout=20)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
fh.shutdown()
"""
NAMES = ["bearer", "by value", "counter", "pair"]
KILLER = """
import freehold as fh
fh.init(log_to_driver=False)
fh.kill(fh.get_actor("counter"))
print(fh.list_named_actors())
fh.shutdown()
"""


@pytest.fixture
def field(field: Ground) -> Iterator[Ground]:
    """The shared cluster, from which each test's detached actors go at its end."""
    yield field
    field.restore()
    for name in fh.list_named_actors():
        with contextlib.suppress(fh.NameUnknown):
            fh.kill(fh.get_actor(name))
    eventually(lambda: fh.list_named_actors() == [])


def run(field: Ground, index: int, program: str, *words: str) -> str:
    """A program on that machine, from its beginning to its end; what it prints."""
    argv = [sys.executable, "-c", program, *words]
    with field.cluster.machines[index].popen(argv, stdout=subprocess.PIPE) as other:
        out, _ = other.communicate(timeout=60)
    assert other.returncode in (0, -9), out
    return str(out)


def make(field: Ground, how: str, at: int = 1, on: int | None = None, restarts: int = 0) -> str:
    """Have a program on machine ``at`` make the actors, on machine ``on``; the counter's log."""
    log = field.path("log")
    run(field, at, MAKER, how, "" if on is None else field.node(on), log, str(restarts))
    return log


def read_all() -> list[Any]:
    """What the actors that were given values have."""
    calls = [fh.get_actor(name).read.remote() for name in ("bearer", "by value", "pair")]
    return [outcome(ref) for ref in calls]


ALL = [("value", (3, LARGE)), ("value", (0, LARGE)), ("value", (4, 100, 3, LARGE))]


@pytest.mark.parametrize("how", ["leaves", "killed", "at once"])
def test_they_outlive_their_driver(field: Ground, how: str) -> None:
    make(field, how, restarts=1)
    assert fh.list_named_actors() == NAMES
    assert read_all() == ALL
    counter = fh.get_actor("counter")
    assert fh.get(counter.add.remote(), timeout=20)[1] == 1
    pid = fh.get(counter.add.remote(), timeout=20)[0]
    field.kill_process(pid)
    again = fh.get(fh.get_actor("counter").add.remote(), timeout=20)
    assert again[0] != pid
    assert again[1] == 1  # it begins anew
    for name in ("bearer", "by value", "pair"):
        field.kill_process(fh.get(fh.get_actor(name).whoami.remote(), timeout=20)[1])
    assert read_all() == ALL  # the constructors' arguments were kept


def test_what_they_submit_and_put_works_after_their_driver(field: Ground) -> None:
    make(field, "leaves")
    pair = fh.get_actor("pair")
    assert outcome(pair.work.remote(5)) == ("value", (6, LARGE))
    (kept,) = fh.get(pair.put.remote(8), timeout=20)
    assert outcome(kept) == ("value", (8, LARGE))
    assert run(field, 2, KILLER) == "['bearer', 'by value', 'pair']\n"
    assert outcome(pair.work.remote(6)) == ("value", (7, LARGE))


def test_another_program_kills_it_and_its_name_is_free(field: Ground) -> None:
    make(field, "leaves", restarts=-1)
    counter = fh.get_actor("counter")
    pid = fh.get(counter.whoami.remote(), timeout=20)[1]
    assert run(field, 2, KILLER) == "['bearer', 'by value', 'pair']\n"
    assert outcome(counter.add.remote())[0] == "ActorDied"
    eventually(lambda: all(pid not in field.workers(index) for index in range(3)))
    with pytest.raises(fh.NameUnknown):
        fh.get_actor("counter")
    again = cast.Counter.options(name="counter", **DETACHED).remote()
    assert fh.get(again.add.remote(), timeout=20)[1] == 1


def test_the_maker_s_node_dies_and_they_go_on(field: Ground) -> None:
    make(field, "leaves", at=1, on=2, restarts=1)
    counter = fh.get_actor("counter")
    pid = fh.get(counter.add.remote(), timeout=20)[0]
    field.cluster.kill_node(1)
    assert fh.get(counter.add.remote(), timeout=20) == (pid, 2)
    assert read_all()[:2] == ALL[:2]  # the third has never read its value, which is lost


def test_their_node_dies_and_they_are_made_again_on_another(field: Ground) -> None:
    log = make(field, "leaves", at=1, on=2, restarts=1)
    counter = fh.get_actor("counter")
    assert fh.get(counter.whoami.remote(), timeout=20)[0] == 2
    field.cluster.kill_node(2)
    found, seconds = timed(lambda: outcome(counter.add.remote()))
    assert found[0] == "value"
    assert found[1][1] == 1
    assert seconds < BOUND_S
    assert fh.get(counter.whoami.remote(), timeout=20)[0] != 2
    assert read_all() == ALL
    assert sum(line.startswith("born") for line in cast.lines(log)) == 2


def test_without_restarts_left_it_is_dead_and_its_name_is_free(field: Ground) -> None:
    make(field, "leaves", on=2)
    counter = fh.get_actor("counter")
    field.kill_process(fh.get(counter.whoami.remote(), timeout=20)[1])
    assert outcome(counter.add.remote())[0] == "ActorDied"
    eventually(lambda: "counter" not in fh.list_named_actors())
    pair = fh.get_actor("pair")
    field.cluster.kill_node(2)
    assert outcome(pair.read.remote())[0] == "ActorDied"
    eventually(lambda: fh.list_named_actors() == [])


def test_the_head_is_killed_and_comes_back_on_the_same_store(field: Ground) -> None:
    make(field, "leaves", on=2, restarts=-1)
    counter = fh.get_actor("counter")
    pid = fh.get(counter.add.remote(), timeout=20)[0]
    field.cluster.kill_head()
    assert fh.get(counter.add.remote(), timeout=20) == (pid, 2)  # nobody asks the head
    field.cluster.restart_head()
    assert fh.get(fh.get_actor("counter").add.remote(), timeout=20) == (pid, 3)
    assert read_all() == ALL
    field.cluster.kill_head()
    field.kill_process(pid)
    late = counter.add.remote()
    assert fh.wait([late], timeout=0.5) == ([], [late])  # restarts wait for the head
    field.cluster.restart_head()
    assert outcome(late)[0] == "value"
    assert outcome(fh.get_actor("counter").add.remote())[1][1] >= 1
    assert fh.list_named_actors() == NAMES


def test_head_and_node_die_together(field: Ground) -> None:
    make(field, "leaves", on=2, restarts=1)
    counter = fh.get_actor("counter")
    assert fh.get(counter.add.remote(), timeout=20)[1] == 1
    field.cluster.kill_head()
    field.cluster.kill_node(2)
    field.cluster.restart_head()
    assert outcome(counter.add.remote())[0] == "value"
    assert fh.get(counter.whoami.remote(), timeout=20)[0] != 2
    assert read_all() == ALL


def test_names_of_programs_come_first_and_namespaces_are_apart(field: Ground) -> None:
    shared = cast.Counter.options(name="one", **DETACHED).remote()
    apart = cast.Counter.options(name="one", namespace="a", **DETACHED).remote()
    assert fh.get_actor("one") == shared
    own = cast.Counter.options(name="one").remote()
    assert fh.get_actor("one") == own
    del own
    eventually(lambda: fh.get_actor("one") == shared)
    assert fh.get_actor("one", namespace="a") == apart != shared
    same = cast.Counter.options(name="one", get_if_exists=True, **DETACHED).remote()
    assert same == shared
    with pytest.raises(fh.NameTaken, match="detached"):
        cast.Counter.options(name="one", **DETACHED).remote()
    fh.kill(apart)


def test_what_no_node_can_have_is_refused_at_once(field: Ground) -> None:
    with pytest.raises(fh.Unschedulable, match="99 CPU"):
        cast.Counter.options(name="one", num_cpus=99, **DETACHED).remote()
    assert fh.list_named_actors() == []


def test_status_shows_them(field: Ground) -> None:
    made = cast.Counter.options(name="one", max_restarts=3, **DETACHED, **field.on(1)).remote()
    fh.get(made.add.remote(), timeout=20)
    address, token = field.cluster.address, field.cluster.token
    (shown,) = tool.ask_head(address, Token.parse(token), "detached", {})["detached"]
    assert (shown["name"], shown["state"], shown["restarts_left"]) == ("one", "alive", 3)
    assert shown["node"] == field.node(1)
