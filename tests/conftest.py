"""Makes the fixtures of every file in support/ known to all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

# Before the first of them is imported, because they import each other.
pytest.register_assert_rewrite("tests.support")

pytest_plugins = [f"tests.support.{file.stem}" for file in sorted(Path(__file__).parent.glob("support/*.py"))]
