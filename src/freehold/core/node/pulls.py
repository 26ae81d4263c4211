"""Objects that lie on other nodes, brought here: one pull for each, however many processes ask.

A pull waits for memory, then for its pages, then its bytes move (by the near peer ``mover``); after
a broken connection it rests for a while, and goes on from the bytes that it has.

::

    FETCH -> WAITING -> ALLOCATING -> MOVING -> a copy (``node.copies``): COPIED, FETCHED
                ^           |          |  ^
                `- no pages-'          v  |
                                     RESTING

*Who goes first.*  What a ``get`` waits for goes before tasks' arguments, in the order of arrival;
nothing overtakes what does not fit.  Idle copies make way; then processes give back what they keep
in reserve; then the first in line waits for copies to be released.  It is refused when that cannot
happen (nothing moves, and all who use copies wait for memory themselves), or has not happened for
``patience`` seconds, or did not suffice for a dozen times as long.

*Whom to ask.*  The node that was named, or whom that one names instead (the chain, see
``node.serving``).  Whoever was named instead may fail without harm: then the node itself is asked,
and told to name nobody.  When that one is dead, or has the object no longer, the pull ends with
``LOST``, and the owner knows what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.address import node_of
from freehold.core.machine import NEVER, Machine, Peer
from freehold.core.node.copies import KEEPER, Copies, Copy, Key
from freehold.core.node.serving import Servings
from freehold.core.node.store import Store
from freehold.errors import ProtocolError

WAITING, ALLOCATING, MOVING, RESTING = range(4)
STATES = ("waiting", "allocating", "moving", "resting")
GET, ARGUMENT = range(2)
LOST = "lost"
FULL = "ObjectStoreFull: "
PATIENCE = 5.0
PATIENCE_MOST = 12  # times that: so long at most, even if something is released now and then
MOVES_MAX = 8
PULLS_MAX = 100_000
HOPS_MAX = 8
REST_MIN, REST_MAX = 0.02, 1.0  # seconds between attempts
DEAD_MAX = 100_000  # identities remembered; each is new for each incarnation


class Pull:
    """One object on its way here."""

    __slots__ = (
        "address", "askers", "copy", "direct", "hops", "key", "kind", "orphan", "owner",
        "owner_address", "place", "rest_until", "source", "source_dead", "state", "transfer",
        "tries",
    )  # fmt: skip

    def __init__(self, key: Key, place: list[Any], source: str, owner: bytes, address: str) -> None:
        self.key = key
        self.place = place
        self.source = source  # the address of the node that was named
        self.address = source  # of the one that is asked now
        self.owner = owner
        self.owner_address = address
        self.kind = ARGUMENT
        self.askers: dict[bytes, Peer] = {}
        self.state = WAITING
        self.copy: Copy | None = None
        self.transfer = 0
        self.direct = False
        self.source_dead = False
        self.orphan = False  # its owner is dead: nobody would free the copy
        self.hops = 0
        self.tries = 0
        self.rest_until = 0.0

    @property
    def size(self) -> int:
        return int(self.place[2])

    @property
    def wanted(self) -> bool:
        """Whether a process here, or a node that gets its bytes from here, waits for it."""
        return bool(self.askers) or (self.copy is not None and self.copy.readers > 0)


class Pulls:
    """All pulls of one node, with their copies, and what the node sends to others."""

    def __init__(
        self,
        machine: Machine,
        store: Store,
        *,
        on_trouble: Callable[[bytes, float], None] = lambda node, now: None,
        patience: float = PATIENCE,
        moves_max: int = MOVES_MAX,
        pulls_max: int = PULLS_MAX,
    ) -> None:
        self.machine = machine
        self.store = store
        self.patience = patience
        self.moves_max = moves_max
        self.pulls_max = pulls_max
        self.kept: Callable[[bytes, list[Any], list[Any], str], None]  # FETCHED, of the keeper
        self.address_of: Callable[[bytes], str] = lambda node: ""  # of living nodes; else empty
        self.on_trouble = on_trouble  # no bytes come from that node
        self.mover = Peer(b"", "", "mover")
        self.copies = Copies(machine, store)
        self.servings = Servings(machine, store, self.copies, self.mover)
        self.pulls: dict[Key, Pull] = {}
        self.waiting: list[dict[Key, Pull]] = [{}, {}]  # by kind, in order
        self.moving: dict[int, Pull] = {}  # by transfer
        self.resting: dict[Key, Pull] = {}
        self.ready: dict[Key, Pull] = {}  # rested, and waiting for their turn
        self.allocating = 0
        self.dead: dict[bytes, None] = {}  # processes and nodes
        self.moved_bytes = 0
        self.failed = 0
        self._transfers = 0
        self._stirred = True  # something may have made room, or be asked for
        self._seen = (0, 0, 0)  # of the store and the copies at the last look
        self._short_at: float | None = None  # since when the first in line has waited for room
        self._short_since = 0.0  # the same; not moved on by what is released
        self._decide_at = NEVER  # when to look whether it can ever be had
        self._trim = 0  # the round in which the processes were asked for their reserves
        machine.on(
            {
                m.FETCH: self.on_fetch,
                m.UNPIN: self.on_unpin,
                m.MOVED: self.on_moved,
                m.SERVED: self.on_served,
            }
        )

    # -- processes --------------------------------------------------------------------------------
    def on_fetch(
        self, peer: Peer, now: float, id: bytes, place: list[Any], owner: bytes,
        owner_address: str, kind: int,
    ) -> None:  # fmt: skip
        check_place(place, kind)
        home = node_of(owner_address)
        address = self.address_of(place[3])
        key = (id, place[0], place[1], place[3])
        if self._is_here(peer, key, place):
            return
        pull = self.pulls.get(key)
        if pull is None:
            why = self._hopeless(place)
            if why:
                self._answer(peer, key, place, [], why)
                return
            pull = self.pulls[key] = Pull(key, place, address, owner, owner_address)
            pull.orphan = owner in self.dead or home in self.dead
            self.waiting[ARGUMENT][key] = pull
        elif pull.size != place[2]:  # of one of them, the asker or the first, the word is old
            self._answer(peer, key, place, [], LOST)
            return
        pull.askers[peer.id] = peer
        self._stirred = True
        if kind < pull.kind:
            pull.kind = kind
            if self.waiting[ARGUMENT].pop(key, None) is not None:
                self.waiting[GET][key] = pull

    def _is_here(self, peer: Peer, key: Key, place: list[Any]) -> bool:
        """Answer if the object lies in this arena already."""
        id, holder, offset, node = key
        copy = self.copies.find(key, place[2])
        if node == self.machine.id and holder == node:  # the asker has been told of a copy here
            copy = self.copies.by_offset.get(offset)
            if copy is None or copy.id != id or copy.coming or copy.doomed:
                return False
        elif node == self.machine.id:
            stored = self.store.by_offset.get(offset)
            if stored is None or (stored.id, stored.holder) != (id, holder):
                return False
            self._answer(peer, key, place, place)
            return True
        if copy is None:
            return False
        self.copies.pin(copy, peer.id)
        self._answer(peer, key, place, self.copies.place(copy))
        return True

    def _hopeless(self, place: list[Any]) -> str:
        _, _, size, node = place
        if node == self.machine.id or not self.address_of(node):
            return LOST
        if size > self.store.extents.size:
            return FULL + self.store.full(size)
        if len(self.pulls) >= self.pulls_max:
            return f"{FULL}{self.pulls_max:,} objects are waited for already"
        return ""

    def _answer(
        self, peer: Peer, key: Key, source: list[Any], place: list[Any], why: str = ""
    ) -> None:
        if peer.id == KEEPER:
            self.kept(key[0], source, place, why)
        else:
            self.machine.send(peer, m.FETCHED, key[0], source, place, why)

    def on_unpin(self, peer: Peer, now: float, offsets: list[int]) -> None:
        for offset in offsets:
            self.copies.unpin(peer.id, offset)
        self._stirred = True

    # -- memory -----------------------------------------------------------------------------------
    def settle(self, now: float) -> None:
        """Admit what fits, in order."""
        if self.servings.early:
            self.servings.settle(now)
        seen = (self.store.released, self.copies.changes, len(self.store.trims))
        if self._short_at is not None and seen[:2] != self._seen[:2]:
            self._short_at = now  # somebody has given way: the patience begins anew
        if self.store.trimmed and seen[:2] != self._seen[:2]:
            self.store.retry(now)
        if not self._stirred and seen == self._seen and now < self._decide_at:
            return
        self._stirred = False
        while self.allocating + len(self.moving) < self.moves_max:
            if self.ready:
                self._move(self.ready.pop(next(iter(self.ready))))
                continue
            queue = self.waiting[GET] or self.waiting[ARGUMENT]
            pull = next(iter(queue.values()), None)
            if pull is not None and not self._admit(pull):
                if self._refused(pull, now):
                    continue
                break
            self._short_at, self._decide_at = None, NEVER
            if pull is None:
                break
        self._seen = (self.store.released, self.copies.changes, len(self.store.trims))

    def _admit(self, pull: Pull) -> bool:
        def granted(offset: int, size: int, warm: bool, reason: str) -> None:
            self.allocating -= 1
            self._stirred = True
            if self.pulls.get(pull.key) is not pull:  # nobody needs it any more
                if size:
                    self.store.back(offset)
            elif size:
                copy = Copy(pull.key, pull.owner, pull.owner_address, offset, pull.size)
                pull.copy = self.servings.coming[pull.key] = copy
                self.copies.add(copy)
                self._move(pull)
            elif self.copies.evict(pull.size):  # their pages need no allocating
                queue = self.waiting[pull.kind]
                pull.state = WAITING
                self.waiting[pull.kind] = {pull.key: pull, **queue}
            else:
                self._fail(pull, FULL + self.store.full(pull.size, reason, self.copies.holders()))

        pull.state = ALLOCATING
        self.allocating += 1
        if self.store.grant(self.machine.id, pull.size, granted):
            self.waiting[pull.kind].pop(pull.key, None)
            return True
        self.allocating -= 1
        pull.state = WAITING
        return False

    def _refused(self, pull: Pull, now: float) -> bool:
        """Refuse the first in line if there can be no room for it; else it goes on waiting."""
        if self._short_at is None:
            self._trim = self.store.trim()
            self._short_at = self._short_since = now
        if not self._may_wait(now, self._short_at):
            self._short_at, self._decide_at = None, NEVER  # its askers may give way to the next
            self._fail(pull, FULL + self.store.full(pull.size, more=self.copies.holders()))
            return True
        return False

    def _may_wait(self, now: float, since: float) -> bool:
        """Whether room may come yet; sets the time of the next look."""
        last = self._short_since + self.patience * PATIENCE_MOST
        blocked = {asker for pull in self.waiting[GET].values() for asker in pull.askers}
        asked = self.store.patience(self._trim, since, now)
        if now < asked:
            self._decide_at = asked
        elif self.allocating or self.moving or self.servings.releasing():
            self._decide_at = last
        elif all(user in blocked for user in self.copies.pinned):
            self._decide_at = now
        else:
            self._decide_at = min(last, since + self.patience)
        return now < self._decide_at

    # -- moving -----------------------------------------------------------------------------------
    def _move(self, pull: Pull) -> None:
        copy = pull.copy
        assert copy is not None
        self._transfers += 1
        pull.state = MOVING
        pull.transfer = self._transfers
        self.moving[pull.transfer] = pull
        self.machine.send(
            self.mover, m.MOVE, pull.transfer, pull.address, copy.id, pull.place, copy.have,
            copy.offset, pull.direct,
        )  # fmt: skip

    def on_moved(
        self, peer: Peer, now: float, transfer: int, have: int, reason: str, other: str
    ) -> None:
        pull = self.moving.pop(transfer)
        copy = pull.copy
        assert copy is not None
        assert copy.have <= have <= copy.size, f"{have} of {copy.size} bytes after {copy.have}"
        if have > copy.have:
            pull.tries = 0
        self.moved_bytes += have - copy.have
        copy.have = have
        self._stirred = True
        if pull.wanted and reason not in ("", "gone"):
            self.on_trouble(_node_of(pull.address), now)
        if not pull.wanted:  # then its owner may have freed the source: who knows what came
            self._end(pull)
            self.copies.doom(copy)
        elif have == copy.size:
            self._done(pull, copy, now)
        elif other and not pull.direct and pull.hops < HOPS_MAX and not self._is_dead(other):
            pull.hops += 1
            pull.address = other
            self._move(pull)
        elif pull.source_dead or (reason == "gone" and pull.address == pull.source):
            self._fail(pull, LOST)
        elif pull.address != pull.source:  # whoever was named instead has failed
            pull.address, pull.direct = pull.source, True
            self._move(pull)
        else:
            pull.direct = True
            pull.state = RESTING
            pull.rest_until = now + min(REST_MAX, REST_MIN * 2.0**pull.tries)
            pull.tries = min(pull.tries + 1, 16)
            self.resting[pull.key] = pull

    def _done(self, pull: Pull, copy: Copy, now: float) -> None:
        self._end(pull)
        if self._short_at is not None:
            self._short_at = now
        for asker in pull.askers.values():
            self.copies.pin(copy, asker.id)
        self.copies.complete(copy, cached=not pull.orphan)  # whose owner hears first that it exists
        for asker in pull.askers.values():
            self._answer(asker, pull.key, pull.place, self.copies.place(copy))

    def _fail(self, pull: Pull, why: str) -> None:
        self.failed += 1
        self._end(pull)
        for asker in pull.askers.values():
            self._answer(asker, pull.key, pull.place, [], why)
        if pull.copy is not None:
            self.servings.halt(pull.copy)
            self.copies.doom(pull.copy)

    def _end(self, pull: Pull) -> None:
        """Forget the pull; its copy goes on, or not."""
        del self.pulls[pull.key]
        self.servings.coming.pop(pull.key, None)
        for table in (*self.waiting, self.resting, self.ready):
            table.pop(pull.key, None)
        self._stirred = True

    def _give_up(self, pull: Pull, why: str = "") -> None:
        """Nobody needs it, or it cannot be had; where bytes are moving, MOVED is waited for."""
        if pull.state == MOVING:
            self.machine.send(self.mover, m.HALT, True, pull.transfer)
        else:
            self._fail(pull, why)

    def on_served(self, peer: Peer, now: float, transfer: int, done: bool) -> None:
        item = self.servings.served(transfer, done)
        if isinstance(item, Copy) and self.servings.coming.get(item.key) is item:
            pull = self.pulls[item.key]
            if not pull.wanted:
                self._give_up(pull)

    # -- deaths -----------------------------------------------------------------------------------
    def _remember(self, dead: bytes) -> None:
        self.dead[dead] = None
        if len(self.dead) > DEAD_MAX:
            del self.dead[next(iter(self.dead))]

    def _is_dead(self, address: str) -> bool:
        """Whether the address is that of a dead node."""
        return _node_of(address) in self.dead

    def on_death(self, process: bytes) -> None:
        """A process has died, here or on another node."""
        self._remember(process)
        self.copies.on_death(process)
        for pull in list(self.pulls.values()):
            pull.orphan |= pull.owner == process
            if pull.askers.pop(process, None) is not None and not pull.wanted:
                self._give_up(pull)
        self._stirred = True

    def on_node_down(self, node: bytes) -> None:
        """A node is dead, with all its processes and objects."""
        self._remember(node)
        self.copies.on_node_down(node)
        self.servings.on_node_down(node)
        prefix = node.hex() + "|"
        for pull in list(self.pulls.values()):
            pull.orphan |= pull.owner_address.startswith(prefix)
            pull.source_dead |= pull.place[3] == node
            there = pull.address.startswith(prefix) or (
                pull.address == pull.source and pull.source_dead
            )
            if there:
                self._give_up(pull, LOST)

    # -- time -------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """When ``on_timer`` is due."""
        rested = min((pull.rest_until for pull in self.resting.values()), default=NEVER)
        return min(rested, self._decide_at, self.servings.deadline())

    def on_timer(self, now: float) -> None:
        for pull in [pull for pull in self.resting.values() if now >= pull.rest_until]:
            del self.resting[pull.key]
            self.ready[pull.key] = pull
            self._stirred = True
        self.settle(now)

    # -- people -----------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, Any]:
        """Counts."""
        waiting = [*self.waiting[GET].values(), *self.waiting[ARGUMENT].values()]
        copies = self.copies
        return {
            "pulls": len(self.pulls),
            "moving": len(self.moving),
            "resting": len(self.resting) + len(self.ready),
            "waiting": len(waiting),
            "waiting_bytes": sum(pull.size for pull in waiting),
            "copies": len(copies.by_offset),
            "copies_bytes": sum(copy.size for copy in copies.by_offset.values()),
            "pins": sum(len(copy.pins) for copy in copies.by_offset.values()),
            "serving": len(self.servings.active),
            "redirected": self.servings.redirected,
            "evicted": copies.evicted,
            "moved_bytes": self.moved_bytes,
            "failed": self.failed,
        }

    def check(self) -> None:
        """Every pull is in the one table that its state says, and all of the memory has a user."""
        self.copies.check()
        self.servings.check()
        for pull in self.pulls.values():
            tables = [pull.key in table for table in (*self.waiting, self.resting, self.ready)]
            assert sum(tables) == (pull.state in (WAITING, RESTING)), STATES[pull.state]
            assert (self.moving.get(pull.transfer) is pull) == (pull.state == MOVING)
            assert (pull.copy is not None) == (pull.state in (MOVING, RESTING))
            assert pull.wanted or pull.state == MOVING, "nobody waits for it"
            assert self.servings.coming.get(pull.key) is pull.copy
        own = len(self.store.extents.of(self.machine.id))
        assert own - self.allocating == len(self.copies.by_offset), "an extent without a copy"
        assert self.allocating + len(self.moving) <= self.moves_max


def _node_of(address: str) -> bytes:
    """The node of an address that a node has named; ``b""`` if it has none."""
    try:
        return bytes.fromhex(address.partition("|")[0])
    except ValueError:
        return b""


def check_place(place: list[Any], kind: int) -> None:
    """Raises ProtocolError when that is no place of an object."""
    types = [bytes, int, int, bytes]
    if [type(part) for part in place] != types or not (place[1] >= 0 and place[2] > 0):
        raise ProtocolError(f"{place!r:.100} is no place of an object")
    if kind not in (GET, ARGUMENT):
        raise ProtocolError(f"there is no kind {kind!r:.20} of FETCH")
