"""How long the stateful tests look: the same examples every time, so that a check repeats exactly.

With ``FREEHOLD_EXPLORE=n`` in the environment they try n random examples each.  A failure is only
reduced to fewer steps with ``FREEHOLD_SHRINK=1``, since that can take minutes.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings


def effort(examples: int, steps: int) -> settings:
    """Settings for that many examples; with FREEHOLD_EXPLORE=n, n random ones instead."""
    explore = int(os.environ.get("FREEHOLD_EXPLORE", "0"))
    return settings(
        max_examples=explore or examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not explore,
        database=None,
        phases=[Phase.generate, *([Phase.shrink] if os.environ.get("FREEHOLD_SHRINK") else [])],
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
