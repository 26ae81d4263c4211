"""The public functions: init, remote, get, put, wait, kill, status, shutdown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from freehold.actor import ActorClass, ActorHandle
from freehold.core.ids import is_detached
from freehold.errors import GetTimeoutError, Unschedulable
from freehold.proc import session, start
from freehold.proc.session import now
from freehold.ref import Ref
from freehold.remote import RemoteFunction
from freehold.wire import serial

if TYPE_CHECKING:
    from freehold.proc.runtime import Runtime

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
NEVER = float("inf")
AGES = 1e9  # seconds: more is for ever


def init(**options: Any) -> None:
    """Start a session: an embedded node on this machine, with workers.

    Optional: the first use of the library starts one with default settings.

    Args:
        **options: fields of :class:`freehold.Config`, for example ``num_cpus=2``,
            ``arena_bytes_max=2**30``; units are in their names.

    Raises:
        AlreadyInitialized: there is a session in this process.
        ValueError: an unknown option, or an impossible value.
        NodeDied: the node daemon could not be started.
    """
    from freehold.proc import driver  # here, so that `import freehold` is fast

    driver.init(options)


def shutdown() -> None:
    """End the session: its workers, its node, its shared memory.  Nothing happens without one."""
    if start.current() is not None:
        from freehold.proc import driver  # here, so that `import freehold` is fast

        driver.shutdown()


def is_initialized() -> bool:
    """Whether this process has a session."""
    return start.current() is not None


class RemoteDecorator(Protocol):
    """What ``@remote(option=value)`` applies to a class or a function."""

    @overload
    def __call__(self, target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...


@overload
def remote(target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Any) -> RemoteDecorator: ...


def remote(target: Any = None, /, **options: Any) -> Any:
    """Make a function a remote function, or a class an actor class.

    Used bare (``@remote``) or with options (``@remote(num_cpus=2)``).

    Args:
        target: the function or class.
        **options: of a function: ``num_cpus`` (1; fractions allowed), ``num_returns`` (1),
            ``max_retries`` (3; after a system failure, -1 for ever), ``retry_exceptions`` (False;
            True or a list of classes), ``memory`` (None; bytes of private memory that a call may
            use), ``num_gpus`` (whole ones, or a part of one; ``CUDA_VISIBLE_DEVICES`` says which),
            ``resources`` (custom, name -> amount), ``scheduling_strategy`` (None; ``"SPREAD"`` or
            a :class:`NodeAffinity`), ``label_selector`` (label -> value), ``placement_group`` and
            ``bundle_index`` (-1: any bundle), ``name`` (for people).
            Of a class: the same except ``num_returns``, ``max_retries`` and ``retry_exceptions``;
            ``num_cpus`` is 0; ``max_concurrency`` (1 for plain methods, 1000 for ``async def``),
            ``max_restarts`` (0; -1 for ever) and ``max_task_retries`` (0), ``name`` (by which
            ``get_actor`` finds it; it must be free), ``namespace`` (None: the job's own),
            ``get_if_exists`` (False; True: ``remote`` gives a handle to who has the name) and
            ``lifetime`` (None; ``"detached"``: it lives until it is killed, or to the end of the
            cluster or the embedded session; it needs a name, which every program finds).

    Raises:
        ValueError: an unknown option, or an impossible value.
        TypeError: the target is neither a function nor a class.
    """
    if target is None:
        if not options:
            raise ValueError("use @remote, or @remote(option=value)")
        return lambda actual: _make_remote(actual, options)
    if options:
        raise ValueError("use @remote(option=value) without a positional argument")
    return _make_remote(target, {})


def _make_remote(target: Any, options: dict[str, Any]) -> Any:
    if isinstance(target, (RemoteFunction, ActorClass)):
        raise TypeError(f"{target!r} is remote already: use its .options(...)")
    if inspect.isclass(target):
        return ActorClass(target, options)
    if inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target):
        raise TypeError(
            f"{target!r} is async, which a task is not: make it a method of an actor, or call "
            "asyncio.run() in a plain function"
        )
    if inspect.isgeneratorfunction(target):
        raise TypeError(f"{target!r} is a generator, which cannot travel: return a list of values")
    if callable(target):
        return RemoteFunction(target, options)
    raise TypeError(f"only functions and classes can be remote, not {target!r}")


@overload
def get(refs: Ref[T], *, timeout: float | None = None) -> T: ...
@overload
def get(refs: list[Ref[T]], *, timeout: float | None = None) -> list[T]: ...


def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the values of a list of them, waiting as long as needed.

    Large values are read in place: numpy arrays and other buffers in them are read-only.  A ``get``
    inside a task lends the task's CPUs to others while it waits.

    Args:
        refs: a reference or a list of references.
        timeout: seconds to wait; None: for ever; 0: only look.

    Raises:
        TaskError: the task raised; the error is an instance of the task's exception class too.
        GetTimeoutError: the time is over; the task goes on.
        FreeholdError: the value cannot come; see :mod:`freehold.errors`.
        ValueError: ``refs`` is neither a reference nor a list.
        TypeError: the list holds something that is not a reference.
    """
    here = session.current_runtime
    if here is None:
        here = start.ensure()
    if refs.__class__ is Ref:
        row = refs._row
        if row.state == 0 and not here.wait_row(row, _until(timeout)):
            raise _timed_out(refs, timeout)
        return here.value(row)
    if not isinstance(refs, list):
        raise ValueError(f"get() takes a reference or a list of references, not {type(refs)!r}")
    return _get_list(here, refs, timeout)


def _get_list(here: Runtime, refs: list[Any], timeout: float | None) -> list[Any]:
    _check_refs("get", refs)
    rows = [ref._row for ref in refs]
    if not here.wait_rows(rows, _until(timeout)):
        late = next((ref for ref in refs if ref._row.state == 0), refs[0])
        raise _timed_out(late, timeout)
    for row in rows:
        if row.state == 3:
            raise here.error(row.data)
    value = here.value
    loads = serial.loads
    return [value(row) if row.state != 1 else loads(row.data) if row.data else None for row in rows]


def _check_refs(name: str, refs: list[Any]) -> None:
    for ref in refs:
        if ref.__class__ is not Ref:
            raise TypeError(f"{name}() takes references, but the list holds {ref!r}")


def _until(timeout: float | None) -> float:
    if timeout is None:
        return NEVER
    if not timeout >= 0:  # neither is "not a number"
        raise ValueError(f"timeout must not be negative, but is {timeout!r}")
    return now() + timeout if timeout < AGES else NEVER


def _timed_out(ref: Ref[Any], timeout: float | None) -> GetTimeoutError:
    return GetTimeoutError(f"{ref!r} was not ready within {timeout:g} s; its task goes on")


def put(value: T, *, copies: int = 1) -> Ref[T]:
    """Store a value; the reference to it.

    Small values stay in this process, larger ones (over 100 KiB by default) go to shared memory,
    where every process of the node reads them in place.

    Args:
        value: anything that can be pickled, but a reference.
        copies: on how many nodes of a cluster a large value is kept as long as this process lives.
            The loss of a node with one of them costs nothing: another is made elsewhere.

    Raises:
        TypeError: the value is a reference.
        ValueError: ``copies`` is less than 1.
        Unschedulable: the cluster has not so many nodes, or not enough with room.
        FreeholdError: its head does not answer, and it is not known to have so many nodes.
        SerializationError: the value cannot be pickled; the text names the path to the culprit.
        ObjectStoreFull: the arena has no room for it.
    """
    here = session.current_runtime
    if here is None:
        here = start.ensure()
    if value.__class__ is Ref:
        raise TypeError("put() takes a value, and this is a reference already")
    if copies != 1:
        kept: Ref[T] = _put_copies(here, value, copies)
        return kept
    packed = serial.dumps(value)
    if packed.__class__ is bytes and len(packed) <= here.inline_max:
        with here.lock:
            here.check_alive()
            return Ref(here.owner.put_small(here.context().next_id(), packed))
    ref: Ref[T] = _put_large(here, packed)
    return ref


def _put_large(here: Runtime, packed: Any) -> Any:
    here.check_alive()
    inner = [] if isinstance(packed, bytes) else [ref._row for ref in packed.refs]
    row = here.put(packed, inner)
    row.handles += 1
    return Ref(row)


def _put_copies(here: Runtime, value: Any, copies: int) -> Any:
    given: Any = copies
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ValueError(f"copies must be an integer from 1, but is {copies!r}")
    nodes = here.client.leases.nodes
    if nodes < copies:  # as far as this process has heard: the directory knows who has just come
        from freehold.nodes import nodes as members  # here, so that `import freehold` is fast

        nodes = len(members())
    if nodes < copies:
        raise Unschedulable(f"{copies} copies need as many nodes, and there {_is_are(nodes)}")
    ref = _put_large(here, serial.dumps(value))
    if ref._row.state == 2:  # in shared memory
        from freehold.proc import copies as kept  # here, so that `import freehold` is fast

        kept.keep_copies(here, ref._row, copies)
    return ref


def _is_are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"


def wait(
    refs: list[Ref[T]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[Ref[T]], list[Ref[T]]]:
    """Wait until some of the references are ready; (ready, rest), each in the order given.

    A reference whose task failed is ready.  At most ``num_returns`` are in the first list.

    Args:
        refs: unique references.
        num_returns: how many to wait for.
        timeout: seconds to wait; None: for ever.  After it, fewer may be ready.

    Raises:
        TypeError: ``refs`` is not a list of references.
        ValueError: a duplicate, an impossible ``num_returns`` or a negative timeout.
    """
    here = start.ensure()
    if not isinstance(refs, list):
        raise TypeError(f"wait() takes a list of references, not {type(refs)!r}")
    _check_refs("wait", refs)
    if not refs:
        return [], []
    if len({ref._row.id for ref in refs}) != len(refs):
        raise ValueError("wait() takes each reference once")
    if not 1 <= num_returns <= len(refs):
        raise ValueError(f"num_returns must be from 1 to {len(refs)}, but is {num_returns!r}")
    until = _until(timeout)
    here.count_ready([ref._row for ref in refs], num_returns, until)
    ready: list[Ref[T]] = []
    rest: list[Ref[T]] = []
    for ref in refs:
        (ready if ref._row.state and len(ready) < num_returns else rest).append(ref)
    return ready, rest


def kill(actor: ActorHandle) -> None:
    """End an actor now; its pending and later calls raise ActorDied.

    A detached actor ends for good, and its name is free when this returns, whoever has made it.

    Raises:
        TypeError: not an actor's handle.
        FreeholdError: the actor is detached, and the cluster's head does not answer.
    """
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"kill() takes an actor's handle, not {actor!r}")
    here, line = actor._bound()
    row = actor._ref._row
    if is_detached(row.id):
        from freehold.proc import detached  # here, so that `import freehold` is fast

        detached.end(here, row.id)
    elif row.owner is not None:  # another process has made it, and knows where it is
        here.wait_row(row)
    with here.lock:
        here.client.actors.kill(line)
        here.machine.settle(now())
        here.flush()


def status() -> dict[str, Any]:
    """The node's tables: resources, processes, objects (bytes), leases, queue lengths, deaths."""
    return start.ensure().status()
