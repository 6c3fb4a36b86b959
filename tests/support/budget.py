"""How long to search. ``HYPOTHESIS_PROFILE=long pytest tests/fuzz`` searches for hours."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


def budget(examples: int) -> settings:
    """``examples`` that are the same in every run; in a long one many more, new each time."""
    return settings(
        max_examples=examples * 200 if LONG else examples,
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
