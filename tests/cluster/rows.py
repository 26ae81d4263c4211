"""The rows of the failure table: each begins some work, and says what may come of it.

A row is a function of the site.  What it returns names the machines that a fault may strike, how to
kill what the row is about, and the reads: each has its value, unless something was lost that the
row's errors excuse.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import freehold as fh
from cluster import cast
from cluster.cast import LARGE, SMALL, Found, outcome
from cluster.processes import eventually
from cluster.site import Site
from sessions import line_of

Read = Callable[[], Found]
ANY = object()  # whatever the value is
TASKS = 10
CALLS = 30
CALL_MS = 5
TASK_MS = 10
DRIVER = """
import sys
import freehold as fh
from cluster import cast
fh.init(log_to_driver=False)
node, log = sys.argv[1:]
kept = cast.make.options(**cast.there(node)).remote(cast.LARGE, 1)
running = cast.hold_on.options(num_cpus=0, **cast.there(node)).remote(log, log + "-never", 1)
while not cast.lines(log):
    pass
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Work:
    """What is under way when the fault strikes.

    Attributes:
        victims: the machines that it strikes.
        kill: what dies.
        whole: the machines die of it.
        lasts: seconds that it takes, if nothing happens.
        reads: name -> how to read it, and its value.
        errors: name -> errors that excuse it when "process", or more, is lost; when a "machine" is.
        kept: what must live as long as that.
        after: called when all has been read, with what was lost at most.
    """

    victims: list[int]
    kill: Callable[[], None]
    whole: bool = False
    lasts: float = 0.05
    reads: dict[str, tuple[Read, Any]] = field(default_factory=dict)
    errors: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    after: Callable[[str], None] = lambda damage: None

    def read(
        self,
        name: str,
        ref: Any,
        value: Any,
        process: set[str] | None = None,
        machine: set[str] | None = None,
    ) -> None:
        """One more thing to read: a reference, or how to read something."""
        self.reads[name] = (ref if callable(ref) else lambda: outcome(ref)), value
        process = process or set()
        self.errors[name] = process, process | (machine or set())


def machines(site: Site, *victims: int) -> Work:
    """Whole machines die."""

    def kill() -> None:
        for victim in victims:
            site.cluster.kill_node(victim)

    return Work(list(victims), kill, whole=True)


def process(site: Site, machine: int, pid: int) -> Work:
    """A process dies."""
    return Work([machine], lambda: site.kill_process(pid))


def tagged(tag: int, size: int = LARGE) -> Found:
    return "value", (tag, size)


def inner(ref: Any) -> Read:
    """What is in the list that the reference leads to."""

    def read() -> Found:
        try:
            (found,) = fh.get(ref, timeout=20.0)
        except fh.FreeholdError as error:
            return type(error).__name__, str(error)
        return outcome(found)

    return read


def told(ref: Any) -> Read:
    """An outcome that somebody else tells."""

    def read() -> Found:
        kind, value = outcome(ref)
        return value if kind == "value" else (kind, value)

    return read


# --- the rows -------------------------------------------------------------------------------------


def worker(site: Site) -> Work:
    """A worker running tasks."""
    sealed = cast.make.options(**site.on(1)).remote(LARGE, 3)
    fh.wait([sealed])
    running = [
        cast.work.options(num_cpus=0.5, **site.on(1)).remote(TASK_MS, n) for n in range(TASKS)
    ]
    work = Work([1], lambda: site.kill_process(site.workers(1)[0]))
    work.read("sealed", sealed, tagged(3))
    for number, ref in enumerate(running):
        work.read(f"task {number}", ref, ("value", number))
    return work


def owner(site: Site) -> Work:
    """A worker that owns references others hold; one of them is just being made."""
    keeper = site.keeper(2)
    work = process(site, 2, fh.get(keeper.whoami.remote())[1])
    (held,) = fh.get(keeper.make.remote(site.node(1), LARGE, 7))
    (small,) = fh.get(site.keeper(1).put.remote(SMALL, 8))
    work.read("held", held, tagged(7))
    gone = {"ActorDied", "ActorUnavailable", "OwnerDied"}
    work.read("made late", inner(keeper.make.remote(site.node(0), LARGE, 9)), tagged(9), gone)
    work.read("of another", small, tagged(8, SMALL), {"OwnerDied"})  # which ends in good order
    work.kept = [keeper]
    return work


def parent(site: Site) -> Work:
    """A worker that owned, as a task that can be run again."""
    outer = cast.put_inside.options(**site.on(1)).remote(SMALL, 6)
    (ref,) = fh.get(outer, timeout=20)
    work = process(site, 1, fh.get(cast.whoami.options(**site.on(1)).remote())[1])
    work.read("put by a task", ref, tagged(6, SMALL))
    work.kept = [outer]
    return work


def clean(site: Site) -> Work:
    """A worker that exits cleanly while others hold its references."""
    keepers = [site.keeper(2)]
    (made,) = fh.get(keepers[0].make.remote(site.node(1), LARGE, 7))
    (put,) = fh.get(keepers[0].put.remote(SMALL, 8))
    work = Work([2], keepers.clear)
    work.read("made", made, tagged(7))
    work.read("put", put, tagged(8, SMALL), machine={"OwnerDied"})
    work.kept = [keepers]
    return work


def primary(site: Site) -> Work:
    """A node with primary copies, made of one another."""
    work = machines(site, 1)
    first = cast.make.options(**site.on(1)).remote(LARGE, 1)
    second = cast.grow.options(**site.on(1)).remote(first)
    third = cast.grow.options(**site.on(1)).remote(second)
    fh.wait([third])
    work.read("the last of a chain", third, tagged(3))
    del first
    work.read("one in the middle", second, tagged(2))
    return work


