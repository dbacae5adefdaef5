"""Log lines go into a list instead of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog


@pytest.fixture
def quiet_logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log entries of this test, in order."""
    with structlog.testing.capture_logs() as entries:
        yield entries
