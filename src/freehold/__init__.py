"""freehold: remote calls with first-class references to values in shared memory.

import freehold as fh

@fh.remote
def double(x):
return 2 * x

print(fh.get(double.remote(21)))
"""

from freehold.actor import ActorClass, ActorHandle, method
from freehold.api import (
    get,
    init,
    is_initialized,
    kill,
    put,
    remote,
    shutdown,
    status,
    wait,
)
from freehold.config import Config
from freehold.errors import (
    ActorDied,
    ActorError,
    ActorUnavailable,
    AlreadyInitialized,
    AuthenticationError,
    ClusterUnreachable,
    FreeholdError,
    GetTimeoutError,
    InvalidReference,
    JoinRefused,
    NodeDied,
    NotInitialized,
    ObjectFreed,
    ObjectLost,
    ObjectStoreFull,
    OutOfMemory,
    OwnerDied,
    ProtocolError,
    SerializationError,
    TaskError,
    Unschedulable,
    VersionMismatch,
    WorkerDied,
)
from freehold.ref import Ref
from freehold.remote import RemoteFunction

__version__ = "0.1.0"

__all__ = [
    "ActorClass",
    "ActorDied",
    "ActorError",
    "ActorHandle",
    "ActorUnavailable",
    "AlreadyInitialized",
    "AuthenticationError",
    "ClusterUnreachable",
    "Config",
    "FreeholdError",
    "GetTimeoutError",
    "InvalidReference",
    "JoinRefused",
    "NodeDied",
    "NotInitialized",
    "ObjectFreed",
    "ObjectLost",
    "ObjectStoreFull",
    "OutOfMemory",
    "OwnerDied",
    "ProtocolError",
    "Ref",
    "RemoteFunction",
    "SerializationError",
    "TaskError",
    "Unschedulable",
    "VersionMismatch",
    "WorkerDied",
    "get",
    "init",
    "is_initialized",
    "kill",
    "method",
    "put",
    "remote",
    "shutdown",
    "status",
    "wait",
]
