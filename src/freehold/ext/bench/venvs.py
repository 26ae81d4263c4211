"""The peers' virtual environment: made on first use, each peer installed on its own."""

import importlib.util
import json
import subprocess
import sys
import venv
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

INSTALL_LIMIT = 600.0
COMMON = "numpy"  # what every interpreter needs for the rows with arrays


class InstallError(Exception):
    """pip could not install something; the text is its last word."""


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"pip took longer than {INSTALL_LIMIT:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InstallError(lines[-1] if lines else f"pip exited with {done.returncode}")


class PeerVenv:
    """One directory, one list of what has been installed in it."""

    def __init__(self, place: Path, tell: Callable[[str], None]) -> None:
        self.place = place
        self.tell = tell
        self.python = str(place / "bin" / "python")
        self.record = place / "installed.json"
        self.installed: dict[str, str] = {}
        with suppress(OSError, ValueError):
            self.installed = json.loads(self.record.read_text())

    def _note(self, requirement: str, taken: str) -> None:
        self.installed[requirement] = taken
        self.record.write_text(json.dumps(self.installed, indent=1, sort_keys=True) + "\n")

    def _create(self) -> None:
        if not Path(self.python).exists():
            self.tell(f"making {self.place.name}")
            self.installed = {}
            venv.create(self.place, with_pip=True)
            (self.place / ".gitignore").write_text("*\n")

    def need(self, requirements: tuple[str, ...]) -> None:
        """Have the first of `requirements` that can be installed, and numpy."""
        self._create()
        for choices in ((COMMON,), requirements):
            if choices and choices[0] not in self.installed:
                self._install(choices)

    def _install(self, choices: tuple[str, ...]) -> None:
        for last, choice in enumerate(choices, 1 - len(choices)):
            self.tell(f"installing {choice}")
            try:
                _pip(self.python, choice)
            except InstallError:
                if not last:
                    raise
            else:
                self._note(choices[0], choice)
                return

    def numpy_for_us(self) -> list[str]:
        """Search path that gives this very interpreter numpy; empty when it has numpy already."""
        if importlib.util.find_spec(COMMON):
            return []
        place = self.place / "numpy-only"
        if not (place / COMMON).exists():
            self.tell(f"installing {COMMON} beside this interpreter")
            _pip(sys.executable, "--target", str(place), COMMON)
        return [str(place)]
