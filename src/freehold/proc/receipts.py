"""Confirmations of what has come over lasting links: enough of them, and not too many.

A link's other side keeps what it has sent until it is confirmed.  So an ACK is sent after so many
frames or bytes, or after a while; one alarm serves all links.
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.core import messages as m
from freehold.proc.alarms import Alarm, Alarms
from freehold.proc.lasting import Lasting
from freehold.proc.ports import Port
from freehold.wire.codec import encode

DELAY = 0.05  # seconds
FRAMES = 128
ALONG = 32  # frames to confirm for which an ACK goes along with another frame
BYTES = 1 << 20


class Receipts:
    """The confirmations that one process owes.

    Args:
        alarms: of its host, which looks at them after each event.
        send: sends a frame by a connection.
    """

    def __init__(self, alarms: Alarms, send: Callable[[Port, bytearray], None]) -> None:
        self._alarms = alarms
        self._send = send
        self._owing: dict[Lasting, None] = {}
        self._alarm: Alarm | None = None

    def owe(self, link: Lasting, size: int, when: float) -> None:
        """So many bytes have come, in the midst of an event."""
        owed = link.owed
        if not owed:
            return
        link.got_bytes += size
        if owed >= FRAMES or link.got_bytes >= BYTES:
            self.give(link)
            return
        self._owing[link] = None
        if self._alarm is None:
            self._alarm = self._alarms.set(when + DELAY, self._give_all)

    def give(self, link: Lasting) -> None:
        """Confirm what has come over a link that has a connection."""
        self._send(link.port, encode([(m.ACK, link.tell())]))

    def _give_all(self, when: float) -> None:
        self._alarm = None
        owing, self._owing = self._owing, {}
        for link in owing:
            if link.port is not None and link.owed:
                self.give(link)
