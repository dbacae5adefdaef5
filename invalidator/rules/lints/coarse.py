"""Coarse forms that reach less than what the rule makes stale."""

from __future__ import annotations

from collections.abc import Iterator

from invalidator.rules.lints.subject import Subject
from invalidator.yamlfile import Diagnostic


def findings(subject: Subject) -> Iterator[Diagnostic]:
    """Keys of a rule that its coarse form reaches by a tag only, where nothing shows that the application keeps tags.

    It does where the rule, or any other of its file with that tag, drops tags exactly; and ``keys: []`` says so too.
    """
    model = subject.model
    written = model.coarse
    if not (written.tags and model.invalidate.keys) or "keys" in written.model_fields_set or model.invalidate.tags:
        return
    unknown = [index for index, tag in enumerate(written.tags) if tag not in _tags_of_the_file(subject)]
    if len(unknown) < len(written.tags):
        return
    tag, key = written.tags[0], model.invalidate.keys[0]
    message = f"the coarse form drops only those keys that your application put into the set of tag '{tag}'"
    help_text = (
        "leave `tags:` out of coarse:, then a pattern is derived from each key; or, if the application adds each key to"
        " the set when it fills it, write `keys: []` beside it"
    )
    why = f"after a TRUNCATE, a bulk change or a gap every other '{key}' would stay stale"
    yield subject.note(subject.value("coarse", "tags", 0), "coarse-tag-only", message, help_text, why=why)


def _tags_of_the_file(subject: Subject) -> set[str]:
    found: set[str] = set()
    for rule in subject.document.data.get("rules") or ():
        exact = rule.get("invalidate") if isinstance(rule, dict) else None
        tags = exact.get("tags") if isinstance(exact, dict) else None
        found.update(map(str, tags if isinstance(tags, list) else ()))
    return found
