"""``invalidator reload``: a running daemon reads its rule files again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, settings_options


@click.command("reload", short_help="Let a running daemon read its rules again.")
@click.option("--socket", "path", metavar="PATH", help="Of the daemon.  [default: admin.socket of the settings]")
@settings_options
@json_option
def command(path: str | None, settings_file: Path | None, overrides: tuple[str, ...], *, as_json: bool) -> int:
    """Read the rule files again, check and test them, and put them in force between two transactions.

    If anything is wrong the rules in force stay, and this shows why. A daemon without an admin socket reloads on
    SIGHUP, and by itself when the content of a rule file changes. Settings are not read again: they need a restart.
    Exit code 1: refused; 69: no daemon answers.
    """
    from invalidator.cli import _admin

    outcome = _admin.ask(_admin.socket_path(path, settings_file, overrides), "POST", "/reload")
    click.echo(json.dumps(outcome, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(outcome)))
    return Exit.PROBLEMS if outcome["result"] == "refused" else Exit.FINE


def _lines(outcome: dict[str, Any]) -> Iterator[str]:
    if outcome["result"] == "refused":
        yield outcome["error"]
        yield f"\nrefused: the rules {outcome['hash']} stay in force"
    else:
        since = f" since {outcome['in_force_since']}" * (outcome["result"] == "unchanged")
        yield f"{outcome['result']}: rules {outcome['hash']} are in force{since}"
        for word in ("added", "removed", "changed"):
            if outcome[word]:
                yield f"  {word:<8} {', '.join(outcome[word])}"
        yield from outcome["skipped_tests"]
    if outcome["edited_settings"]:
        yield f"{outcome['edited_settings']} has changed since the daemon started: settings need a restart"
