"""The node's extents: who is granted which range of the arena, and who must wait.

Extents go to processes, and to the node itself for copies of other nodes' objects (``core.pulls``).
Where room is short, copies that nobody uses make way first (``evict``); then the processes are
asked for the extents that they keep in reserve (TRIM).  An extent is handed out when its pages are
allocated (RESERVE, RESERVED), so that writing there cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.core import messages as m
from freehold.core.arena import Extents
from freehold.core.machine import Machine, Peer

Granted = Callable[[int, int, bool, str], None]  # offset, size, warm; or size 0 and why not
TRIM_WAIT = 0.05  # seconds for processes to give back what they keep in reserve


class Room:
    """The arena's extents, and the requests that wait for one."""

    def __init__(self, machine: Machine, arena_bytes: int) -> None:
        self.machine = machine
        self.extents = Extents(arena_bytes)
        self.arena = Peer(b"", "", "arena")
        self.reserved = 0  # bytes from the arena's start whose pages are allocated
        self.allocating: list[tuple[bytes, int, bool, Granted]] = []  # grants that wait for pages
        self.trimmed: list[tuple[Peer, int, int]] = []  # requests that wait for a trim
        self.trim_until = 0.0
        self.released = 0  # extents that came back
        self.evict: Callable[[int], bool] = lambda size: False  # free a copy towards that room
        machine.on(
            {
                m.EXTENT: self.on_extent,
                m.EXTENT_BACK: self.on_extent_back,
                m.RESERVED: self.on_reserved,
            }
        )

    def on_extent(self, peer: Peer, now: float, request: int, size: int) -> None:
        if self._grant_process(peer, request, size):
            return
        if size > self.extents.size:
            self._refuse(peer, request, size)
        else:  # others may have empty extents in reserve
            self.trim()
            self.trimmed.append((peer, request, size))
            self.trim_until = now + TRIM_WAIT

    def trim(self) -> None:
        """Ask the processes for what they keep in reserve."""
        for holder in dict.fromkeys(self.extents.holders.values()):
            if holder in self.machine.peers and holder != self.machine.id:
                self.machine.send(self.machine.peers[holder], m.TRIM)

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

    def retry(self, now: float, last: bool = False) -> None:
        """Grant what there is room for now; refuse the rest if this was the last try."""
        waiting, self.trimmed = self.trimmed, []
        for peer, request, size in waiting:
            if self._grant_process(peer, request, size):
                continue
            if last:
                self._refuse(peer, request, size)
            else:
                self.trimmed.append((peer, request, size))

    def on_timer(self, now: float) -> None:
        """Refuse what trimming could not make room for."""
        if self.trimmed and now >= self.trim_until:
            self.retry(now, last=True)

    def _refuse(self, peer: Peer, request: int, size: int, why: str = "") -> None:
        text = self.full(size, why)
        self.machine.send(peer, m.EXTENT_GRANT, request, 0, 0, False, text)

    def full(self, size: int, why: str = "", more: str = "") -> str:
        """Why there is no room."""
        text = f"{why}; " if why else ""
        return f"{text}no room for {size:,} bytes in the arena of {self.extents.size:,} bytes{more}"

    def forget(self, dead: bytes) -> None:
        """The process is dead: what it has asked for is needed no longer."""
        self.trimmed = [entry for entry in self.trimmed if entry[0].id != dead]
        self.allocating = [entry for entry in self.allocating if entry[0] != dead]
