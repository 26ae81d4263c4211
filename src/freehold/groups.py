"""Placement groups: resources of several nodes that are set aside together, or not at all."""

from __future__ import annotations

from typing import Any

from freehold.proc import start
from freehold.ref import Ref

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
EPSILON = 1e-9


class PlacementGroup:
    """Bundles of resources for tasks and actors, made by :func:`placement_group`.

    It can be passed to tasks and actors.  Its end is :func:`remove_placement_group`, or that of the
    job that made it.

    Attributes:
        id: its name in the cluster, in hex.
        bundle_specs: the resources of each bundle.
        strategy: how the bundles are spread over nodes.
        name: for people; empty if it has none.
    """

    __slots__ = ("bundle_specs", "id", "name", "strategy")

    def __init__(
        self, id: str, bundle_specs: list[dict[str, float]], strategy: str, name: str
    ) -> None:
        self.id = id
        self.bundle_specs = bundle_specs
        self.strategy = strategy
        self.name = name

    def ready(self) -> Ref[PlacementGroup]:
        """A reference to this group, which is ready when every bundle has its place.

        ``get`` of it raises GroupRemoved if the group is removed before.
        """
        from freehold.proc import groups  # here, so that `import freehold` is fast

        return Ref(groups.ready(start.ensure(), self.id, self))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every bundle has its place; False if that takes longer.

        Args:
            timeout: seconds; None: for ever.

        Raises:
            GroupRemoved: the group is there no more.
        """
        from freehold.proc import groups  # here, so that `import freehold` is fast

        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative, but is {timeout!r}")
        return groups.wait(start.ensure(), self.id, timeout)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.name or self.id}, {self.strategy}, {self.bundle_specs})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.id, self.bundle_specs, self.strategy, self.name)


def placement_group(
    bundles: list[dict[str, float]], strategy: str = "PACK", name: str | None = None
) -> PlacementGroup:
    """Set resources aside for tasks and actors: all bundles, or none of them.

    It returns at once; the resources are there when ``ready()`` is.  Tasks and actors take the
    group by ``placement_group=`` and, if they want a certain bundle, ``bundle_index=``; they wait
    until it is there.  When a node dies, its bundles are set aside anew on others.

    Args:
        bundles: resources of each bundle, name -> amount, as in ``{"CPU": 1, "GPU": 1}``; a bundle
            lies on one node.
        strategy: ``PACK`` (as few nodes as possible), ``SPREAD`` (as many), ``STRICT_PACK`` (one
            node) or ``STRICT_SPREAD`` (a node for each bundle).
        name: for people.

    Raises:
        ValueError: bundles or strategy are impossible.
        Unschedulable: the cluster could not place it if nothing else ran.
    """
    from freehold.proc import groups  # here, so that `import freehold` is fast

    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, but is {strategy!r}")
    label: Any = "" if name is None else name
    if not isinstance(label, str):
        raise ValueError(f"name must be a string, but is {name!r}")
    given: Any = bundles
    if not isinstance(given, list) or not given:
        raise ValueError(f"bundles must be a list of at least one, but is {bundles!r}")
    specs = [_checked(bundle) for bundle in given]
    here = start.ensure()
    here.check_alive()
    return PlacementGroup(groups.make(here, specs, strategy, label), specs, strategy, label)


def remove_placement_group(group: PlacementGroup) -> None:
    """Give the group's resources back.

    What runs in it is ended, and what waits for it raises GroupRemoved.  Twice does not matter.

    Raises:
        TypeError: not a placement group.
    """
    from freehold.proc import groups  # here, so that `import freehold` is fast

    if not isinstance(group, PlacementGroup):
        raise TypeError(f"remove_placement_group() takes a placement group, not {group!r}")
    groups.remove(start.ensure(), group.id)


def demand(
    group: PlacementGroup, wanted: dict[str, float], index: int
) -> tuple[tuple[str, float], ...]:
    """What a lease of a task or an actor in the group asks for (``core.head.groups``)."""
    from freehold.proc import groups  # here, so that `import freehold` is fast

    return groups.demand_of(group.id, wanted, index)


def check_fits(group: PlacementGroup, wanted: dict[str, float], index: int) -> None:
    """Raises ValueError if the bundle, or with -1 every bundle, is too small."""
    specs = group.bundle_specs
    if not -1 <= index < len(specs):
        raise ValueError(f"bundle_index must be from -1 to {len(specs) - 1}, but is {index}")
    for spec in specs if index < 0 else [specs[index]]:
        if all(amount <= spec.get(name, 0.0) + EPSILON for name, amount in wanted.items()):
            return
    which = "no bundle" if index < 0 else f"bundle {index} is not one that"
    asked = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    raise ValueError(f"{which} has {asked}: the group has {specs}")


def _checked(bundle: Any) -> dict[str, float]:
    good = (
        isinstance(bundle, dict)
        and bool(bundle)
        and all(
            isinstance(name, str)
            and name not in ("", "bundle")
            and "/" not in name
            and isinstance(amount, (int, float))
            and not isinstance(amount, bool)
            and 0 <= amount < float("inf")
            for name, amount in bundle.items()
        )
    )
    if not good or not any(bundle.values()):
        raise ValueError(f"a bundle is a dictionary from resources to amounts, not {bundle!r}")
    return {name: float(amount) for name, amount in bundle.items() if amount}
