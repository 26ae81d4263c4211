"""What it is inside a value that cannot be pickled: the path to it, for the error's text."""

from __future__ import annotations

import contextlib
import itertools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

DEPTH_MAX = 12
PARTS_MAX = 10_000  # of one container; trying each takes time

Parts = Iterable[tuple[str, Any]]
Try = Callable[[Any], bool]


def find(value: Any, path: str, can_pickle: Try, depth: int = DEPTH_MAX) -> str:
    """The path to the innermost part of ``value`` that cannot be pickled by itself."""
    for name, part in _known_parts(value) if depth else ():
        if not can_pickle(part):
            return find(part, path + name, can_pickle, depth - 1)
    return f"{path} (a {type(value).__module__}.{type(value).__qualname__})"


def _known_parts(value: Any) -> list[tuple[str, Any]]:
    """Those that the value tells of: what is the user's own may raise anything."""
    parts = []
    with contextlib.suppress(Exception):
        for part in itertools.islice(_parts(value), PARTS_MAX):
            parts.append(part)  # noqa: PERF402 (those before an error count)
    return parts


def _parts(value: Any) -> Parts:
    if isinstance(value, dict):
        return ((f"[{key!r}]", part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ((f"[{index}]", part) for index, part in enumerate(value))
    if isinstance(value, (set, frozenset)):
        return ((f"{{{part!r}}}", part) for part in value)
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, types.MethodType):
        return [(".__self__", value.__self__), (".__func__", value.__func__)]
    if isinstance(value, type):
        return ((f".{name}", part) for name, part in list(vars(value).items()) if _is_own(part))
    if isinstance(value, (classmethod, staticmethod)):
        return _of_function(value.__func__) if hasattr(value.__func__, "__code__") else ()
    return _of_object(value)


def _is_own(part: Any) -> bool:
    """Whether a class's field is the user's, rather than what every class has."""
    return not isinstance(part, (types.GetSetDescriptorType, types.MemberDescriptorType))


def _of_function(value: Any) -> Parts:
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
    yield from ((f".{name} (captured)", cell.cell_contents) for name, cell in cells)
    known = value.__globals__
    names = [name for name in _names(value.__code__) if name in known]
    yield from ((f".{name} (a global)", known[name]) for name in names)
    for default in (value.__defaults__, value.__kwdefaults__):
        if default:
            yield " (a default)", default


def _names(code: types.CodeType) -> Iterator[str]:
    """What the code looks up, and the code of functions inside it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


def _of_object(value: Any) -> Parts:
    """What it holds, by its own account of how it is pickled."""
    yield from ((f".{name}", part) for name, part in list(getattr(value, "__dict__", {}).items()))
    reduced: Any = value.__reduce_ex__(5)
    if not isinstance(reduced, tuple):
        return
    _, args, state, items, pairs = (*reduced, None, None, None)[:5]
    yield from ((f"[{index}]", part) for index, part in enumerate(items or ()))
    yield from ((f"[{key!r}]", part) for key, part in pairs or ())
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        yield from ((f".{name}", part) for name, part in state[1].items())  # in slots
    elif isinstance(state, tuple):
        yield from ((f".<state>[{index}]", part) for index, part in enumerate(state))
    kind = type(value)
    yield from ((f".<made of>[{index}]", part) for index, part in enumerate(args))
    yield f".__class__ ({kind.__qualname__})", kind
