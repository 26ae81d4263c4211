"""Processes that exit, are killed, or stop: typed errors in bounded time, and nothing left."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import freehold as fh
from sessions import MIB, alive, left_over, line_of, ours, run_script, start_script, until

usual = {"num_cpus": 2, "arena_bytes_max": 64 * MIB, "reserve_bytes": 4 * MIB}


@pytest.fixture(autouse=True)
def ended() -> Any:
    """No session outlives its test."""
    yield
    fh.shutdown()


@pytest.fixture
def own(ended: None) -> Any:
    """A session of its own."""
    fh.init(**usual)
    return


def named(home: str, name: str) -> int:
    return next(pid for pid, found in ours(home).items() if found == name)


@fh.remote
def leave(how: str, times: int = 99, directory: str = "") -> int:
    """Ends its process, the first few times that it is called with that directory."""
    tries = 0
    if directory:
        tries = len(os.listdir(directory))
        (Path(directory) / str(tries)).touch()
    if tries < times:
        print("last words", flush=True)
        if how == "exit":
            os._exit(3)
        elif how == "sys":
            sys.exit("the reason")
        os.kill(os.getpid(), getattr(signal, how))
    return tries


@fh.remote
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@fh.remote
class Actor:
    def pid(self) -> int:
        return os.getpid()

    def nap(self) -> None:
        time.sleep(60)

    def leave(self) -> None:
        os._exit(4)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exit", "exited with code 3"),
        ("sys", "exited with code 1"),
        ("SIGKILL", r"killed by signal 9 \(SIGKILL\); if nobody sent it, .*out-of-memory"),
        ("SIGSEGV", r"killed by signal 11 \(SIGSEGV\)"),
        ("SIGABRT", r"killed by signal 6 \(SIGABRT\)"),
    ],
)
def test_a_worker_that_dies_says_how(own: None, how: str, says: str) -> None:
    start = time.monotonic()
    with pytest.raises(fh.WorkerDied, match=f"leave: worker process .*{says}") as caught:
        fh.get(leave.options(max_retries=0).remote(how), timeout=10)
    assert time.monotonic() - start < 2
    assert "last words" in str(caught.value)
    assert fh.get(nap.remote(0), timeout=5)
    assert fh.status()["deaths"] == 1


@pytest.mark.parametrize("how", ["exit", "SIGKILL"])
def test_a_death_costs_a_retry(own: None, how: str, tmp_path: Path) -> None:
    assert fh.get(leave.remote(how, 2, str(tmp_path)), timeout=10) == 2
    assert fh.status()["retries"] == 2


def test_a_task_without_retries_never_runs_twice(own: None, tmp_path: Path) -> None:
    @fh.remote(max_retries=0)
    def mark(directory: str, number: int) -> None:
        (Path(directory) / f"{number}-{time.monotonic_ns()}").touch()
        if number % 10 == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    refs = [mark.remote(str(tmp_path), n) for n in range(60)]
    ends = []
    for ref in refs:
        try:
            fh.get(ref, timeout=20)
            ends.append("ok")
        except fh.WorkerDied:
            ends.append("died")
    assert {n for n in range(60) if n % 10 == 5} <= {n for n in range(60) if ends[n] == "died"}
    assert ends.count("ok") > 30  # a result that was still on its way may die with the worker
    assert sorted(int(n.split("-")[0]) for n in os.listdir(tmp_path)) == list(range(60))


def test_retries_are_used_up(own: None) -> None:
    with pytest.raises(fh.WorkerDied):
        fh.get(leave.options(max_retries=2).remote("SIGKILL"), timeout=20)
    assert fh.status()["deaths"] == 3


def test_a_dead_workers_memory_and_references_come_back(own: None) -> None:
    @fh.remote(max_retries=0)
    def hoard(refs: list[Any]) -> None:
        own = [fh.put(bytes(MIB)) for _ in range(5)]
        values = fh.get(refs)
        os.kill(os.getpid(), signal.SIGKILL)
        del own, values

    ref = fh.put(memoryview(bytes(MIB)))
    with pytest.raises(fh.WorkerDied):
        fh.get(hoard.remote([ref]), timeout=10)
    until(lambda: fh.status()["objects"]["count"] == 1)
    del ref
    until(lambda: fh.status()["objects"]["count"] == 0)


def test_a_value_outlives_its_dead_owner_or_says_that_it_cannot(own: None) -> None:
    @fh.remote
    class Maker:
        def make(self) -> list[Any]:
            return [fh.put(b"x" * MIB), fh.put("small"), nap.remote(60)]

        def pid(self) -> int:
            return os.getpid()

    maker = Maker.remote()
    large, small, pending = fh.get(maker.make.remote())
    assert fh.get(large) == b"x" * MIB
    pid = fh.get(maker.pid.remote())
    fh.kill(maker)
    until(lambda: not alive(pid))
    assert fh.get(large, timeout=5) == b"x" * MIB
    for ref in (small, pending):
        with pytest.raises(fh.OwnerDied, match="longer-lived process"):
            fh.get(ref, timeout=5)
    del large, small, pending, ref


def test_calls_on_a_dead_actor(own: None) -> None:
    actor = Actor.remote()
    pid = fh.get(actor.pid.remote())
    pending = actor.nap.remote()
    os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    for ref in (pending, actor.pid.remote()):
        with pytest.raises(fh.ActorDied, match="SIGKILL"):
            fh.get(ref, timeout=5)
    assert time.monotonic() - start < 1
    other = Actor.remote()
    with pytest.raises(fh.ActorDied, match="exited with code 4"):
        fh.get(other.leave.remote(), timeout=5)
    with pytest.raises(fh.ActorError):
        fh.get(other.pid.remote(), timeout=5)

    @fh.remote
    def ask(handle: fh.ActorHandle) -> Any:
        return fh.get(handle.pid.remote())

    with pytest.raises(fh.ActorDied):
        fh.get(ask.remote(other), timeout=5)


def test_a_stopped_worker_that_is_then_killed(own: None, tmp_path: Path) -> None:
    @fh.remote
    def once(directory: str) -> int:
        tries = len(os.listdir(directory))
        (Path(directory) / str(os.getpid())).touch()
        if not tries:
            time.sleep(60)
        return tries

    ref = once.remote(str(tmp_path))
    until(lambda: os.listdir(tmp_path))
    pid = int(os.listdir(tmp_path)[0])
    os.kill(pid, signal.SIGSTOP)
    assert fh.get(nap.remote(0), timeout=5)
    os.kill(pid, signal.SIGKILL)
    assert fh.get(ref, timeout=5) == 1


def test_a_killed_node_daemon(own: None, home: str) -> None:
    ready, pending, actor = fh.put(1), [nap.remote(60) for _ in range(5)], Actor.remote()
    large = fh.put(b"x" * MIB)
    called = actor.pid.remote()
    fh.get(called)
    os.kill(named(home, "freehold-node"), signal.SIGKILL)
    start = time.monotonic()
    for ref in (*pending, actor.nap.remote()):
        with pytest.raises(fh.FreeholdError, match="node daemon is gone"):
            fh.get(ref, timeout=5)
    for call in (
        lambda: nap.remote(0),
        lambda: fh.put(b"x" * MIB * 2),
        lambda: fh.put(1),
        fh.status,
        Actor.remote,
    ):
        with pytest.raises(fh.NodeDied, match="node daemon is gone"):
            fh.get(call())  # type: ignore[call-overload]
    assert time.monotonic() - start < 1
    assert fh.get(ready) == 1
    assert fh.get(large) == b"x" * MIB
    fh.shutdown()
    assert time.monotonic() - start < 2
    until(lambda: not left_over(home), 2)


def test_a_killed_fork_server(own: None, home: str) -> None:
    ref = nap.remote(60)
    os.kill(named(home, "freehold-forks"), signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(fh.NodeDied):
        fh.get(ref, timeout=5)
    assert time.monotonic() - start < 1
    fh.shutdown()
    until(lambda: not left_over(home), 2)


BUSY = """
import freehold as fh, time, os
fh.init(num_cpus=2)
@fh.remote
def nap(): time.sleep(60)
@fh.remote
class A:
    def f(self): return fh.put(bytes(10**6))
