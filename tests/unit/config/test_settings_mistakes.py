"""What people get wrong in settings: each message says where, and what to type."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from invalidator import config
from invalidator.errors import ConfigError
from invalidator.yamlfile import Diagnostic, Invalid

GOOD = """\
rules: rules.yaml
source:
  dsn: postgresql://invalidator@localhost/shop
targets:
  redis: {type: redis_keys, url: redis://localhost:6379/0}
"""
REDIS = "  redis: {type: redis_keys, url: redis://localhost:6379/0}\n"


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def more(line: str) -> str:
    """The settings with this in line 6."""
    return f"{GOOD}{line}\n"


def found_in(folder: Path, text: str, environment: dict[str, str] | None = None) -> tuple[Diagnostic, ...]:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Invalid) as caught:
        config.load(path, environment=environment or {})
    return caught.value.diagnostics


MISTAKES = {
    "target": (changed("targets:", "target:"), "4:1", "unknown-field", "did you mean 'targets'?"),
    "sinks": (changed("targets:", "sinks:"), "4:1", "unknown-field", "did you mean 'targets'?"),
    "postgres": (changed("source:", "postgres:"), "2:1", "unknown-field", "did you mean 'source'?"),
    "no type": (changed("type: redis_keys, ", ""), "5:3", "missing-field", "redis_keys"),
    "a type": (changed("redis_keys", "rediskeys"), "5:17", "unknown-type", "did you mean 'redis_keys'?"),
    "targets in a list": (changed("  redis: {", "  - {name: redis, "), "5:3", "bad-value", "give each entry a name"),
    "a target's name": (changed("  redis:", "  Redis Main:"), "5:3", "bad-value", "small letters"),
    "no targets": (changed(REDIS, ""), "4:9", "bad-value", "name"),
    "host": (changed("url: redis://localhost:6379/0", "host: localhost"), "5:29", "unknown-field", "mean 'url'?"),
    "no url": (
        changed(", url: redis://localhost:6379/0", ""),
        "5:3",
        "missing-field",
        "INVALIDATOR_TARGETS__REDIS__URL",
    ),
    "another scheme": (
        changed("redis://", "http://"),
        "5:29",
        "bad-value",
        "redis://, rediss://, unix://, redis+sentinel",
    ),
    "dns": (changed("dsn:", "dns:"), "3:3", "unknown-field", "did you mean 'dsn'?"),
    "a DSN of another database": (changed("postgresql:", "mysql:"), "3:3", "bad-value", "postgresql://user@host"),
    "a source that is a text": (
        changed("source:\n  dsn: ", "source: "),
        "2:9",
        "bad-value",
        "write its fields, each as name: value",
    ),
    "log_level": (more("log_level: debug"), "6:1", "unknown-field", "did you mean 'log'?"),
    "log: debug": (more("log: debug"), "6:6", "bad-value", "write its fields (format, level)"),
    "INFO": (more("log: {level: INFO}"), "6:14", "bad-value", "did you mean 'info'?"),
    "port": (more("http: {port: 8080}"), "6:8", "unknown-field", "did you mean 'listen'?"),
    "an address": (more("http: {listen: all}"), "6:16", "bad-value", "such as 127.0.0.1:8642"),
    "seconds with unit": (more("shutdown: {grace_seconds: 20s}"), "6:27", "bad-value", "write 20"),
    "milliseconds": (more("shutdown: {grace_seconds: 500ms}"), "6:27", "bad-value", "write 0.5"),
    "rules in the settings": (
        changed("rules: rules.yaml", "rules:\n  - {name: user}"),
        "1:1",
        "rule-file",
        "rules: rules.yaml",
    ),
    "a rule file": ("version: 1\nrules:\n  - {name: user}\n", "1:1", "rule-file", "leave --settings out"),
    "a CDN without its fields": (
        changed("  redis:", "  edge: {type: cloudflare, zone: x}\n  redis:"),
        "5:28",
        "unknown-field",
        "did you mean 'zone_id'?",
    ),
}


@pytest.mark.parametrize(("text", "place", "code", "wanted"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_at_its_place_with_what_to_type(
    tmp_path: Path, text: str, place: str, code: str, wanted: str
) -> None:
    found = found_in(tmp_path, text)
    there = [each for each in found if f"{each.line}:{each.column}" == place and each.code == code]

    assert there, [(each.line, each.column, each.code, each.message) for each in found]
    assert any(wanted in f"{each.message}\n{each.help}\n{each.fix}" for each in there), there


def test_a_missing_field_of_a_cdn_shows_its_form_and_its_variable_but_no_secret(tmp_path: Path) -> None:
    text = changed("  redis:", "  edge: {type: fastly}\n  redis:")
    helps = {each.message.rpartition(" ")[2]: each.help for each in found_in(tmp_path, text)}

    assert helps["'service_id'"] == (
        "write service_id: SU1Z0isxPaozGVKXdv0eY, or set INVALIDATOR_TARGETS__EDGE__SERVICE_ID or"
        " INVALIDATOR_TARGETS__EDGE__SERVICE_ID_FILE"
    )
    assert helps["'api_token'"] == (
        "write it here, or set INVALIDATOR_TARGETS__EDGE__API_TOKEN or INVALIDATOR_TARGETS__EDGE__API_TOKEN_FILE"
    )


def test_a_variable_with_a_unit_is_told_the_number(tmp_path: Path) -> None:
    [found] = found_in(tmp_path, GOOD, {"INVALIDATOR_PREFLIGHT__INTERVAL_SECONDS": "1m"})

    assert (found.file, found.help) == ("INVALIDATOR_PREFLIGHT__INTERVAL_SECONDS", "write 60")


@pytest.mark.parametrize(
    "line",
    [
        "    api_token:hunter2\n    type: fastly",
        "    api_token hunter2\n    type: fastly",
        "    api_token: 'hunter2' x",
        "    api_token: hunter2: x",
        "    url: redis://:hunter2@h: x",
    ],
)
def test_advice_about_the_syntax_shows_no_secret(tmp_path: Path, line: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"targets:\n  edge:\n{line}\n", encoding="utf-8")
    with pytest.raises(Invalid) as caught:
        config.load(path, environment={})

    assert caught.value.diagnostics[0].help
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [f"'1{' ' * 100_000}!'", f"'{'1,' * 50_000}x y'", f"'{'a' * 100_000}'"])
def test_advice_about_a_long_value_is_given_at_once(tmp_path: Path, value: str) -> None:
    start = time.process_time()
    found_in(tmp_path, more(f"shutdown: {{grace_seconds: {value}}}\n{'n' * 100_000}: 1"))

    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("INVALIDATOR_TARGETS__BUS__URL", "there is no target 'bus': set INVALIDATOR_TARGETS__BUS__TYPE to make one"),
        ("INVALIDATOR_TARGETS__BUS__URL_FILE", "set INVALIDATOR_TARGETS__BUS__TYPE to make one"),
        ("INVALIDATOR_TARGETS__REDSI__URL", "or did you mean INVALIDATOR_TARGETS__REDIS__URL?"),
        ("INVALIDATOR_TARGETS__REDIS__ULR", "did you mean INVALIDATOR_TARGETS__REDIS__URL?"),
    ],
)
def test_a_variable_of_a_target_without_a_type_says_how_to_make_the_target(
    tmp_path: Path, name: str, said: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(path, environment={name: "redis://localhost"})
    assert f"unknown variable {name}: " in str(caught.value)
    assert said in str(caught.value)
