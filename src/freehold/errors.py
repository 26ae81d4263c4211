"""Every error that freehold raises, as one tree.  Each says whose fault it is and what to do.

::

    FreeholdError
    |- TaskError                the user's function raised; also an instance of the user's class
    |- SerializationError       a value cannot travel (TypeError); names the path to the culprit
    |- GetTimeoutError          the caller's time limit passed (TimeoutError); the task goes on
    |- Unschedulable            no node can ever satisfy the resources asked for (ValueError)
    |- WorkerDied               the process that ran the task died; retries are used up or not
    allowed
    |- NodeDied                 the node daemon is gone, and with it everything on the node
    |- ActorError
    |  |- ActorDied             the actor will never answer again
    |  `- ActorUnavailable      the actor cannot be reached now; the call may or may not have run
    |- ObjectLost               the value existed and no copy or recipe is left
    |  |- OwnerDied             ... because the process that owned the reference died
    |  `- ObjectFreed           ... because the reference is used after its value was released
    |- ObjectStoreFull          the arena has no room for the value
    |- OutOfMemory              the task went over its own ``memory=`` limit (MemoryError)
    |- NameTaken                another value has the name in the directory already (ValueError)
    |- NameUnknown              no living actor has that name (ValueError)
    |- LimitExceeded            the directory takes no value so large, or no more names (ValueError)
    |- StoreError               the head's store is another's, damaged, or cannot be written
    |- GroupRemoved             the placement group was removed while somebody waited for it
    |- InvalidReference         a reference that does not belong to this session (ValueError)
    |- NotInitialized           used after ``shutdown()`` or in a forked child (RuntimeError)
    |- AlreadyInitialized       ``init()`` called twice (RuntimeError)
    |- ClusterUnreachable       nobody answers at the cluster's address (ConnectionError)
    |- JoinRefused              the head will not have this node (ConnectionError)
    `- ProtocolError            a peer broke the protocol (ConnectionError)
       |- AuthenticationError   ... it does not know the secret
       `- VersionMismatch       ... it speaks another version of it

All of them pickle.  Errors made by a daemon cross the wire as ``(class name, text)``, never as
pickles; :func:`from_wire` turns them back.
"""

from __future__ import annotations

from typing import Any


class FreeholdError(Exception):
    """Base class of every error that the library raises by itself."""


class TaskError(FreeholdError):
    """The user's function raised.

    ``get`` raises an instance of a class that derives both from :class:`TaskError` and from the
    class of the user's exception, so that either can be caught.

    Attributes:
        function: the name of the remote function or method.
        remote_traceback: the traceback, as text, from the process that ran it.
        cause: the user's exception, or ``None`` where it could not be pickled.
        pid: the process that ran it.
    """

    function: str
    remote_traceback: str
    cause: BaseException | None
    pid: int

    def __init__(
        self, function: str, remote_traceback: str, cause: BaseException | None, pid: int
    ) -> None:
        super().__init__(function, remote_traceback, cause, pid)
        self.function = function
        self.remote_traceback = remote_traceback
        self.cause = cause
        self.pid = pid

    def __str__(self) -> str:
        return f"{self.function} raised in process {self.pid}:\n{self.remote_traceback.rstrip()}"

    def as_instance_of_cause(self) -> TaskError:
        """This error as an instance of the user's class too, where that class allows it."""
        origin = _origin(self.cause)
        if not isinstance(origin, Exception):
            return self
        try:
            dual = _dual_class(type(origin))
            return dual(self.function, self.remote_traceback, self.cause, self.pid)
        except Exception:  # the user's class cannot be subclassed, or made in this way
            return self


_dual_classes: dict[type, type[TaskError]] = {}


def _dual_class(kind: type[BaseException]) -> type[TaskError]:
    """``TaskError(kind)``: a class that is both a TaskError and the user's class."""
    dual = _dual_classes.get(kind)
    if dual is not None:
        return dual

    def new(
        cls: type[TaskError], function: str, text: str, cause: BaseException | None, pid: int
    ) -> TaskError:
        make: Any = built_in_base(cls).__new__
        origin = _origin(cause)
        if isinstance(origin, BaseExceptionGroup):  # which has its parts from the beginning
            return make(cls, origin.message, origin.exceptions)  # type: ignore[no-any-return]
        return make(cls, function, text, cause, pid)  # type: ignore[no-any-return]

    def init(
        self: TaskError, function: str, text: str, cause: BaseException | None, pid: int
    ) -> None:
        origin = _origin(cause)
        BaseException.__setattr__(self, "args", origin.args if origin is not None else ())
        fields = {"function": function, "remote_traceback": text, "cause": cause, "pid": pid}
        self.__dict__.update(fields)
        _copy_builtin_fields(self, kind, origin)

    namespace = {
        "__new__": new,
        "__init__": init,
        "__getattr__": lambda self, name: getattr(_origin(self.__dict__.get("cause")), name),
        "__reduce__": lambda self: (
            _rebuild_dual,
            (self.function, self.remote_traceback, self.cause, self.pid),
        ),
        "__str__": TaskError.__str__,
        "__repr__": TaskError.__repr__,
        "__module__": kind.__module__,
        **{name: _own_field(name) for name in TaskError.__annotations__ if hasattr(kind, name)},
    }
    name = f"TaskError({kind.__name__})"
    dual = type(name, (TaskError, kind), namespace)
    _dual_classes[kind] = dual
    return dual


