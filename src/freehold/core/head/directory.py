"""The head's directory: names and jobs, and the one door for every question to the head.

A request is answered once with ENTRY, after all that it says is durable.  A node sends again what
was not answered when its head went away, so every verb may come twice: it then says the same again.

=======  =================================  =====================================================
verb     fields (a ? marks optional ones)   answer
=======  =================================  =====================================================
name     namespace, name, value, job?,      {}; NameTaken if another value has the name
         proc?
find     namespace, name                    {found, value}
forget   namespace, name, value?            {found}; with ``value``, only if it is that
names    namespace?, after?                 {names: [[namespace, name], ...]}, a page in order
job      job, info, alive                   {}
jobs                                        {jobs: [{job, node, info, alive, reason}, ...]}
group    group, bundles, strategy?, name?,  {nodes: [node of each bundle, ...]} when it is
         job?, wait?                        placed, or {} at once if it is not to ``wait``;
                                            Unschedulable if it never can be
placed   group                              as ``group`` answers; GroupRemoved if there is none
ungroup  group                              {found}
groups                                      {groups: [{group, name, strategy, state, ...}, ...]}
nodes                                       {epoch, nodes: [{node, address, ...}, ...]}
retire   node                               {}; NodeDied if it is no member
detach   actor, namespace, name, value,     {}; NameTaken; Unschedulable if no node can have it
         cpus, resources, where,
         restarts, plan
end      actor                              {found}
locate   actor                              {proc, address} when the detached actor lives; why it
                                            does not, if it is no more
incarnation  actor, number, state, proc,    {}; from a node, about a detached actor: alive, failed,
         address, error                     died, refused
detached                                    {detached: [{actor, name, node, state, ...}, ...]}
=======  =================================  =====================================================

What is malformed gets ProtocolError, and what is too much LimitExceeded.  A job ends when its
driver says so or its node dies; names and groups that were made for it go with it.  A name with a
``proc`` goes with that process, too: the head sees to it when its node dies, else its node does
(``node.relay``).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from freehold.core import messages as m
from freehold.core.head.groups import Asker, Groups
from freehold.core.head.tables import RECORD_BYTES_MAX, Tables
from freehold.core.ids import actor_of
from freehold.core.machine import Machine, Peer
from freehold.core.member import TEXT_MAX
from freehold.core.records import decode, encode

NAME = b"name/"
JOB = b"job/"
VALUE_BYTES_MAX = RECORD_BYTES_MAX - 64  # of a name's value: the record has a few bytes of its own
NAMES_MAX = 10_000  # of a namespace
JOBS_ENDED_MAX = 1000  # that are remembered
PAGE = 1000
ID_BYTES_MAX = 64
Answer = tuple[list[str], dict[str, Any]]  # error, fields
Key = tuple[str, str]  # namespace, name

_TYPES: dict[str, Any] = {
    "actor": bytes, "address": str, "after": list, "alive": bool, "bundles": list, "cpus": float,
    "error": list, "group": bytes, "info": dict, "job": bytes, "name": str, "namespace": str,
    "node": bytes, "number": int, "plan": list, "proc": bytes, "resources": dict, "restarts": int,
    "state": str, "strategy": str, "value": bytes, "wait": bool, "where": list,
}  # fmt: skip
_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # verb -> required, optional
    "name": (("namespace", "name", "value"), ("job", "proc")),
    "find": (("namespace", "name"), ()),
    "forget": (("namespace", "name"), ("value",)),
    "names": ((), ("namespace", "after")),
    "job": (("job", "info", "alive"), ()),
    "jobs": ((), ()),
    "group": (("group", "bundles"), ("strategy", "name", "job", "wait")),
    "placed": (("group",), ()),
    "ungroup": (("group",), ()),
    "groups": ((), ()),
    "nodes": ((), ()),
    "retire": (("node",), ()),
    "detach": (
        ("actor", "namespace", "name", "value", "cpus", "resources", "where", "restarts", "plan"),
        (),
    ),
    "end": (("actor",), ()),
    "locate": (("actor",), ()),
    "incarnation": (("actor", "number", "state", "proc", "address", "error"), ()),
    "detached": ((), ()),
}


class Job:
    """A driver's program."""

    __slots__ = ("alive", "info", "node", "reason")

    def __init__(self, node: bytes, info: dict[str, Any], alive: bool, reason: str) -> None:
        self.node = node
        self.info = info
        self.alive = alive
        self.reason = reason

    def record(self) -> bytes:
        """As it is stored."""
        return encode([self.node, self.info, self.alive, self.reason])


