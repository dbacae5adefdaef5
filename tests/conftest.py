"""Makes the fixtures of every file in support/ known to all tests, and has property tests try the same each time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before the first of them is imported, because they import each other.
pytest.register_assert_rewrite("tests.support")

pytest_plugins = [f"tests.support.{file.stem}" for file in sorted(Path(__file__).parent.glob("support/*.py"))]

# Whether a run passes must hang neither on what is tried this time nor on how fast the machine is. Whoever looks for
# what nobody has tried yet sets FUZZ_EXAMPLES.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")

# With --reruns (scripts/test): what starts servers may fail by a moment that nobody foresaw, and is tried once more,
# with the report of both. What has no such excuse is not, and neither is the search for lost changes itself.
ONCE_ONLY = ("unit", "e2e/test_chaos.py", "e2e/test_crash_points.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [Path(__file__).parent / name for name in ONCE_ONLY]
    for item in items:
        if any(item.path.is_relative_to(place) for place in places):
            item.add_marker(pytest.mark.flaky(reruns=0))
