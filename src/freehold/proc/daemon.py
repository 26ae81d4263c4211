"""How a daemon is started, answers, and stands on its own.

The starter writes the configuration to the daemon's standard input and waits for one line:
``ready`` or ``error``, and a JSON object.  An embedded daemon keeps its standard input, whose end
tells it that the starter is gone.  A *standing* one lets go of the terminal instead: it prints to
``log`` in its session directory, and ends on SIGTERM, in good order.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any, NoReturn

import msgspec

from freehold.errors import FreeholdError, NodeDied, from_wire
from freehold.io import procs

START_TIMEOUT = 30.0  # seconds until the answer
EXIT_TIMEOUT = 1.0  # seconds from the end of its output to its own
LOG = "log"
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def code(module: str) -> str:
    """The program of a daemon; the package may be where only its starter looks for it."""
    root = os.path.dirname(PACKAGE)
    return f"import sys; sys.path.append({root!r}); from freehold.proc.{module} import main; main()"


# -- the starter's side --------------------------------------------------------------------------


def start(module: str, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the daemon whose ``main`` that module of this package has; see :func:`answer`."""
    return procs.start_python(code(module), msgspec.msgpack.encode(config))


def answer(process: subprocess.Popen[bytes], name: str) -> dict[str, Any]:
    """What the daemon has to say once it is ready.

    Raises:
        FreeholdError: why it is not, of the class that the daemon says.
        NodeDied: it died, or took too long.
    """
    assert process.stdout is not None
    line = procs.read_line(process.stdout, START_TIMEOUT)
    word, _, rest = line.partition(b" ")
    if word not in (b"ready", b"error"):
        returned = procs.wait_or_kill(process, EXIT_TIMEOUT)
        raise NodeDied(f"the {name} daemon could not start; it exited with code {returned}")
    fields: dict[str, Any] = msgspec.json.decode(rest)
    if word == b"error":
        process.wait(START_TIMEOUT)
        raise from_wire(fields["kind"], fields["text"])
    return fields


def release(process: subprocess.Popen[bytes]) -> None:
    """Let go of a daemon that stands on its own."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.returncode = 0  # nothing is to be waited for


# -- the daemon's side ---------------------------------------------------------------------------


def say_ready(**fields: Any) -> None:
    """Tell the starter."""
    os.write(1, b"ready " + msgspec.json.encode(fields) + b"\n")


def say_error(error: Exception) -> None:
    """Tell the starter why there will be no daemon."""
    known = isinstance(error, FreeholdError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    fields = {"kind": type(error).__name__, "text": text}
    os.write(1, b"error " + msgspec.json.encode(fields) + b"\n")


def log_errors(directory: str) -> None:
    """From now on what goes wrong is told to the log, also by processes forked later."""
    procs.redirect(os.path.join(directory, LOG), 2)


def detach(directory: str) -> None:
    """Let go of the starter, which has its answer."""
    procs.redirect("", 0)
    procs.redirect(os.path.join(directory, LOG), 1)


def start_over(module: str, config: dict[str, Any]) -> NoReturn:
    """Become a fresh daemon in the same process: nothing of the old one's memory is kept."""
    procs.execute_python(code(module), msgspec.msgpack.encode(config))
