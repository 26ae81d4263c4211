"""What the dead owned and nobody stores: a node has it made again, where that can be done.

The counterpart of ``process.orphans``.  HELD and ESTATE_HELD tell the heir who could make which
orphan again, by its id or by the context in which it was made.  When somebody asks for one, the
heir asks that process (REVIVE), by way of its node if it lives elsewhere, and passes the answer
(REBORN) on to all who wait; who asks later is told the same, until the new owner dies as well.
"""

from __future__ import annotations

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.ids import CONTEXT_BYTES
from freehold.core.machine import Machine, Peer
from freehold.core.messages import FAILED
from freehold.core.node.store import Store

REBORN_MAX = 100_000  # orphans whose new owners are remembered


class Revivals:
    """The part of a node that knows who can make orphans again."""

    def __init__(self, machine: Machine, store: Store) -> None:
        self.machine = machine
        self.store = store
        self.revivers: dict[bytes, bytes] = {}  # orphan, or context -> who can make it again
        self.homes: dict[bytes, bytes] = {}  # processes on other nodes -> those
        self.reviving: dict[bytes, list[Peer]] = {}  # orphan -> who waits for it
        self.reborn: dict[bytes, tuple[bytes, str]] = {}  # orphan -> its new owner
        self.asked: dict[bytes, tuple[Peer, bytes]] = {}  # orphan -> heir, process of this node
        machine.on({m.REVIVE: self.on_revive, m.REBORN: self.on_reborn})

    def find(self, peer: Peer, id: bytes) -> None:
        """Somebody asks for an orphan: have it made again, or say that it is lost."""
        if id in self.reborn:
            owner, address = self.reborn[id]
            if not {owner, node_of(address)} & self.store.gone:
                self.machine.send(peer, m.REBORN, id, owner, address)
                return
            del self.reborn[id]  # it is an orphan once more
        who = self._reviver(id)
        target = self.machine.peers.get(self.homes.get(who, who))
        if target is None or who in self.store.gone:
            self._lost(peer, id)
            return
        waiting = self.reviving.setdefault(id, [])
        waiting.append(peer)
        if len(waiting) == 1:
            self.machine.send(target, m.REVIVE, id, who)

    def _reviver(self, id: bytes) -> bytes:
        """The process that can make it again; empty if there is none."""
        return self.revivers.get(id) or self.revivers.get(id[:CONTEXT_BYTES], b"")

    def _lost(self, peer: Peer, id: bytes) -> None:
        text = (
            f"object {id.hex()}: its owner died, and its value was with it.  Let a "
            "longer-lived process (the driver) submit the task or put the value."
        )
        self.machine.send(peer, m.VALUE, id, FAILED, ["OwnerDied", text], [])

    def on_revive(self, peer: Peer, now: float, id: bytes, proc: bytes) -> None:
        """For a process of this node; its answer goes to the heir by way of here."""
        target = self.machine.peers.get(proc)
        if target is None:
            self.machine.send(peer, m.REBORN, id, b"", "")
        else:
            self.asked[id] = (peer, proc)
            self.machine.send(target, m.REVIVE, id, proc)

    def on_reborn(self, peer: Peer, now: float, id: bytes, owner: bytes, address: str) -> None:
        asked = self.asked.pop(id, None)
        if asked is not None:
            self.machine.send(asked[0], m.REBORN, id, owner, address)
            # the process answers once, even if this node has asked for itself as well
            if id not in self.reviving or not (owner or peer.id == self._reviver(id)):
                return
        for waiting in self.reviving.pop(id, ()):
            if owner:
                self.machine.send(waiting, m.REBORN, id, owner, address)
            else:
                self._lost(waiting, id)
        if owner:
            self.reborn[id] = (owner, address)
            if len(self.reborn) > REBORN_MAX:
                del self.reborn[next(iter(self.reborn))]
        else:
            self.revivers.pop(id, None)

    # -- deaths -----------------------------------------------------------------------------------
    def on_death(self, dead: bytes) -> None:
        """A process died: it makes nothing again."""
        for key in [key for key, who in self.revivers.items() if who == dead]:
            del self.revivers[key]
            for id in [id for id in self.reviving if key in (id, id[:CONTEXT_BYTES])]:
                for waiting in self.reviving.pop(id):
                    self._lost(waiting, id)
        for id in [id for id, (_, proc) in self.asked.items() if proc == dead]:
            heir, _ = self.asked.pop(id)
            self.machine.send(heir, m.REBORN, id, b"", "")
        self.homes.pop(dead, None)

    def living_on(self, node: bytes) -> list[bytes]:
        """The processes that are known to live there."""
        return [proc for proc, home in self.homes.items() if home == node]
