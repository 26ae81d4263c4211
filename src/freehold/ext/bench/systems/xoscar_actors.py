"""The actors that xoscar's processes run."""

import asyncio
import importlib
from typing import Any

xoscar: Any = importlib.import_module("xoscar")


class Counter(xoscar.Actor):  # type: ignore[misc]
    """Counts, and measures arrays."""

    def __init__(self) -> None:
        self.n = 0

    def add(self, k: int) -> int:
        """Add and tell."""
        self.n += k
        return self.n

    def size(self, value: Any) -> int:
        """Length of a large argument."""
        return len(value)


class Sleeper(xoscar.StatelessActor):  # type: ignore[misc]
    """The asynchronous actor: stateless ones run their calls concurrently."""

    async def sleep(self) -> None:
        """10 ms."""
        await asyncio.sleep(0.01)
