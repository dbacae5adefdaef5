"""``explain --live``: what a daemon answers, as people read it."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from threading import Thread
from typing import Any

import click
import pytest

from invalidator.cli.explaining import live
from invalidator.model import Operation, Transaction
from invalidator.rules import document
from invalidator.rules.explain import explain_message, explanation_document
from invalidator.rules.rows import relation_of, row_message

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    changed: [slug]
    when: id > 0
    repeat_after: [5s]
    invalidate: {keys: ["post:{slug}"], l1: ["post:{slug}:*"], cdn: ["post-{id}"]}
"""


def explained(tmp_path: Path, operation: Operation, old: Any, new: Any) -> list[dict[str, Any]]:
    """The rules' part of a row, made by the very functions of the daemon."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES, encoding="utf-8")
    relation = relation_of("public", "posts", [row for row in (old, new) if row] or [{"id": 1}])
    message = b"" if operation is Operation.TRUNCATE else row_message(relation, operation, old, new)
    made = explain_message(document.load([path]), relation, message, Transaction(1, 2, 3))
    return [explanation_document(each) for each in made]


def answer(rows: list[dict[str, Any]], **fields: object) -> dict[str, Any]:
    whole = {"lsn": "0/1A2B3C8", "final_lsn": "0/1A2B300", "xid": 751, "commit_time": 1795348991.204, "is_whole": True}
    return {"transactions": [whole | {"rows": rows, "row_count": len(rows)} | fields], "kept": 1, "oldest_lsn": None}


def test_a_transaction_is_shown_row_by_row_and_rule_by_rule(tmp_path: Path) -> None:
    moved = explained(tmp_path, Operation.UPDATE, {"id": 1, "slug": "a"}, {"id": 1, "slug": "b"})
    same = explained(tmp_path, Operation.UPDATE, {"id": 1, "slug": "a"}, {"id": 1, "slug": "a"})
    values = {"id": {"old": "1", "new": "1"}, "slug": {"old": "a", "new": "b"}, "big": {}}
    rows = [{"table": "public.posts", "operation": "update", "columns": values, "rules": moved}]
    rows += [{"table": "public.posts", "operation": "update", "columns": {"slug": {"new": None}}, "rules": same}]
    lines = [line.replace(f"{tmp_path}/", "") for line in live.lines(answer(rows))]
    assert lines == [
        "transaction 0/1A2B3C8  xid 751  committed 2026-11-22T12:03:11.204Z",
        '  UPDATE public.posts  id = "1"  slug "a" → "b"',
        "    rule post (rules.yaml:3)",
        "      when    id > 0                             true for both rows",
        "      keys    post:a  post:b                     unlink",
        "      l1      post:a:*  post:b:*                 publish",
        "      cdn     post-1                             purge",
        "      repeat  +5s",
        "  UPDATE public.posts  slug (not sent) → NULL",
        "    rule post (rules.yaml:3)  not fired: none of changed [slug] did change",
    ]


def test_what_was_not_kept_is_told(tmp_path: Path) -> None:
    rows = [
        {
            "table": "public.posts",
            "operation": "truncate",
            "columns": {},
            "rules": explained(tmp_path, Operation.TRUNCATE, None, None),
        }
    ]
    lines = list(live.lines(answer(rows, row_count=5, is_whole=False, lsn=None)))
    assert lines[0].startswith("transaction 0/1A2B300 (still coming)")
    assert "      widened truncate" in lines
    assert "  … and 4 rows more" in lines
    assert "admin.recent_rows" in lines[-1]
    nothing = {"transactions": [], "kept": 7, "oldest_lsn": "0/16"}
    assert list(live.lines(nothing)) == ["there is no such transaction among the last 7, which reach back to 0/16"]


def test_a_message_is_shown_with_what_it_named_and_what_was_refused() -> None:
    message = {
        "operation": "message",
        "invalidation": {"keys": ["cms:1"], "cdn": ["cms-1"]},
        "results": {"applied": 1, "not_allowed": 2},
        "refusal": "a name in 'keys' begins with no prefix of source.messages.allow.keys",
    }
    assert list(live.lines(answer([message])))[1:] == [
        "  MESSAGE of an application",
        "    keys    cms:1                              unlink",
        "    cdn     cms-1                              purge",
        "    refused not_allowed: 2",
        "            a name in 'keys' begins with no prefix of source.messages.allow.keys",
    ]


@pytest.mark.parametrize("wanted", ["", "first", "last=0", "last=x", "12", "1/2/3"])
def test_only_last_and_an_lsn_can_be_asked_for(wanted: str, tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter):
        live.fetch(str(tmp_path / "none"), wanted)


def test_the_daemon_is_asked_over_its_socket(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(answer([])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return "unix"

    path = str(tmp_path / "s")
    with UnixStreamServer(path, Handler) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            for wanted in ("last", "last=3", "0/1A2B3C8"):
                assert live.fetch(path, wanted)["kept"] == 1
        finally:
            server.shutdown()
            serving.join()
    assert asked == ["/transactions?last=1", "/transactions?last=3", "/transactions?lsn=0%2F1A2B3C8"]
