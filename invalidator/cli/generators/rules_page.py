"""What in ``docs/reference/rules.md`` comes from the code: tables of fields, filters and facts, grammars, derivations.

``python -m invalidator.cli.generators.rules_page`` puts it into the page again, between ``<!-- made: NAME -->`` and
``<!-- end -->``. The text around it is written by hand. What stands behind an arrow was computed by the code itself.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from invalidator.cli.generators import schemas
from invalidator.model import Column, Operation, Relation, Transaction
from invalidator.rules import coarse, condition, document, template
from invalidator.rules.explain import explain
from invalidator.rules.rule import Rule, RuleSet

PAGE: Final = Path(__file__).parents[3] / "docs" / "reference" / "rules.md"
COMMAND: Final = "python -m invalidator.cli.generators.rules_page"
_BLOCK: Final = re.compile(r"(<!-- made: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

_FILTERS: Final = {
    "lower": ("lower case, as Unicode has it", "ÄRGER"),
    "upper": ("upper case, as Unicode has it", "straße"),
    "trim": ("without white space at both ends", "  a b "),
    "urlencode": ("percent-encoded, but for letters, digits and `_.-~`", "a/b c:ä"),
    "md5": ("the hash, in hexadecimal digits", "42"),
    "sha1": ("the hash, in hexadecimal digits", "42"),
    "sha256": ("the hash, in hexadecimal digits", "42"),
    "hashtag": ("in braces, so that Redis Cluster keeps such keys in one slot", "42"),
}
_FACTS: Final = {
    "schema": "the table's schema; of a partition, its root's",
    "table": "the table; of a partition, its root",
    "op": "what happened",
    "lsn": "the start of the transaction's commit record",
    "xid": "the transaction's number",
    "commit_time": "when it was committed, in UTC",
}
_DERIVED: Final = (
    ("keys", "user:{id}"),
    ("keys", "user:{id}:profile"),
    ("keys", "cart:{user_id}:{id}"),
    ("keys", "{meta.schema}:user:{id}"),
    ("keys", "settings"),
    ("tags", "user:{id}"),
    ("l1", "user:{id}:*"),
    ("l1", "user:{id}:profile"),
    ("cdn", "user-{id}"),
    ("cdn", "{meta.table}"),
)

_CONDITIONS: Final = (
    "status = 'published'",
    "new.status = 'published'",
    "old.status = 'published'",
    "changed(status)",
    "old.status != new.status and new.status = 'published'",
    "not status = 'draft'",
    "new.status is null",
)
_CHANGES: Final[dict[str, tuple[Operation, str | None, str | None]]] = {
    "insert published": (Operation.INSERT, None, "published"),
    "draft → published": (Operation.UPDATE, "draft", "published"),
    "published → draft": (Operation.UPDATE, "published", "draft"),
    "draft → draft": (Operation.UPDATE, "draft", "draft"),
    "not sent → draft": (Operation.UPDATE, None, "draft"),
    "delete published": (Operation.DELETE, "published", None),
}
_INT8: Final = 20
_TEXT: Final = 25


def refreshed(page: str) -> str:
    """The page with everything that comes from the code as it is now.

    Raises:
        KeyError: it asks for a block that nobody makes.
    """
    return _BLOCK.sub(lambda match: match[1] + "\n".join(BLOCKS[match[2]]()) + "\n" + match[4], page)


# -- fields ------------------------------------------------------------------------------------------------------


def _fields() -> Iterator[str]:
    yield from _section("The file", schemas.rules())


def _section(heading: str, node: dict[str, Any]) -> Iterator[str]:
    """A mapping's table, then the tables of the mappings in it."""
    yield from ("", f"### {heading}", "")
    yield from ("| field | type | default | meaning | example |", "|---|---|---|---|---|")
    required = node.get("required", ())
    for name, field in node["properties"].items():
        default = "required" if name in required else _code(field["default"]) if "default" in field else ""
        row = (f"`{name}`", _type(name, field), default, field.get("description", ""), _example(field))
        yield f"| {' | '.join(map(_cell, row))} |"
    for name, field in node["properties"].items():
        inner, heading = _inner(name, field)
        if inner.get("properties"):
            yield from _section(heading, inner)


def _inner(name: str, field: dict[str, Any]) -> tuple[dict[str, Any], str]:
    if isinstance(field.get("items"), dict):
        return field["items"], f"Each of `{name}`"
    if isinstance(field.get("additionalProperties"), dict):
        return field["additionalProperties"], f"Each of `{name}`"
    return field, f"`{name}`"