def _own_field(name: str) -> property:
    """A field of TaskError, in whose place the user's class has a property of that name."""
    return property(lambda self: self.__dict__[name])


def is_built_in(kind: type) -> bool:
    """Whether the class is part of the interpreter, and was not made by a class statement."""
    return not kind.__flags__ & 1 << 9  # Py_TPFLAGS_HEAPTYPE


def built_in_base(kind: type) -> type:
    """The class that allocates instances of ``kind``: no other one's ``__new__`` may."""
    while not is_built_in(kind):
        assert kind.__base__ is not None
        kind = kind.__base__
    return kind


def _origin(cause: BaseException | None) -> BaseException | None:
    """The exception that the user's code raised first, behind the tasks that passed it on."""
    while isinstance(cause, TaskError):
        cause = cause.cause
    return cause


def _copy_builtin_fields(
    self: TaskError, kind: type[BaseException], origin: BaseException | None
) -> None:
    """What built-in exceptions keep outside their dictionary: errno, filename, value, start, ..."""
    for base in kind.__mro__:
        if base.__module__ != "builtins" or base in (BaseException, Exception, object):
            continue
        for name, field in vars(base).items():
            if hasattr(type(field), "__set__") and not name.startswith("_"):
                try:
                    setattr(self, name, getattr(origin, name))
                except (AttributeError, TypeError):  # read-only, or not set in the original
                    continue


def _rebuild_dual(
    function: str, remote_traceback: str, cause: BaseException | None, pid: int
) -> TaskError:
    return TaskError(function, remote_traceback, cause, pid).as_instance_of_cause()


class SerializationError(FreeholdError, TypeError):
    """An argument or a result cannot be pickled; the text names the path to the culprit."""


class GetTimeoutError(FreeholdError, TimeoutError):
    """``get`` waited as long as it was allowed to.  The task goes on; ask again later."""


class Unschedulable(FreeholdError, ValueError):
    """No node has the resources that the task asks for; it would wait for ever."""


class WorkerDied(FreeholdError):
    """The process that ran the task died, and the task may not (or no longer) be retried."""


class NodeDied(FreeholdError):
    """The node daemon is gone; every task, actor and shared object of the node is lost."""


class ActorError(FreeholdError):
    """Base class of the errors about an actor, as against those that its methods raise."""


class ActorDied(ActorError):
    """The actor is dead: its process died, its constructor raised, or it was killed."""


class ActorUnavailable(ActorError):
    """The actor cannot be reached for now.  The call may or may not have run."""


class ObjectLost(FreeholdError):
    """The value is gone, and nothing can make it again."""


class OwnerDied(ObjectLost):
    """The process that owned the reference died before its value reached this process."""


class ObjectFreed(ObjectLost):
    """The reference was used after its value had been released."""


class ObjectStoreFull(FreeholdError, MemoryError):
    """The node's arena has no room for the value; drop references or raise ``arena_bytes_max``."""


class OutOfMemory(FreeholdError, MemoryError):
    """The task went over the ``memory=`` limit that it was submitted with."""


class NameTaken(FreeholdError, ValueError):
    """Another actor has the name in this namespace; choose one, or end the other."""


class NameUnknown(FreeholdError, ValueError):
    """No living actor has that name in this namespace."""


class LimitExceeded(FreeholdError, ValueError):
    """The cluster's directory keeps no value so large, or has as many names as it takes."""


class StoreError(FreeholdError):
    """The head's store is open elsewhere, belongs to another cluster, is damaged, or is full."""


class GroupRemoved(FreeholdError):
    """The placement group was removed while somebody waited until it could be placed."""


class InvalidReference(FreeholdError, ValueError):
    """The reference belongs to another session, or was pickled outside the system."""


class NotInitialized(FreeholdError, RuntimeError):
    """There is no runtime here: it was shut down, or this process was forked from a driver."""


class AlreadyInitialized(FreeholdError, RuntimeError):
    """``init()`` was called twice; call ``shutdown()`` first, or once at the program's start."""


class ClusterUnreachable(FreeholdError, ConnectionError):
    """Nobody answers at the cluster's address: it is wrong, or no head runs there, or no way."""


class JoinRefused(FreeholdError, ConnectionError):
    """The cluster's head was reached, and does not take this node as a member."""


class ProtocolError(FreeholdError, ConnectionError):
    """A peer sent what the protocol does not allow; its connection was closed."""


class AuthenticationError(ProtocolError):
    """A peer does not know this session's secret, or the token at hand is not the cluster's."""


class VersionMismatch(ProtocolError):
    """A peer speaks another version of the control protocol."""


_WIRE = {
    kind.__name__: kind
    for kind in (
        SerializationError, Unschedulable, WorkerDied, NodeDied, ActorDied,
        ActorUnavailable, ObjectLost, OwnerDied, ObjectFreed, ObjectStoreFull, OutOfMemory,
        NameTaken, NameUnknown, LimitExceeded, StoreError, GroupRemoved, InvalidReference,
        NotInitialized, ProtocolError, AuthenticationError, VersionMismatch, ClusterUnreachable,
        JoinRefused,
    )
}  # fmt: skip


def from_wire(kind: str, text: str) -> FreeholdError:
    """The error that a core machine described as ``(class name, text)``."""
    return _WIRE.get(kind, FreeholdError)(text)
