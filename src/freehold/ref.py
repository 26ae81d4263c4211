"""References: what a call returns at once, and what data is handed on by."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from freehold.errors import InvalidReference, TaskError
from freehold.proc import start
from freehold.proc.session import drops
from freehold.wire import serial

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

    from freehold.proc.calls import Row
    from freehold.proc.runtime import Runtime

T = TypeVar("T", covariant=True)
_drop = drops.append


class Ref(Generic[T]):
    """A reference to an immutable value that exists, or will, somewhere in the session.

    References are made by ``.remote()`` and ``put``, never directly.  They can be passed to tasks
    and actors, put into other values, returned and stored; the value is freed when nobody holds one
    any more.  As a top-level argument of a task a reference arrives as its value; nested in a
    container it stays a reference.  ``await ref`` gives the value in asyncio code.
    """

    __slots__ = ("__weakref__", "_row")

    def __init__(self, row: Row) -> None:
        self._row = row

    def __del__(self) -> None:
        _drop(self._row)

    def hex(self) -> str:
        """The reference's name, as text."""
        return self._row.id.hex()

    def binary(self) -> bytes:
        """The reference's name."""
        return self._row.id

    def future(self) -> concurrent.futures.Future[T]:
        """A future that ends with the value or the error; cancelling it does not stop the task."""
        import concurrent.futures  # here, so that `import freehold` is fast

        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        row = self._row
        here = start.ensure()

        def ready() -> None:
            if future.set_running_or_notify_cancel():
                _settle(future, here, row)

        future.ref = self  # type: ignore[attr-defined]  # the value must outlive the wait
        if not here.watch_rows([row], 1, ready):
            ready()
        return future

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # here, so that `import freehold` is fast

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        row = self._row
        here = start.ensure()

        def settle() -> None:
            if not future.done():
                _settle(future, here, row)

        def ready() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle)

        if here.watch_rows([row], 1, ready):
            return (yield from future.__await__())
        return _value(here, row)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and self._row.id == other._row.id

    def __hash__(self) -> int:
        return hash(self._row.id)

    def __repr__(self) -> str:
        return f"Ref({self._row.id.hex()})"

    def __copy__(self) -> Ref[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Ref[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if not serial.note_reference(self):
            raise InvalidReference(
                f"{self!r} was pickled outside freehold, where nobody would count it; pass it as "
                "an argument, return it from a task, or put it into a value for freehold.put()"
            )
        return _load, _export(self._row)


def _settle(future: Any, here: Runtime, row: Row) -> None:
    try:
        value = _value(here, row)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)


def _value(here: Runtime, row: Row) -> Any:
    """The value; an error that means something to futures and generators is not raised as such."""
    try:
        return here.value(row)
    except (StopIteration, StopAsyncIteration) as error:
        if not isinstance(error, TaskError):
            raise
        plain = TaskError(error.function, error.remote_traceback, error.cause, error.pid)
    raise plain


def _export(row: Row) -> tuple[bytes, bytes, str]:
    """Name, owner and the owner's address: what travels of a reference."""
    here = start.ensure()
    if not here.owner.twins.key_of(row):
        raise InvalidReference(
            f"reference {row.id.hex()} belongs to another session, or its value was freed"
        )
    owner = row.owner
    if owner is None:
        return row.id, here.process.id, here.address
    return row.id, owner.id, owner.address


def _load(id: bytes, owner: bytes, address: str) -> Ref[Any]:
    """A reference that has arrived; the runtime counts it."""
    here = start.current()
    if here is None:
        raise InvalidReference(
            f"reference {id.hex()} was unpickled in a process that is not part of a session"
        )
    return Ref(here.hold(id, owner, address))
