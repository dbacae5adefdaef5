"""``explain --live``: the last transactions that really came, with what the rules made of each row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

Json = Mapping[str, Any]

_WORDS = {
    "keys": ("keys", "unlink"),
    "tags": ("tags", "unlink the tag sets' keys"),
    "key_patterns": ("keys", "scan and unlink"),
    "tag_patterns": ("tags", "scan for tag sets and unlink their keys"),
    "l1": ("l1", "publish"),
    "cdn": ("cdn", "purge"),
    "cdn_soft": ("cdn", "purge softly"),
}


def fetch(path: str, wanted: str) -> Json:
    """What the daemon behind the socket has kept of ``last``, ``last=N`` or an LSN.

    Raises:
        click.BadParameter: it is none of those.
        TargetUnavailable: no daemon answers.
    """
    from invalidator.cli import _admin

    answer: Json = _admin.ask(path, "GET", _target(wanted))
    return answer


def _target(wanted: str) -> str:
    word, _, number = wanted.partition("=")
    if word == "last" and (not number or (number.isdigit() and int(number) > 0)):
        return f"/transactions?last={number or 1}"
    from invalidator.model import Lsn

    try:
        return f"/transactions?lsn={quote(str(Lsn.parse(wanted)), safe='')}"
    except ValueError:
        msg = f"'{wanted}' is neither last, last=10 nor an LSN such as 16/B374D848"
        raise click.BadParameter(msg, param_hint="--live") from None


def lines(document: Json) -> Iterator[str]:
    """For people: each transaction, its rows, and what became of them."""
    transactions: Sequence[Json] = document["transactions"]
    if not transactions:
        kept, oldest = document["kept"], document["oldest_lsn"]
        yield f"there is no such transaction among the last {kept}" + (f", which reach back to {oldest}" * bool(oldest))
        return
    for transaction in transactions:
        yield from _transaction(transaction)


def _transaction(transaction: Json) -> Iterator[str]:
    at = transaction["lsn"] or f"{transaction['final_lsn']} (still coming)"
    xid = "" if transaction["xid"] is None else f"  xid {transaction['xid']}"
    yield f"transaction {at}{xid}  {_time(transaction['commit_time'])}"
    rows, count = transaction["rows"], transaction["row_count"]
    for row in rows:
        yield from (f"  {line}" for line in (_message(row) if row["operation"] == "message" else _row(row)))
    if count > len(rows):
        yield f"  … and {count - len(rows)} rows more"
    if not transaction["is_whole"]:
        yield "  (not all of its changes were kept: admin.recent_rows bounds their number; very long ones are left out)"


def _row(row: Json) -> Iterator[str]:
    is_update = row["operation"] == "update"
    columns = [_column(name, images, is_update=is_update) for name, images in row["columns"].items()]
    yield f"{row['operation'].upper()} {row['table']}" + "".join(f"  {text}" for text in columns if text)
    yield from (f"  {line}" for rule in row["rules"] for line in _rule(rule))


def _column(name: str, images: Json, *, is_update: bool) -> str:
    """``slug "a" → "b"``, or ``id = "1"`` where nothing changed or there is one image only."""
    old, new = (_value(images[image]) if image in images else None for image in ("old", "new"))
    if is_update and old != new:
        return f"{name} {old or '(not sent)'} → {new or '(not sent)'}"
    shown = new or old
    return f"{name} = {shown}" if shown else ""


def _value(value: str | None) -> str:
    return "NULL" if value is None else json.dumps(value, ensure_ascii=False)


def _message(message: Json) -> Iterator[str]:
    yield "MESSAGE of an application"
    yield from _names(message["invalidation"])
    for reason, count in message["results"].items():
        if reason != "applied":
            yield f"  {'refused':<7} {reason}: {count}"
    if message["refusal"]:
        yield f"  {'':<7} {message['refusal']}"


def _names(invalidation: Json) -> Iterator[str]:
    for kind, (label, verb) in _WORDS.items():
        if names := invalidation.get(kind):
            yield f"  {label:<7} {'  '.join(names):<34} {verb}"
    if invalidation.get("cdn_all"):
        yield f"  {'cdn':<7} {'everything':<34} purge, where purge_all_on_gap consents"


def _rule(rule: Json) -> Iterator[str]:
    head = f"rule {rule['rule']} ({rule['place'].rpartition(':')[0]})"
    if rule["outcome"] != "fired":
        yield f"{head}  not fired: {rule['why_not']}"
        return
    yield head
    if rule["when"] is not None and rule["condition"] is not None:
        yield f"  {'when':<7} {rule['when']:<34} {rule['condition']}"
    yield from _names(rule["invalidation"])
    for lookup in rule["lookups"]:
        asked = ", ".join(f"{name} = {value}" for name, value in lookup["parameters"].items())
        yield f"  {'lookup':<7} {lookup['lookup']} with {asked}; what it found is not kept"
    for each in rule["repeats"]:
        yield f"  {'repeat':<7} {', '.join(f'+{seconds:g}s' for seconds in each['after_seconds'])}"
    if rule["widened"]:
        yield f"  {'widened':<7} {', '.join(rule['widened'])}"
    if rule["null_skips"]:
        yield f"  {'skipped':<7} {rule['null_skips']} templates with a NULL in them"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    from datetime import UTC, datetime

    return f"committed {datetime.fromtimestamp(seconds, UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')}"
