"""A daemon that does not notice that a standby was promoted."""

# mypy: ignore-errors

from __future__ import annotations

from dataclasses import replace

from invalidator import continuity
from invalidator.cli import main
from invalidator.model import GapReason

_judge = continuity.judge


def _blind(records, start):
    same = {name: record and replace(record, system=start.system, timeline=start.timeline)
            for name, record in records.items()}  # fmt: skip
    return [gap for gap in _judge(same, start) if gap.reason is not GapReason.OTHER_HISTORY]


continuity.judge = _blind

if __name__ == "__main__":
    main()
