"""How long the stateful tests look: the same examples every time, or ``FREEHOLD_EXPLORE=n`` others."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def effort(examples: int, steps: int) -> settings:
    """Settings for that many examples; with FREEHOLD_EXPLORE=n, n random ones instead."""
    explore = int(os.environ.get("FREEHOLD_EXPLORE", "0"))
    return settings(
        max_examples=explore or examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not explore,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
