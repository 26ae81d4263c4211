"""What must survive its owner: what lay in shared memory and was held when it died.

At a death the world sees more than any node: who holds a handle of what the dead one owned, and
where that lies.  Such a handle must never read ``OwnerDied`` (docs/fault-tolerance.md), unless

* one of the nodes concerned is gone, or has been declared dead: that of the owner, of the holder,
  or the one where the value lay;
* somebody else who had held it has died as well: a hand-over that was not confirmed was never made;
* another process has made it again, and has died in turn.
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.core.messages import SHARED
from freehold.core.process.rows import Row
from freehold.sim.daemon import NodeHost
from freehold.sim.ledger import Ledger
from freehold.sim.process import ProcessHost
from freehold.sim.values import Violation, brief


class Heirlooms:
    """Those of one run.

    Args:
        ledger: the evidence.
        nodes: all of them.
        hosts: the processes that live.
    """

    def __init__(
        self,
        ledger: Ledger,
        nodes: Callable[[], list[NodeHost]],
        hosts: Callable[[], list[ProcessHost]],
    ) -> None:
        self.ledger = ledger
        self.nodes = nodes
        self.hosts = hosts
        self.promised: dict[Row, tuple[bytes, list[bytes]]] = {}  # a holder's -> the dead, nodes

    def died(self, dead: ProcessHost) -> None:
        """Its node has still to hear of that."""
        proc = dead.machine.id
        living = [node.node for node in self.nodes() if node.alive]
        stored = {key for node in living for key in node.store.objects}
        for id, row in dead.owner.rows.items():
            if row.owner is not None or row.state != SHARED:
                continue
            if (id, row.data[0], proc) in stored:
                self._promise(dead, row)

    def _promise(self, dead: ProcessHost, row: Row) -> None:
        for holder in self.hosts():
            mine = holder.owner.rows.get(row.id)
            if mine is None or not mine.handles or mine.owner is None:
                continue
            if mine.owner.id == dead.machine.id:
                nodes = [row.data[3], dead.home, holder.home]
                self.promised[mine] = (dead.machine.id, nodes)

    def judge(self, row: Row) -> None:
        """User code reads ``OwnerDied`` there.  Raises Violation if that must not be."""
        if row not in self.promised:
            return
        dead, nodes = self.promised[row]
        ledger = self.ledger
        here = {node.machine.id for node in self.nodes() if node.alive} - ledger.gone_nodes()
        others = [who for who in ledger.holders.get(row.id, ()) if who != dead]
        alone = set(ledger.owners.get(row.id, ())) == {dead}
        if alone and here.issuperset(nodes) and not any(map(ledger.died_badly, others)):
            lost = f"{brief(row.id)} lay in shared memory and was held when {brief(dead)} died"
            raise Violation(f"an heirloom is lost: {lost}")
