"""Bad input: each mistake gets its own error, at once, with a text that says what to do."""

from __future__ import annotations

import threading
import time
import types
from typing import Any

import pytest

import freehold as fh
from sessions import MIB, run_script, until

pytestmark = pytest.mark.usefixtures("session")


@fh.remote
def same(x: Any) -> Any:
    return x


class Plain:
    """A user's class with a field."""

    def __init__(self, field: Any) -> None:
        self.field = field


def test_an_unknown_option_of_init() -> None:
    fault = """
    import freehold as fh, pytest
    for options in ({"cpus": 2}, {"num_cpus": -1}, {"num_cpus": "2"}, {"arena_bytes_max": 5},
                    {"depth_max": 0}, {"resources": {"a": -1}}, {"resources": 5},
                    {"inline_bytes_max": "x"}, {"inline_bytes_max": 2**40}, {"workers_max": 1.5},
                    {"num_cpus": float("nan")}, {"log_to_driver": "no"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            fh.init(**options)
        assert not fh.is_initialized()
    """
    run_script(fault)


def test_init_twice_and_shutdown_twice() -> None:
    with pytest.raises(fh.AlreadyInitialized, match="shutdown"):
        fh.init()
    assert fh.get(same.remote(1)) == 1
    code = """
    import freehold as fh, pytest
    fh.shutdown()
    fh.init(num_cpus=1)
    fh.shutdown()
    fh.shutdown()
    fh.init(num_cpus=1)
    assert fh.get(fh.put(1)) == 1
    """
    run_script(code)


def test_an_unpicklable_argument_names_the_path() -> None:
    lock = threading.Lock()
    cases: list[tuple[Any, str]] = [
        (lock, r"lock"),
        ({"a": [1, Plain(lock)]}, r"\['a'\]\[1\]\.field \(a _thread\.lock\)"),
        ((x for x in ()), r"generator"),
        (lambda: lock, r"\.lock \(captured\)"),
    ]
    for value, path in cases:
        for call in (same.remote, lambda x: same.remote(x=x), fh.put):
            with pytest.raises(fh.SerializationError, match=path):
                call(value)
    assert issubclass(fh.SerializationError, TypeError)


def test_an_unpicklable_result_names_the_path() -> None:
    @fh.remote
    def bad() -> Any:
        return {"locks": [1, threading.Lock()]}

    with pytest.raises(fh.SerializationError, match=r"bad: .*\['locks'\]\[1\] \(a _thread\.lock\)"):
        fh.get(bad.remote(), timeout=5)
    lock = threading.Lock()
    stuck = fh.remote(lambda: lock)
    with pytest.raises(fh.SerializationError, match=r"\.lock \(captured\)"):
        stuck.remote()


def test_a_value_whose_pickling_raises_or_that_cannot_be_read_back() -> None:
    class Raises:
        def __reduce__(self) -> Any:
            raise RuntimeError("not today")

    class Unreadable:
        def __reduce__(self) -> Any:
            return int, ("x",)

    with pytest.raises(fh.SerializationError, match="not today"):
        fh.put([Raises()])
    with pytest.raises(ValueError, match="invalid literal"):
        fh.get(same.remote(Unreadable()), timeout=5)
    with pytest.raises(ValueError, match="invalid literal"):
        fh.get(fh.put(Unreadable()))


def test_too_many_cpus_fail_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(fh.Unschedulable, match=r"same: no node .* 3 CPU \(the node has 2\)"):
        fh.get(same.options(num_cpus=3).remote(1), timeout=5)
    assert time.monotonic() - start < 1
    assert issubclass(fh.Unschedulable, ValueError)


def test_a_reference_of_an_earlier_session() -> None:
    code = """
    import freehold as fh, pytest
    @fh.remote
    def f(x): return x
    @fh.remote
    class A:
        def f(self): return 1
    fh.init(num_cpus=1)
    small, big, a = fh.put(1), fh.put(bytes(10**6)), A.remote()
    done, pending = f.remote(2), f.remote(3)
    view = fh.get(fh.put(memoryview(b"v" * 10**6)))
    fh.get([done, a.f.remote()])
    fh.shutdown()
    for ref in (small, big, done, pending):
        with pytest.raises(fh.NotInitialized, match="init"):
            fh.get(ref)
    fh.init(num_cpus=1)
    for ref in (small, big, done, pending):
        with pytest.raises(fh.FreeholdError, match="shut down"):
            fh.get(ref, timeout=5)
        with pytest.raises(fh.FreeholdError, match="shut down|another session"):
            fh.get(f.remote(ref), timeout=5)
        with pytest.raises(fh.InvalidReference, match="another session"):
            fh.put([ref])
        with pytest.raises(fh.InvalidReference, match="another session"):
            f.remote([ref])
    with pytest.raises(fh.FreeholdError, match="shut down|another session"):
        fh.get(a.f.remote(), timeout=5)
    assert bytes(view) == b"v" * 10**6
    assert fh.get(f.remote(5)) == 5
    """
    run_script(code)


