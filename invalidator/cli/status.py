"""``invalidator status``: how a running daemon is doing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from invalidator.cli._exits import Exit
from invalidator.cli._options import json_option, settings_option

Json = dict[str, Any]

TIMEOUT_SECONDS = 5.0


@click.command("status", short_help="Ask a running daemon how it is.")
@click.option("--url", metavar="URL", help="Of the daemon, as in http://127.0.0.1:8642.  [default: by http.listen]")
@settings_option
@json_option
def command(url: str | None, settings_file: Path | None, *, as_json: bool) -> int:
    """Ask the daemon's /status and show it: freshness, slot, targets, and each problem with its fix.

    Exit code 0: all is well; 1: there are problems; 69: no daemon answers.
    """
    address = url or _default_url(settings_file)
    try:
        status = _get(address)
    except (OSError, ValueError) as error:
        click.echo(f"no daemon answers at {address}: {getattr(error, 'reason', error)}", err=True)
        click.echo(
            "   = help: start one with `invalidator run`, or say with --url where it listens (http.listen)", err=True
        )
        return Exit.UNREACHABLE
    click.echo(json.dumps(status, indent=2, ensure_ascii=False) if as_json else "\n".join(render(status)))
    has_problems = any(problem.get("severity") != "info" for problem in status.get("problems", ()))
    return Exit.PROBLEMS if has_problems or status.get("ready") is False else Exit.FINE


def _default_url(settings_file: Path | None) -> str:
    """By http.listen, however wrong the rest of the settings may be: that is what status is asked for then."""
    from invalidator.telemetry import listen

    host, port = listen.parse(_listen(settings_file) or listen.DEFAULT)
    return f"http://{listen.join(listen.local(host), port)}"


def _listen(settings_file: Path | None) -> str | None:
    import os

    from invalidator import yamlfile

    if given := os.environ.get("INVALIDATOR_HTTP__LISTEN"):
        return given
    file = settings_file or Path(os.environ.get("INVALIDATOR_SETTINGS") or "config/invalidator.yaml")
    if settings_file is None and not file.exists():
        return None
    data = yamlfile.read(file).data
    http = data.get("http") if isinstance(data, dict) else None
    listen = http.get("listen") if isinstance(http, dict) else None
    return listen if isinstance(listen, str) else None


def _get(address: str) -> Json:
    from urllib.parse import urlsplit
    from urllib.request import ProxyHandler, build_opener

    if urlsplit(address).scheme not in {"http", "https"}:
        msg = "the URL must begin with http:// or https://"
        raise ValueError(msg)
    # The daemon is near: a proxy for the outside world could not reach it.
    opener = build_opener(ProxyHandler({}))
    with opener.open(address.rstrip("/") + "/status", timeout=TIMEOUT_SECONDS) as response:
        status = json.loads(response.read())
    if not isinstance(status, dict):
        msg = "the answer is not a status"
        raise ValueError(msg)  # noqa: TRY004  (the type of an answer, not of an argument)
    return status


def render(status: Json) -> list[str]:
    """The status as lines for people."""
    from invalidator.yamlfile.diagnostic import printable

    return [printable(line) for line in _lines(status)]


def _lines(status: Json) -> list[str]:
    rules, source = status.get("rules", {}), status.get("source", {})
    loaded = f"rules {rules.get('hash') or '-'} ({rules.get('count', 0)})"
    lines = [f"invalidator {status.get('version')}  up {_duration(status.get('uptime_s'))}  {loaded}  {_role(status)}"]
    lines += _source(source)
    targets = status.get("targets", {})
    width = max(map(len, targets), default=0)
    for name, target in targets.items():
        lines.append(f"  target {name:<{width}}  {_target(target)}")
    for problem in status.get("problems", ()):
        lines += ["", *_indented(f"{problem.get('severity')}[{problem.get('code')}]: {problem.get('text')}")]
        if problem.get("since"):
            lines.append(f"   = since: {problem['since']}")
        if problem.get("fix"):
            lines += _indented(f"   = fix: {problem['fix']}")
    return lines


def _indented(text: str) -> list[str]:
    """The lines of the text, those after the first one set in."""
    first, *others = text.split("\n")
    return [first, *(f"      {line}" for line in others)]


def _role(status: Json) -> str:
    mark = "●" if status.get("ready") else "○"
    return f"{mark} {status.get('role')}"


def _source(source: Json) -> list[str]:
    wal = f"retained {_bytes(source.get('retained_wal_bytes'))}  safe {_bytes(source.get('safe_wal_bytes'))}"
    heartbeat = source.get("heartbeat_age_s")
    lines = [
        f"  slot   {source.get('slot') or '-'}  Postgres {source.get('server') or '-'}"
        f"  staleness {_milliseconds(source.get('staleness_s'))}"
        f"  heartbeat {'-' if heartbeat is None else _duration(heartbeat) + ' ago'}",
        f"  wal    {wal}  confirmed {source.get('confirmed') or '-'}",
        f"  seen   {source.get('transactions', 0)} transactions  reconnects {source.get('reconnects', 0)}",
    ]
    if source.get("last_error"):
        lines += _indented(f"  error  {source['last_error']}")
    return lines


def _target(target: Json) -> str:
    parts = [
        f"{'●' if target.get('ok') else '◐'} {target.get('layer')} {target.get('type')}",
        f"fresh p50 {_number(target.get('fresh_p50_ms'))} ms p99 {_number(target.get('fresh_p99_ms'))} ms",
        f"queue {target.get('queue', 0)}",
    ]
    if target.get("receivers") is not None:
        parts.append(f"{target['receivers']} receivers")
    if not target.get("required", True):
        parts.append("best effort")
    parts += [f"{word} {target[word]}" for word in ("retries", "abandoned") if target.get(word)]
    if target.get("last_error"):
        parts.append(f"failing since {target.get('failing_since')}: {target['last_error']}")
    return "  ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms" if seconds < 10 else _duration(seconds)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.0f} s"


def _bytes(value: float | None) -> str:
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
