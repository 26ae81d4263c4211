"""What the world knows of a cluster: names, placement groups, kept copies, nodes that leave.

Beside what excuses an error (``sim.ledger``), it holds what must be true there:

* A name is borne by one actor: who is told that it has a name finds no other that bears it.  An
  actor's constructor runs only after its name is claimed, and only when every process in which the
  actor has lived before is dead.  Who asks for a name that is borne all the while finds it.
* A group that is said to be placed is set aside wholly, on the nodes that are named.
* A value that is kept on two nodes is not lost with one.
* What outlives its owner (``sim.heirlooms``) is not lost with it.
* A node that leaves in good order leaves nothing behind that anybody needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from freehold.core.ids import is_detached, job_of
from freehold.core.messages import SHARED
from freehold.sim.daemon import NodeHost
from freehold.sim.heirlooms import Heirlooms
from freehold.sim.ledger import Ledger, Proc
from freehold.sim.process import ProcessHost
from freehold.sim.values import Violation, brief

Bearer = tuple[bytes, Proc]  # an actor and its owner
_GROUP = re.compile(r"\b([0-9a-f]{24})\b")


class ClusterLedger(Ledger):
    """The evidence of one run on several nodes."""

    def __init__(self, faults: dict[str, int]) -> None:
        super().__init__(faults)
        self.hosts: Callable[[], list[ProcessHost]] = list  # that live
        self.nodes: Callable[[], list[NodeHost]] = list
        self.wanted: dict[bytes, str] = {}  # actor -> the name that was asked for it
        self.named: dict[str, list[Bearer]] = {}  # name -> who has had it
        self.jobs: dict[bytes, Proc] = {}  # group -> the driver of whose job it is
        self.removed: set[bytes] = set()  # groups
        self.kept: dict[bytes, int] = {}  # value -> nodes that had gone when all copies were there
        self.heirlooms: Heirlooms  # set by the fleet

    def bequeaths(self, dead: ProcessHost) -> None:
        self.heirlooms.died(dead)

    # -- names ------------------------------------------------------------------------------------
    def bearers(self, name: str) -> list[Bearer]:
        """The actors that bear the name, as far as their owners know, who live.

        A detached actor that was killed is a job that is over: the names that it had given are free
        at once, though its process may have a moment to live.
        """
        over = {job_of(actor) for actor in self.failed_actors if is_detached(actor)}
        living = {
            host.machine.id: host
            for host in self.hosts()
            if host.client.leases.requests.driver not in over
        }
        return [
            (actor, owner)
            for actor, owner in self.named.get(name, ())
            if owner in living
            and not self._is_gone(owner)
            and actor in living[owner].client.actors.names
        ]

    def claimed(self, name: str, actor: bytes, owner: Proc) -> None:
        """The actor has got the name.  Raises Violation if another bears it."""
        for other in self.bearers(name):
            if other != (actor, owner):
                text = f"{brief(actor)} is called {name}, and so is {brief(other[0])}"
                raise Violation(f"two actors of one name: {text}")
        self.named.setdefault(name, []).append((actor, owner))

    def unknown(self, name: str, before: list[Bearer]) -> None:
        """Nobody is called so; ``before`` were when that was asked.  Raises Violation."""
        still = [bearer for bearer in self.bearers(name) if bearer in before]
        if still:
            raise Violation(f"{brief(still[0][0])} is called {name}, and was not found")

    def constructs(self, actor: bytes, proc: Proc, owner: Proc) -> None:
        name = self.wanted.get(actor)
        if name is not None and actor not in [one for one, _ in self.named.get(name, ())]:
            raise Violation(f"actor {brief(actor)} begins without its name, {name}")
        super().constructs(actor, proc, owner)

    # -- groups -----------------------------------------------------------------------------------
    def placed(self, group: bytes, where: list[bytes]) -> None:
        """The head says where the bundles are.  Raises Violation if one is not there."""
        for index, id in enumerate(where):
            for node in self.nodes():
                if node.machine.id != id or not node.alive or id in self.gone_nodes():
                    continue
                held = node.node.scheduler.bundles.get((group, index))
                if held is None or not held[1]:
                    raise Violation(f"bundle {index} of {group.hex()} is not set aside on {node}")

    # -- errors -----------------------------------------------------------------------------------
    def judge(self, data: Any, id: bytes) -> None:
        if isinstance(data, list) and data[0] == "ObjectLost":
            self._judge_loss(data[1])
        if isinstance(data, list) and data[0] == "GroupRemoved":
            self.errors["GroupRemoved"] = self.errors.get("GroupRemoved", 0) + 1
            named = [bytes.fromhex(text) for text in _GROUP.findall(data[1])]
            if not any(self._may_be_removed(group) for group in named):
                raise Violation(f"nobody has removed that group: {data[1]}")
            return
        super().judge(data, id)

    def _may_be_removed(self, group: bytes) -> bool:
        return group in self.removed or self._is_gone(self.jobs.get(group, b""))

    def _judge_loss(self, text: str) -> None:
        for id in self._ids(text):
            if id in self.kept and len(self.gone_nodes()) < self.kept[id] + 2:
                raise Violation(f"two copies of {brief(id)} were kept, and are lost: {text}")

    # -- nodes that leave -------------------------------------------------------------------------
    def leaves(self, node: NodeHost) -> None:
        """The node leaves in good order.  Raises Violation if somebody still needs it."""
        others = {host.machine.id for host in self.hosts() if host.site is not node}
        for child in node.spawner.children.values():
            if child.executions or child.executor.queue:
                raise Violation(f"{node} leaves, while {child} runs tasks")
            for row in child.owner.rows.values():
                tickets = row.more.tickets.values() if row.more is not None else ()
                if row.owner is None and not others.isdisjoint(tickets):
                    raise Violation(f"{node} leaves, with {row!r}, which others hold")
        for id, entry in node.node.estates.adopted.items():
            if entry.state != SHARED and not others.isdisjoint(entry.tickets.values()):
                raise Violation(f"{node} leaves, and has adopted {brief(id)}, which others hold")
