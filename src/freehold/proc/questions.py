"""Questions of this process to the cluster's directory, by way of its node."""

from __future__ import annotations

from typing import Any

from freehold.errors import FreeholdError, from_wire
from freehold.proc.runtime import Runtime
from freehold.proc.session import now


class Questions:
    """The questions of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def ask(self, verb: str, timeout: float, **fields: Any) -> dict[str, Any]:
        """The answer's fields; see ``core.directory`` for the verbs.

        Raises:
            FreeholdError: the error that the answer names; or there was none in that many seconds.
        """
        runtime = self._runtime
        questions = runtime.process.questions
        answers = questions.answers
        with runtime.lock:
            runtime.check_alive()
            number = questions.ask_directory(verb, fields)
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
