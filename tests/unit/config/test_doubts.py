"""Settings and rules that can be used, and hardly do what is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from invalidator import config
from invalidator.config.doubts import bounds_unused, debts_unwritten, pooled, unheard, unserved
from invalidator.rules import document
from invalidator.yamlfile import Diagnostic

KEYS = "  redis: {type: redis_keys, url: redis://h/0}\n"
BUS = "  bus: {type: redis_bus, url: redis://h/0}\n"
ALL = "  bus: {type: redis_bus, url: redis://h/0, include: [l1, keys, tags]}\n"
CDN = "  edge: {type: varnish, url: http://h}\n"
RULES = """\
version: 1
rules:
  - {name: a, table: public.a, invalidate: {keys: ["a:{id}"]}}
  - name: b
    table: public.b
    invalidate:
      keys: ["b:{id}"]
      l1: ["b:{id}"]
      cdn: [b]
  - {name: c, table: public.c, invalidate: {cdn: [c]}}
"""


def settings(folder: Path, targets: str, dsn: str = "postgresql://u@h/d") -> config.Settings:
    path = folder / "settings.yaml"
    path.write_text(f"source:\n  dsn: {dsn}\ntargets:\n{targets}", encoding="utf-8")
    return config.load(path, environment={})


def found(folder: Path, targets: str) -> list[Diagnostic]:
    path = folder / "rules.yaml"
    path.write_text(RULES, encoding="utf-8")
    loaded = document.load_with_warnings([path])
    return list(unserved(settings(folder, targets), loaded.ruleset, loaded.sources))


def test_what_no_target_holds_is_told_once_at_the_first_rule(tmp_path: Path) -> None:
    l1, cdn = found(tmp_path, KEYS)

    assert (l1.line, l1.column, l1.code, l1.severity) == (8, 7, "layer-without-target", "info")
    assert l1.message == "no target of these settings holds what stands under l1:, so it is dropped nowhere"
    assert l1.help == "add a redis_bus to the targets; if there is no such cache here, all is well"
    assert (cdn.line, cdn.column) == (9, 7)
    assert "under cdn: of 2 rules, so" in cdn.message


@pytest.mark.parametrize(
    ("targets", "groups"),
    [
        (KEYS + BUS + CDN, []),
        (BUS + CDN, ["keys"]),
        (ALL + CDN, []),
        (KEYS + "  nowhere: {type: blackhole, layer: L3}\n" + BUS, []),
        (CDN, ["keys", "l1"]),
    ],
)
def test_every_kind_of_target_is_known_by_what_it_holds(tmp_path: Path, targets: str, groups: list[str]) -> None:
    assert [each.message.partition("under ")[2].split(":")[0] for each in found(tmp_path, targets)] == groups


@pytest.mark.parametrize(
    ("dsn", "severity"),
    [
        ("postgresql://u:secret@ep-x-pooler.eu.neon.tech/d", "warning"),
        ("postgresql://u:secret@aws-0.pooler.supabase.com:5432/d", "warning"),
        ("host=pgbouncer port=6432 dbname=d", "info"),
        ("postgresql://u:secret@h:6543/d", "info"),
    ],
)
def test_a_dsn_that_looks_like_a_pooler_is_told_without_its_secret(tmp_path: Path, dsn: str, severity: str) -> None:
    [told] = pooled(settings(tmp_path, KEYS, dsn))

    assert (told.line, told.column, told.width) == (2, 3, 3)
    assert (told.code, told.severity) == ("pooler-dsn", severity)
    assert told.help == "name the server itself; a pooler is fine for lookups.dsn"
    assert "secret" not in told.message


def test_a_dsn_of_a_variable_has_no_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"targets:\n{KEYS}", encoding="utf-8")
    loaded = config.load(path, environment={"INVALIDATOR_SOURCE__DSN": "postgresql://h:6432/d"})
    [told] = pooled(loaded)

    assert (told.file, told.line) == ("settings", 0)


@pytest.mark.parametrize("dsn", ["postgresql://u@h:5432/d", "postgresql://u@carpooler-db/d", "host=h dbname=d", "''"])
def test_any_other_dsn_is_right(tmp_path: Path, dsn: str) -> None:
    assert list(pooled(settings(tmp_path, KEYS, dsn))) == []


@pytest.mark.parametrize(
    ("messages", "is_told"),
    [("{enabled: true}", True), ("{enabled: true, allow: {keys: ['cms:']}}", False), ("{enabled: false}", False)],
)
def test_messages_that_may_name_nothing_are_told(tmp_path: Path, messages: str, is_told: bool) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"source:\n  messages: {messages}\ntargets:\n{KEYS}", encoding="utf-8")
    told = [(each.code, each.line, each.column, each.severity) for each in unheard(config.load(path, environment={}))]
    assert told == [("messages-allow-nothing", 2, 3, "warning")] * is_told


@pytest.mark.parametrize(
    ("source", "continuity", "is_told"),
    [
        ("pgoutput", "{wal_bytes: 1000}", True),
        ("pgoutput", "{wal: stall, wal_bytes: 1000}", True),
        ("pgoutput", "{wal: widen_and_skip, wal_bytes: 1000}", False),
        ("outbox", "{wal: widen_and_skip, wal_bytes: 1000}", True),
        ("outbox", "{on_gap: stop}", False),
    ],
)
def test_a_bound_on_wal_that_nothing_looks_at_is_told(
    tmp_path: Path, source: str, continuity: str, is_told: bool
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"source: {{type: {source}}}\ncontinuity: {continuity}\ntargets:\n{KEYS}", encoding="utf-8")
    told = list(bounds_unused(config.load(path, environment={})))
    assert [(each.code, each.line, each.severity) for each in told] == [("wal-bound-unused", 2, "warning")] * is_told


@pytest.mark.parametrize(
    ("targets", "state", "continuity", "is_told"),
    [
        (CDN, "", "{wal: widen_and_skip}", True),
        (CDN + BUS, "", "{wal: widen_and_skip}", True),
        (CDN, "/s.db", "{wal: widen_and_skip}", False),
        (BUS, "/s.db", "{wal: widen_and_skip}", True),
        (CDN + KEYS, "", "{wal: widen_and_skip}", False),
        (CDN, "", "{wal: stall}", False),
        ("  edge: {type: varnish, url: http://h, required: false}\n", "", "{wal: widen_and_skip}", False),
    ],
)
def test_a_debt_that_nobody_could_remember_is_told(
    tmp_path: Path, targets: str, state: str, continuity: str, is_told: bool
) -> None:
    path = tmp_path / "settings.yaml"
    text = f"source: {{type: pgoutput}}\ncontinuity: {continuity}\nstate: {{path: '{state}'}}\ntargets:\n{targets}"
    path.write_text(text, encoding="utf-8")
    told = list(debts_unwritten(config.load(path, environment={})))
    assert [(each.code, each.line, each.severity) for each in told] == [("debt-unwritten", 2, "warning")] * is_told
