"""The generated pages are what their generators write now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_protocol_page_is_current() -> None:
    generator = [sys.executable, "tools/protocol_docs.py", "--check", "docs/protocol.md"]
    found = subprocess.run(generator, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr + "run `make docs`"
