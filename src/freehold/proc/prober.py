"""The prober: the near peer that a head or a node asks to dial a node, and see who answers."""

from __future__ import annotations

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.proc.host import Host
from freehold.proc.probe import Probe

WITHIN = 0.5  # seconds: silence is asked again, until the asker's patience is over


class Prober:
    """The prober of one host, which calls :meth:`take` before each flush."""

    def __init__(self, host: Host, peer: Peer) -> None:
        self._host = host
        self._peer = peer

    def take(self) -> None:
        """Dial those that the machine has named."""
        if self._peer.outbox:
            frames, self._peer.outbox = self._peer.outbox, []
            for _, node, address in frames:
                self._probe(node, address)

    def _probe(self, node: bytes, address: str) -> None:
        def answer(verdict: str, when: float) -> None:
            self._host.machine.handlers[m.PROBED](self._peer, when, node, verdict)

        Probe(self._host, address, node, WITHIN, answer)
