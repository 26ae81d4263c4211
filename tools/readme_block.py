"""Blocks of README.md that are made from results: each stands between two comments.

A block called ``bench`` is what is between ``<!-- bench:begin -->`` and ``<!-- bench:end -->``.
``tools/readme_*.py`` say what is in theirs, and are called in the same way: without arguments they
write it, with ``--check`` they only say, by their exit status, whether it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def main(name: str, made: Callable[[], str]) -> int:
    """Write or check the block.

    Args:
        name: the block's.
        made: its text, from what has been measured.

    Returns:
        the exit status.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    new = f"{before}{begin}\n{made()}\n{end}{after}"
    if "--check" in sys.argv[1:]:
        return 0 if new == text else 1
    README.write_text(new, encoding="utf-8")
    return 0
