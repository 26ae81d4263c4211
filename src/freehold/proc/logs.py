"""What tasks print, at the driver: each line prefixed with who printed it, repeats folded."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO


class LogView:
    """Writes workers' lines to the driver's standard streams."""

    def __init__(self) -> None:
        self._last = ("", "")  # stream, text without the prefix
        self._repeats = 0
        self._pids: set[int] = set()

    def show(self, logs: list[tuple[int, str, str, list[str]]]) -> None:
        """Show ``(pid, name, stream, lines)`` entries."""
        for pid, name, stream, lines in logs:
            for line in lines:
                self._line(pid, name, stream, line)
        for stream in ("out", "err"):
            self._write(stream, "")

    def _line(self, pid: int, name: str, stream: str, line: str) -> None:
        if (stream, line) == self._last:
            self._repeats += 1
            self._pids.add(pid)
            return
        self._unfold()
        self._last = (stream, line)
        who = f"{name or 'worker'} pid={pid}" if pid else name
        self._write(stream, f"({who}) {line}")

    def _unfold(self) -> None:
        if self._repeats:
            times = "once" if self._repeats == 1 else f"{self._repeats} times"
            where = f"{len(self._pids)} process" + ("es" if len(self._pids) > 1 else "")
            self._write(self._last[0], f"  ... the line above {times} more, from {where}")
        self._repeats = 0
        self._pids.clear()

    def _write(self, stream: str, text: str) -> None:
        file = _stream(stream)
        if file is None:  # the program was started without it
            return
        with contextlib.suppress(OSError, ValueError):  # the stream may be closed or full
            file.write(text + "\n") if text else file.flush()

    def close(self) -> None:
        """Show the count of what is still folded."""
        self._unfold()
        self._write("out", "")
        self._write("err", "")


def _stream(name: str) -> TextIO | None:
    """The driver's stream as it is now; programs and test runners replace them."""
    return sys.stderr if name == "err" else sys.stdout
