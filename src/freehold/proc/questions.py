"""Questions of this process to the cluster's directory, by way of its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core import messages as m
from freehold.core.machine import Peer
from freehold.errors import FreeholdError, from_wire
from freehold.proc.runtime import Runtime
from freehold.proc.session import now

NEVER = float("inf")


class Questions:
    """The questions of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._calls: dict[int, Callable[[list[str]], None]] = {}
        runtime.process.on({m.ENTRY: self._on_entry})

    def _on_entry(
        self, peer: Peer, now: float, request: int, error: list[str], fields: dict[str, Any]
    ) -> None:
        questions = self._runtime.process.questions
        questions.on_entry(peer, now, request, error, fields)
        call = self._calls.pop(request, None)
        if call is not None:
            del questions.answers[request]
            call(error)

    def ask(self, verb: str, timeout: float, **fields: Any) -> dict[str, Any]:
        """The answer's fields; see ``core.head.directory`` for the verbs.

        Raises:
            FreeholdError: the error that the answer names; or there was none in that many seconds.
        """
        found = self.answer(self.start(verb, **fields), timeout)
        if found is None:
            raise FreeholdError(f"the cluster's directory did not answer within {timeout:g} s")
        return found

    def start(
        self, verb: str, call: Callable[[list[str]], None] | None = None, **fields: Any
    ) -> int:
        """Ask; the question's number, for ``answer``, unless ``call`` is to get the error."""
        runtime = self._runtime
        with runtime.lock:
            runtime.check_alive()
            number = runtime.process.questions.ask_directory(verb, fields)
            if call is not None:
                self._calls[number] = call
            runtime.flush()
        return number

    def answer(self, number: int, timeout: float = NEVER) -> dict[str, Any] | None:
        """The answer's fields, once; None if it does not come in time.

        Raises:
            FreeholdError: the error that the answer names.
        """
        runtime = self._runtime
        answers = runtime.process.questions.answers

        def come() -> bool:
            return answers[number] is not None or bool(runtime.client.lost) or runtime.closed

        try:
            runtime.wait_until(come, now() + timeout)
        finally:
            answer = answers.pop(number)
        if answer is None:
            runtime.check_alive()
            return None
        error, found = answer
        if error:
            raise from_wire(error[0], error[1])
        return found


def asking(runtime: Runtime) -> Questions:
    """The questions of that runtime, made at the first."""
    if runtime.questions is None:
        runtime.questions = Questions(runtime)
    questions: Questions = runtime.questions
    return questions
