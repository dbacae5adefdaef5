"""``invalidator explain TABLE ROW``: what the rules would do with one row, and why."""

from __future__ import annotations

import difflib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, load_settings, settings_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from invalidator.model import Invalidation, Relation
    from invalidator.rules.explain import RuleExplanation
    from invalidator.rules.rule import RuleSet

EVENTS = ("insert", "update", "delete", "truncate")


@click.command("explain", short_help="Show what the rules would do with one row, and why.")
@click.argument("table")
@click.argument("row", required=False)
@settings_options
@click.option("--event", type=click.Choice(EVENTS), help="What happened.  [default: by the images in ROW]")
@click.option(
    "--identity",
    metavar="COLUMNS",
    help="The replica identity, as in id or tenant_id,id: of the old row only these are sent.  [default: FULL]",
)
@click.option(
    "--rules",
    "rule_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Rule file or directory, instead of those of the settings, which are not read then. May be given again.",
)
@json_option
def command(  # noqa: PLR0913  (one parameter per option)
    table: str,
    row: str | None,
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    event: str | None,
    identity: str | None,
    rule_files: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Show which rules would fire for a row of TABLE (schema.table), and what they would drop.

    ROW is JSON: {"old": {…}, "new": {…}} for an update, {"new": {…}} or just the row for an insert, {"old": {…}} for
    a delete, and - to read it from standard input. Nothing is connected to and nothing is dropped. Exit code 1 means
    that no rule is for this table.
    """
    change = _Change.read(table, row, event, identity)
    ruleset, grammars = _rules(settings_file, overrides, rule_files)
    from invalidator.rules.explain import Outcome, explain

    found = explain(ruleset, change.relation, change.operation, change.old, change.new, cdn_grammars=grammars)
    concerned = [each for each in found if each.outcome is not Outcome.OTHER_TABLE]
    if as_json:
        document = {"event": change.operation, "table": change.relation.name, "rules": [_json(e) for e in concerned]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_text(concerned, change, ruleset)))
    return Exit.FINE if concerned else Exit.PROBLEMS


@dataclass(frozen=True, slots=True)
class _Change:
    """One row change as the command line describes it."""

    relation: Relation
    operation: Any  # an Operation; its module is imported late
    old: dict[str, object] | None
    new: dict[str, object] | None

    @classmethod
    def read(cls, table: str, row: str | None, event: str | None, identity: str | None) -> _Change:
        from invalidator.model import Operation
        from invalidator.rules.schema import split_table

        try:
            schema, name = split_table(table)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="TABLE") from None
        old, new = _images(row, event)
        operation = Operation(event or _event(old, new))
        return cls(_relation(schema, name, (old or {}) | (new or {}), identity), operation, old, new)


def _images(row: str | None, event: str | None) -> tuple[dict[str, object] | None, dict[str, object] | None]:
    """The old and the new image in the JSON."""
    if row is None:
        if event == "truncate":
            return None, None
        msg = "ROW is missing: the row as JSON, or - for standard input"
        raise click.UsageError(msg)
    try:
        data = json.loads(sys.stdin.read() if row == "-" else row)
    except ValueError as error:
        msg = f"no JSON: {error}"
        raise click.BadParameter(msg, param_hint="ROW") from None
    if not isinstance(data, dict) or not data:
        msg = 'a JSON object is needed, such as {"id": 1}'
        raise click.BadParameter(msg, param_hint="ROW")
    is_wrapped = set(data) <= {"old", "new"} and all(
        value is None or isinstance(value, dict) for value in data.values()
    )
    if is_wrapped:
        return data.get("old"), data.get("new")
    return (data, None) if event == "delete" else (None, data)


def _event(old: object, new: object) -> str:
    if old is not None and new is not None:
        return "update"
    return "delete" if new is None else "insert"


def _relation(schema: str, table: str, row: dict[str, object], identity: str | None) -> Relation:
    """Without a database, the row's columns are the table's."""
    from invalidator.model import Column, Relation

    named = None if identity is None else {part.strip() for part in identity.split(",")}
    unknown = sorted((named or set()) - set(row)) if row else []
    if unknown:
        msg = f"the row has no column {', '.join(unknown)}"
        raise click.BadParameter(msg, param_hint="--identity")
    columns = tuple(Column(name, 25, is_identity=named is None or name in named) for name in row)
    return Relation(1, schema, table, "f" if named is None else "d", columns)


def _rules(
    settings_file: Path | None, overrides: tuple[str, ...], rule_files: tuple[Path, ...]
) -> tuple[RuleSet, list[Any]]:
    from invalidator.rules import document

    if rule_files:
        return document.load(rule_files), []
    from invalidator.config.agreement import tag_grammars

    settings = load_settings(settings_file, overrides)
    return document.load(settings.rules), list(tag_grammars(settings).values())


def _text(explanations: list[RuleExplanation], change: _Change, ruleset: RuleSet) -> list[str]:
    from invalidator.yamlfile.diagnostic import printable

    if not explanations:
        return list(map(printable, _nothing(change.relation, ruleset)))
    lines: list[str] = []
    for explanation in explanations:
        lines += _rule_lines(explanation, change)
    if change.operation == "update" and change.old is None:
        lines.append("(no old row given: it counts as not sent)")
    others = len(ruleset.rules) - len(explanations)
    if others:
        lines.append(f"({others} {'rule is' if others == 1 else 'rules are'} for other tables)")
    return [printable(line) for line in lines]


def _nothing(relation: Relation, ruleset: RuleSet) -> Iterator[str]:
    yield f"no rule is for {relation.name}"
    tables = sorted({f"{rule.schema}.{rule.table}" for rule in ruleset.rules})
    near = difflib.get_close_matches(relation.name, tables, 1, 0.5)
    yield f"   = help: did you mean {near[0]}?" if near else f"   = help: there are rules for {', '.join(tables)}"


def _rule_lines(explanation: RuleExplanation, change: _Change) -> list[str]:
    from invalidator.rules.explain import Outcome

    rule = explanation.rule
    head = f"rule {rule.name} ({rule.place.file}:{rule.place.line})"
    match explanation.outcome:
        case Outcome.OTHER_EVENT:
            return [f"{head:<40} not fired: events [{', '.join(sorted(rule.events))}]"]
        case Outcome.UNCHANGED:
            return [f"{head:<40} not fired: changed [{', '.join(sorted(rule.changed or ()))}], and none of them did"]
        case _:
            return _fired_lines(explanation, change, head)


def _fired_lines(explanation: RuleExplanation, change: _Change, head: str) -> list[str]:
    rule = explanation.rule
    lines = [f"{head:<40} {str(change.operation).upper()}"]
    if rule.changed is not None and change.operation == "update":
        lines.append(_row("changed", _differences(rule.changed, change)))
    lines += [_row(group, "  ".join(names), verb) for group, names, verb in _groups(explanation.invalidation)]
    for delays in explanation.invalidation.repeats:
        lines.append(_row("repeat", ", ".join(f"+{delay:g}s" for delay in delays)))
    if explanation.widened:
        lines.append(_row("widened", ", ".join(explanation.widened), "so the coarse form is in here"))
    if explanation.missing_columns:
        lines.append(_row("missing", ", ".join(explanation.missing_columns), "the row has no such column"))
    if explanation.null_skips:
        lines.append(_row("skipped", str(explanation.null_skips), "templates with a NULL in them"))
    return lines


def _differences(changed: Iterable[str], change: _Change) -> str:
    old, new = change.old or {}, change.new or {}
    parts = []
    for name in sorted(changed):
        if name not in old or name not in new:
            parts.append(f"{name} (not sent, so it may have changed)")
        elif old[name] != new[name]:
            parts.append(f"{name} {json.dumps(old[name])} → {json.dumps(new[name])}")
    return ", ".join(parts) or "nothing"


def _groups(invalidation: Invalidation) -> Iterator[tuple[str, list[str], str]]:
    groups = (
        ("keys", invalidation.keys, "unlink"),
        ("tags", invalidation.tags, "unlink the tag sets' keys"),
        ("keys", invalidation.key_patterns, "scan and unlink"),
        ("tags", invalidation.tag_patterns, "scan for tag sets and unlink their keys"),
        ("l1", invalidation.l1, "publish"),
        ("cdn", invalidation.cdn, "purge"),
        ("cdn", invalidation.cdn_soft, "purge softly"),
    )
    for group, names, verb in groups:
        if names:
            yield group, [_shown(name) for name in sorted(names)], verb
    if invalidation.cdn_all:
        yield "cdn", ["everything"], "purge, where purge_all_on_gap consents"


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _row(label: str, value: str, verb: str = "") -> str:
    return f"  {label:<8} {value:<34} {verb}".rstrip()


def _json(explanation: RuleExplanation) -> dict[str, Any]:
    rule = explanation.rule
    return {
        "rule": rule.name,
        "place": str(rule.place),
        "outcome": explanation.outcome,
        "invalidation": _names(explanation.invalidation),
        "repeats": [
            {"after_seconds": list(delays), "invalidation": _names(part)}
            for delays, part in explanation.invalidation.repeats.items()
        ],
        "widened": list(explanation.widened),
        "null_skips": explanation.null_skips,
        "missing_columns": list(explanation.missing_columns),
    }


def _names(invalidation: Invalidation) -> dict[str, Any]:
    groups = ("keys", "tags", "key_patterns", "tag_patterns", "l1", "cdn", "cdn_soft")
    named = {group: sorted(map(_shown, getattr(invalidation, group))) for group in groups}
    return {group: names for group, names in named.items() if names} | (
        {"cdn_all": True} if invalidation.cdn_all else {}
    )
