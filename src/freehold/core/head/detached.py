"""The head's table of detached actors: what each is made of, and where it lives now.

A detached actor belongs to nobody's program.  It is *its own owner*: the process that it lives in
owns its reference, and the head keeps what is needed to make it again, so that it outlives every
driver and every node.  The rules:

1. An actor is recorded before its maker is answered.  Then the head chooses a node and has one of
   its workers become the actor (EMBODY, ``node.bodies``).
2. Each time is an *incarnation* with a number.  Nodes report what becomes of it (the directory's
   verb ``incarnation``); reports about older numbers are not heard.  So at most one counts.
3. When the process or its node dies, the head chooses again while ``max_restarts`` allows: at once
   the first time, and after a rest when it dies again and again (``core.backoff``).  An actor that
   has lived and fits nowhere now waits for a node.
4. Who does not know where the actor is asks (``locate``), and is answered when it lives, or is no
   more.
5. It ends when it is killed, when its constructor fails, or when its restarts are used up.  Then
   its name is free at once, and every node is told (ENDED).
"""

from __future__ import annotations

import math
from typing import Any

from freehold.core import messages as m
from freehold.core.backoff import STEADY, rest_after
from freehold.core.gossip import connected
from freehold.core.head.directory import Answer, Directory
from freehold.core.head.groups import Asker, Groups
from freehold.core.head.tables import ENTRIES_MAX, RECORD_BYTES_MAX, Tables
from freehold.core.ids import job_of, pack_index
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.member import MEMBER, Resources, Standing, flaw_of_resources
from freehold.core.policy import NEVER as NOWHERE
from freehold.core.policy import UNKNOWN, Choice, choose, flaw_of_strategy
from freehold.core.records import decode, encode

ACTOR = b"actor/"
PLAN = b"plan/"
PLAN_BYTES_MAX = (ENTRIES_MAX - 1) * RECORD_BYTES_MAX  # of one actor: one transaction
ENDED_MAX = 1000  # of whose ends it is remembered why
AGAIN = 0.25  # seconds between two looks for a node
WAITING, STARTING, ALIVE = range(3)
PHASES = ("waiting", "starting", "alive")


class Actor:
    """One detached actor.

    Attributes:
        value: what the directory has under its name.
        plan: what its constructor is run with; opaque here.
        left: how often it may be made again; -1: for ever.
        number: of the incarnation that counts, or was tried last.
        node: where that is; empty while it waits.
        made: it has lived.
        why: why it waits,
        until: and until when in any case.
        failures: how often it has died in a row.
        born: when the incarnation was begun.
    """

    __slots__ = (
        "address", "born", "cpus", "failures", "id", "left", "made", "name", "namespace", "node",
        "number", "phase", "plan", "proc", "resources", "until", "value", "where", "why",
    )  # fmt: skip

    def __init__(
        self, id: bytes, plan: list[Any], namespace: str, name: str, value: bytes, cpus: float,
        resources: Resources, where: list[Any], left: int,
    ) -> None:  # fmt: skip
        self.id = id
        self.namespace = namespace
        self.name = name
        self.value = value
        self.cpus = cpus
        self.resources = resources
        self.where = where
        self.left = left
        self.plan = plan
        self.number = 0
        self.node = b""
        self.phase = WAITING
        self.made = False
        self.proc = b""
        self.address = ""
        self.why = ""
        self.until = self.born = -math.inf
        self.failures = 0

    @property
    def needs(self) -> Resources:
        """What it occupies."""
        return {"CPU": self.cpus, **self.resources}

    def record(self) -> bytes:
        """As it is stored, without the plan."""
        what = [self.namespace, self.name, self.value, self.cpus, self.resources, self.where]
        now = [self.number, self.node, self.phase, self.made, self.proc, self.address]
        return encode([*what, self.left, *now])


