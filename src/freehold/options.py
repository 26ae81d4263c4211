"""Options of remote functions and actors: which exist, what they may be, and what they become."""

from __future__ import annotations

from typing import Any, NamedTuple

from freehold import groups
from freehold.errors import SerializationError
from freehold.groups import PlacementGroup
from freehold.wire import serial

TASK_DEFAULTS: dict[str, Any] = {
    "num_cpus": 1,
    "num_gpus": None,
    "num_returns": 1,
    "max_retries": 3,
    "retry_exceptions": False,
    "memory": None,
    "resources": None,
    "scheduling_strategy": None,
    "label_selector": None,
    "placement_group": None,
    "bundle_index": -1,
    "name": None,
}
ACTOR_DEFAULTS: dict[str, Any] = {
    "num_cpus": 0,
    "num_gpus": None,
    "max_concurrency": None,
    "max_restarts": 0,
    "max_task_retries": 0,
    "memory": None,
    "resources": None,
    "scheduling_strategy": None,
    "label_selector": None,
    "placement_group": None,
    "bundle_index": -1,
    "name": None,
    "namespace": None,
    "get_if_exists": False,
    "lifetime": None,
}
LIFETIMES = ("job", "non_detached", "detached")  # the first two mean what None does
TEXT_MAX = 500  # characters of a name
RETRIES = ("max_retries", "max_restarts", "max_task_retries")  # -1: for ever
METHOD_DEFAULTS: dict[str, Any] = {"num_returns": 1, "name": None}


class NodeAffinity(NamedTuple):
    """A ``scheduling_strategy``: run on that node.

    Attributes:
        node_id: the node's id in hex, as ``freehold.nodes()`` and ``freehold status`` show it.
        soft: run elsewhere if that node is dead or can never fit it.
    """

    node_id: str
    soft: bool = False


def merge(defaults: dict[str, Any], given: dict[str, Any], what: str) -> dict[str, Any]:
    """``defaults`` with ``given`` over them.  Raises ValueError for an unknown or bad option."""
    for name, value in given.items():
        if name not in defaults:
            known = ", ".join(sorted(defaults))
            raise ValueError(f"{what} has no option {name!r}; it has {known}")
        _check(name, value)
    merged = {**defaults, **given}
    _check_together(merged)
    return merged


def _check_together(options: dict[str, Any]) -> None:
    """Options that are right by themselves, but not with each other."""
    group, index = options.get("placement_group"), options.get("bundle_index", -1)
    if group is None and index != -1:
        raise ValueError("bundle_index is of a placement_group, and there is none")
    if group is not None:
        if options["scheduling_strategy"] not in (None, "DEFAULT") or options["label_selector"]:
            raise ValueError("with a placement_group there is no other scheduling strategy")
        groups.check_fits(group, _wanted(options), index)
    for name in ("namespace", "get_if_exists", "lifetime"):
        needs_name = options.get(name) not in (None, False, "job", "non_detached")
        if needs_name and not options["name"]:
            raise ValueError(f"{name} is for actors with a name, and there is none")


def _check(name: str, value: Any) -> None:
    if value is None:
        if name in ("num_returns", "bundle_index", "get_if_exists", *RETRIES):
            raise ValueError(f"{name} must not be None")
        return
    if name == "num_gpus":
        good = _is_amount(value) and (value < 1 or value == int(value))
        need = "a whole number, or a part of one GPU"
    elif name in ("num_cpus", "memory"):
        good = _is_amount(value)
        need = "a finite number that is not negative"
    elif name in ("num_returns", "max_concurrency"):
        least = 0 if name == "num_returns" else 1
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= 65_535
        need = f"an integer from {least} to 65535"
    elif name in RETRIES:
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
            isinstance(key, str)
            and key not in ("", "CPU", "bundle")
            and "/" not in key
            and _is_amount(amount)
            for key, amount in value.items()
        )
        need = "a dictionary from names (other than CPU, which is num_cpus; no /) to amounts"
    elif name == "scheduling_strategy":
        good = value in ("DEFAULT", "SPREAD") or (
            isinstance(value, NodeAffinity) and _is_hex(value.node_id)
        )
        need = "'DEFAULT', 'SPREAD' or a NodeAffinity(node_id, soft)"
    elif name == "label_selector":
        good = isinstance(value, dict) and all(
            isinstance(part, str) for pair in value.items() for part in pair
        )
        need = "a dictionary from labels to their values"
    elif name == "placement_group":
        good, need = isinstance(value, PlacementGroup), "what placement_group() has returned"
    elif name == "bundle_index":
        good = isinstance(value, int) and not isinstance(value, bool)
        need = "the number of a bundle, or -1 for any"
    elif name == "get_if_exists":
        good, need = isinstance(value, bool), "True or False"
    elif name == "lifetime":
        good, need = value in LIFETIMES, f"None, or one of {', '.join(LIFETIMES)}"
    else:
        good = isinstance(value, str) and 0 < len(value) <= TEXT_MAX and "\0" not in value
        need = f"a string that is not empty, of at most {TEXT_MAX} characters"
    if not good:
        raise ValueError(f"{name} must be {need}, but is {value!r}")


def _is_hex(text: Any) -> bool:
    try:
        return bool(bytes.fromhex(text))
    except (TypeError, ValueError):
        return False


def _is_amount(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < float("inf")


def wire_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the worker must know."""
    sent = ("memory", "max_concurrency", "max_restarts")
    wire = {name: options[name] for name in sent if options.get(name)}
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
    """Resources beside CPUs, in a canonical order."""
    wanted = {**(options["resources"] or {}), "GPU": options.get("num_gpus") or 0}
    return tuple(sorted((name, float(amount)) for name, amount in wanted.items() if amount))


def _wanted(options: dict[str, Any]) -> dict[str, float]:
    """All resources, CPUs included."""
    cpus = float(options["num_cpus"] or 0)
    return {**({"CPU": cpus} if cpus else {}), **dict(resources_of(options))}


def where_of(options: dict[str, Any]) -> tuple[Any, ...]:
    """The scheduling strategy, as ``core.rows.Where``."""
    strategy, labels = options.get("scheduling_strategy"), options.get("label_selector")
    if isinstance(strategy, NodeAffinity):
        return "node", bytes.fromhex(strategy.node_id), strategy.soft
    if labels:
        return "labels", tuple(sorted(labels.items()))
    return ("spread",) if strategy == "SPREAD" else ()


def complete(options: dict[str, Any]) -> dict[str, Any]:
    """The options with what the core makes of them: ``demand`` (resources) and ``where``."""
    group = options["placement_group"]
    if group is not None:
        demand = groups.demand(group, _wanted(options), options["bundle_index"])
        return {**options, "num_cpus": 0, "demand": demand, "where": ()}
    return {**options, "demand": resources_of(options), "where": where_of(options)}
