"""Calls, from Python values to the core: arguments are serialized, references in them are found."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable
from typing import Any

from freehold.core.ids import ARGUMENTS, ref_id
from freehold.core.messages import SHARED
from freehold.core.process.rows import CONSTRUCTOR, FUNCTION_TASK, METHOD, Line, Row, Spec
from freehold.errors import SerializationError
from freehold.proc import session
from freehold.proc.runtime import Runtime
from freehold.proc.session import now
from freehold.wire import serial
from freehold.wire.serial import Packed

CODE_MAX = 100 * 1024 * 1024  # bytes of one function or class

__all__ = ["CONSTRUCTOR", "FUNCTION_TASK", "METHOD", "Line", "Row", "Spec", "now"]


def make_spec(
    code: bytes, name: str, kind: int, options: dict[str, Any], wire: dict[str, Any]
) -> Spec:
    """The core's description of a function or class with its options."""
    if len(code) > CODE_MAX:
        raise ValueError(
            f"{name} is {len(code):,} bytes of code and captured values, more than {CODE_MAX:,}; "
            "put large values with freehold.put() and pass the reference"
        )
    cpus = options["num_cpus"]
    return Spec(
        hashlib.blake2b(code, digest_size=16).digest(),
        name,
        code,
        kind=kind,
        cpus=float(cpus or 0),
        resources=options["demand"],
        where=options["where"],
        outputs=options.get("num_returns", 1),
        retries=options.get("max_retries", 0),
        options=wire,
    )


def method_spec(actor: str, method: str, outputs: int, retries: int) -> Spec:
    """The description of an actor's method: its key on the wire is its name."""
    name = f"{actor}.{method}"
    return Spec(method.encode(), name, kind=METHOD, outputs=outputs, retries=retries)


def submit(
    here: Runtime,
    spec: Spec,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    references: type,
    line: Line | None = None,
    gate: bool = False,
) -> tuple[Row, ...]:
    """Submit a task of any kind; the rows of its results.  See ``Client.submit_full``."""
    id, packed, args_row, deps, nested = pack(here, spec.name, args, kwargs, references)
    with here.lock:
        rows = here.client.submit_full(
            spec, id, packed, now(),
            args_row=args_row, deps=deps, nested=nested, line=line, gate=gate,
        )  # fmt: skip
        here.submitted()
    return rows


def pack(
    here: Runtime, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], references: type
) -> tuple[bytes, bytes, Row | None, list[tuple[int | str, Row]], list[Row]]:
    """An id for a call, and its arguments: serialized, or where they are; and its references.

    Top-level ones come with their places, and apart from those inside the arguments.
    """
    deps: list[tuple[int | str, Row]] = []
    nested: list[Row] = []
    packed: bytes | Packed
    args_row: Row | None = None
    with here.lock:
        id = here.context().next_id()
    if args and not kwargs:
        for value in args:
            if value.__class__ is not references:
                break
            deps.append((len(deps), value._row))  # type: ignore[attr-defined]
    if deps and len(deps) == len(args):
        packed = _nothing(len(args))
    else:
        deps.clear()
        args = tuple(_without(enumerate(args), references, deps))
        kwargs = dict(zip(kwargs, _without(kwargs.items(), references, deps), strict=True))
        try:
            packed = serial.dumps((args, kwargs)) if args or kwargs else b""
        except SerializationError as error:
            raise serial.of_call(error, name) from error.__cause__
        if not isinstance(packed, bytes):
            nested = [reference._row for reference in packed.refs]
        args_row = _place_arguments(here, packed, id)
        packed = b"" if args_row is not None else _joined(packed)
    assert isinstance(packed, bytes)
    return id, packed, args_row, deps, nested


def open_gate(here: Runtime, row: Row) -> None:
    """Let the task of that result, which was held at its gate, start when its arguments come."""
    with here.lock:
        task = row.task
        if task is not None and task.links is not None:
            task.links.missing -= 1
            if not task.links.missing:
                here.client.start(task, now())
        here.submitted()


@functools.cache
def _nothing(count: int) -> bytes:
    """The serialized arguments of a call whose positional arguments are all references."""
    packed = serial.dumps(((None,) * count, {}))
    assert isinstance(packed, bytes)
    return packed


def _without(
    items: Iterable[tuple[Any, Any]], references: type, deps: list[tuple[int | str, Row]]
) -> list[Any]:
    """The values with None in place of each reference, which is noted in ``deps``."""
    values = []
    for key, value in items:
        if isinstance(value, references):
            deps.append((key, value._row))  # type: ignore[attr-defined]
            value = None
        values.append(value)
    return values


def _joined(packed: bytes | Packed) -> bytes:
    return packed if isinstance(packed, bytes) else packed.join()


def _place_arguments(here: Runtime, packed: bytes | Packed, task: bytes) -> Row | None:
    """Large arguments become an object of their own, which the task holds."""
    size = len(packed) if isinstance(packed, bytes) else packed.size
    if size <= here.inline_max:
        return None
    row = here.put(packed, (), ref_id(task, ARGUMENTS))
    assert row.state == SHARED
    return row


session.calls = sys.modules[__name__]