class Directory:
    """Names, jobs, and who asks for them."""

    def __init__(self, machine: Machine, tables: Tables, groups: Groups) -> None:
        self.machine = machine
        self.tables = tables
        self.groups = groups
        # namespace: name: value, job, and the node with which it goes
        self.names: dict[str, dict[str, tuple[bytes, bytes, bytes]]] = {}
        self.jobs: dict[bytes, Job] = {}
        self.actors_ended: Container[bytes] = ()  # detached ones; set by ``head.detached``
        self.verbs: dict[str, Callable[[Peer, float, dict[str, Any]], Answer]] = {
            "name": self._name,
            "find": self._find,
            "forget": self._forget,
            "names": self._names,
            "job": self._job,
            "jobs": self._jobs,
            "ungroup": self._ungroup,
            "groups": lambda peer, now, fields: ([], {"groups": self.groups.describe()}),
        }
        self.later: dict[str, Callable[[Asker, float, dict[str, Any]], Answer | None]] = {}
        machine.on({m.DIRECTORY: self.on_directory})

    def recover(self, key: bytes, record: bytes) -> None:
        """Take a record of the store."""
        if key.startswith(NAME):
            namespace, _, name = key.removeprefix(NAME).decode().partition("\0")
            value, job, node = decode(record)
            self.names.setdefault(namespace, {})[name] = value, job, node
        else:
            self.jobs[key.removeprefix(JOB)] = Job(*decode(record))

    # -- requests ---------------------------------------------------------------------------------
    def on_directory(
        self, peer: Peer, now: float, request: int, verb: str, fields: dict[str, Any]
    ) -> None:
        flaw = flaw_of(verb, fields)
        if flaw:
            self.answer(peer, now, request, (["ProtocolError", flaw], {}))
        elif verb in ("group", "placed"):
            if verb == "group":
                error = self._why_over(fields) or self.groups.make(now, (peer, request), fields)
            else:
                error = self.groups.wait(now, (peer, request), fields["group"])
            if error or not fields.get("wait", True):
                self.answer(peer, now, request, (error, {}))
        elif verb in self.later:
            found = self.later[verb]((peer, request), now, fields)
            if found is not None:
                self.answer(peer, now, request, found)
        else:
            self.answer(peer, now, request, self.verbs[verb](peer, now, fields))

    def answer(self, peer: Peer, now: float, request: int, answer: Answer) -> None:
        """Send the answer when all that was written before is durable."""
        self.tables.after(now, self._send, peer, request, answer)

    def _send(self, now: float, peer: Peer, request: int, answer: Answer) -> None:
        self.machine.send(peer, m.ENTRY, request, *answer)

    # -- names ------------------------------------------------------------------------------------
    def _name(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        namespace, name, value = fields["namespace"], fields["name"], fields["value"]
        error = self._why_over(fields) or self.why_not(namespace, name, value)
        if error:
            return error, {}
        entry = value, fields.get("job", b""), peer.id if fields.get("proc") else b""
        self.names.setdefault(namespace, {})[name] = entry
        self.tables.write((key_of(namespace, name), encode(entry)))
        return [], {}

    def why_not(self, namespace: str, name: str, value: bytes) -> list[str]:
        """Why that cannot be what is called so, [] if it can."""
        names = self.names.get(namespace, {})
        before = names.get(name)
        if before is None and len(names) >= NAMES_MAX:
            return ["LimitExceeded", f"{namespace!r} has {NAMES_MAX:,} names already"]
        if len(value) > VALUE_BYTES_MAX:
            text = f"{name!r}: a value of {len(value):,} bytes; {VALUE_BYTES_MAX:,} at most"
            return ["LimitExceeded", text]
        if before is not None and before[0] != value:
            return ["NameTaken", f"the name {name!r} is taken in the namespace {namespace!r}"]
        return []

    def enter(self, namespace: str, name: str, value: bytes) -> None:
        """A name that another record implies: a detached actor's."""
        self.names.setdefault(namespace, {})[name] = value, b"", b""

    def leave(self, namespace: str, name: str, value: bytes) -> None:
        """That one is no more."""
        if self.names.get(namespace, {}).get(name, (b"",))[0] == value:
            self._drop_names([(namespace, name)])

    def _find(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        entry = self.names.get(fields["namespace"], {}).get(fields["name"])
        return [], {"found": entry is not None, "value": entry[0] if entry is not None else b""}

    def _forget(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        namespace, name = fields["namespace"], fields["name"]
        entry = self.names.get(namespace, {}).get(name)
        if entry is None or fields.get("value", entry[0]) != entry[0]:
            return [], {"found": False}
        self._drop_names([(namespace, name)])
        return [], {"found": True}

    def _drop_names(self, keys: list[Key]) -> None:
        for namespace, name in keys:
            del self.names[namespace][name]
            if not self.names[namespace]:
                del self.names[namespace]
        self.tables.write(*((key_of(*key), b"") for key in keys))

    def _drop_names_of(self, field: int, id: bytes) -> None:
        """Drop the names with that id in that field of their entries."""
        self._drop_names(
            [
                (namespace, name)
                for namespace, names in self.names.items()
                for name, entry in names.items()
                if entry[field] == id
            ]
        )

    def _names(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        wanted = fields.get("namespace")
        after = tuple(fields.get("after", ()))
        found = sorted(
            (namespace, name)
            for namespace, names in self.names.items()
            for name in names
            if wanted in (None, namespace) and (namespace, name) > after
        )
        return [], {"names": [list(key) for key in found[:PAGE]]}

    # -- jobs -------------------------------------------------------------------------------------
    def _job(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        id, alive = fields["job"], fields["alive"]
        job = self.jobs.get(id)
        if alive and self._why_over(fields):
            return self._why_over(fields), {}
        if job is None or (alive and job.info != fields["info"]):
            job = Job(peer.id, fields["info"], True, "")
        record = job.record()
        if len(record) > RECORD_BYTES_MAX:
            return ["LimitExceeded", f"a job's record has at most {RECORD_BYTES_MAX:,} bytes"], {}
        self.jobs[id] = job
        if alive:
            self.tables.write((JOB + id, record))
        elif job.alive:
            self.end(now, id, "its driver has ended")
        return [], {}

    def _jobs(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        rows = [
            {
                "job": id,
                "node": job.node,
                "info": job.info,
                "alive": job.alive,
                "reason": job.reason,
            }
            for id, job in self.jobs.items()
        ]
        return [], {"jobs": rows}

    def end(self, now: float, id: bytes, reason: str) -> None:
        """A job has ended: forget what was made for it, and the oldest of the ended."""
        job = self.jobs.pop(id)
        job.alive, job.reason = False, reason
        self.jobs[id] = job
        self.tables.write((JOB + id, job.record()))
        self.forget_job(now, id)
        ended = [id for id, job in self.jobs.items() if not job.alive]
        for old in ended[: max(0, len(ended) - JOBS_ENDED_MAX)]:
            del self.jobs[old]
            self.tables.write((JOB + old, b""))

    def _why_over(self, fields: dict[str, Any]) -> list[str]:
        """Why nothing is made for that job any more, [] if it goes on.

        What is asked for late, by a process that does not know yet, would be there for ever.
        """
        id = fields.get("job", b"")
        job = self.jobs.get(id)
        if job is not None and not job.alive:
            return ["NodeDied", f"job {id.hex()[:8]} has ended: {job.reason}"]
        if job is None and actor_of(id) in self.actors_ended:
            return ["ActorDied", f"the detached actor {id.hex()[:8]} has ended"]
        return []

    def has_driver(self, node: bytes) -> bool:
        """Whether a job's driver runs there."""
        return any(job.alive and job.node == node for job in self.jobs.values())

    def forget_job(self, now: float, id: bytes) -> None:
        """What was made for the job goes with it."""
        self._drop_names_of(1, id)
        self.groups.remove_of(now, id)

    def on_node_gone(self, id: bytes, now: float, reason: str) -> None:
        """The jobs whose driver ran there have ended, and so have its processes."""
        self._drop_names_of(2, id)
        for job in [job for job, of in self.jobs.items() if of.node == id and of.alive]:
            self.end(now, job, f"its node {id.hex()[:8]} is gone: {reason}")

    def start(self, now: float) -> None:
        """What went with nodes that are no members any more is over; see ``Roll.start``."""
        named = [node for names in self.names.values() for _, _, node in names.values()]
        homes = [job.node for job in self.jobs.values() if job.alive]
        for node in dict.fromkeys(named + homes):
            if node and node not in self.groups.nodes:
                self.on_node_gone(node, now, "it died while there was no head")

    def _ungroup(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        return [], {"found": self.groups.remove(now, fields["group"])}

    def check(self) -> None:
        """No empty namespaces, no more than the limits."""
        assert all(0 < len(names) <= NAMES_MAX for names in self.names.values())
        assert sum(not job.alive for job in self.jobs.values()) <= JOBS_ENDED_MAX


def key_of(namespace: str, name: str) -> bytes:
    """Where a name is stored."""
    return NAME + namespace.encode() + b"\0" + name.encode()


def flaw_of(verb: str, fields: dict[str, Any]) -> str:
    """What is wrong with a request, '' if nothing is."""
    if verb not in _FIELDS:
        return f"the directory knows no verb {verb!r:.50}"
    required, optional = _FIELDS[verb]
    lacking = [name for name in required if name not in fields]
    strange = [name for name in fields if name not in required + optional]
    if lacking or strange:
        return (
            f"{verb} takes {', '.join(required + optional) or 'no fields'}, not {[*fields]!r:.200}"
        )
    for name, value in fields.items():
        flaw = _flaw_of_field(name, value)
        if flaw:
            return f"{verb}: {flaw}"
    if "info" in fields:
        try:
            encode(fields["info"])
        except ValueError as error:
            return f"{verb}: info: {error}"
    if fields.get("after") and [type(part) for part in fields["after"]] != [str, str]:
        return f"{verb}: after is [namespace, name]"
    return ""


def _flaw_of_field(name: str, value: Any) -> str:
    kind = _TYPES[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return f"{name} is {kind.__name__}, not {value!r:.50}"
    if name in ("name", "namespace") and ("\0" in value or len(value) > TEXT_MAX):
        return f"{value!r:.50} is no {name}"
    if name in ("actor", "group", "job", "node", "proc") and len(value) > ID_BYTES_MAX:
        return f"{value!r:.50} is no id"
    return ""
