"""Medians, spreads, ratios and goals; and the file they are kept in."""

import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .rows import CONTENDERS, FLOOR, FREEHOLD, RAY, ROWS, Goal, Row
from .runner import Outcome

PLACES = re.compile(r"(?<![\w.:/-])(?:~|\.{0,2})(?:/[^\s/'\",:;()<>]+)+/?")
ADDRESSES = re.compile(r"\b[a-z+]+://\S+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
HEX = re.compile(r"\b[0-9a-f]{16,}\b")
COLORS = re.compile(r"\x1b\[[0-9;]*m")
REASON = 160


def clean(text: str) -> str:
    """`text` without paths, addresses, long ids and the name of this machine."""
    for pattern, word in ((COLORS, ""), (ADDRESSES, "<address>"), (HEX, "<id>")):
        text = pattern.sub(word, text)
    text = PLACES.sub(lambda match: os.path.basename(match[0].rstrip("/")), text)
    host = platform.node()
    return (text.replace(host, "<host>") if host else text)[:REASON]


@dataclass(frozen=True)
class Spread:
    """The repetitions of one metric."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.samples)

    def half_width(self) -> float:
        """Half of max - min, as a part of the median."""
        middle = self.median
        return (max(self.samples) - min(self.samples)) / 2 / middle if middle else 0.0

    def to_json(self) -> dict[str, Any]:
        """Median, extremes, samples."""
        return {
            "median": _short(self.median),
            "min": _short(min(self.samples)),
            "max": _short(max(self.samples)),
            "samples": [_short(sample) for sample in self.samples],
        }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


@dataclass
class Results:
    """Everything that one run of the benchmark has found."""

    command: str
    date: str
    repetitions: int
    quick: bool
    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # "system" or "system probe" -> reason
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)  # seconds, by system

    def add(self, name: str, outcome: Outcome) -> None:
        """Take in one repetition of one system."""
        self.spent[name] = self.spent.get(name, 0.0) + outcome.seconds
        if outcome.version:
            self.versions[name] = outcome.version
        for key, value in outcome.values.items():
            self.samples.setdefault((name, key), []).append(value)
        if outcome.failed:
            self.skip(name, outcome.failed)
            return
        for probe, reason in outcome.skipped.items():
            self.skip(f"{name} {probe}", reason)

    def skip(self, what: str, reason: str) -> None:
        """Remember why something is missing."""
        self.skipped.setdefault(what, clean(reason))

    def spread(self, name: str, row: Row) -> Spread | None:
        """What a system has for a row."""
        found = self.samples.get((name, row.key))
        return Spread(tuple(found)) if found else None

    def systems(self) -> list[str]:
        """The systems with any result, in the order of the table."""
        present = {name for name, _ in self.samples}
        return [entry.name for entry in CONTENDERS if entry.name in present]

    def rows(self) -> list[Row]:
        """The rows with any result."""
        present = {key for _, key in self.samples}
        return [row for row in ROWS if row.key in present]

    def best_peer(self, row: Row) -> str:
        """The best system other than freehold, Ray and the floor; empty when there is none."""
        found = {
            name: spread.median
            for name in self.systems()
            if name not in (FREEHOLD, RAY, FLOOR) and (spread := self.spread(name, row))
        }
        if not found:
            return ""
        return (max if row.higher else min)(found, key=lambda name: found[name])

    def ratio(self, row: Row, to: str, name: str = FREEHOLD) -> float | None:
        """How many times better `name` is than `to`."""
        ours, theirs = self.spread(name, row), self.spread(to, row)
        if not ours or not theirs:
            return None
        better, worse = (ours, theirs) if row.higher else (theirs, ours)
        return better.median / worse.median if worse.median > 0 else None

    def met(self, row: Row, goal: Goal) -> bool | None:
        """Whether a goal is met; None when this run cannot tell."""
        if goal.against == "value":
            ours = self.spread(FREEHOLD, row)
            if not ours:
                return None
            return ours.median >= goal.bound if row.higher else ours.median <= goal.bound
        ratio = self.ratio(row, goal.against)
        return None if ratio is None else ratio >= goal.bound

    def missed(self) -> list[str]:
        """The goals that this run shows as missed."""
        return [
            f"{row.label}: {goal.text(row)}"
            for row in ROWS
            for goal in row.goals
            if self.met(row, goal) is False
        ]

    def to_json(self) -> dict[str, Any]:
        """The whole, as plain data."""
        return {
            "date": self.date,
            "command": self.command,
            "repetitions": self.repetitions,
            "quick": self.quick,
            "seconds": round(self.seconds, 1),
            "seconds_by_system": {name: round(spent, 1) for name, spent in self.spent.items()},
            "machine": machine(),
            "versions": self.versions,
            "skipped": self.skipped,
            "rows": [self._row(row) for row in self.rows()],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        spreads = {name: self.spread(name, row) for name in self.systems()}
        ratios = {name: self.ratio(row, name) for name in self.systems() if name != FREEHOLD}
        return {
            "key": row.key,
            "label": row.label,
            "unit": row.unit,
            "better": "higher" if row.higher else "lower",
            "systems": {name: found.to_json() for name, found in spreads.items() if found},
            "best_peer": self.best_peer(row) or None,
            "times_better_than": {name: _short(ratio) for name, ratio in ratios.items() if ratio},
            "goals": [{"goal": goal.text(row), "met": self.met(row, goal)} for goal in row.goals],
        }

    def save(self, path: Path) -> None:
        """Write the JSON file."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def machine() -> Mapping[str, Any]:
    """What the numbers depend on, and nothing that names the machine."""
    kernel = re.match(r"[\d.]+", platform.release())
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {kernel[0].rstrip('.') if kernel else ''}".strip(),
        "architecture": platform.machine(),
    }


def number(value: float) -> str:
    """Three digits, with k and M."""
    for limit, divisor, unit in ((999_500, 1e6, "M"), (9_995, 1e3, "k")):
        if abs(value) >= limit:
            return _digits(value / divisor) + unit
    return _digits(value)


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def title_of(name: str) -> str:
    """A system's name as it is shown."""
    return next((entry.title for entry in CONTENDERS if entry.name == name), name)


def titles(names: Iterable[str]) -> list[str]:
    """Names as they are shown."""
    return [title_of(name) for name in names]
