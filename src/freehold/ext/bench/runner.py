"""One system in one process: start it, read its results, clean up after it."""

import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .systems import processes

HERE = Path(__file__).resolve().parent
PEER = HERE / "peer.py"
START_LIMIT = 90.0
PROBE_LIMIT = 60.0
END_LIMIT = 20.0
GRACE = 5.0
RESTARTS = 4
PIECE = 1 << 16


@dataclass(frozen=True)
class Job:
    """What to run, with which interpreter, how long a sample is."""

    module: str
    python: str
    search: tuple[str, ...]
    seconds: float
    quick: bool


@dataclass
class Outcome:
    """What one run of one system gave."""

    version: str = ""
    values: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # probe -> reason
    seconds: float = 0.0
    failed: str = ""  # reason why the system did not start at all


class _Peer:
    """The child process, its lines, and everything it starts."""

    def __init__(self, job: Job, probes: Sequence[str]) -> None:
        self.tag = uuid.uuid4().hex
        self.place = Path(tempfile.mkdtemp(prefix="fhb-"))
        self.errors = (self.place / "stderr").open("w+b")
        self.seen: processes.Seen = {}
        self.text = b""
        self.patience = END_LIMIT  # how long it may take to end by itself
        quick = "1" if job.quick else "0"
        command = [job.python, str(PEER), job.module, str(job.seconds), quick, *probes]
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=self.place,
            env=self._environment(job),
            start_new_session=True,
        )
        self.selector = selectors.DefaultSelector()
        assert self.child.stdout is not None
        self.selector.register(self.child.stdout, selectors.EVENT_READ)

    def _environment(self, job: Job) -> dict[str, str]:
        dropped = (
            "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS",
            "RAY_ADDRESS", "VIRTUAL_ENV",
        )  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return kept | {
            "PYTHONPATH": os.pathsep.join((str(HERE), *job.search)),
            processes.TAG: self.tag,
            "TMPDIR": str(self.place),
            "RAY_TMPDIR": str(self.place),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> Self:
        return self

    def message(self, limit: float) -> dict[str, Any] | None:
        """The next line, or None at the end of the stream; TimeoutError after `limit` seconds."""
        assert self.child.stdout is not None
        deadline = time.monotonic() + limit
        while b"\n" not in self.text:
            if not self.selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            piece = os.read(self.child.stdout.fileno(), PIECE)
            if not piece:
                return None
            self.text += piece
        line, _, self.text = self.text.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def last_words(self) -> str:
        """How the child ended, and the last line of what it said."""
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(1.0)
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"exit {self.child.poll()}: {lines[-1][:200] if lines else 'no message'}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child and whatever it left behind."""
        self.seen = processes.members(self.tag, self.child.pid)
        try:
            if kind:
                self.patience = 0.0
            self.child.wait(self.patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._clean(min(GRACE, self.patience))

    def _clean(self, grace: float) -> None:
        if self.child.poll() is None:
            with suppress(OSError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        processes.end_all(self.tag, self.seen, grace)
        self.selector.close()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self.errors.close()
        shutil.rmtree(self.place, ignore_errors=True)


def _follow(peer: _Peer, due: list[str], outcome: Outcome, tell: Callable[[str], None]) -> None:
    """Take the child's lines until its end; what it has measured leaves `due`."""
    started = False
    while True:
        try:
            message = peer.message(PROBE_LIMIT if started else START_LIMIT)
            trouble = "" if message else peer.last_words()
        except TimeoutError:
            message, trouble = None, f"no answer within {PROBE_LIMIT:.0f} s"
            peer.patience = 0.0
        if message is None:
            if started and due:
                outcome.skipped[due.pop(0)] = trouble
            elif not started:
                outcome.failed = trouble
            return
        if "end" in message:
            due.clear()
            return
        if "version" in message:
            outcome.version = message["version"]
            due[:] = message["due"]
        started = started or "started" in message
        if "probe" in message:
            _take(message, due, outcome)
        tell(due[0] if due else "")


def _take(message: dict[str, Any], due: list[str], outcome: Outcome) -> None:
    probe = message["probe"]
    del due[: due.index(probe) + 1]
    if "skip" in message:
        outcome.skipped[probe] = message["skip"]
    else:
        outcome.values.update(message["values"])


def run(job: Job, probes: Sequence[str], tell: Callable[[str], None]) -> Outcome:
    """Measure one system once. A probe that hangs or crashes is skipped, the rest goes on."""
    outcome = Outcome()
    begin = time.monotonic()
    due = list(probes)
    for _ in range(1 + RESTARTS):
        if not due or outcome.failed:
            break
        with _Peer(job, due) as peer:
            _follow(peer, due, outcome, tell)
    for probe in due:
        outcome.skipped.setdefault(probe, outcome.failed or "the system crashed too often")
    outcome.seconds = time.monotonic() - begin
    return outcome
