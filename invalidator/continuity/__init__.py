"""Changes that are missing: noticed, and made good.

continuity  holds each connection against the records beside the caches, and releases positions when those are kept
settings    what can be set
abreast     what is done at several targets at once, so that none waits for another
recorder    one target that keeps such a record; ``checkpoint.record`` says what it holds, and judges
debts       targets without which positions were confirmed, lest the slot was lost
unstreamed  what happens to tables without a word in the stream
repairs     the coarse forms that make up for it, one rule at a time
"""

from __future__ import annotations

from invalidator.continuity.continuity import Continuity
from invalidator.continuity.settings import Settings

__all__ = ["Continuity", "Settings"]
