"""The picture: for every metric, how many times better than Ray each system is, as SVG."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from .results import Results, number, title_of
from .rows import FLOOR, FREEHOLD, RAY, Goal, Row

LEFT, RIGHT, TOP, STEP = 290, 100, 96, 22
WIDTH = 1060
COLORS = {
    FREEHOLD: "#d1242f",
    RAY: "#0969da",
    "pool": "#1a7f37",
    "loky": "#9a6700",
    "grpc": "#8250df",
    "dask": "#bf3989",
    "xoscar": "#1b7c83",
    FLOOR: "#57606a",
}


_THICK = ' stroke-width="2"'


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis."""

    low: int
    high: int

    def x(self, ratio: float) -> float:
        """Where a ratio is drawn."""
        part = (math.log10(ratio) - self.low) / (self.high - self.low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)


def _base(results: Results, row: Row) -> str:
    """What a row is compared with: Ray, or the best peer where Ray has nothing."""
    return RAY if results.spread(RAY, row) else results.best_peer(row)


def _ratios(results: Results, row: Row) -> dict[str, float]:
    base = _base(results, row)
    found = {name: results.ratio(row, base, name) for name in results.systems()}
    return {name: ratio for name, ratio in found.items() if ratio and ratio > 0}


def _goal_ratio(results: Results, row: Row, goal: Goal) -> float | None:
    """A goal on the axis of its row."""
    base = results.spread(_base(results, row), row)
    if goal.against == "ray":
        return goal.bound
    if not base:
        return None
    if goal.against == "value":
        return goal.bound / base.median if row.higher else base.median / goal.bound
    floor = results.ratio(row, _base(results, row), FLOOR)
    return goal.bound * floor if floor else None


def _text(x: float, y: float, words: str, **style: str) -> str:
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, extra: str = "") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}"{extra}/>'


def _legend(names: list[str], base: str) -> list[str]:
    parts = []
    x = 24.0
    for name in names:
        parts.append(_dot(name, x, 58))
        parts.append(_text(x + 10, 62, title_of(name), fill="#1f2328"))
        x += 34 + 7.2 * len(title_of(name))
    parts.append(_line(x, 51, x, 65, "#1f2328", _THICK))
    parts.append(_text(x + 8, 62, "goal", fill="#1f2328"))
    words = f"times better than {base} on the same machine in the same run (log scale)"
    parts.append(_text(24, 34, words, fill="#57606a"))
    return parts


def _dot(name: str, x: float, y: float) -> str:
    color = COLORS.get(name, "#1f2328")
    place = f'cx="{x:.1f}" cy="{y:.1f}"'
    if name == FLOOR:
        return f'<circle {place} r="5" fill="none" stroke="{color}" stroke-width="2"/>'
    return f'<circle {place} r="{6 if name == FREEHOLD else 4}" fill="{color}"/>'


def _axis(scale: Scale, bottom: float) -> list[str]:
    parts = []
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10.0**power)
        color = "#8c959f" if power == 0 else "#d8dee4"
        parts.append(_line(x, TOP - 12, x, bottom, color))
        label = f"{10.0**power:g}x"
        parts.append(_text(x, TOP - 16, label, fill="#57606a", text_anchor="middle"))
    return parts


def _draw_row(results: Results, row: Row, y: float, scale: Scale) -> list[str]:
    ratios = _ratios(results, row)
    base = _base(results, row)
    label = row.label if base == RAY else f"{row.label} (to {title_of(base)})"
    parts = [
        _line(LEFT, y, WIDTH - RIGHT, y, "#eaeef2"),
        _text(LEFT - 12, y + 4, label, fill="#1f2328", text_anchor="end"),
    ]
    for goal in row.goals:
        at = _goal_ratio(results, row, goal)
        if at:
            parts.append(_line(scale.x(at), y - 8, scale.x(at), y + 8, "#1f2328", _THICK))
    drawn = sorted(ratios, key=lambda name: name == FREEHOLD)
    parts += [_dot(name, scale.x(ratios[name]), y) for name in drawn]
    ours = results.spread(FREEHOLD, row)
    if ours:
        words = f"{number(ours.median)} {row.unit}"
        parts.append(_text(WIDTH - RIGHT + 12, y + 4, words, fill=COLORS[FREEHOLD]))
    return parts


def _scale(results: Results, rows: list[Row]) -> Scale:
    values = [ratio for row in rows for ratio in _ratios(results, row).values()]
    values += [at for row in rows for goal in row.goals if (at := _goal_ratio(results, row, goal))]
    low = math.floor(math.log10(min(values, default=1.0)))
    high = math.ceil(math.log10(max(values, default=10.0)))
    return Scale(min(low, -1), max(high, 1))


def draw(results: Results) -> str:
    """The picture as text."""
    rows = [row for row in results.rows() if _base(results, row)]
    scale = _scale(results, rows)
    bottom = TOP + STEP * len(rows)
    size = f'width="{WIDTH}" height="{bottom + 16}"'
    box = f'viewBox="0 0 {WIDTH} {bottom + 16}" {size} font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect {size} fill="#ffffff"/>',
    ]
    parts += _legend(results.systems(), title_of(RAY))
    parts += _axis(scale, bottom)
    for index, row in enumerate(rows):
        parts += _draw_row(results, row, TOP + STEP * (index + 0.5), scale)
    return "\n".join([*parts, "</svg>"]) + "\n"


def save(results: Results, path: Path) -> None:
    """Write the SVG file."""
    path.write_text(draw(results), encoding="utf-8")
