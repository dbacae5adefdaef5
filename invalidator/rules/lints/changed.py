"""Columns whose change matters, and that ``changed:`` does not look at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from invalidator.model import Operation
from invalidator.rules.lints.subject import Subject, Written
from invalidator.yamlfile import Diagnostic, Severity

_NEVER_MOVES: Final = frozenset({"id", "uuid", "guid", "pk", "oid"})
"""Columns that identify the row itself: nobody updates them, so `changed:` need not name them."""
_NOT_PLAIN: Final = re.compile(r"\{?(?:(?P<scope>\w+)\.)?(?P<name>\w+)\}?")
_STALE: Final = "what {} part of would stay stale under the old name"
_PASSED_BY: Final = "a row that begins or ceases to fulfil the condition would stay cached as it was"


def findings(subject: Subject) -> Iterator[Diagnostic]:
    """Columns that name or decide what is dropped, and events that are not narrowed."""
    changed = subject.model.changed
    yield from _habits(subject)
    if changed is None or Operation.UPDATE not in subject.rule.events:
        return
    named = _left_out(subject, _names(subject, subject.exact))
    by_prefix = [name for name in _left_out(subject, _names(subject, [subject.prefix])) if name not in named]
    asked = sorted(subject.rule.when.columns) if subject.rule.when is not None else []
    deciding = [name for name in _left_out(subject, asked) if name not in (*named, *by_prefix)]
    yield from _omission(subject, named, "what is dropped is named by {}", _STALE, "warning")
    yield from _omission(subject, by_prefix, "the prefix holds {}", _STALE, "info")
    yield from _omission(subject, deciding, "`when:` asks for {}", _PASSED_BY, "warning")
    listed = [event for event in subject.model.events if event in {"insert", "delete"}]
    if "events" in subject.model.model_fields_set and listed:
        message = f"`changed:` does not narrow {' and '.join(listed)}: they always count"
        help_text = f"remove {' and '.join(listed)} from events: if only updates are meant; otherwise all is well"
        yield subject.note(subject.key("changed"), "changed-and-delete", message, help_text, severity="info")


def _habits(subject: Subject) -> Iterator[Diagnostic]:
    """Entries that are no plain name of a column: they are not read like templates."""
    for index, entry in enumerate(subject.model.changed or ()):
        found = _NOT_PLAIN.fullmatch(entry)
        scope = found["scope"] if found is not None else None
        if (
            found is None
            or scope not in {None, "new", "old", subject.rule.table}
            or (scope is None and entry[0] != "{")
        ):
            continue
        message = f"'{entry}' is read as the name of a column"
        help_text = f"write {found['name']}: `changed:` compares the row before and after by itself"
        yield subject.note(subject.value("changed", index), "changed-habit", message, help_text)


def _names(subject: Subject, templates: Iterable[Written]) -> Iterator[str]:
    """The columns that name what was cached before the update; those that lookups are asked with included."""
    for written in templates:
        asked = (reference for _, reference in subject.asked(written.template))
        for reference in (*written.template.references, *asked):
            if reference.scope in {"row", "old"}:
                yield reference.name


def _left_out(subject: Subject, names: Iterable[str]) -> list[str]:
    changed, own = subject.model.changed or (), _own_ids(subject.rule.table)
    return [name for name in dict.fromkeys(names) if name not in changed and _folded(name) not in own]


@lru_cache(maxsize=256)
def _own_ids(table: str) -> frozenset[str]:
    """How columns that identify a row of this table are usually called: ``id``, ``user_id``, ``categoryId``."""
    plural = _folded(table)
    singulars = {plural, plural.removesuffix("s"), plural.removesuffix("es"), re.sub(r"ies\Z", "y", plural)}
    return _NEVER_MOVES | {singular + suffix for singular in singulars for suffix in ("id", "uuid")}


def _folded(name: str) -> str:
    return name.lower().replace("_", "")


def _omission(subject: Subject, names: list[str], reason: str, why: str, severity: Severity) -> Iterator[Diagnostic]:
    if not names:
        return
    it, it_is = ("it", "it is") if len(names) == 1 else ("them", "they are")
    listed = " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
    message = f"`changed:` leaves out {listed}, though {reason.format(it)}"
    why = f"an UPDATE of {listed} alone would not fire the rule: {why.format(it_is)}"
    fix = f"changed: [{', '.join(map(_yaml, [*(subject.model.changed or ()), *names]))}]"
    span = subject.key("changed")
    yield subject.note(span, "changed-omits-column", message, severity=severity, why=why, fix=fix)


def _yaml(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else "'" + name.replace("'", "''") + "'"
