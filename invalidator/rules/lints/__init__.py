"""What a rule that can be used says, and its author hardly meant: warnings and hints, known from the file alone.

    subject    the rule as it is written and as it was made, with its places
    entries    lists, options and table globs that say nothing, or too much
    habits     other template languages; ``foreign`` knows how they write a value
    images     templates and events that never meet
    coarse     coarse forms that reach less than the exact ones
    changed    columns whose change matters and is not looked at
    words      text in a condition that was read as a column

Whoever likes these warnings lets them fail the check (``--strict``), so what could be right is not warned about.
"""

from __future__ import annotations

from invalidator.rules.lints import changed, coarse, entries, habits, images, words
from invalidator.rules.lints.subject import Subject
from invalidator.rules.rule import Rule
from invalidator.rules.schema import RuleModel
from invalidator.yamlfile import Diagnostic, Document, Path

__all__ = ["lint"]

_LINTS = (entries, habits, images, changed, words, coarse)


def lint(document: Document, path: Path, model: RuleModel, rule: Rule) -> list[Diagnostic]:
    """What is worth knowing about a rule.

    Args:
        document: its file.
        path: where it stands there, such as ``("rules", 3)``.
        model: the rule as it is written.
        rule: the same with defaults and prefix.
    """
    subject = Subject(document, path, model, rule)
    return list(dict.fromkeys(found for module in _LINTS for found in module.findings(subject)))
