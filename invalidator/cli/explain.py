"""``invalidator explain``: what the rules would do with one row and why, or which rules can drop one name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, load_settings, settings_options
from invalidator.cli.explaining.change import EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from invalidator.cli.explaining.change import Change
    from invalidator.cli.explaining.explanation import Explained
    from invalidator.ports import TagGrammar
    from invalidator.postgres.connection import Dsn
    from invalidator.rules.document import Loaded
    from invalidator.rules.explain import Answer


@dataclass(frozen=True, slots=True)
class _Question:
    """What the command line asks."""

    table: str | None
    row: str | None
    where: str | None
    event: str | None
    identity: str | None
    names: dict[str, str]
    """Group → name, of what is asked for by name."""
    live: str | None = None
    dsn: str | None = None

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            click.UsageError: says which.
        """
        if self.live is not None and (self.names or self.table or self.where):
            msg = "--live is about what the daemon has seen, without TABLE, ROW and names"
            raise click.UsageError(msg)
        if len(self.names) > 1:
            msg = "--key, --tag, --l1 and --cdn exclude each other"
            raise click.UsageError(msg)
        if self.names and (self.table is not None or self.where is not None):
            msg = "a name is asked for without TABLE and ROW"
            raise click.UsageError(msg)
        if not self.names and self.table is None and self.live is None:
            msg = "TABLE is missing: schema.table, or ask for a name with --key, --tag, --l1 or --cdn"
            raise click.UsageError(msg)
        if self.dsn is not None and self.where is None:
            msg = "--dsn is for the rows of --where"
            raise click.UsageError(msg)
        if self.where is not None and self.identity is not None:
            msg = "with --where the replica identity is that of the table"
            raise click.UsageError(msg)


