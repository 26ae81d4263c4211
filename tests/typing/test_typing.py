"""The public types, as a user's mypy sees them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mypy import api as mypy

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"


def test_mypy_accepts_right_uses_and_refuses_wrong_ones(tmp_path: Path) -> None:
    program = HERE / "public.py"
    expected = {
        number: match[1]
        for number, line in enumerate(program.read_text().splitlines(), 1)
        if (match := re.search(r"# E: ([\w-]+)", line))
    }
    os.environ["MYPYPATH"] = str(SOURCE)
    try:
        cache = str(tmp_path / "cache")
        out, err, _ = mypy.run(
            [
                "--strict",
                "--config-file=",
                f"--cache-dir={cache}",
                "--show-error-codes",
                str(program),
            ]
        )
    finally:
        del os.environ["MYPYPATH"]
    assert not err
    found = {
        int(line): code
        for line, code in re.findall(r"public\.py:(\d+): error: .*\[([\w-]+)\]", out)
    }
    assert found == expected, out


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "freehold" / "py.typed").exists()
