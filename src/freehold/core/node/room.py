"""The node's extents: who is granted which range of the arena, and who must wait.

Extents go to processes, and to the node itself for copies of other nodes' objects (``node.pulls``).
Where room is short, copies that nobody uses make way first (``evict``); then the processes are
asked for the extents that they keep in reserve (TRIM).  What finds no room a moment later, when all
have answered (TRIMMED), is refused.  An extent is handed out when its pages are allocated (RESERVE,
RESERVED), so that writing there cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from freehold.core import messages as m
from freehold.core.arena import Extents
from freehold.core.machine import NEVER, Machine, Peer

Granted = Callable[[int, int, bool, str], None]  # offset, size, warm; or size 0 and why not
TRIM_WAIT = 0.05  # seconds that are waited in any case: something may be released just now
ANSWER_WAIT = 1.0  # seconds after which no answer is waited for: the process may have been stopped


class Waiting(NamedTuple):
    """A process's request for an extent, for which there is no room yet.

    Attributes:
        round: of the last TRIM that may help it.
        since: when it was made.
    """

    peer: Peer
    request: int
    size: int
    round: int
    since: float


class Room:
    """The arena's extents, and the requests that wait for one."""

    def __init__(self, machine: Machine, arena_bytes: int) -> None:
        self.machine = machine
        self.extents = Extents(arena_bytes)
        self.arena = Peer(b"", "", "arena")
        self.reserved = 0  # bytes from the arena's start whose pages are allocated
        self.allocating: list[tuple[bytes, int, bool, Granted]] = []  # grants that wait for pages
        self.trimmed: list[Waiting] = []
        self.look_at = NEVER  # when to see whether one of them has to be refused
        self.trims: dict[int, set[bytes]] = {}  # round -> processes that have yet to answer
        self.rounds = 0
        self.released = 0  # extents that came back
        self.evict: Callable[[int], bool] = lambda size: False  # free a copy towards that room
        machine.on(
            {
                m.EXTENT: self.on_extent,
                m.EXTENT_BACK: self.on_extent_back,
                m.RESERVED: self.on_reserved,
                m.TRIMMED: self.on_trimmed,
            }
        )

    def on_extent(self, peer: Peer, now: float, request: int, size: int) -> None:
        if self._grant_process(peer, request, size):
            return
        if size > self.extents.size:
            self._refuse(peer, request, size)
        else:  # others may have empty extents in reserve
            self.trimmed.append(Waiting(peer, request, size, self.trim(), now))
            self.retry(now)

    def trim(self) -> int:
        """Ask the processes for what they keep in reserve; the number of the round."""
        peers = self.machine.peers
        holders = dict.fromkeys(self.extents.holders.values())
        self._ask([peers[one] for one in holders if one in peers and one != self.machine.id])
        return self.rounds

    def chase(self, holder: Peer) -> None:
        """That process got memory back: if somebody waits for room, it is asked again."""
        if self.trimmed:
            self._ask([holder])
            self.trimmed = [waiting._replace(round=self.rounds) for waiting in self.trimmed]

    def _ask(self, holders: list[Peer]) -> None:
        self.rounds += 1
        for holder in holders:
            self.machine.send(holder, m.TRIM, self.rounds)
        if holders:
            self.trims[self.rounds] = {holder.id for holder in holders}

    def on_trimmed(self, peer: Peer, now: float, round: int) -> None:
        self._answered(peer.id, [round])
        self.retry(now)

    def _answered(self, process: bytes, rounds: list[int]) -> None:
        for round in rounds:
            left = self.trims.get(round, set())
            left.discard(process)
            if not left:
                self.trims.pop(round, None)

    def _grant_process(self, peer: Peer, request: int, size: int) -> bool:
        def granted(offset: int, length: int, warm: bool, reason: str) -> None:
            if length:
                self.machine.send(peer, m.EXTENT_GRANT, request, offset, length, warm, "")
            else:
                self._refuse(peer, request, size, reason)

        return self.grant(peer.id, size, granted)

    def grant(self, holder: bytes, size: int, granted: Granted) -> bool:
        """Grant an extent, as soon as its pages are allocated; False when there is no room.

        Copies that nobody uses make way.  ``granted`` is called now or later, once.
        """
        while (found := self.extents.grant(holder, size)) is None:
            if not self.evict(size):
                return False
        offset, warm = found
        length = self.extents.sizes[offset]
        if offset + length <= self.reserved:
            granted(offset, length, warm, "")
        else:
            self.allocating.append((holder, offset, warm, granted))
            self.machine.send(self.arena, m.RESERVE, offset + length)
        return True

    def back(self, offset: int) -> None:
        """The extent is free again."""
        self.extents.back(offset)
        self.released += 1

    def on_reserved(self, peer: Peer, now: float, end: int, reason: str) -> None:
        if not reason:
            self.reserved = max(self.reserved, end)
        waiting, self.allocating = self.allocating, []
        for entry in waiting:
            _, offset, warm, granted = entry
            size = self.extents.sizes[offset]
            if offset + size <= self.reserved:
                granted(offset, size, warm, "")
            elif offset + size == end:
                self.back(offset)
                granted(offset, 0, False, reason)
            else:
                self.allocating.append(entry)

    def on_extent_back(self, peer: Peer, now: float, offset: int) -> None:
        if self.extents.holders.get(offset) == peer.id:
            self.back(offset)
            self.retry(now)

    def retry(self, now: float) -> None:
        """Grant what there is room for now; refuse those for whom there can be none."""
        before, self.trimmed = self.trimmed, []
        self.look_at = NEVER
        for waiting in before:
            if self._grant_process(waiting.peer, waiting.request, waiting.size):
                continue
            until = self.patience(waiting.round, waiting.since, now)
            if now < until:
                self.trimmed.append(waiting)
                self.look_at = min(self.look_at, until)
            else:
                self._refuse(waiting.peer, waiting.request, waiting.size)

    def patience(self, round: int, since: float, now: float) -> float:
        """Until when who asked then, and has had that round made, waits at the most."""
        if now < since + TRIM_WAIT:
            return since + TRIM_WAIT
        return since + ANSWER_WAIT if any(asked <= round for asked in self.trims) else now

    def on_timer(self, now: float) -> None:
        """Refuse what trimming could not make room for."""
        if now >= self.look_at:
            self.retry(now)

    def _refuse(self, peer: Peer, request: int, size: int, why: str = "") -> None:
        text = self.full(size, why)
        self.machine.send(peer, m.EXTENT_GRANT, request, 0, 0, False, text)

    def full(self, size: int, why: str = "", more: str = "") -> str:
        """Why there is no room."""
        text = f"{why}; " if why else ""
        return f"{text}no room for {size:,} bytes in the arena of {self.extents.size:,} bytes{more}"

    def forget(self, dead: bytes) -> None:
        """The process is dead: what it has asked for is needed no longer."""
        self.trimmed = [waiting for waiting in self.trimmed if waiting.peer.id != dead]
        self.allocating = [entry for entry in self.allocating if entry[0] != dead]
        self._answered(dead, list(self.trims))
