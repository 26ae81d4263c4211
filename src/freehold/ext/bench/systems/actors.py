"""The actors of the probes, in a module that imports next to nothing: each actor's process does."""

import asyncio


class Counter:
    """The actor."""

    def __init__(self) -> None:
        self.n = 0

    def add(self, k: int) -> int:
        """Add and tell."""
        self.n += k
        return self.n


class Sleeper:
    """The asynchronous actor."""

    async def sleep(self) -> None:
        """10 ms."""
        await asyncio.sleep(0.01)
