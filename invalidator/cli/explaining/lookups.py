"""Who answers the lookups of ``test`` and ``explain``: the option ``--lookup``, or the database."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invalidator.config import Settings
    from invalidator.rules.explain import Answer


def given(text: str, known: Sequence[str]) -> Answer:
    """Answers lookups by the rows in the option ``--lookup``.

    Args:
        text: JSON: the name of each lookup, and the rows that it finds.
        known: the names of the lookups that there are.

    Raises:
        click.BadParameter: it cannot be understood, or names a lookup that there is not.
    """
    from invalidator.cli.explaining.change import json_object
    from invalidator.rules.explain import answered_by

    found = json_object(text, "--lookup")
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in found.values()):
        msg = 'each lookup\'s name needs a list of rows, as in {"order": [{"user_id": 7}]}'
        raise click.BadParameter(msg, param_hint="--lookup")
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            listing = f"there are {', '.join(known)}" if known else "none of them has a lookup"
            hint = f"did you mean '{near[0]}'?" if near else listing
            msg = f"no rule for this table has a lookup '{name}': {hint}"
            raise click.BadParameter(msg, param_hint="--lookup")
    return answered_by(found)


def online(settings: Settings) -> Answer:
    """Answers lookups as the daemon would, from what the database of the settings holds now."""
    from invalidator.cli.explaining.database import DatabaseAnswers

    return DatabaseAnswers(settings)
