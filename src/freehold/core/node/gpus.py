"""Which of a node's GPUs a lease uses: whole ones are its own, parts of one are shared.

A part goes to the device that has least left among those that have enough, so that whole devices
stay whole.  What is free in all may be in parts of several devices; then there is no room.
"""

from __future__ import annotations

import math

EPSILON = 1e-9


class Devices:
    """The GPUs of one node, by number, and how much of each is free."""

    def __init__(self, amount: float) -> None:
        whole = math.floor(amount + EPSILON)
        self.free = [1.0] * whole
        if amount - whole > EPSILON:
            self.free.append(amount - whole)

    def find(self, amount: float) -> list[int] | None:
        """The devices for a lease of that many, or None if there are none for now."""
        if amount <= EPSILON:
            return []
        if amount < 1 - EPSILON:
            free = [(left, number) for number, left in enumerate(self.free)]
            enough = [one for one in free if _is_in(amount, one[0])]
            return [min(enough)[1]] if enough else None
        count = math.ceil(amount - EPSILON)
        whole = [number for number, left in enumerate(self.free) if _is_in(1.0, left)]
        return whole[:count] if len(whole) >= count else None

    def take(self, amount: float) -> list[int]:
        """Use the devices that ``find`` finds; there must be some."""
        found = self.find(amount)
        assert found is not None
        for number in found:
            self.free[number] -= min(amount, 1.0)
        return found

    def give(self, amount: float, devices: list[int]) -> None:
        """They are used no longer."""
        for number in devices:
            self.free[number] += min(amount, 1.0)


def _is_in(amount: float, left: float) -> bool:
    return amount <= left + EPSILON


def gpus_in(resources: dict[str, float]) -> float:
    """How many GPUs a lease with these resources uses, those of a placement group included."""
    named = [amount for name, amount in resources.items() if name.partition("/")[0] == "GPU"]
    return max(named, default=0.0)
