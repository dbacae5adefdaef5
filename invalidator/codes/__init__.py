"""Every code that a finding may carry, explained: what it means, what would go wrong, wrong and right side by side.

    all_codes   code → its explanation, of all modules here
    find        the explanation of one, or who comes near
    page        an explanation as Markdown

A module here is a chapter; its ``CODES`` are found by its being there. ``invalidator check --explain CODE`` and
docs/reference/findings.md show them, and a test holds each example against the checker.
"""

from __future__ import annotations

from invalidator.codes._explanation import Code
from invalidator.codes._register import all_codes, chapters, find, page, similar

__all__ = ["Code", "all_codes", "chapters", "find", "page", "similar"]