@click.command("explain", short_help="Show what the rules would do with one row, and why.")
@click.argument("table", required=False)
@click.argument("row", required=False)
@settings_options
@click.option("--event", type=click.Choice(EVENTS), help="What happened.  [default: by the images in ROW]")
@click.option(
    "--identity",
    metavar="COLUMNS",
    help="The replica identity, as in id or tenant_id,id: of the old row only these are sent.  [default: FULL]",
)
@click.option(
    "--where",
    metavar="SQL",
    help='Take the rows from the database, as in "id = 42" (read-only), with the types and identity of the table.',
)
@click.option(
    "--dsn",
    metavar="DSN",
    help="Read the rows of --where as a role with SELECT, instead of by source.dsn. Keep passwords out: PGPASSWORD.",
)
@click.option("--lookup", metavar="JSON", help='What lookups find, as in {"order": [{"user_id": 7}]}.')
@click.option("--online", is_flag=True, help="Run the lookups in the database, read-only.")
@click.option("--key", metavar="KEY", help="Which rules can drop this Redis key, and with what row values?")
@click.option("--tag", metavar="TAG", help="The same for a tag.")
@click.option("--l1", metavar="ENTRY", help="The same for an entry of the in-process caches.")
@click.option("--cdn", metavar="TAG", help="The same for a CDN tag.")
@click.option(
    "--live",
    metavar="LSN|last|last=N",
    help="What a running daemon made of the transactions that came, asked over its admin socket.",
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
    table: str | None,
    row: str | None,
    settings_file: Path | None,
    overrides: tuple[str, ...],
    *,
    event: str | None,
    identity: str | None,
    where: str | None,
    dsn: str | None,
    lookup: str | None,
    online: bool,
    key: str | None,
    tag: str | None,
    l1: str | None,
    cdn: str | None,
    live: str | None,
    rule_files: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Show which rules would fire for a row of TABLE (schema.table), and what they would drop.

    ROW is JSON: {"old": {…}, "new": {…}} for an update, {"new": {…}} or just the row for an insert, {"old": {…}} for
    a delete, and - to read it from standard input. With --where, the rows come from the database, at most 20; ROW
    then holds the columns that an update would change, and without it a delete is pretended. Nothing is dropped.

    With --live a running daemon tells what its rules made of the last transactions. With --key, --tag, --l1 or --cdn
    the question is turned round: which rules can drop this name, with what row values. Exit code 1 means that no rule
    is for the table, or can drop the name.
    """
    from invalidator.cli.explaining.explanation import explained

    names = {
        group: name for group, name in (("keys", key), ("tags", tag), ("l1", l1), ("cdn", cdn)) if name is not None
    }
    question = _Question(table, row, where, event, identity, names, live, dsn)
    question.check()
    if live is not None:
        return _by_transaction(live, settings_file, overrides, as_json=as_json)
    if names:
        [(group, name)] = names.items()
        return _by_name(_rules(settings_file, overrides, rule_files)[0], group, name, as_json=as_json)
    changes = _changes(question, settings_file, overrides)
    loaded, grammars = _rules(settings_file, overrides, rule_files)
    answer = _answer(lookup, settings_file, overrides, _lookup_names(loaded, table or ""), online=online)
    return _by_row([explained(change, loaded, grammars, answer) for change in changes], as_json=as_json)


def _by_transaction(live: str, settings_file: Path | None, overrides: tuple[str, ...], *, as_json: bool) -> int:
    from invalidator.cli import _admin
    from invalidator.cli.explaining.live import fetch, lines

    document = fetch(_admin.socket_path(None, settings_file, overrides), live)
    if as_json:
        _print_json(document)
    else:
        _print(list(lines(document)))
    return Exit.FINE if document["transactions"] else Exit.PROBLEMS


def _lookup_names(loaded: Loaded, table: str) -> list[str]:
    """The lookups of the rules for the table."""
    from invalidator.cli.explaining.change import split

    rules = loaded.ruleset.for_table(*split(table))
    return sorted({lookup.name for _, rule in rules for lookup in rule.lookups})


def _answer(
    lookup: str | None, settings_file: Path | None, overrides: tuple[str, ...], known: list[str], *, online: bool
) -> Answer | None:
    from invalidator.cli.explaining import lookups

    if lookup is not None and online:
        msg = "--lookup and --online exclude each other"
        raise click.UsageError(msg)
    if lookup is not None:
        return lookups.given(lookup, known)
    return lookups.online(load_settings(settings_file, overrides)) if online else None


def _by_name(loaded: Loaded, group: str, name: str, *, as_json: bool) -> int:
    from invalidator.cli.explaining.droppers import document, lines
    from invalidator.rules.inverse import droppers
    from invalidator.rules.template import encode

    found = droppers(loaded.ruleset, group, encode(name))
    if as_json:
        _print_json(document(loaded, found, group, name))
    else:
        _print(lines(loaded, found, group, name))
    return Exit.FINE if found else Exit.PROBLEMS


def _changes(question: _Question, settings_file: Path | None, overrides: tuple[str, ...]) -> list[Change]:
    from invalidator.cli.explaining.change import from_database, from_json

    table = question.table or ""  # checked: it is there
    if question.where is None:
        return [from_json(table, question.row, question.event, question.identity)]
    import asyncio

    from invalidator.errors import ConfigError
    from invalidator.sources import pgoutput

    dsn: Dsn | None = question.dsn
    if dsn is None:
        source = load_settings(settings_file, overrides).source
        if not isinstance(source, pgoutput.Settings):
            msg = f"--where reads rows of a source of type 'pgoutput'; the settings say '{source.type}'"
            raise ConfigError(msg, fix="invalidator explain --dsn DSN …")
        dsn = source.address
    return asyncio.run(from_database(dsn, table, question.where, question.row, question.event))


def _by_row(found: list[Explained], *, as_json: bool) -> int:
    if as_json:
        documents = [each.document() for each in found]
        _print_json(documents[0] if len(documents) == 1 else {"changes": documents})
    elif not found:
        _print(["no row matches"])
    else:
        for at, each in enumerate(found):
            front = [f"row {at + 1}: {_shown(each.change)}"] if each.change.is_whole else []
            _print([*front, *each.lines()])
    return Exit.FINE if any(each.explanations for each in found) else Exit.PROBLEMS


def _shown(change: Change) -> str:
    """The row's identity, or the whole of it, as ``id = '42'``."""
    row = change.old or change.new or {}
    named = [column.name for column in change.relation.columns if column.is_identity] or list(row)
    return ", ".join(f"{name} = {json.dumps(row.get(name), ensure_ascii=False)}" for name in named)[:200]


def _rules(
    settings_file: Path | None, overrides: tuple[str, ...], rule_files: tuple[Path, ...]
) -> tuple[Loaded, list[TagGrammar]]:
    from invalidator.rules import document

    if rule_files:
        return document.load_with_warnings(rule_files), []
    from invalidator.config.agreement import tag_grammars

    settings = load_settings(settings_file, overrides)
    return document.load_with_warnings(settings.rules), list(tag_grammars(settings).values())


def _print(lines: list[str]) -> None:
    from invalidator.yamlfile.diagnostic import printable

    click.echo("\n".join(printable(line) for line in lines))


def _print_json(document: Mapping[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