def _type(name: str, node: dict[str, Any]) -> str:
    if "const" in node:
        return _code(node["const"])
    if "enum" in node:
        return " or ".join(map(_code, node["enum"]))
    if "anyOf" in node:
        return " or ".join(_type(name, choice) for choice in node["anyOf"])
    kind = node.get("type", "any")
    kind = kind[0] if isinstance(kind, list) else kind
    inner, heading = _inner(name, node)
    if inner.get("properties"):
        what = {"array": "list", "object": "mapping"}[kind]
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        return f"[{what}](#{anchor})"
    if kind == "array":
        what = _type(name, node["items"])
        return f"list of {what}" if "enum" not in node["items"] else f"list of any of {what.replace(' or ', ', ')}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(kind, "mapping")


def _example(node: dict[str, Any]) -> str:
    for place in (node, node.get("items", {})):
        if isinstance(place, dict) and place.get("examples"):
            return _code(place["examples"][0])
    return ""


# -- templates ---------------------------------------------------------------------------------------------------


def _grammar() -> Iterator[str]:
    yield "```text"
    yield from _indented(template.__doc__ or "")
    yield "```"


def _condition_grammar() -> Iterator[str]:
    yield "```text"
    yield from condition.GRAMMAR.rstrip().splitlines()
    yield "```"


def _conditions() -> Iterator[str]:
    """Which rules fire for which changes, asked of the engine."""
    yield f"| `when:` | {' | '.join(_CHANGES)} |"
    yield "|---" * (len(_CHANGES) + 1) + "|"
    for text in _CONDITIONS:
        fired = ["yes" if _fires(text, *change) else "" for change in _CHANGES.values()]
        yield f"| `{text}` | {' | '.join(fired)} |"


def _fires(when: str, operation: Operation, old: str | None, new: str | None) -> bool:
    columns = (Column("id", _INT8, is_identity=True), Column("status", _TEXT, is_identity=False))
    images = [None if status is None else {"id": 1, "status": status} for status in (old, new)]
    rule = _rule("keys", "post:{id}", when=when)
    identity = "d" if operation is Operation.UPDATE and old is None else "f"
    table = Relation(1, rule.schema, rule.table, identity, columns)
    (explanation,) = explain(RuleSet((rule,), ""), table, operation, *images)
    return bool(explanation.invalidation.keys)


def _indented(docstring: str) -> Iterator[str]:
    """The drawing in a module's docstring."""
    yield from (line[4:] for line in docstring.splitlines() if line.startswith("    "))


def _filters() -> Iterator[str]:
    yield from ("| filter | makes of the value | for example |", "|---|---|---|")
    for name, function in template.FILTERS.items():
        meaning, value = _FILTERS[name]
        made = function(value.encode()).decode()
        yield f"| `{name}` | {meaning} | {_code(value)} → {_code(made)} |"
    written = "{nickname|default:'none'}"
    (reference,) = template.parse(written).references
    made = (reference.filtered(None) or b"").decode()
    yield f"| `{template.DEFAULT}:'none'` | the text in quotes if the value is NULL | `NULL` → {_code(made)} |"


def _facts() -> Iterator[str]:
    transaction = Transaction(commit_time=820_454_400_123_456, xid=741, final_lsn=0x16B3748)
    known = coarse.relation_facts(Relation(1, "public", "users", "d", ()), Operation.UPDATE)
    known |= {name: fact(transaction) for name, fact in coarse.TRANSACTION_FACT_FUNCTIONS.items()}
    yield from ("| reference | is | for example |", "|---|---|---|")
    for name in template.META:
        yield f"| `{{meta.{name}}}` | {_FACTS[name]} | {_code(known[name].decode())} |"


def _derived() -> Iterator[str]:
    yield from ("| under `invalidate` | derived coarse form |", "|---|---|")
    for group, text in _DERIVED:
        yield f"| `{group}: {json.dumps([text])}` | {_coarse_of(group, text)} |"


def _coarse_of(group: str, text: str) -> str:
    form = _rule(group, text).coarse
    exact = {"keys": form.keys, "tags": form.tags, "l1": (), "cdn": form.cdn}[group]
    patterns = {"keys": form.key_patterns, "tags": form.tag_patterns, "l1": form.l1, "cdn": ()}[group]
    names = [*(f"{_code(made.text)}, exactly" for made in exact), *(_code(made.text) for made in patterns)]
    return ", ".join(names) or "everything at the CDN, with the target's consent"


def _rule(group: str, text: str, **more: str) -> Rule:
    rule = {"name": "example", "table": "public.users", "invalidate": {group: [text]}, **more}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yaml")
        path.write_text(json.dumps({"version": 1, "rules": [rule]}), encoding="utf-8")  # JSON is YAML
        return document.load([path]).rules[0]


def _code(value: object) -> str:
    if isinstance(value, str):
        return f"`{value}`" if value == value.strip() and value else f"`{json.dumps(value, ensure_ascii=False)}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


BLOCKS: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "fields": _fields,
    "grammar": _grammar,
    "condition-grammar": _condition_grammar,
    "conditions": _conditions,
    "filters": _filters,
    "facts": _facts,
    "derived": _derived,
}

if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
