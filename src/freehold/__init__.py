"""freehold: remote calls with first-class references to values in shared memory.

import freehold as fh

@fh.remote
def double(x):
return 2 * x

print(fh.get(double.remote(21)))
"""

from freehold.actor import ActorClass, ActorHandle, get_actor, list_named_actors, method
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
    GroupRemoved,
    InvalidReference,
    JoinRefused,
    LimitExceeded,
    NameTaken,
    NameUnknown,
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
from freehold.groups import PlacementGroup, placement_group, remove_placement_group
from freehold.nodes import available_resources, cluster_resources, nodes
from freehold.options import NodeAffinity
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
    "GroupRemoved",
    "InvalidReference",
    "JoinRefused",
    "LimitExceeded",
    "NameTaken",
    "NameUnknown",
    "NodeAffinity",
    "NodeDied",
    "NotInitialized",
    "ObjectFreed",
    "ObjectLost",
    "ObjectStoreFull",
    "OutOfMemory",
    "OwnerDied",
    "PlacementGroup",
    "ProtocolError",
    "Ref",
    "RemoteFunction",
    "SerializationError",
    "TaskError",
    "Unschedulable",
    "VersionMismatch",
    "WorkerDied",
    "available_resources",
    "cluster_resources",
    "get",
    "get_actor",
    "init",
    "is_initialized",
    "kill",
    "list_named_actors",
    "method",
    "nodes",
    "placement_group",
    "put",
    "remote",
    "remove_placement_group",
    "shutdown",
    "status",
    "wait",
]