a = A.remote()
refs = [nap.remote() for _ in range(9)] + [fh.put(bytes(10**7)), a.f.remote()]
fh.get(refs[-1])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_leaves_nothing(home: str, number: int) -> None:
    with start_script(BUSY + "print('ready', flush=True)\ntime.sleep(60)") as driver:
        assert line_of(driver) == "ready"
        assert len(ours(home)) >= 6
        driver.send_signal(number)
        driver.wait(5)
        until(lambda: not left_over(home), 2)


def test_a_killed_driver_whose_forked_child_lives_on(home: str) -> None:
    code = """
child = os.fork()
if not child:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""
    with start_script(BUSY + code) as driver:
        child = int(line_of(driver))
        driver.kill()
        driver.wait(5)
        try:
            until(lambda: set(ours(home)) <= {child}, 2)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_driver_that_dies_while_it_starts(home: str) -> None:
    for wait in (0.02, 0.1, 0.2, 0.3):
        with start_script("import freehold as fh\nfh.init(num_cpus=2)\nfh.shutdown()") as driver:
            end = time.monotonic() + wait
            until(lambda end=end: time.monotonic() > end)
            driver.kill()
            driver.wait(5)
        until(lambda: set(left_over(home)) <= empty(home), 3)
        for path in empty(home):
            os.rmdir(path.split()[1])


def empty(home: str) -> set[str]:
    """A directory that a driver had just made when it was killed; nothing else can remove it."""
    found = {f"directory {path.name}" for path in Path(home).iterdir() if not any(path.iterdir())}
    return {f"directory {home}/{name.split()[1]}" for name in found} | found


def test_a_driver_that_ends_normally_or_by_an_error(home: str) -> None:
    for end, code in (("", 0), ("raise SystemExit(3)", 3), ("os._exit(5)", 5)):
        with start_script(BUSY + end) as driver:
            driver.communicate(timeout=20)
        assert driver.returncode == code
        until(lambda: not left_over(home), 2)


def test_the_session_is_private(own: None, home: str) -> None:
    (directory,) = [path for path in Path(home).iterdir() if path.name.startswith("freehold")]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert str(os.getuid()) in directory.name
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_idle_workers_are_reaped_and_used_again() -> None:
    fh.init(**usual, worker_idle_s=0.1, prestart=1, lease_idle_ms=20)
    refs = [nap.options(num_cpus=0).remote(0.1) for _ in range(6)]
    assert len(set(fh.get(refs, timeout=20))) > 2
    until(lambda: sum(p["kind"] == "worker" for p in fh.status()["processes"]) == 1, 10)
    assert fh.get(nap.remote(0))


def test_a_session_in_a_thread_and_two_at_a_time(home: str) -> None:
    code = """
    import freehold as fh, threading
    @fh.remote
    def f(x): return x + 1
    def work():
        fh.init(num_cpus=1)
        assert fh.get([f.remote(n) for n in range(100)]) == list(range(1, 101))
    thread = threading.Thread(target=work)
    thread.start(); thread.join()
    assert fh.get(f.remote(1)) == 2
    """
    code = "\n".join(line[4:] for line in code.splitlines())
    with start_script(code) as first, start_script(code) as second:
        for process in (first, second):
            _, err = process.communicate(timeout=20)
            assert process.returncode == 0, err


def test_fewer_cpus_than_nested_gets() -> None:
    fh.init(num_cpus=1, arena_bytes_max=64 * MIB, reserve_bytes=0)

    @fh.remote
    def deep(n: int) -> int:
        return 0 if n == 0 else 1 + fh.get(deep.remote(n - 1))

    assert fh.get(deep.remote(12), timeout=30) == 12
    assert fh.get([deep.remote(3) for _ in range(4)], timeout=30) == [3] * 4


def test_workers_that_fork(own: None) -> None:
    @fh.remote
    def forks() -> list[int]:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])

    assert fh.get([forks.remote() for _ in range(3)], timeout=20) == [[1, 2, 3]] * 3


def test_a_program_in_strange_places(tmp_path: Path) -> None:
    code = """
    import freehold as fh
    @fh.remote
    def f(x): return x + 1
    fh.init(num_cpus=1)
    assert fh.get(f.remote(1)) == 2
    fh.shutdown()
    """
    run_script(code, "-X", "dev")
    gone = tmp_path / "gone"
    gone.mkdir()
    run_script(
        f"import os\nos.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})\n"
        + "\n".join(line[4:] for line in code.splitlines())
    )
    (tmp_path / "select.py").write_text("raise SystemExit('a file of the user')")
    run_script("import select\n" + "\n".join(line[4:] for line in code.splitlines()))
    run_script(code, env={"TMPDIR": str(tmp_path / ("x" * 80))}, within=20)


def test_psutil_sees_no_children_after_shutdown() -> None:
    fh.init(**usual)
    fh.get(nap.remote(0))
    pids = [child.pid for child in psutil.Process().children(recursive=True)]
    assert len(pids) >= 4
    fh.shutdown()
    until(lambda: not any(map(alive, pids)), 2)


def test_a_program_without_standard_files(tmp_path: Path) -> None:
    result = tmp_path / "result"
    code = f"""
import os
os.closerange(0, 3)
import freehold as fh
@fh.remote
def f(x):
    print("printed")
    return x
assert len(fh.get(f.remote(fh.put(bytes(10**7))))) == 10**7
from freehold.proc import session
assert min(session.current().ports) > 2
fh.shutdown()
open({str(result)!r}, "w").write("done")
"""
    with start_script(code) as process:
        process.wait(20)
    assert result.read_text() == "done"
