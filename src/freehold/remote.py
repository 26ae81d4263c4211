"""Remote functions: what ``@remote`` makes of a function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from freehold import options as opts
from freehold.core.ids import pack_index
from freehold.errors import SerializationError
from freehold.proc import session, start
from freehold.proc.session import BURST, now, task_context
from freehold.ref import Ref
from freehold.wire import serial

if TYPE_CHECKING:
    from freehold.proc.runtime import Runtime

P = ParamSpec("P")
R = TypeVar("R")
_new = object.__new__  # the hot path makes its reference without a Python frame


class RemoteFunction(Generic[P, R]):
    """A function that runs as a task, on a worker, when called with ``.remote(...)``."""

    def __init__(self, function: Callable[P, R], given: dict[str, Any]) -> None:
        self._function = function
        self._given = given
        self._options = opts.merge(opts.TASK_DEFAULTS, given, "a remote function")
        self._wire = opts.wire_options(self._options)
        self._spec: Any = None
        self._session: Runtime | None = None
        self._code = b""
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Always raises TypeError: it would be a local call that looks like a remote one."""
        name = getattr(self._function, "__name__", "the function")
        raise TypeError(
            f"a remote function is not called directly: use {name}.remote(...), or "
            f"{name}.__wrapped__(...) to run it in this process"
        )

    def options(self, **given: Any) -> RemoteFunction[P, R]:
        """The same function with other options; see :func:`freehold.remote`."""
        other: RemoteFunction[P, R] = RemoteFunction(self._function, {**self._given, **given})
        other._code = self._code
        return other

    # A reference stands for its value, which no parameter's type says: where one is passed by
    # position, type checkers look no further.
    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Ref[R]: ...
    @overload
    def remote(self, a: Ref[Any], /, *args: Any, **kwargs: Any) -> Ref[R]: ...
    @overload
    def remote(self, a: Any, b: Ref[Any], /, *args: Any, **kwargs: Any) -> Ref[R]: ...
    @overload
    def remote(self, a: Any, b: Any, c: Ref[Any], /, *args: Any, **kwargs: Any) -> Ref[R]: ...
    @overload
    def remote(
        self, a: Any, b: Any, c: Any, d: Ref[Any], /, *args: Any, **kwargs: Any
    ) -> Ref[R]: ...

    def remote(self, *args: Any, **kwargs: Any) -> Ref[R]:
        """Submit a task; the reference to its result, at once.

        Returns a list of references with ``num_returns`` > 1, and None with ``num_returns=0``.
        Raises SerializationError when an argument cannot be pickled; what the function raises is
        raised by ``get``.
        """
        here = self._session
        if here is None or here is not session.current_runtime:
            here = self._bind()
        spec = self._spec
        if args or kwargs or spec.outputs != 1:
            return self._submit(here, args, kwargs)  # type: ignore[no-any-return]
        client, lock = here.client, here.lock
        lock.acquire()  # half as dear as `with`
        try:
            context = task_context.get() or here.root
            if context.base:  # what `next_id` does, without its frame
                id = context.base + pack_index(context.count)
                context.count += 1
            else:
                id = context.next_id()
            row = client.join(spec, id, b"")
            if row is None:
                row = client.submit(spec, id, b"", now())
                here.submitted()
            elif here.unflushed >= BURST or here.resting:
                here.submitted()
            else:
                here.unflushed += 1
        finally:
            lock.release()
        ref: Ref[R] = _new(Ref)
        ref._row = row
        return ref

    def _submit(self, here: Runtime, args: Any, kwargs: Any) -> Any:
        spec = self._spec
        if spec.outputs == 1:
            for value in args:
                if value.__class__ is Ref:
                    break
            else:
                if not kwargs:
                    try:
                        packed = serial.dumps((args, kwargs))
                    except SerializationError as error:
                        raise serial.of_call(error, spec.name) from error.__cause__
                    if packed.__class__ is bytes and len(packed) <= here.inline_max:
                        with here.lock:
                            id = (task_context.get() or here.root).next_id()
                            row = here.client.join(spec, id, packed)
                            if row is None:
                                row = here.client.submit(spec, id, packed, now())
                            here.submitted()
                        return Ref(row)
        rows = session.calls.submit(here, spec, args, kwargs, Ref)
        return wrap(rows, spec.outputs)

    def _bind(self) -> Runtime:
        """Bind to the current session; the code is serialized once."""
        from freehold.proc import calls  # here, so that `import freehold` is fast

        here = start.ensure()
        here.check_alive()
        if not self._code:
            self._code = serial.dumps_code(self._function)
        name = self._options["name"] or getattr(self._function, "__qualname__", "function")
        self._spec = calls.make_spec(
            self._code, name, calls.FUNCTION_TASK, opts.complete(self._options), self._wire
        )
        self._session = here
        return here

    def __repr__(self) -> str:
        return f"RemoteFunction({getattr(self._function, '__qualname__', self._function)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._given)


def wrap(rows: tuple[Any, ...], outputs: int) -> Any:
    """References of the rows, in the form in which ``.remote()`` returns them."""
    if outputs == 1:
        return Ref(rows[0])
    return [Ref(row) for row in rows] if outputs else None
