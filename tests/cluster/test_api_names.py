"""Named actors: found by anybody, unique in a namespace, and gone with their actors."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import freehold as fh
from cluster.api import anywhere
from cluster.processes import eventually

__all__ = ["anywhere"]


@fh.remote
class Counter:
    def __init__(self, start: int = 0, log: str = "") -> None:
        self.n = start
        if log:
            with open(log, "a") as file:
                file.write("made\n")

    def add(self) -> int:
        self.n += 1
        return self.n

    def pid(self) -> int:
        return os.getpid()

    def fall(self) -> None:
        os._exit(1)


@fh.remote(num_cpus=0.1)
def add_by_name(name: str) -> int:
    return fh.get(fh.get_actor(name).add.remote())


@fh.remote(num_cpus=0.1)
def make(name: str) -> fh.ActorHandle:
    return Counter.options(name=name).remote()


@fh.remote(num_cpus=0.1)
def make_detached(name: str) -> fh.ActorHandle:
    return Counter.options(name=name, lifetime="detached").remote()


@fh.remote(num_cpus=0.1)
def add_to(counter: fh.ActorHandle) -> int:
    return fh.get(counter.add.remote())


@pytest.fixture
def no_names(anywhere: str) -> Iterator[None]:
    """Each test's names are gone at its end, since their actors are."""
    yield
    eventually(lambda: fh.list_named_actors() == [])


