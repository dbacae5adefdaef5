"""Records of ``invalidator tail`` as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import click

from invalidator.yamlfile.diagnostic import printable

Json = Mapping[str, Any]

MAX_NAMES: Final = 10
"""Of each kind on one line; the others are counted."""
_LABELS: Final = {"key_patterns": "keys", "tag_patterns": "tags", "cdn_soft": "cdn softly"}
_COLORS: Final = {"warning": "yellow", "error": "red", "critical": "red"}


def lines(record: Json) -> Iterator[str]:
    """The lines of one record, with colours."""
    match record["record"]:
        case "transaction":
            yield from _transaction(record)
        case "applied":
            yield _applied(record)
        case "event":
            yield _event(record)
        case "missed":
            yield _missed(record)
        case "end":
            yield click.style(f"-- {record['reason']}", dim=True)
        case _:
            pass  # a newer daemon tells more


def _transaction(record: Json) -> Iterator[str]:
    at = _time(record["commit_time"])
    xid = "" if record["xid"] is None else f" xid {record['xid']}"
    where = click.style(f"{record['lsn']}{xid}", dim=True)
    for row in record["rows"]:
        if row["operation"] == "message":
            refused = click.style("  refused: " + printable(row["refusal"]), fg="yellow") if row["refusal"] else ""
            yield f"{at}  {'MESSAGE':<8} of an application  {_names(row['invalidation'])}{refused}  {where}"
        for rule in row.get("rules", ()):
            head = (
                f"{at}  {row['operation'].upper():<8} {printable(row['table'])}  {click.style(rule['rule'], fg='cyan')}"
            )
            yield f"{head}  {_rule(rule)}  {where}"
    if count := record["rows_not_explained"]:
        yield click.style(f"{at}  … and {count} rows more in transaction {record['lsn']}", dim=True)


def _rule(rule: Json) -> str:
    if rule["outcome"] != "fired":
        return click.style(f"not fired: {printable(rule['why_not'])}", dim=True)
    parts = [_names(rule["invalidation"])]
    parts += [f"lookup {each['lookup']}" for each in rule["lookups"]]
    if rule["widened"]:
        parts.append(click.style(f"widened: {', '.join(rule['widened'])}", fg="yellow"))
    parts += [f"again after {', '.join(f'{s:g} s' for s in each['after_seconds'])}" for each in rule["repeats"]]
    return "  ".join(part for part in parts if part)


def _names(invalidation: Json) -> str:
    parts = []
    for kind, names in invalidation.items():
        label = _LABELS.get(kind, kind)
        if names is True:
            parts.append("cdn everything")
            continue
        more = f" … {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        parts.append(f"{label} {' '.join(map(printable, names[:MAX_NAMES]))}{more}")
    return "  ".join(parts)


def _applied(record: Json) -> str:
    parts = [_time(record["at"]), f" {click.style(record['target'], fg='green')}"]
    if record["is_repeat"]:
        parts.append("again:")
    parts.append(_names(record["invalidation"]))
    parts.append(f"({_outcome(record)})")
    age = "" if record["age_seconds"] is None else f", {record['age_seconds'] * 1000:.1f} ms after the commit"
    parts.append(click.style(f"{record['seconds'] * 1000:.1f} ms{age}", dim=True))
    return " ".join(part for part in parts if part)


def _outcome(record: Json) -> str:
    count = record["names"]
    told = f"{count} name{'s' * (count != 1)}"
    if record["layer"] == "L1":
        return f"{told}, {record['receivers']} subscribers"
    if record["layer"] == "L2":
        # On a repeat this is the stale-fill race made visible: a reader had stored the old value meanwhile.
        refilled = ": refilled meanwhile" if record["is_repeat"] and record["removed"] else ""
        told += f", {record['removed']} existed{refilled}"
    return told + (f", {record['widened']} widened" if record["widened"] else "")


def _event(record: Json) -> str:
    facts = "  ".join(f"{name}={printable(str(value))}" for name, value in record["facts"].items() if value is not None)
    name = click.style(record["event"], fg=_COLORS.get(record["level"], "blue"), bold=record["level"] != "info")
    return f"{_time(record['at'])}  {name}  {facts}"


def _missed(record: Json) -> str:
    what = [f"{record[kind]} {kind}" for kind in ("transactions", "happenings") if record.get(kind)]
    return click.style(f"-- {' and '.join(what)} came faster than they could be shown", fg="yellow")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return " " * 12
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S.%f")[:-3]
