"""What this node sends to others: which bytes, and who is sent to whom instead.

*The chain.*  While the node is sending an object to somebody, the next node that asks for it is
told to ask the last one that did, which is itself still receiving and passes the bytes on as they
come.  So a broadcast costs each node's link about one copy.  An asker is *direct* when it has been
disappointed before: it is served here, whatever else goes on.  Since only a first request is ever
sent on, and only to somebody who asked before it, the chain has no cycles.

What is being sent keeps its memory until SERVED.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node.copies import Copies, Copy
from freehold.core.node.store import Store, Stored

NOT_HERE, ASK_OTHER = -1, -2
EARLY_WAIT = 0.2  # seconds for a SEAL that a request has overtaken
EARLY_MAX = 1000


class Serving:
    """One object on its way to one node."""

    __slots__ = ("item", "node", "transfer")

    def __init__(self, transfer: int, item: Stored | Copy, node: bytes) -> None:
        self.transfer = transfer
        self.item = item
        self.node = node


class Chain:
    """The nodes that have asked for one object since it began to be sent."""

    __slots__ = ("askers", "sending")

    def __init__(self) -> None:
        self.askers: dict[bytes, str] = {}  # node -> address, the last one last
        self.sending = 0


class Early:
    """A request for an object that its maker may be about to seal."""

    __slots__ = ("fields", "until")

    def __init__(self, fields: tuple[int, bytes, list[Any], bytes, str, bool], until: float):
        self.fields = fields
        self.until = until


class Servings:
    """All transfers from this node."""

    def __init__(self, machine: Machine, store: Store, copies: Copies, mover: Peer) -> None:
        self.machine = machine
        self.store = store
        self.copies = copies
        self.mover = mover
        self.active: dict[int, Serving] = {}
        self.chains: dict[Stored | Copy, Chain] = {}
        self.early: dict[int, Early] = {}
        self.coming: dict[tuple[bytes, bytes, int, bytes], Copy] = {}  # copies not complete yet
        self.redirected = 0
        machine.on({m.SERVE: self.on_serve})

    def on_serve(
        self, peer: Peer, now: float, transfer: int, id: bytes, place: list[Any], node: bytes,
        address: str, direct: bool,
    ) -> None:  # fmt: skip
        item = self._find(id, place)
        if item is not None:
            self._serve(transfer, item, node, address, direct)
        elif self._may_come(place) and len(self.early) < EARLY_MAX:
            fields = (transfer, id, place, node, address, direct)
            self.early[transfer] = Early(fields, now + EARLY_WAIT)
        else:
            self._lack(transfer, node)

    def _lack(self, transfer: int, node: bytes) -> None:
        """It is not here.

        That means nothing to whom this node has declared dead: what was for it has been freed.  One
        of the two goes (``head.gaps``), and until then it may ask again.
        """
        self._answer(transfer, ASK_OTHER if node in self.store.gone else NOT_HERE)

    def _find(self, id: bytes, place: list[Any]) -> Stored | Copy | None:
        holder, offset, size, node = place
        item: Stored | Copy | None
        if node != self.machine.id:
            key = (id, holder, offset, node)
            item = self.copies.by_key.get(key) or self.coming.get(key)
        elif holder == self.machine.id:
            item = self.copies.by_offset.get(offset)
            if item is not None and item.doomed:
                item = None
        else:
            item = self.store.by_offset.get(offset)
            if item is not None and item.holder != holder:
                item = None
        return item if item is not None and (item.id, item.size) == (id, size) else None

    def _may_come(self, place: list[Any]) -> bool:
        """Whether the maker's SEAL may have been overtaken by the owner's word of it."""
        return place[3] == self.machine.id and place[0] in self.machine.peers

    def _serve(
        self, transfer: int, item: Stored | Copy, node: bytes, address: str, direct: bool
    ) -> None:
        chain = self.chains.get(item)
        if chain is None:
            chain = self.chains[item] = Chain()
        other = "" if direct or node in chain.askers else next(reversed(chain.askers.values()), "")
        chain.askers.pop(node, None)
        chain.askers[node] = address
        if other:
            self.redirected += 1
            self._answer(transfer, ASK_OTHER, other=other)
            return
        chain.sending += 1
        self.active[transfer] = Serving(transfer, item, node)
        if isinstance(item, Copy):
            self.copies.read(item)
            self._answer(transfer, item.offset, item.size, item.have)
        else:
            self.store.read(item)
            self._answer(transfer, item.offset, item.size, item.size)

    def _answer(
        self, transfer: int, offset: int, size: int = 0, have: int = 0, other: str = ""
    ) -> None:
        self.machine.send(self.mover, m.SERVING, transfer, offset, size, have, other)

    def served(self, transfer: int, done: bool) -> Stored | Copy | None:
        """The reader has all, or is gone; returns what it was reading, if anything."""
        self.early.pop(transfer, None)
        serving = self.active.pop(transfer, None)
        if serving is None:  # it was not served from here
            return None
        item = serving.item
        chain = self.chains[item]
        chain.sending -= 1
        if not chain.sending:
            del self.chains[item]
        elif not done:
            chain.askers.pop(serving.node, None)
        if isinstance(item, Copy):
            self.copies.done(item)
        else:
            self.store.done(item)
        return item

    # -- ends -------------------------------------------------------------------------------------
    def halt(self, item: Copy) -> None:
        """The rest of its bytes will not come."""
        for serving in self.active.values():
            if serving.item is item:
                self.machine.send(self.mover, m.HALT, False, serving.transfer)

    def on_node_down(self, node: bytes) -> None:
        """Nobody is there to read, or to pass anything on."""
        for serving in self.active.values():
            if serving.node == node:
                self.machine.send(self.mover, m.HALT, False, serving.transfer)
        for chain in self.chains.values():
            chain.askers.pop(node, None)

    # -- requests that came early -----------------------------------------------------------------
    def settle(self, now: float) -> None:
        """Answer those whose object has come, or will not come."""
        for early in list(self.early.values()):
            transfer, id, place, node, address, direct = early.fields
            item = self._find(id, place)
            if item is None and now < early.until and self._may_come(place):
                continue
            del self.early[transfer]
            if item is not None:
                self._serve(transfer, item, node, address, direct)
            else:
                self._lack(transfer, node)

    def deadline(self) -> float:
        """When the first of them has waited long enough."""
        return min((early.until for early in self.early.values()), default=NEVER)

    def releasing(self) -> bool:
        """Whether memory will be free, or could be, when a reader is done."""
        return any(
            not serving.item.pins and serving.item.readers > 0
            if isinstance(serving.item, Copy)
            else serving.item.offset in self.store.lent
            for serving in self.active.values()
        )

    def check(self) -> None:
        """Each object is read as often as it is being sent."""
        reads: dict[Stored | Copy, int] = {}
        for serving in self.active.values():
            reads[serving.item] = reads.get(serving.item, 0) + 1
        assert reads == {item: chain.sending for item, chain in self.chains.items()}
        assert all(item.readers == count for item, count in reads.items())
        copies = self.copies.by_offset.values()
        stored = [*self.store.by_offset.values(), *self.store.lent.values()]
        items: list[Stored | Copy] = [*copies, *stored]
        for item in items:
            assert not item.readers or item in reads, f"{item.id.hex()} is read by nobody"