@pytest.mark.usefixtures("no_names")
class TestAnywhere:
    def test_a_named_actor_is_found_by_programs_and_tasks(self) -> None:
        made = Counter.options(name="one").remote(5)
        found = fh.get_actor("one")
        assert found == made
        assert fh.get(found.add.remote(), timeout=20) == 6
        assert fh.get(add_by_name.remote("one"), timeout=20) == 7
        assert fh.list_named_actors() == ["one"]
        assert "one" in repr(found)

    def test_a_name_is_unique_and_the_second_never_runs(self, tmp_path: object) -> None:
        log = f"{tmp_path}/log"
        made = Counter.options(name="one").remote(0, log)
        with pytest.raises(fh.NameTaken, match="'one'"):
            Counter.options(name="one").remote(0, log)
        with pytest.raises(ValueError):
            Counter.options(name="one").remote(0, log)
        assert fh.get(made.add.remote(), timeout=20) == 1
        with open(log) as file:
            assert file.read() == "made\n"

    def test_get_if_exists_gives_the_same_actor(self) -> None:
        options = {"name": "one", "get_if_exists": True}
        first = Counter.options(**options).remote(10)
        second = Counter.options(**options).remote(20)
        assert first == second
        assert fh.get([first.add.remote(), second.add.remote()], timeout=20) == [11, 12]

    def test_namespaces_are_apart(self) -> None:
        here = Counter.options(name="one", namespace="a").remote(1)
        there = Counter.options(name="one", namespace="b").remote(2)
        with pytest.raises(fh.NameUnknown):
            fh.get_actor("one")
        assert fh.get_actor("one", namespace="a") == here
        assert fh.get_actor("one", namespace="b") == there
        assert fh.list_named_actors("a") == ["one"]
        assert fh.list_named_actors() == []

    def test_a_name_goes_with_the_last_handle(self) -> None:
        Counter.options(name="one").remote()
        eventually(lambda: fh.list_named_actors() == [])
        with pytest.raises(fh.NameUnknown, match="'one'"):
            fh.get_actor("one")

    def test_who_has_found_it_keeps_it(self) -> None:
        made = Counter.options(name="one").remote()
        found = fh.get_actor("one")
        del made
        assert fh.get(found.add.remote(), timeout=20) == 1
        assert fh.get_actor("one") == found

    def test_a_name_goes_when_the_actor_is_killed_or_dies(self) -> None:
        made = Counter.options(name="one").remote()
        fh.get(made.add.remote(), timeout=20)
        fh.kill(made)
        again = Counter.options(name="one").remote(7)  # free at once
        assert fh.get(again.add.remote(), timeout=20) == 8
        with pytest.raises(fh.ActorDied):
            fh.get(again.fall.remote(), timeout=20)
        with pytest.raises(fh.NameUnknown):
            fh.get_actor("one")

    def test_a_constructor_that_raises_leaves_no_name(self) -> None:
        @fh.remote
        class Bad:
            def __init__(self) -> None:
                raise KeyError("bad")

            def ping(self) -> None: ...

        made = Bad.options(name="one").remote()
        with pytest.raises(fh.ActorDied):
            fh.get(made.ping.remote(), timeout=20)
        eventually(lambda: fh.list_named_actors() == [])

    def test_an_actor_that_restarts_keeps_its_name(self) -> None:
        made = Counter.options(name="one", max_restarts=1).remote(3)
        pid = fh.get(made.pid.remote(), timeout=20)
        with pytest.raises(fh.ActorUnavailable):
            fh.get(made.fall.remote(), timeout=20)
        found = fh.get_actor("one")
        assert fh.get(found.add.remote(), timeout=20) == 4
        assert fh.get(found.pid.remote(), timeout=20) != pid

    def test_a_detached_actor_lives_without_handles_until_it_is_killed(self) -> None:
        options = {"name": "one", "lifetime": "detached", "max_restarts": 1}
        made = Counter.options(**options).remote(3)
        assert fh.get(made.add.remote(), timeout=20) == 4
        pid = fh.get(made.pid.remote(), timeout=20)
        del made
        found = fh.get_actor("one")
        assert fh.get(add_by_name.remote("one"), timeout=20) == 5
        with pytest.raises(fh.ActorUnavailable):
            fh.get(found.fall.remote(), timeout=20)
        assert fh.get(found.add.remote(), timeout=20) == 4
        assert fh.get(found.pid.remote(), timeout=20) != pid
        with pytest.raises(fh.NameTaken, match="detached"):
            Counter.options(**options).remote()
        assert Counter.options(**options, get_if_exists=True).remote() == found
        fh.kill(found)
        assert fh.list_named_actors() == []
        with pytest.raises(fh.ActorDied, match="killed"):
            fh.get(found.add.remote(), timeout=20)
        with pytest.raises(fh.ActorDied, match="killed"):
            fh.get(add_to.remote(found), timeout=20)

    def test_a_detached_actor_made_by_a_task_survives_it(self) -> None:
        made = fh.get(make_detached.remote("one"), timeout=20)
        assert fh.get(made.add.remote(), timeout=20) == 1
        assert fh.get_actor("one") == made
        fh.kill(made)

    def test_an_actor_made_by_a_task_has_the_job_s_namespace(self) -> None:
        made = fh.get(make.remote("one"), timeout=20)
        found = fh.get_actor("one")
        assert found == made
        assert fh.get(found.add.remote(), timeout=20) == 1

    def test_a_name_goes_with_the_process_that_made_the_actor(self) -> None:
        @fh.remote
        class Maker:
            def make(self) -> None:
                self.made = Counter.options(name="one").remote()
                fh.get(self.made.add.remote())

            def fall(self) -> None:
                os._exit(1)

        maker = Maker.remote()
        fh.get(maker.make.remote(), timeout=20)
        found = fh.get_actor("one")
        with pytest.raises(fh.ActorDied):
            fh.get(maker.fall.remote(), timeout=20)
        eventually(lambda: fh.list_named_actors() == [])
        with pytest.raises((fh.ActorError, fh.OwnerDied)):
            fh.get(found.add.remote(), timeout=20)
        with pytest.raises(fh.NameUnknown):
            fh.get_actor("one")

    def test_many_names_are_listed_in_order(self) -> None:
        made = [Counter.options(name=f"n{i:02}", num_cpus=0).remote() for i in range(6)]
        assert fh.list_named_actors() == [f"n{i:02}" for i in range(6)]
        assert fh.get([each.add.remote() for each in made], timeout=30) == [1] * 6

    def test_impossible_names_are_refused_at_once(self) -> None:
        for options in (
            {"name": ""},
            {"name": "a\0b"},
            {"name": "x" * 501},
            {"name": 5},
            {"name": "x", "namespace": ""},
            {"namespace": "a"},
            {"get_if_exists": True},
            {"lifetime": "detached"},  # without a name nobody could find it, or kill it
            {"name": "x", "lifetime": "forever"},
        ):
            with pytest.raises(ValueError):
                Counter.options(**options)
        with pytest.raises(ValueError):
            fh.get_actor("")
        with pytest.raises(ValueError):
            fh.list_named_actors("")
