"""A daemon that calls a target failing after a fifth of the usual time; everything else in it is as always."""

from __future__ import annotations

from invalidator.telemetry.problems import limits

FAILING_SECONDS = limits.FAILING_SECONDS / 5

if __name__ == "__main__":
    from invalidator.cli import main

    limits.FAILING_SECONDS = FAILING_SECONDS  # type: ignore[misc]
    main()
