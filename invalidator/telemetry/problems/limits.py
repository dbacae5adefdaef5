"""From when on something counts as a problem; for heartbeats see ``ages.PATIENCE_SECONDS``."""

from __future__ import annotations

from typing import Final

DISCONNECTED_SECONDS: Final = 30.0
"""Without the stream."""
STALE_SECONDS: Final = 30.0
"""Age of the oldest change that is not applied."""
SILENT_SECONDS: Final = 600.0
"""Streaming without a single row for any rule."""
FAILING_SECONDS: Final = 10.0
"""A target has failed for so long."""
JOURNAL_LATE_SECONDS: Final = 300.0
"""Age of the oldest CDN tag in the journal."""
TOLD_SECONDS: Final = 3600.0
"""What happened once is shown for so long: a gap, a refused message, abandoned items, what a journal gave up."""
QUEUE_USAGE: Final = 0.1
"""Share of the server's notification queue that is full."""
SAFE_WAL_BYTES: Final = 1_000_000_000
"""WAL that may still be written before the slot is lost."""
RETAINED_WAL_BYTES: Final = 5_000_000_000
"""WAL that the server keeps for the slot."""
