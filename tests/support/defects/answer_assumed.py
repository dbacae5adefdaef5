"""A daemon that takes any answer of a CDN for done."""

# mypy: ignore-errors

from __future__ import annotations

from invalidator.cli import main
from invalidator.targets.cdn._outcome import Done
from invalidator.targets.cdn.varnish import Varnish

Varnish.judge = lambda *_: Done(0)

if __name__ == "__main__":
    main()