def test_a_freed_reference() -> None:
    @fh.remote
    class Keeper:
        def smuggle(self, refs: list[Any]) -> None:
            import freehold.ref as inner

            self.fields = inner._export(refs[0]._row)

        def read(self) -> Any:
            import freehold.ref as inner

            return fh.get(inner._load(*self.fields), timeout=5)

    keeper = Keeper.remote()
    ref = fh.put(b"x" * MIB)
    fh.get(keeper.smuggle.remote([ref]))
    del ref
    until(lambda: not fh.status()["objects"]["count"])
    with pytest.raises(fh.ObjectFreed, match="released by its owner"):
        fh.get(keeper.read.remote(), timeout=10)


def test_everything_after_shutdown_says_so() -> None:
    code = """
    import freehold as fh, pytest
    @fh.remote
    def f(): return 1
    @fh.remote
    class A:
        def m(self): return 1
    fh.init(num_cpus=1)
    ref, a = f.remote(), A.remote()
    method = a.m
    fh.get([ref, a.m.remote()])
    fh.shutdown()
    for call in (lambda: fh.get(ref), lambda: fh.put(1), lambda: fh.wait([ref]), f.remote,
                 a.m.remote, method.remote, A.remote, lambda: fh.kill(a), fh.status, ref.future,
                 lambda: fh.get([ref])):
        with pytest.raises(fh.NotInitialized, match=r"call freehold\\.init"):
            call()
    assert not fh.is_initialized()
    """
    run_script(code)


def test_shutdown_while_another_thread_waits() -> None:
    code = """
    import freehold as fh, threading, time
    @fh.remote
    def nap(): time.sleep(30)
    fh.init(num_cpus=2)
    got = []
    def wait(call):
        try: got.append(call())
        except fh.FreeholdError as error: got.append(type(error))
        except BaseException as error: got.append(error)
    refs = [nap.remote() for _ in range(4)]
    calls = [lambda: fh.get(refs[0]), lambda: fh.get(refs), lambda: fh.get(refs[1], timeout=20)]
    threads = [threading.Thread(target=wait, args=(call,)) for call in calls]
    for thread in threads: thread.start()
    while not all(row._row.waiters for row in refs[:2]): time.sleep(0.001)
    start = time.monotonic()
    fh.shutdown()
    for thread in threads: thread.join(5)
    assert time.monotonic() - start < 4, time.monotonic() - start
    assert got == [fh.NotInitialized] * 3, got
    """
    run_script(code)


def test_threads_whose_first_use_comes_at_once_share_one_session() -> None:
    code = """
    import freehold as fh, os, threading
    barrier = threading.Barrier(8)
    nodes = []
    @fh.remote
    def add(a, b):
        return a + b
    def use():
        barrier.wait()
        assert fh.get(add.remote(fh.put(1), 2)) == 3
        nodes.append(fh.status()["node"])
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(nodes) == 8 and len(set(nodes)) == 1, nodes
    """
    run_script(code)


def test_an_arena_that_cannot_be_had_says_so() -> None:
    code = """
    import freehold as fh, pytest
    for size in (2**50, 2**62):
        with pytest.raises(fh.ObjectStoreFull, match="arena of .* cannot .*arena_bytes"):
            fh.init(arena_bytes_max=size)
        assert not fh.is_initialized()
    fh.init(num_cpus=1)
    assert fh.get(fh.put(1)) == 1
    """
    run_script(code)


def test_settings_in_the_environment() -> None:
    code = """
    import os, freehold as fh, pytest
    for name, text in (("NUM_CPUS", "two"), ("NUM_CPUS", "true"), ("RESOURCES", "gold"),
                       ("RESOURCES", "CPU=1"), ("LOG_TO_DRIVER", "perhaps")):
        os.environ["FREEHOLD_" + name] = text
        with pytest.raises(ValueError, match=name + "|" + name.lower()):
            fh.init()
        del os.environ["FREEHOLD_" + name]
    os.environ.update(FREEHOLD_NUM_CPUS="1.5", FREEHOLD_RESOURCES="gold=2, tape=0.5",
                      FREEHOLD_LOG_TO_DRIVER="false")
    fh.init()
    assert fh.cluster_resources() == {"CPU": 1.5, "gold": 2.0, "tape": 0.5}
    """
    run_script(code)


def test_what_is_remote_already_is_neither_made_remote_nor_derived_from() -> None:
    class Plain:
        def method(self) -> int:
            return 1

    remote_class = fh.remote(Plain)
    for again in (same, remote_class):
        with pytest.raises(TypeError, match="is remote already"):
            fh.remote(again)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="derive from the plain class"):
        types.new_class("Derived", (remote_class,))
    for thing, text in (
        (same, "RemoteFunction(same)"),
        (remote_class, "ActorClass(Plain)"),
        (remote_class.remote().method, "ActorMethod(Plain.method)"),
    ):
        assert repr(thing) == text
