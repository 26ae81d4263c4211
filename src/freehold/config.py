"""Settings: their meaning, units, defaults, and the environment variables that override them.

Every field of :class:`Config` can be given to ``init`` by name, or as ``FREEHOLD_<NAME>`` in the
environment (``FREEHOLD_NUM_CPUS=2``, ``FREEHOLD_RESOURCES=gold=2,tape=0.5``); ``init`` wins.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

KIB, MIB = 1024, 1024 * 1024
TEXTS = ("address", "token")
INLINE_LIMIT = 64 * MIB  # bytes; larger values must not travel inside messages


class Config(NamedTuple):
    """What an embedded node and its driver are started with.

    Attributes:
        num_cpus: CPUs that the node offers to tasks; None: those that this process may use, in its
            container if it is in one.
        resources: custom resources, name -> amount.
        arena_bytes_max: the most that shared objects may occupy; None: 30 % of the memory,
            the container's if it is in one.
        inline_bytes_max: values up to this size travel inside messages; larger ones are shared.
        prestart: workers started ahead of demand; None: one for each CPU that is offered and there.
        worker_idle_s: seconds after which a surplus idle worker is ended.
        workers_max: worker processes at a time, actors included.
        depth_max: tasks in flight on one worker.
        lease_idle_ms: milliseconds after which an unused lease is returned.
        remake_s_max: seconds of work after which a large result is kept on a second node, so that
            no more than about that is done again when a node dies; 0: never.
        reserve_bytes: arena pages allocated and cleared ahead of demand, in quiet times, so that
            first writes are fast; None: 512 MiB, but at most 1/40 of the memory.
        lineage_bytes_max: what each process keeps, in bytes, to make lost values again by running
            their tasks.  The oldest recipes are forgotten first; only clusters keep any.
        log_to_driver: show what tasks print.
        address: of a cluster's head, ``HOST:PORT``; ``auto``: the cluster of the node that runs on
            this machine; None: a session of its own.  Where a node of the cluster runs on this
            machine, the program uses it; else it starts one for itself, which has no CPUs.
        token: the cluster's token; None: see ``FREEHOLD_TOKEN_FILE`` and what this machine knows.
    """

    num_cpus: float | None = None
    resources: dict[str, float] | None = None
    arena_bytes_max: int | None = None
    inline_bytes_max: int = 100 * KIB
    prestart: int | None = None
    worker_idle_s: float = 2.0
    workers_max: int = 1000
    depth_max: int = 512
    lease_idle_ms: float = 200.0
    remake_s_max: float = 1.0
    reserve_bytes: int | None = None
    lineage_bytes_max: int = 64 * MIB
    log_to_driver: bool = True
    address: str | None = None
    token: str | None = None

    @classmethod
    def make(cls, given: dict[str, Any]) -> Config:
        """The settings, checked.  Raises ValueError for an unknown name or an impossible value."""
        known = cls._fields
        for name in given:
            if name not in known:
                raise ValueError(
                    f"init() has no option {name!r}; it has {', '.join(sorted(known))}"
                )
        merged: dict[str, Any] = {}
        for name in known:
            text = os.environ.get("FREEHOLD_" + name.upper())
            if given.get(name) is not None:
                merged[name] = given[name]
            elif name in TEXTS:
                merged[name] = text or None
            elif text is not None:
                merged[name] = _resources(text) if name == "resources" else _number(name, text)
        config = cls(**merged)
        config._check()
        return config

    def _check(self) -> None:
        for name, value in self._asdict().items():
            given = self.__annotations__[name]
            kind = str(getattr(given, "__forward_arg__", given)).removesuffix(" | None")
            if value is not None and not _is_a(kind, value):
                raise ValueError(f"{name} must be {_KINDS[kind]}, but is {value!r}")
        if self.inline_bytes_max > INLINE_LIMIT:
            raise ValueError(f"inline_bytes_max must be at most {INLINE_LIMIT}")
        if self.arena_bytes_max is not None and self.arena_bytes_max < MIB:
            raise ValueError(f"arena_bytes_max must be at least {MIB}")
        if self.depth_max < 1 or self.workers_max < 1:
            raise ValueError("depth_max and workers_max must be at least 1")


_KINDS = {
    "bool": "True or False",
    "int": "a whole number that is not negative",
    "float": "a finite number that is not negative",
    "str": "a text that is not empty",
    "dict[str, float]": "a dictionary from names (other than CPU) to amounts",
}


def _is_a(kind: str, value: Any) -> bool:
    """Whether the value is what a field of that type may be."""
    if kind == "bool":
        return value in (True, False)
    if kind == "str":
        return isinstance(value, str) and bool(value)
    if kind == "dict[str, float]":
        return isinstance(value, dict) and all(
            isinstance(name, str)
            and name not in ("", "CPU", "bundle")
            and "/" not in name
            and _is_a("float", amount)
            for name, amount in value.items()
        )
    numbers = int if kind == "int" else (int, float)
    return isinstance(value, numbers) and not isinstance(value, bool) and 0 <= value < float("inf")


def _resources(text: str) -> Any:
    """``gold=2,tape=0.5``, as a dictionary; whether its parts are right is checked later."""
    pairs = [part.partition("=")[::2] for part in text.split(",") if part.strip()]
    return {name.strip(): _number("resources", amount) for name, amount in pairs}


def _number(name: str, text: str) -> Any:
    if text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ValueError(f"FREEHOLD_{name.upper()} must be a number, but is {text!r}") from None
