"""Train a model with a sharded parameter server: actors hold weights, workers push gradients.

    python examples/parameter_server.py --shards 2 --workers 4 --steps 100

The weights of a linear classifier are split between actors.  In each step a worker is a task that
takes the shards' weights *by reference* and returns one gradient for each shard; references to the
gradients go straight to the shards, which average and apply them.  No step needs a barrier: the
next weights are what ``apply`` returns.
"""

import argparse
import sys
from typing import Any

import numpy as np

import freehold as fh

FEATURES, CLASSES, ROWS = 64, 10, 512


@fh.remote
class Shard:
    """The weights of some features."""

    def __init__(self, features: int) -> None:
        self.weights = np.zeros((features, CLASSES))

    def apply(self, *gradients: Any) -> Any:
        """Step against the mean of the gradients; the weights then."""
        if gradients:
            self.weights = self.weights - 2.0 * np.mean(gradients, axis=0)
        return self.weights


def classify(seed: int, weights: Any) -> tuple[Any, Any, Any, float]:
    """Synthetic data, whose classes a hidden matrix decides: points, labels, odds and the loss."""
    points = np.random.default_rng(seed).normal(size=(ROWS, FEATURES))
    hidden = np.random.default_rng(0).normal(size=(FEATURES, CLASSES))
    labels = np.argmax(points @ hidden, axis=1)
    odds = np.exp(points @ weights)
    odds /= odds.sum(axis=1, keepdims=True)
    return points, labels, odds, -float(np.log(odds[np.arange(ROWS), labels] + 1e-12).mean())


@fh.remote
def gradient(seed: int, *shards: Any) -> Any:
    """The gradient over one batch, a part for each shard."""
    points, labels, odds, _ = classify(seed, np.concatenate(shards))
    odds[np.arange(ROWS), labels] -= 1.0
    parts = np.array_split(points.T @ odds / ROWS, len(shards))
    return parts if len(parts) > 1 else parts[0]


def main() -> None:
    """Train, print the loss on data of its own, and fail unless it has fallen by half."""
    options = argparse.ArgumentParser(description="Train with a sharded parameter server.")
    for name, default in {"shards": 2, "workers": 4, "steps": 60}.items():
        options.add_argument(f"--{name}", type=int, default=default)
    given = options.parse_args()

    sizes = [len(part) for part in np.array_split(np.arange(FEATURES), given.shards)]
    shards = [Shard.remote(size) for size in sizes]
    weights = [shard.apply.remote() for shard in shards]
    push = gradient.options(num_returns=given.shards)
    losses = []
    for step in range(given.steps + 1):
        if step % max(1, given.steps // 5) == 0:
            losses.append(classify(1, np.concatenate(fh.get(weights)))[3])
            print(f"step {step:>4}  loss {losses[-1]:.4f}")
        seeds = range(2 + step * given.workers, 2 + (step + 1) * given.workers)
        rows = [push.remote(seed, *weights) for seed in seeds]
        columns = zip(*rows, strict=True) if given.shards > 1 else [rows]
        weights = [s.apply.remote(*column) for s, column in zip(shards, columns, strict=True)]
    sys.exit(0 if losses[-1] < losses[0] / 2 else "wrong: the loss has not fallen by half")


if __name__ == "__main__":
    main()
