"""Serve models: a router collects requests in batches, and passes on references, not images.

    python examples/model_server.py --rate 200 --requests 500 [--by-value]

A client puts an image into shared memory and sends the router a *list* with the reference in it,
so no image passes through the router.  With ``--by-value`` it reads each and sends that on.
"""

import argparse
import asyncio
import sys
import time
from typing import Any

import freehold as fh

IMAGE_BYTES, BATCH_MAX, MODEL_S = 600_000, 8, 0.01


@fh.remote
class Model:
    """Takes a batch of images: values, or references that it reads."""

    def predict(self, batch: list[Any]) -> list[int]:
        """For each image the number that it begins with."""
        time.sleep(MODEL_S)
        return [(fh.get(item) if isinstance(item, fh.Ref) else item)[0] for item in batch]


@fh.remote
class Router:
    """Sends requests to whichever model is free, at most ``BATCH_MAX`` together."""

    def __init__(self, by_value: bool) -> None:
        self.by_value, self.bytes = by_value, 0
        self.waiting: asyncio.Queue[Any] = asyncio.Queue()

    async def serve(self, model: Any) -> None:
        """Keep one model busy, for ever."""
        while batch := [await self.waiting.get()]:
            while len(batch) < BATCH_MAX and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            answers = await model.predict.remote([item for item, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    async def ask(self, boxed: list[Any]) -> tuple[int, int]:
        """The answer for one image, and the bytes of images that have come through here."""
        item = await boxed[0] if self.by_value else boxed[0]
        self.bytes += IMAGE_BYTES if self.by_value else 0
        self.waiting.put_nowait((item, future := asyncio.Future[int]()))
        return await future, self.bytes


async def main() -> None:
    """Send requests at a fixed rate, answered or not; print how it went."""
    options = argparse.ArgumentParser(description="Serve models behind a batching router.")
    for name, default in {"rate": 100, "requests": 300, "models": 2}.items():
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--by-value", action="store_true")
    given = options.parse_args()
    router = Router.remote(given.by_value)
    _serving = [router.serve.remote(Model.remote()) for _ in range(given.models)]

    async def client(number: int, due: float) -> tuple[float, bool, int]:
        await asyncio.sleep(due - time.perf_counter())
        image = fh.put(bytes([number % 256]) * IMAGE_BYTES)
        answer, read = await router.ask.remote([image])
        return time.perf_counter() - due, answer == number % 256, read

    start = time.perf_counter() + 0.5
    clients = [client(number, start + number / given.rate) for number in range(given.requests)]
    seconds, right, read = zip(*await asyncio.gather(*clients), strict=True)
    p50, p99 = (sorted(seconds)[int(len(seconds) * part)] * 1e3 for part in (0.5, 0.99))
    print(f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms; router read {max(read) / 1e6:.1f} MB")
    sys.exit(0 if all(right) else "wrong: not every answer is right")


asyncio.run(main())
