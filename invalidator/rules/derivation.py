"""What a coarse form has to cover, worked out from the exact templates of a rule.

Every value that is not the same for all rows becomes ``*``. In keys and tags the literal text around it stays, so
that a pattern never reaches names that the rule could not have made: Redis may hold more than this cache. An L1
pattern ends at the first value, because some in-process caches understand a ``*`` at the end only, and what is
dropped too much there is filled again from Redis.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from invalidator.rules import globs
from invalidator.rules.template import Literal, Reference, Template

_SAME_FOR_ALL_ROWS: Final = frozenset({"schema", "table"})
_GLOB: Final = {"*": "[*]", "?": "[?]", "[": "[[]", "\\": "[\\\\]"}
_ANY: Final = Literal("*")


def is_fixed(template: Template) -> bool:
    """Whether the template names the same for every change of one table."""
    return all(_is_fixed(reference) for reference in template.references)


def covering_pattern(template: Template) -> Template:
    """The glob over all names that a template of keys or tags can make."""
    parts: list[Literal | Reference] = []
    for part in template.parts:
        if isinstance(part, Literal):
            parts.append(Literal(_escaped(part.text)))
        elif _is_fixed(part):
            parts.append(part)
        elif not (parts and parts[-1] is _ANY):
            parts.append(_ANY)
    return _template(parts)


def covering_l1_pattern(template: Template) -> Template:
    """The glob over all patterns that an L1 template can make; its literal text is a glob already."""
    parts: list[Literal | Reference] = []
    for part in template.parts:
        if isinstance(part, Reference) and not _is_fixed(part):
            last = parts[-1] if parts else None
            if isinstance(last, Literal):
                parts[-1] = Literal(_without_wild_end(last.text))
            return _template([*parts, _ANY])
        parts.append(part)
    return _template(parts)


def joined(front: Template, back: Template) -> Template:
    """One template after the other."""
    return _template([*front.parts, *back.parts])


def without_covered(patterns: Iterable[Template]) -> tuple[Template, ...]:
    """The patterns without repetitions and without those that another one covers: each costs a SCAN."""
    distinct = {pattern.text: pattern for pattern in patterns}
    fronts = [text[:-1] for text in distinct if _ends_wild(text)]
    return tuple(
        pattern
        for text, pattern in distinct.items()
        if not any(text.startswith(front) and text != f"{front}*" for front in fronts)
    )


def literal_text(template: Template) -> str:
    """All that stands literally in the template, without its globs."""
    return "".join(part.text for part in template.parts if isinstance(part, Literal)).replace("*", "")


def _ends_wild(text: str) -> bool:
    """Whether a ``*`` at the end is a wildcard: one behind a backslash or in a class is not."""
    return text.endswith("*") and globs.open_at_end(text[:-1]) is None


def _without_wild_end(text: str) -> str:
    while _ends_wild(text):
        text = text[:-1]
    return text


def _is_fixed(reference: Reference) -> bool:
    return reference.scope == "meta" and reference.name in _SAME_FOR_ALL_ROWS


def _escaped(text: str) -> str:
    return "".join(_GLOB.get(character, character) for character in text)


def _template(parts: Iterable[Literal | Reference]) -> Template:
    """The parts as a template with neighbouring literals merged; they hold no row value."""
    return Template("", tuple(parts)).before_row()
