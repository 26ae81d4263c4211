"""Medians as bars on a logarithmic axis, one group for each metric, with the whole spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from xml.sax.saxutils import escape

from samples import Samples

COLORS = {"freehold": "#d1242f", "freehold by value": "#bf8700", "ray": "#0969da"}
LEFT, WIDTH, BAR, GAP, TOP = 300, 900, 12, 10, 50


def draw(title: str, unit: str, samples: Samples) -> str:
    """The picture as SVG."""
    values = [value for each in samples.values() for some in each.values() for value in some]
    values = [value for value in values if value > 0] or [1.0]  # added seconds may be none
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))

    def at(value: float) -> float:
        part = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return LEFT + part * (WIDTH - LEFT - 80)

    lines, y = [], TOP
    for metric, systems in samples.items():
        middle = y + BAR * len(systems) / 2 + 4
        lines.append(
            f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(metric)}</text>'
        )
        for system, some in systems.items():
            lines += _bar(y, COLORS.get(system, "#57606a"), at, some)
            y += BAR
        y += GAP
    for power in range(low, high + 1):
        x = at(10.0**power)
        lines.append(f'<path d="M{x:.0f} {TOP - 6}V{y}" stroke="#d0d7de" stroke-width="0.5"/>')
        lines.append(f'<text x="{x:.0f}" y="{y + 14}" text-anchor="middle">{10.0**power:g}</text>')
    names = dict.fromkeys(system for systems in samples.values() for system in systems)
    legend = "".join(
        f'<tspan fill="{COLORS.get(name, "#57606a")}" dx="12">{escape(name)}</tspan>'
        for name in names
    )
    head = f'<text x="12" y="24" font-size="14">{escape(f"{title} ({unit})")}{legend}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 24}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        + "\n".join([head, *lines])
        + "</svg>\n"
    )


def _bar(y: float, color: str, at: Callable[[float], float], some: list[float]) -> list[str]:
    median, center = statistics.median(some), y + BAR / 2
    low, high = at(min(some)), at(max(some))
    size = f'width="{max(0.0, at(median) - LEFT):.1f}" height="{BAR - 2}"'
    return [
        f'<rect x="{LEFT}" y="{y + 1:.0f}" {size} fill="{color}" fill-opacity="0.75"/>',
        f'<path d="M{low:.1f} {center:.0f}H{high:.1f}" stroke="#24292f"/>',
        f'<text x="{max(high, at(median)) + 5:.0f}" y="{center + 4:.0f}">{median:.3g}</text>',
    ]
