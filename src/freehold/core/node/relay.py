"""Questions of a node's processes to the head's directory, and the way back of the answers.

The node numbers them itself.  What is not answered when the head goes away waits, and is sent again
to the head that comes: nothing is lost, and each is answered once.  (The head may see one twice;
every verb says the same again.)

A name that goes with a process (``proc``) is forgotten here when that process dies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.head.directory import flaw_of
from freehold.core.machine import Machine, Peer
from freehold.errors import ProtocolError

Then = Callable[[list[Any], dict[str, Any], float], None]  # takes the answer: error, fields, time
Name = tuple[str, str, bytes]  # namespace, name, value


class Question:
    """A request to the directory that has not been answered."""

    __slots__ = ("asker", "fields", "request", "then", "verb")

    def __init__(
        self,
        asker: Peer | None,
        request: int,
        verb: str,
        fields: dict[str, Any],
        then: Then | None = None,
    ) -> None:
        self.asker = asker  # None: the node itself
        self.request = request
        self.then = then
        self.verb = verb
        self.fields = fields


class Relay:
    """The questions of one node's processes."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.head: Peer | None = None  # None: the questions wait
        self.ended = ""  # why there will be no answers any more
        self.questions: dict[int, Question] = {}  # in the order in which they were asked
        self.names: dict[bytes, set[Name]] = {}  # process -> names that go with it
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
        self.names.clear()  # the head forgets them, with the node
        questions, self.questions = self.questions, {}
        for asked in questions.values():
            if asked.asker is not None:
                self._refuse(asked.asker, asked.request)

    def _refuse(self, asker: Peer, request: int) -> None:
        self.machine.send(asker, m.ENTRY, request, ["NodeDied", self.ended], {})

    def inquire(self, verb: str, fields: dict[str, Any], then: Then | None = None) -> None:
        """Ask for the node itself.  Nothing comes if this node is no member any more."""
        if not self.ended:
            self._ask(Question(None, 0, verb, fields, then))

    def on_directory(
        self, peer: Peer, now: float, request: int, verb: str, fields: dict[str, Any]
    ) -> None:
        if self.ended:
            self._refuse(peer, request)
            return
        self._ask(Question(peer, request, verb, fields))

    def _ask(self, asked: Question) -> None:
        self._asked += 1
        self.questions[self._asked] = asked
        if self.head is not None:
            self.machine.send(self.head, m.DIRECTORY, self._asked, asked.verb, asked.fields)

    def on_entry(
        self, peer: Peer, now: float, request: int, error: list[str], fields: dict[str, Any]
    ) -> None:
        if self.ended:
            return  # it was answered before the head refused this node
        if peer is not self.head:
            raise ProtocolError(f"{peer!r} is not this node's head")
        asked = self.questions.pop(request, None)
        if asked is None:
            return
        proc = asked.fields.get("proc")
        if proc and asked.verb == "name" and not error:
            self.names.setdefault(proc, set()).add(_name_of(asked))
        if asked.asker is not None:
            if asked.verb == "forget" and not error:
                self.names.get(asked.asker.id, set()).discard(_name_of(asked))
            self.machine.send(asked.asker, m.ENTRY, asked.request, error, fields)
        elif asked.then is not None:
            asked.then(error, fields, now)

    def forget(self, asker: Peer) -> None:
        """A process is gone: nobody waits for the answers, and its names go."""
        names = self.names.pop(asker.id, set())
        for number in [n for n, asked in self.questions.items() if asked.asker is asker]:
            asked = self.questions.pop(number)
            mine = asked.verb == "name" and asked.fields.get("proc") == asker.id
            if mine and not flaw_of("name", asked.fields):
                names.add(_name_of(asked))  # the head may have it already
        for namespace, name, value in sorted(names):
            fields = {"namespace": namespace, "name": name, "value": value}
            self.inquire("forget", fields)


def _name_of(asked: Question) -> Name:
    fields = asked.fields
    return fields["namespace"], fields["name"], fields.get("value", b"")