def together(site: Site) -> Work:
    """A node that is owner, executor and location at once."""
    work = machines(site, 1)
    keeper = site.keeper(1)
    (orphan,) = fh.get(keeper.make.remote(site.node(1), LARGE, 1))
    ours = cast.make.options(**site.on(1)).remote(LARGE, 2)
    outer = cast.submit_inside.options(num_cpus=0, **site.on(1)).remote(site.node(1), LARGE, 6)
    (child,) = fh.get(outer, timeout=20)
    fh.wait([ours])
    work.read("ours", ours, tagged(2))
    work.read("an actor's", orphan, tagged(1), machine={"OwnerDied", "ObjectLost"})
    work.read("a task's", child, tagged(6))
    work.kept = [keeper, outer]
    return work


def only_copy(site: Site) -> Work:
    """A node with the only copy of a put, and one with one of two."""
    work = machines(site, 1)
    outer = cast.put_inside.options(**site.on(1)).remote(LARGE, 6)
    (ref,) = fh.get(outer, timeout=20)
    work.read("put by a task", ref, tagged(6))
    work.read("kept twice", fh.put(bytes([5]) * LARGE, copies=2), tagged(5))
    work.kept = [outer]
    return work


def actor(site: Site) -> Work:
    """An actor's process or node."""
    options = site.on(1)
    durable = cast.Counter.options(max_restarts=4, max_task_retries=-1, **options).remote()
    mortal = cast.Counter.options(num_cpus=0, **options).remote()
    work = process(site, 1, fh.get(durable.whoami.remote(), timeout=20)[1])
    work.lasts = CALLS * CALL_MS / 1e3
    fh.get(mortal.whoami.remote(), timeout=20)
    for number in range(CALLS):
        work.read(f"call {number}", durable.spend.remote(CALL_MS), ANY)
    work.read("of one without restarts", mortal.add.remote(), ANY, machine={"ActorDied"})
    work.kept = [durable, mortal]
    return work


def driver(site: Site) -> Work:
    """A driver, on machine 1, whose task runs on machine 2."""
    log = site.path("log")
    argv = [sys.executable, "-c", DRIVER, site.node(2), log]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    program = site.cluster.machines[1].popen(argv, **pipes)
    assert line_of(program) == "ready"
    work = Work([1], program.kill)
    mine = cast.make.options(num_cpus=0, **site.on(2)).remote(LARGE, 3)
    work.read("another driver's", mine, tagged(3))
    pid = int(cast.lines(log)[0].split()[1])

    def after(damage: str) -> None:
        if damage == "nothing":
            assert program.poll() is None
            program.kill()
        eventually(lambda: pid not in site.workers(2), 5.0, "its task has ended")
        program.kill()
        program.communicate()

    work.after = after
    return work


def head(site: Site) -> Work:
    """The head: what runs goes on."""
    keeper = site.keeper(2)
    (ref,) = fh.get(keeper.make.remote(site.node(1), LARGE, 7))
    work = Work([0], site.cluster.kill_head)
    running = [cast.work.options(**site.on(1)).remote(TASK_MS, number) for number in range(TASKS)]
    work.read("a borrowed value", ref, tagged(7))
    work.read("a call", told(keeper.read.remote()), tagged(7))
    for number, task in enumerate(running):
        work.read(f"task {number}", task, ("value", number))
    work.kept = [keeper]
    return work


def daemon(site: Site) -> Work:
    """The node daemon alone: its workers die with it."""
    work = worker(site)
    work.kill = lambda: site.cluster.machines[1].signal(9, "freehold-node") and None
    work.whole = True

    def after(damage: str) -> None:
        if not site.cluster.machines[1].alive:
            eventually(lambda: not site.workers(1), 3.0, "its workers have ended")

    work.after = after
    return work


def borrower(site: Site) -> Work:
    """A borrower, in the middle of registering."""
    lender, keeper = site.keeper(2), site.keeper(1)
    work = process(site, 1, fh.get(keeper.whoami.remote())[1])
    work.lasts = 0.01
    refs = fh.get(lender.make.remote(site.node(2), LARGE, 1))
    kept = [keeper.keep.remote(refs), keeper.keep.remote([fh.put(bytes(LARGE))])]
    kept += [keeper.keep.remote(refs) for _ in range(10)]
    for number, ref in enumerate(kept):
        work.read(f"call {number}", ref, ("value", None), {"ActorDied"})
    work.read("what was lent", refs[0], tagged(1))
    work.kept = [lender, keeper]
    return work


def but_one(site: Site) -> Work:
    """Everything but one node."""
    work = machines(site, 1, 2)
    keepers = [site.keeper(index) for index in (1, 2)]
    own = [cast.make.options(**site.on(index)).remote(LARGE, index) for index in (0, 1, 2)]
    fh.wait(own, num_returns=3)
    for at, keeper in enumerate(keepers, 1):
        (held,) = fh.get(keeper.make.remote(site.node(3 - at), LARGE, at))
        work.read(f"of keeper {at}", held, tagged(at), machine={"OwnerDied", "ObjectLost"})
    for tag, ref in enumerate(own):
        work.read(f"ours {tag}", ref, tagged(tag))
    work.kept = keepers
    return work


ROWS: list[Callable[[Site], Work]] = [
    worker, owner, parent, clean, primary, together, only_copy, actor, driver, head, daemon,
    borrower, but_one,
]  # fmt: skip
