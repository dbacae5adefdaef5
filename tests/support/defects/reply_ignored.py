"""A daemon that takes a failed call for done."""

# mypy: ignore-errors

from __future__ import annotations

from invalidator.cli import main
from invalidator.errors import TargetError
from invalidator.model import Applied
from invalidator.targets.redis_keys import RedisKeys

_apply = RedisKeys.apply


async def _careless(self, batch):
    try:
        return await _apply(self, batch)
    except TargetError:
        return Applied()


RedisKeys.apply = _careless

if __name__ == "__main__":
    main()