class Detached:
    """The head's part."""

    def __init__(
        self,
        machine: Machine,
        tables: Tables,
        nodes: dict[bytes, Standing],
        groups: Groups,
        directory: Directory,
    ) -> None:
        self.machine = machine
        self.tables = tables
        self.nodes = nodes
        self.groups = groups
        self.directory = directory
        self.actors: dict[bytes, Actor] = {}
        self.ended: dict[bytes, list[Any]] = {}  # why
        self.askers: dict[bytes, list[Asker]] = {}
        self.due = NEVER  # the next look for a node for those that wait
        self._turn = 0
        directory.verbs["detach"] = self._detach
        directory.verbs["end"] = self._end
        directory.verbs["incarnation"] = self._incarnation
        directory.verbs["detached"] = self._describe
        directory.later["locate"] = self._locate
        directory.actors_ended = self.ended

    # -- the store --------------------------------------------------------------------------------
    def recover(self, entries: list[tuple[bytes, bytes, int]]) -> None:
        """Take the records of the store."""
        parts: dict[bytes, list[bytes]] = {}
        for key, value, _ in sorted(entries):
            if key.startswith(PLAN):
                parts.setdefault(key[len(PLAN) : -4], []).append(value)
        for key, value, _ in entries:
            if key.startswith(ACTOR):
                id = key.removeprefix(ACTOR)
                *what, number, node, phase, made, proc, address = decode(value)
                actor = Actor(id, decode(b"".join(parts[id])), *what)
                actor.number, actor.node, actor.phase = number, node, phase
                actor.made, actor.proc, actor.address = made, proc, address
                self._enter(actor)

    def _enter(self, actor: Actor) -> None:
        self.actors[actor.id] = actor
        self.directory.enter(actor.namespace, actor.name, actor.value)

    def _write(self, actor: Actor) -> None:
        self.tables.write((ACTOR + actor.id, actor.record()))

    # -- requests ---------------------------------------------------------------------------------
    def _detach(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        id = fields["actor"]
        if id in self.actors or id in self.ended:
            return [], {}
        resources, where = fields["resources"], fields["where"]
        flaw = flaw_of_resources({"CPU": fields["cpus"], **resources}) or flaw_of_strategy(where)
        if flaw:
            return ["ProtocolError", flaw], {}
        namespace, name, value = fields["namespace"], fields["name"], fields["value"]
        error = self.directory.why_not(namespace, name, value)
        if error:
            return error, {}
        what = (namespace, name, value, fields["cpus"], resources, where, fields["restarts"])
        actor = Actor(id, fields["plan"], *what)
        error = self._hindrance(actor, self._choose(actor))
        if error:
            return error, {}
        try:
            plan = encode(actor.plan)
        except ValueError as wrong:
            return ["ProtocolError", f"detach: plan: {wrong}"], {}
        if len(plan) > PLAN_BYTES_MAX or len(actor.record()) > RECORD_BYTES_MAX:
            text = f"{name!r}: its class and arguments have {len(plan):,} bytes, of at most "
            text += f"{PLAN_BYTES_MAX:,}; put large values and pass the references"
            return ["LimitExceeded", text], {}
        parts = [
            (PLAN + id + pack_index(at), plan[at : at + RECORD_BYTES_MAX])
            for at in range(0, len(plan), RECORD_BYTES_MAX)
        ]
        self._enter(actor)
        self.tables.write(*parts, (ACTOR + id, actor.record()))
        self._place(actor, now)
        return [], {}

    def _end(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        actor = self.actors.get(fields["actor"])
        if actor is not None:
            self.end(actor, now, ["ActorDied", "it was killed by freehold.kill()"])
        return [], {"found": actor is not None}

    def _locate(self, asker: Asker, now: float, fields: dict[str, Any]) -> Answer | None:
        id = fields["actor"]
        actor = self.actors.get(id)
        if actor is None:
            return self.ended.get(id, ["ActorDied", "it has ended"]), {}
        if actor.phase == ALIVE:
            return [], {"proc": actor.proc, "address": actor.address}
        self.askers.setdefault(id, []).append(asker)
        return None

    def _incarnation(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        actor = self.actors.get(fields["actor"])
        if actor is None or (actor.number, actor.node) != (fields["number"], peer.id):
            return [], {}
        state, error = fields["state"], fields["error"]
        if state == "alive" and actor.phase == STARTING:
            actor.phase, actor.made, actor.why = ALIVE, True, ""
            actor.proc, actor.address = fields["proc"], fields["address"]
            self._write(actor)
            self._answer(actor.id, now, ([], {"proc": actor.proc, "address": actor.address}))
        elif state == "failed":
            self.end(actor, now, error)
        elif state == "died":
            self._died(actor, now, error)
        elif state == "refused":
            self._wait(actor, now, str(error[1]))
            self._write(actor)
        return [], {}

    def _describe(self, peer: Peer, now: float, fields: dict[str, Any]) -> Answer:
        rows = [
            {
                "actor": actor.id,
                "namespace": actor.namespace,
                "name": actor.name,
                "node": actor.node,
                "state": PHASES[actor.phase],
                "restarts_left": actor.left,
                "number": actor.number,
                "why": actor.why,
            }
            for actor in self.actors.values()
        ]
        return [], {"detached": rows}

    # -- places -----------------------------------------------------------------------------------
    def _choose(self, actor: Actor) -> Choice:
        view: Any = {node.id: node for node in self.nodes.values() if node.phase == MEMBER}
        self._turn += 1
        return choose(actor.needs, actor.where, view, b"", self._turn)

    def _hindrance(self, actor: Actor, choice: Choice) -> list[Any]:
        """Why the actor can never be placed, [] if it can."""
        if choice.verdict == UNKNOWN and not self._has_group(actor):
            return ["GroupRemoved", f"{actor.name}: its placement group was removed"]
        gone = actor.where[:1] == ["node"] and not actor.where[2]  # a dead node never returns
        if choice.verdict == NOWHERE and (not actor.made or gone):
            return ["Unschedulable", f"{actor.name}: {choice.reason}"]
        return []

    def _has_group(self, actor: Actor) -> bool:
        wanted = [name.split("/")[1] for name in actor.resources if "/" in name]
        return all(group in {id.hex() for id in self.groups.groups} for group in wanted)

    def _place(self, actor: Actor, now: float) -> None:
        """Choose a node; or wait for one; or give up."""
        choice = self._choose(actor)
        error = self._hindrance(actor, choice)
        if error:
            self.end(actor, now, error)
        elif choice.verdict in (NOWHERE, UNKNOWN):
            self._wait(actor, now, choice.reason)
        else:
            node = self.nodes[choice.node]
            for name, amount in actor.needs.items():  # until it reports again
                if name in node.free:
                    node.free[name] -= amount
            actor.number += 1
            actor.phase, actor.node, actor.why, actor.born = STARTING, node.id, "", now
            self._write(actor)
            self.tables.after(now, self._embody, actor, actor.number)

    def _wait(self, actor: Actor, now: float, why: str) -> None:
        actor.phase, actor.node, actor.why = WAITING, b"", why
        self.due = min(self.due, max(now + AGAIN, actor.until))

    def _embody(self, now: float, actor: Actor, number: int) -> None:
        """The choice is durable: tell the node, or wait until it is connected."""
        node = self.nodes.get(actor.node)
        chosen = self.actors.get(actor.id) is actor and actor.phase == STARTING
        if chosen and actor.number == number and node is not None and node.peer is not None:
            what = (actor.id, number, actor.cpus, actor.resources, actor.where, actor.left)
            self.machine.send(node.peer, m.EMBODY, *what, actor.plan)

    def on_node(self, node: Standing, now: float, has: list[bytes]) -> None:
        """The node is a member; it has to do with these actors."""
        assert node.peer is not None
        for id in has:
            if id not in self.actors:
                self.machine.send(node.peer, m.ENDED, id)
        for actor in list(self.actors.values()):
            if actor.phase == STARTING and actor.node == node.id:
                self._embody(now, actor, actor.number)
            elif actor.phase == WAITING:
                self.due = now

    # -- ends -------------------------------------------------------------------------------------
    def on_node_gone(self, id: bytes, now: float, reason: str) -> None:
        """The incarnations that lived there are dead."""
        for actor in [actor for actor in self.actors.values() if actor.node == id]:
            self._died(actor, now, ["ActorDied", f"its node {id.hex()[:8]} is gone: {reason}"])

    def _died(self, actor: Actor, now: float, error: list[Any]) -> None:
        if actor.left == 0:
            self.end(actor, now, error)
            return
        actor.left -= actor.left > 0
        actor.failures = actor.failures + 1 if now < actor.born + STEADY else 1
        actor.until = now + rest_after(actor.failures)
        self._wait(actor, now, str(error[1]))
        self._write(actor)
        if actor.until <= now:
            self._place(actor, now)

    def end(self, actor: Actor, now: float, error: list[Any]) -> None:
        """The actor is no more, and what was made for it goes too."""
        id = actor.id
        del self.actors[id]
        self.ended[id] = error
        if len(self.ended) > ENDED_MAX:
            del self.ended[next(iter(self.ended))]
        size = len(encode(actor.plan))
        parts = [PLAN + id + pack_index(at) for at in range(0, size, RECORD_BYTES_MAX)]
        self.tables.write(*((key, b"") for key in (ACTOR + id, *parts)))
        self.directory.leave(actor.namespace, actor.name, actor.value)
        self.directory.forget_job(now, job_of(id))
        self.tables.after(now, self._tell_ended, id)
        self._answer(id, now, (error, {}))

    def _tell_ended(self, now: float, id: bytes) -> None:
        self.machine.send_all(connected(self.nodes), m.ENDED, id)

    def _answer(self, id: bytes, now: float, answer: Answer) -> None:
        for peer, request in self.askers.pop(id, ()):
            self.directory.answer(peer, now, request, answer)

    def forget(self, peer: Peer) -> None:
        """The node is not connected any more; it will ask again."""
        for id in list(self.askers):
            self.askers[id] = [asker for asker in self.askers[id] if asker[0] is not peer]
            if not self.askers[id]:
                del self.askers[id]

    # -- time -------------------------------------------------------------------------------------
    def start(self, now: float) -> None:
        """Those that waited before go on waiting; whose node is no member any more is dead."""
        for actor in list(self.actors.values()):
            if actor.node and actor.node not in self.nodes:
                self._died(actor, now, ["ActorDied", f"its node {actor.node.hex()[:8]} is gone"])
        if any(actor.phase == WAITING for actor in self.actors.values()):
            self.due = now + AGAIN

    def on_timer(self, now: float) -> None:
        """Look for nodes for those that wait."""
        if now < self.due:
            return
        self.due = NEVER
        for actor in [actor for actor in self.actors.values() if actor.phase == WAITING]:
            if actor.until <= now:
                self._place(actor, now)
            else:
                self.due = min(self.due, actor.until)

    def check(self) -> None:
        """Every actor has its name, and who waits for nothing has a place."""
        for id, actor in self.actors.items():
            assert actor.id == id
            assert (actor.phase == WAITING) == (not actor.node)
            assert self.directory.names[actor.namespace][actor.name][0] == actor.value
            assert actor.phase != WAITING or self.due < NEVER
        assert all(id in self.actors for id in self.askers)
