"""The examples run, print what they promise, and notice what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sessions import SOURCE, left_over, until

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LINES_MAX = 80
RUNS = [
    ("wordcount.py", "--words 4000 --reducers 3", r"4,000 words, [\d,]+ different, in 8 texts"),
    ("wordcount.py", "--words 800 --reducers 1", r" word1\n"),
    ("wordcount.py", f"{EXAMPLES / 'wordcount.py'}", r" counter\n(?s:.*) in 1 texts"),
    ("parameter_server.py", "--steps 20", r"step    0  loss 2\.3026\n(?s:.*)step   20  loss 0\."),
    ("parameter_server.py", "--steps 10 --shards 1 --workers 1", r"step   10  loss \d\.\d+"),
    ("model_server.py", "--requests 40 --rate 200", r"p99 [\d.]+ ms; router read 0\.0 MB"),
    ("model_server.py", "--requests 40 --rate 200 --by-value", r"router read 24\.0 MB"),
]


def run(name: str, arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The example, in a process of its own, with what it starts in that directory."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments.split()],
        env={**os.environ, "PYTHONPATH": SOURCE, "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("name", "arguments", "prints"), RUNS, ids=lambda text: str(text)[:36])
def test_example(name: str, arguments: str, prints: str, tmp_path: Path) -> None:
    done = run(name, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(prints, done.stdout), done.stdout
    assert not done.stderr
    until(lambda: not left_over(str(tmp_path)), 5.0, "the example leaves something")


def test_an_example_that_goes_wrong_says_so(tmp_path: Path) -> None:
    done = run("parameter_server.py", "--steps 0", tmp_path)
    assert done.returncode == 1
    assert "the loss has not fallen" in done.stderr


def test_every_example_is_run_here_and_is_short() -> None:
    assert {name for name, *_ in RUNS} == {path.name for path in EXAMPLES.glob("*.py")}
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < LINES_MAX, path.name
