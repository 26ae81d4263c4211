"""The core's rooms: which may read which, and that the map of each names all that is in it."""

from __future__ import annotations

import ast
import re

import pytest

from test_tidy import Sources, imports, sources

CORE = "freehold.core"
# room -> which others it may read, besides what all have in common; "" is what they have in common.
MAY_READ = {"": (), "process": (), "head": (), "node": ("head",)}
ENTRY = re.compile(r"^    (\w+) {2,}\S", re.MULTILINE)


def room_of(module: str) -> str:
    """The room of a module of the core."""
    below = module.removeprefix(f"{CORE}.").split(".")
    return below[0] if below[0] in MAY_READ else ""


def check_rooms(texts: Sources) -> list[str]:
    """Find imports from a room that is none of theirs."""
    core = {name: text for name, text in texts.items() if name.startswith(f"{CORE}.")}
    return [
        f"{module}:{line}: {mine or 'what all have in common'} reads {name}"
        for module, text in core.items()
        for line, name in imports(module, ast.parse(text), set(texts))
        if name in core
        for mine in [room_of(module)]
        if room_of(name) not in ("", mine, *MAY_READ[mine])
    ]


def check_maps(texts: Sources) -> list[str]:
    """Find modules that the first page of their room does not name, and names of none."""
    found = []
    for room in MAY_READ:
        page = f"{CORE}.{room}".rstrip(".")
        there = {name.rpartition(".")[2] for name in texts if name.rpartition(".")[0] == page}
        named = re.findall(r"\w+", " ".join(ENTRY.findall(texts[page])))
        text = texts[page] if not room else " ".join(named)
        words = set(re.findall(r"\w+", text))
        found += [f"{page} does not name {name}" for name in sorted(there - words)]
        found += [f"{page} names {name}" for name in sorted(set(named) - there)]
    return found


def test_rooms_read_what_they_may() -> None:
    assert check_rooms(sources()) == []


def test_maps_are_complete() -> None:
    assert check_maps(sources()) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("freehold.core.node.store", "from freehold.core.process import rows"),
        ("freehold.core.process.rows", "def f():\n    from freehold.core.node.store import Store"),
        ("freehold.core.head.roll", "from freehold.core.node import store"),
        ("freehold.core.ids", "from freehold.core.process.rows import Row"),
    ],
)
def test_a_look_into_another_room_is_found(module: str, text: str) -> None:
    assert check_rooms({**sources(), module: text}) != []


def test_what_the_map_forgets_is_found() -> None:
    texts = sources()
    assert check_maps({**texts, "freehold.core.node.attic": ""}) == [
        "freehold.core.node does not name attic"
    ]
