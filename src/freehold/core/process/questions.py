"""What a process asks its node on behalf of people: tables, the directory, printed lines.

Each question has a number.  Its answer is None until it has come, and nobody's once it has been
popped: what comes too late is dropped.
"""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Machine, Peer
from freehold.core.process.owner import Owner
from freehold.core.process.requests import Requests

Answer = tuple[list[str], dict[str, Any]]  # error ([] or [class name, text]), fields


class Questions:
    """The questions of one process.

    Attributes:
        statuses: question -> the node's tables.
        answers: question -> what the directory of the cluster says.
        drained: the last question about printed lines that has been answered.
        logs: lines to show to the user: pid, name, stream, lines; pid 0 if they are freehold's own.
    """

    def __init__(self, machine: Machine, owner: Owner, requests: Requests) -> None:
        self.machine = machine
        self.owner = owner
        self.requests = requests
        self.statuses: dict[int, dict[str, Any] | None] = {}
        self.answers: dict[int, Answer | None] = {}
        self.drained = 0
        self.logs: list[tuple[int, str, str, list[str]]] = []
        self._asked = 0
        machine.on(
            {
                m.STATUS_REPLY: self.on_status_reply,
                m.ENTRY: self.on_entry,
                m.DRAINED: self.on_drained,
                m.LOG: self.on_log,
                m.DELAYED: self.on_delayed,
            }
        )

    def _ask(self, op: int, *fields: Any) -> int:
        assert self.owner.node is not None
        self._asked += 1
        self.machine.send(self.owner.node, op, self._asked, *fields)
        return self._asked

    def ask_status(self) -> int:
        """Ask the node for its tables."""
        number = self._ask(m.STATUS)
        self.statuses[number] = None
        return number

    def on_status_reply(self, peer: Peer, now: float, request: int, status: dict[str, Any]) -> None:
        if request in self.statuses:
            self.statuses[request] = status

    def ask_directory(self, verb: str, fields: dict[str, Any]) -> int:
        """Ask the head's directory, by way of the node; see ``head.directory`` for the verbs."""
        number = self._ask(m.DIRECTORY, verb, fields)
        self.answers[number] = None
        return number

    def on_entry(
        self, peer: Peer, now: float, request: int, error: list[str], fields: dict[str, Any]
    ) -> None:
        if request in self.answers:
            self.answers[request] = error, fields

    def ask_logs(self) -> int:
        """Ask for everything that was printed until now; it has come when ``drained`` says so."""
        return self._ask(m.DRAIN)

    def on_drained(self, peer: Peer, now: float, request: int) -> None:
        self.drained = request

    def on_log(
        self, peer: Peer, now: float, pid: int, name: str, stream: str, lines: list[str]
    ) -> None:
        self.logs.append((pid, name, stream, lines))

    def on_delayed(self, peer: Peer, now: float, request: int, seconds: float, reason: str) -> None:
        name = self.requests.name(request)
        if name:
            line = f"{name} has waited for {seconds:g} s: {reason}"
            self.logs.append((0, "freehold", "err", [line]))
