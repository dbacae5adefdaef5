"""``invalidator purge``: a running daemon drops what is named, in every layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, load_settings, settings_options

if TYPE_CHECKING:
    from invalidator.postgres.connection import Dsn

_MAX_ROWS = 10_000


@click.command("purge", short_help="Drop entries by hand, in every layer.")
@click.option("--key", "--keys", "keys", multiple=True, metavar="KEY", help="Unlink this Redis key. Again for more.")
@click.option("--tag", "--tags", "tags", multiple=True, metavar="TAG", help="Unlink all keys in this tag's set.")
@click.option("--pattern", "patterns", multiple=True, metavar="GLOB", help="Unlink all Redis keys that match (SCAN).")
@click.option("--l1", multiple=True, metavar="GLOB", help="Publish this to in-process caches.")
@click.option("--cdn", multiple=True, metavar="TAG", help="Purge this tag at the CDNs.")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="NAME",
    help="The coarse form of this rule; with --where: its exact names.",
)
@click.option(
    "--where", metavar="SQL", help='With one --rule: what it names for the rows that match, as in "id < 100".'
)
@click.option("--dsn", metavar="DSN", help="Read the rows of --where as a role with SELECT, instead of by source.dsn.")
@click.option("--all", "everything", is_flag=True, help="The coarse form of every rule, as after a gap.")
@click.option("--dry-run", is_flag=True, help="Print what would be dropped, and ask no daemon.")
@click.option("--socket", "path", metavar="PATH", help="Of the daemon.  [default: admin.socket of the settings]")
@settings_options
@json_option
def command(  # noqa: PLR0913  (one parameter per option)
    *,
    keys: tuple[str, ...],
    tags: tuple[str, ...],
    patterns: tuple[str, ...],
    l1: tuple[str, ...],
    cdn: tuple[str, ...],
    rules: tuple[str, ...],
    where: str | None,
    dsn: str | None,
    path: str | None,
    settings_file: Path | None,
    overrides: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Drop what is named in Redis, then in in-process caches, then at the CDNs, by a daemon that runs.

    The answer comes when every required target has dropped it. Exit code 1: a target has not yet, and the daemon goes
    on trying; 69: no daemon answers.
    """
    kinds = {"keys": keys, "tags": tags, "patterns": patterns, "l1": l1, "cdn": cdn}
    order: dict[str, Any] = {kind: list(names) for kind, names in kinds.items() if names}
    if where is not None:
        if len(rules) != 1 or everything:
            msg = "--where goes with one --rule"
            raise click.UsageError(msg)
        _merge(order, _of_rows(rules[0], where, dsn, settings_file, overrides))
    elif rules:
        order["rules"] = list(rules)
    if everything:
        order["all"] = True
    if not order and where is None:
        msg = "nothing is named: --key, --tag, --pattern, --l1, --cdn, --rule or --all"
        raise click.UsageError(msg)
    if not order:
        click.echo("no row matches, or the rule names nothing for those that do: nothing is dropped")
        return Exit.FINE
    if dry_run:
        return _show(_planned(order, settings_file, overrides), as_json=as_json)
    return _ask(path, order, settings_file, overrides, as_json=as_json)


def _ask(
    path: str | None, order: dict[str, Any], settings_file: Path | None, overrides: tuple[str, ...], *, as_json: bool
) -> int:
    from invalidator.cli import _admin

    answer = _admin.ask(_admin.socket_path(path, settings_file, overrides), "POST", "/purge", order)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        what = "dropped" if answer["applied"] else "not dropped everywhere yet; the daemon goes on trying"
        of = f" (coarse forms of {', '.join(answer['rules'])})" if answer["rules"] else ""
        click.echo(f"{answer['items']} names{of}: {what}")
    return Exit.FINE if answer["applied"] else Exit.PROBLEMS


def _of_rows(
    rule: str, where: str, dsn: str | None, settings_file: Path | None, overrides: tuple[str, ...]
) -> dict[str, list[str]]:
    """What one rule names for rows that are in the database now."""
    import asyncio

    from invalidator.cli.explaining.change import from_database
    from invalidator.cli.explaining.explanation import explained
    from invalidator.config.agreement import tag_grammars
    from invalidator.errors import ConfigError
    from invalidator.rules import document
    from invalidator.rules.table_names import join_table
    from invalidator.sources import pgoutput

    settings = load_settings(settings_file, overrides)
    loaded = document.load_with_warnings(settings.rules)
    found = next((each for each in loaded.ruleset.rules if each.name == rule), None)
    if found is None or "*" in found.schema + found.table:
        msg = f"there is no rule '{rule}' for one table"
        raise ConfigError(msg, fix="invalidator explain --key KEY   (names the rules that can drop a key)")
    address: Dsn | None = dsn
    if address is None:
        if not isinstance(settings.source, pgoutput.Settings):
            msg = f"--where reads rows of a source of type 'pgoutput'; the settings say '{settings.source.type}'"
            raise ConfigError(msg, fix="add --dsn DSN")
        address = settings.source.address
    table = join_table(found.schema, found.table)
    changes = asyncio.run(from_database(address, table, where, None, "delete", limit=_MAX_ROWS))
    grammars = list(tag_grammars(settings).values())
    order: dict[str, list[str]] = {}
    for change in changes:
        for explanation in explained(change, loaded, grammars).explanations:
            if explanation.rule.name == rule:
                _merge(order, _named(explanation.invalidation))
    return order


def _planned(order: dict[str, Any], settings_file: Path | None, overrides: tuple[str, ...]) -> dict[str, list[str]]:
    """The order with coarse forms in the place of rules."""
    planned = {kind: list(names) for kind, names in order.items() if kind not in ("rules", "all")}
    if "rules" not in order and "all" not in order:
        return planned
    from invalidator.config.agreement import tag_grammars
    from invalidator.rules import document
    from invalidator.rules.engine import Engine

    settings = load_settings(settings_file, overrides)
    grammars = list(tag_grammars(settings).values())
    engine = Engine(document.load(settings.rules), states={}, tables={}, cdn_grammars=grammars)
    for _, form in engine.coarse(rules=None if "all" in order else set(order["rules"])):
        _merge(planned, _named(form))
    return planned


def _named(invalidation: Any) -> dict[str, list[str]]:
    from invalidator.admin.purging import KINDS

    groups = {**KINDS, "tag_patterns": "tag_patterns", "cdn_soft": "cdn_soft"}
    found = {kind: sorted(_text(name) for name in getattr(invalidation, group)) for kind, group in groups.items()}
    return {kind: names for kind, names in found.items() if names}


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _merge(into: dict[str, Any], more: dict[str, list[str]]) -> None:
    for kind, names in more.items():
        into[kind] = sorted({*into.get(kind, ()), *names})


def _show(planned: dict[str, list[str]], *, as_json: bool) -> int:
    from invalidator.yamlfile.diagnostic import printable

    if as_json:
        click.echo(json.dumps(planned, indent=2))
    else:
        for kind, names in planned.items():
            click.echo(f"{kind:<12} {printable('  '.join(names))}")
        click.echo(f"{sum(map(len, planned.values()))} names would be dropped")
    return Exit.FINE
