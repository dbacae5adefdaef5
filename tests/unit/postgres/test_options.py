"""What a stream is told fits together."""

from __future__ import annotations

import pytest

from invalidator.postgres.options import StreamOptions


@pytest.mark.parametrize(("status", "silence", "interval"), [(1, 20, 1), (4, 20, 4), (4, 2, 0.5), (0.2, 2, 0.2)])
def test_a_silent_server_is_asked_early_enough_to_answer(status: float, silence: float, interval: float) -> None:
    options = StreamOptions(type="pgoutput", status_seconds=status, silence_seconds=silence)
    assert options.status_interval_seconds == interval
