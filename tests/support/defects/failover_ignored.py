"""A daemon that does not notice that its Redis is another one."""

# mypy: ignore-errors

from __future__ import annotations

from invalidator.cli import main
from invalidator.continuity import Continuity


def _look(self, recorder, kept, start, *, written=None):
    recorder.kept = kept


Continuity._look = _look

if __name__ == "__main__":
    main()
