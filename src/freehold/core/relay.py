"""Questions of a node's processes to the head's directory, and the way back of the answers.

The node numbers them itself.  What is not answered when the head goes away waits, and is sent again
to the head that comes: nothing is lost, and each is answered once.  (The head may see one twice;
every verb says the same again.)
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.errors import ProtocolError


class Question:
    """A request to the directory that has not been answered."""

    __slots__ = ("asker", "fields", "request", "verb")

    def __init__(self, asker: Peer, request: int, verb: str, fields: dict[str, Any]) -> None:
        self.asker = asker
        self.request = request
        self.verb = verb
        self.fields = fields


class Relay:
    """The questions of one node's processes."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.head: Peer | None = None  # None: the questions wait
        self.ended = ""  # why there will be no answers any more
        self.questions: dict[int, Question] = {}  # in the order in which they were asked
        self._asked = 0
        machine.on({m.DIRECTORY: self.on_directory, m.ENTRY: self.on_entry})

    def start(self, head: Peer) -> None:
        """There is a head: ask it all that has not been answered."""
        self.head = head
        for number, asked in self.questions.items():
            self.machine.send(head, m.DIRECTORY, number, asked.verb, asked.fields)

    def stop(self) -> None:
        """There is no head for now."""
        self.head = None

    def end(self, reason: str) -> None:
        """There will never be one again: nothing waits."""
        self.stop()
        self.ended = reason
        questions, self.questions = self.questions, {}
        for asked in questions.values():
            self._refuse(asked.asker, asked.request)

    def _refuse(self, asker: Peer, request: int) -> None:
        self.machine.send(asker, m.ENTRY, request, ["NodeDied", self.ended], {})

    def on_directory(
        self, peer: Peer, now: float, request: int, verb: str, fields: dict[str, Any]
    ) -> None:
        if self.ended:
            self._refuse(peer, request)
            return
        self._asked += 1
        self.questions[self._asked] = Question(peer, request, verb, fields)
        if self.head is not None:
            self.machine.send(self.head, m.DIRECTORY, self._asked, verb, fields)

    def on_entry(
        self, peer: Peer, now: float, request: int, error: list[str], fields: dict[str, Any]
    ) -> None:
        if peer is not self.head:
            raise ProtocolError(f"{peer!r} is not this node's head")
        asked = self.questions.pop(request, None)
        if asked is not None:
            self.machine.send(asked.asker, m.ENTRY, asked.request, error, fields)

    def forget(self, asker: Peer) -> None:
        """A process is gone: nobody waits for the answers."""
        for number in [n for n, asked in self.questions.items() if asked.asker is asker]:
            del self.questions[number]
