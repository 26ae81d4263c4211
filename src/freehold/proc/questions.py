"""Questions of this process to the cluster's directory, by way of its node."""

from __future__ import annotations

from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.errors import FreeholdError, from_wire
from freehold.proc.runtime import Runtime
from freehold.proc.session import now

Answer = tuple[list[str], dict[str, Any]]  # error, fields


class Questions:
    """The questions of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._answers: dict[int, Answer | None] = {}
        self._asked = 0
        runtime.process.on({m.ENTRY: self._on_entry})

    def _on_entry(
        self, peer: Peer, now: float, request: int, error: list[str], fields: dict[str, Any]
    ) -> None:
        if request in self._answers:  # else nobody waits any more
            self._answers[request] = error, fields

    def ask(self, verb: str, timeout: float, **fields: Any) -> dict[str, Any]:
        """The answer's fields; see ``core.directory`` for the verbs.

        Raises:
            FreeholdError: the error that the answer names; or there was none in that many seconds.
        """
        runtime, answers = self._runtime, self._answers
        with runtime.lock:
            runtime.check_alive()
            node = runtime.owner.node
            assert node is not None
            self._asked += 1
            number = self._asked
            answers[number] = None
            runtime.machine.send(node, m.DIRECTORY, number, verb, fields)
            runtime.flush()
        runtime.wait_until(
            lambda: answers[number] is not None or bool(runtime.client.lost), now() + timeout
        )
        answer = answers.pop(number)
        if answer is None:
            runtime.check_alive()
            raise FreeholdError(f"the cluster's directory did not answer within {timeout:g} s")
        error, found = answer
        if error:
            raise from_wire(error[0], error[1])
        return found
