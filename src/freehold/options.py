"""Options of remote functions and actors: which exist, what they may be, and what they become."""

from __future__ import annotations

from typing import Any

from freehold.errors import SerializationError
from freehold.wire import serial

TASK_DEFAULTS: dict[str, Any] = {
    "num_cpus": 1,
    "num_returns": 1,
    "max_retries": 3,
    "retry_exceptions": False,
    "memory": None,
    "resources": None,
    "name": None,
}
ACTOR_DEFAULTS: dict[str, Any] = {
    "num_cpus": 0,
    "max_concurrency": None,
    "memory": None,
    "resources": None,
    "name": None,
}
METHOD_DEFAULTS: dict[str, Any] = {"num_returns": 1, "name": None}


def merge(defaults: dict[str, Any], given: dict[str, Any], what: str) -> dict[str, Any]:
    """``defaults`` with ``given`` over them.  Raises ValueError for an unknown or bad option."""
    for name, value in given.items():
        if name not in defaults:
            known = ", ".join(sorted(defaults))
            raise ValueError(f"{what} has no option {name!r}; it has {known}")
        _check(name, value)
    return {**defaults, **given}


def _check(name: str, value: Any) -> None:
    if value is None:
        if name in ("num_returns", "max_retries"):
            raise ValueError(f"{name} must be an integer, not None")
        return
    if name in ("num_cpus", "memory"):
        good = _is_amount(value)
        need = "a finite number that is not negative"
    elif name in ("num_returns", "max_concurrency"):
        least = 0 if name == "num_returns" else 1
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= 65_535
        need = f"an integer from {least} to 65535"
    elif name == "max_retries":
        good = isinstance(value, int) and not isinstance(value, bool) and value >= -1
        need = "an integer, -1 (for ever) or more"
    elif name == "retry_exceptions":
        good = isinstance(value, bool) or (
            isinstance(value, (list, tuple))
            and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in value)
        )
        need = "True, False or a list of exception classes"
    elif name == "resources":
        good = isinstance(value, dict) and all(
            isinstance(key, str) and key not in ("", "CPU") and _is_amount(amount)
            for key, amount in value.items()
        )
        need = "a dictionary from names (other than CPU, which is num_cpus) to amounts"
    else:
        good, need = isinstance(value, str) and bool(value), "a string that is not empty"
    if not good:
        raise ValueError(f"{name} must be {need}, but is {value!r}")


def _is_amount(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < float("inf")


def wire_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the worker must know."""
    wire = {name: options[name] for name in ("memory", "max_concurrency") if options.get(name)}
    retry = options.get("retry_exceptions")
    if retry is True:
        wire["retry_exceptions"] = True
    elif retry:
        try:
            wire["retry_exceptions"] = serial.dumps_code(tuple(retry))
        except SerializationError as error:
            raise ValueError(f"retry_exceptions cannot be sent to workers: {error}") from error
    return wire


def resources_of(options: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """Custom resources in a canonical order."""
    return tuple(sorted((name, float(n)) for name, n in (options["resources"] or {}).items() if n))
