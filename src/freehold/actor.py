"""Actors: what ``@remote`` makes of a class, and handles to its instances.

An actor is an instance that lives in a worker process of its own.  Plain methods run one after the
other, in the order in which each caller submitted them; ``async def`` methods run concurrently on
an event loop; with ``max_concurrency`` plain methods run in that many threads.  An actor ends when
its last handle is gone and its pending calls are done, when it is killed, or with its creator's
process.

With a *name* an actor can be found by other programs of the cluster too (``get_actor``).  Names are
unique in a namespace; unless one is given, that is the job's own: the driver and all that runs for
it.  A name goes when its actor has ended.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from freehold import options as opts
from freehold.errors import NameTaken, NameUnknown, SerializationError
from freehold.proc import session, start
from freehold.proc.session import BURST, now, task_context
from freehold.ref import Ref
from freehold.remote import wrap
from freehold.wire import serial

if TYPE_CHECKING:
    from freehold.proc.calls import Line
    from freehold.proc.runtime import Runtime

T = TypeVar("T")


class ActorClass(Generic[T]):
    """A class whose instances are actors, made with ``.remote(...)``."""

    def __init__(self, kind: type[T], given: dict[str, Any]) -> None:
        self._class = kind
        self._given = given
        self._options = opts.merge(opts.ACTOR_DEFAULTS, given, "an actor")
        self._wire = {"constructor": True, **opts.wire_options(self._options)}
        self._code = b""
        self.__doc__ = kind.__doc__
        self.__name__ = kind.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        """Always raises TypeError: it would be a local instance that looks like an actor."""
        raise TypeError(
            f"an actor is not made by calling its class: use {self.__name__}.remote(...)"
        )

    def options(self, **given: Any) -> ActorClass[T]:
        """The same class with other options; see :func:`freehold.remote`."""
        other = ActorClass(self._class, {**self._given, **given})
        other._code = self._code
        return other

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor; its handle, at once.

        What ``__init__`` raises is raised by every call to the actor, as the cause of
        ``ActorDied``.
        """
        from freehold.proc import calls  # here, so that `import freehold` is fast

        here = start.ensure()
        here.check_alive()
        if not self._code:
            self._code = serial.dumps_code(self._class)
        if self._options["get_if_exists"]:
            return self._found_or_made(here, args, kwargs)
        title = self._options["name"] or self._class.__name__
        given = opts.complete(self._options)
        spec = calls.make_spec(self._code, title, calls.CONSTRUCTOR, given, self._wire)
        named = self._options["name"] is not None
        rows = calls.submit(here, spec, args, kwargs, Ref, gate=named)
        again = (self._options["max_restarts"], self._options["max_task_retries"])
        handle = ActorHandle(Ref(rows[0]), title, _methods(self._class), again)
        if named:
            self._claim(here, handle)
        return handle

    def _claim(self, here: Runtime, handle: ActorHandle) -> None:
        """Register the name, and only then let the constructor start."""
        from freehold.proc import names  # here, so that `import freehold` is fast

        space = names.space_of(here, self._options["namespace"])
        _, line = handle._bound()
        row = handle._ref._row
        try:
            names.claim(here, row, space, handle._name, handle._methods, handle._again)
        except BaseException:
            with here.lock:
                here.client.actors.kill(line)
                here.machine.settle(now())
                here.flush()
            raise
        session.calls.open_gate(here, row)

    def _found_or_made(self, here: Runtime, args: Any, kwargs: Any) -> ActorHandle:
        """The actor that has the name; a new one if there is none."""
        from freehold.proc import names  # here, so that `import freehold` is fast

        maker = self.options(get_if_exists=False)
        name, namespace = self._options["name"], self._options["namespace"]
        until = now() + names.TIMEOUT
        while True:
            with contextlib.suppress(NameUnknown):
                return get_actor(name, namespace)
            try:
                return maker.remote(*args, **kwargs)
            except NameTaken:  # by another, or by one that is ending, just now
                if now() > until:
                    raise
                names.pause(here)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """Always raises TypeError: actors are instances of plain classes, and those are derived."""
        name = self.__name__
        raise TypeError(
            f"{name} is an actor class, which none can derive from: derive from the plain class, "
            f"and make both remote, as in {name}Actor = freehold.remote({name})"
        )

    def __repr__(self) -> str:
        return f"ActorClass({self.__name__})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._class, self._given)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle to the actor that was made with ``options(name=name)``.

    Args:
        name: as it was given.
        namespace: as it was given; None: that of this program's job, to which other jobs' actors do
            not belong.

    Raises:
        NameUnknown: there is none, or it has just ended.
        FreeholdError: the cluster's head does not answer.
    """
    from freehold.proc import names  # here, so that `import freehold` is fast

    here = start.ensure()
    here.check_alive()
    opts.merge(opts.ACTOR_DEFAULTS, {"name": name, "namespace": namespace}, "an actor")
    row, named = names.find(here, names.space_of(here, namespace), name)
    return ActorHandle(Ref(row), name, named.methods, named.again)


def list_named_actors(namespace: str | None = None) -> list[str]:
    """The names of actors in that namespace, in alphabetical order.

    Args:
        namespace: None: that of this program's job.

    Raises:
        FreeholdError: the cluster's head does not answer.
    """
    from freehold.proc import names  # here, so that `import freehold` is fast

    here = start.ensure()
    here.check_alive()
    opts.merge(opts.ACTOR_DEFAULTS, {"name": "any", "namespace": namespace}, "an actor")
    return names.listed(here, names.space_of(here, namespace))


def _methods(kind: type) -> dict[str, int]:
    """The methods that can be called, with their number of results."""
    found = {}
    for name in dir(kind):
        function = getattr(kind, name, None)
        if callable(function) and (not name.startswith("__") or name == "__call__"):
            found[name] = getattr(function, "__freehold_num_returns__", 1)
    return found


class ActorHandle:
    """A handle to an actor: it can be called, passed on, returned and stored like any reference."""

    def __init__(
        self,
        ref: Ref[Any],
        name: str,
        methods: dict[str, int],
        again: tuple[int, int] = (0, 0),
    ) -> None:
        self._again = again  # max_restarts, max_task_retries
        self._ref = ref
        self._name = name
        self._methods = methods
        self._session: Runtime | None = None
        self._line: Line | None = None

    def __getattr__(self, name: str) -> ActorMethod:
        methods = self.__dict__.get("_methods")
        if methods is None or name not in methods:
            raise AttributeError(f"actor {self.__dict__.get('_name')} has no method {name!r}")
        method = ActorMethod(self, name, methods[name])
        self.__dict__[name] = method
        return method

    def _bound(self) -> tuple[Runtime, Line]:
        """The session and the line of calls to the actor."""
        here = start.ensure()
        here.check_alive()
        if self._line is None or self._session is not here:
            with here.lock:
                self._line = here.client.actors.line(self._ref._row, self._again[0])
            self._session = here
        return here, self._line

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._ref == other._ref

    def __hash__(self) -> int:
        return hash(self._ref)

    def __repr__(self) -> str:
        return f"Actor({self._name}, {self._ref.hex()[:12]})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._ref, self._name, self._methods, self._again)


class ActorMethod:
    """A method of an actor, to be called with ``.remote(...)``."""

    __slots__ = ("_handle", "_line", "_name", "_outputs", "_session", "_spec")

    def __init__(self, handle: ActorHandle, name: str, outputs: int) -> None:
        # A method holds its handle's parts rather than the handle, or the two would be a cycle, and
        # the actor would live until the garbage collector came by.
        self._handle = (handle._ref, handle._name, handle._methods, handle._again)
        self._name = name
        self._outputs = outputs
        self._session: Runtime | None = None
        self._line: Any = None
        self._spec: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Always raises TypeError: it would be a local call that looks like a remote one."""
        raise TypeError(f"an actor's method is not called directly: use .{self._name}.remote(...)")

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle[1]}.{self._name})"

    def options(self, **given: Any) -> ActorMethod:
        """The same method with other options: num_returns, name."""
        merged = opts.merge(opts.METHOD_DEFAULTS, given, "an actor's method")
        outputs = given.get("num_returns", self._outputs)
        method = ActorMethod(ActorHandle(*self._handle), self._name, outputs)
        if merged["name"]:
            method._bind()
            method._spec.name = merged["name"]
        return method

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; the reference to its result, at once."""
        here = self._session
        if here is None or here is not session.current_runtime:
            here = self._bind()
        spec = self._spec
        packed: Any = b""
        if spec.outputs != 1 or kwargs:
            return self._submit(here, args, kwargs)
        if args:
            for value in args:
                if value.__class__ is Ref:
                    return self._submit(here, args, kwargs)
            try:
                packed = serial.dumps((args, kwargs))
            except SerializationError as error:
                raise serial.of_call(error, spec.name) from error.__cause__
            if packed.__class__ is not bytes or len(packed) > here.inline_max:
                return self._submit(here, args, kwargs)
        with here.lock:
            id = (task_context.get() or here.root).next_id()
            row = here.client.call(self._line, spec, id, packed, now())
            if here.unflushed >= BURST or here.client.leases.lone or here.resting:
                here.submitted()
            else:
                here.unflushed += 1
        return Ref(row)

    def _submit(self, here: Runtime, args: Any, kwargs: Any) -> Any:
        rows = session.calls.submit(here, self._spec, args, kwargs, Ref, self._line)
        return wrap(rows, self._outputs)

    def _bind(self) -> Runtime:
        from freehold.proc import calls  # here, so that `import freehold` is fast

        handle = ActorHandle(*self._handle)
        here, self._line = handle._bound()
        retries = handle._again[1]
        self._spec = calls.method_spec(handle._name, self._name, self._outputs, retries)
        self._session = here
        return here


def method(*, num_returns: int = 1) -> Any:
    """Declare how many results a method has, with ``@freehold.method(num_returns=2)``."""
    opts.merge(opts.METHOD_DEFAULTS, {"num_returns": num_returns}, "an actor's method")

    def mark(function: Any) -> Any:
        function.__freehold_num_returns__ = num_returns
        return function

    return mark
