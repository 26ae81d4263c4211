"""Every transcript says what happens now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("scenario_run", Path(__file__).with_name("run.py"))
assert _spec is not None
assert _spec.loader is not None
run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run)


@pytest.mark.parametrize("path", run.scenarios(), ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert run.perform(text) == text, "if this is meant: python tests/scenarios/run.py --accept"


def test_there_are_scenarios_and_no_empty_ones() -> None:
    assert len(run.scenarios()) >= 10
    for path in run.scenarios():
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert "\n    " in text


def test_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match="no command"):
        run.perform("start\ndriver dance\n")
