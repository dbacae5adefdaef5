"""The JSON Schemas in an editor: the same places as our own messages, completion, and what hovering tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from invalidator import config, yamlfile
from invalidator.rules import document
from invalidator.rules.schema import EVENTS, InvalidateModel, RuleModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.language_server import LanguageServer

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "invalidator" / "schema"
EXAMPLES = sorted((ROOT / "config").rglob("*.yaml"))

Place = tuple[int, int]

RULE = """\
  - name: user
    table: public.users
    invalidate:
      keys: ["user:{id}"]
"""
SQL = "SELECT {id} AS x"
TEST = """\
tests:
  - name: a user
    table: public.users
    insert: {id: 1}
"""
BROKEN_RULES = {
    "an unknown field of the file": "version: 1\nrulez: []\nrules:\n" + RULE,
    "an unknown field of a rule": f"version: 1\nrules:\n{RULE}    on: [insert]\n",
    "an unknown layer": f"version: 1\nrules:\n{RULE}      redis: [a]\n",
    "a layer of the coarse form": f"version: 1\nrules:\n{RULE}    coarse: {{key: [a]}}\n",
    "an unknown default": "version: 1\ndefaults: {prefx: a}\nrules:\n" + RULE,
    "another version": "version: 2\nrules:\n" + RULE,
    "no version": "rules:\n" + RULE,
    "no rules": "version: 1\n",
    "no rule": "version: 1\nrules: []\n",
    "a rule without its table": "version: 1\nrules:\n  - name: user\n    invalidate: {keys: [users]}\n",
    "a rule that drops nothing": "version: 1\nrules:\n  - name: user\n    table: public.users\n",
    "a name with a capital": "version: 1\nrules:\n" + RULE.replace("user\n", "User\n", 1),
    "a table without its schema": "version: 1\nrules:\n" + RULE.replace("public.users", "users"),
    "an event that is none": f"version: 1\nrules:\n{RULE}    events: [insert, inserted]\n",
    "no event": f"version: 1\nrules:\n{RULE}    events: []\n",
    "an empty column": f"version: 1\nrules:\n{RULE}    changed: ['']\n",
    "a column that is no text": f"version: 1\nrules:\n{RULE}    changed: [7]\n",
    "a text for a list": "version: 1\nrules:\n" + RULE.replace('["user:{id}"]', '"user:{id}"'),
    "a mapping for a template": "version: 1\nrules:\n" + RULE.replace('["user:{id}"]', "[{id: null}]"),
    "an empty template": "version: 1\nrules:\n" + RULE.replace('"user:{id}"', '"user:{id}", ""'),
    "zero rows": f"version: 1\nrules:\n{RULE}    bulk_over: 0\n",
    "rows as text": f"version: 1\nrules:\n{RULE}    bulk_over: many\n",
    "yes for true": f"version: 1\nrules:\n{RULE}    soft: yes\n",
    "a delay without unit": f"version: 1\nrules:\n{RULE}    repeat_after: [5s, 5]\n",
    "a delay with a space": f"version: 1\nrules:\n{RULE}    repeat_after: [5s, 5 s]\n",
    "a list for a mapping": f"version: 1\nrules:\n{RULE}    coarse: [users]\n",
    "a lookup without SQL": f"version: 1\nrules:\n{RULE}    lookup:\n      a: {{limit: 5}}\n",
    "a lookup without a limit": f"version: 1\nrules:\n{RULE}    lookup:\n      a: {{sql: '{SQL}', limit: 0}}\n",
    "an unknown field of a lookup": f"version: 1\nrules:\n{RULE}    lookup: {{a: {{sql: '{SQL}', over: 5}}}}\n",
    "a condition that is no text": f"version: 1\nrules:\n{RULE}    when: [status]\n",
    "an unknown expectation": f"version: 1\nrules:\n{RULE}{TEST}    expect: {{key: [a]}}\n",
    "a test without expectation": f"version: 1\nrules:\n{RULE}{TEST}",
    "an unknown reason": f"version: 1\nrules:\n{RULE}{TEST}    expect: {{widened: [big]}}\n",
    "two mistakes in two rules": f"version: 1\nrules:\n{RULE}    sofd: true\n{RULE}    bulk_over: -1\n",
}
TARGETS = "targets:\n  edge:\n    type: varnish\n    url: http://varnish:6081\n"
BROKEN_SETTINGS = {
    "an unknown section": f"{TARGETS}logs: {{}}\n",
    "an unknown level": f"{TARGETS}log: {{level: loud}}\n",
    "an unknown option of the source": f"source:\n  publicaton: x\n{TARGETS}",
    "a slot with a capital": f"source:\n  type: pgoutput\n  slot: Upper\n{TARGETS}",
    "an unknown option of a target": f"{TARGETS}    tokn: x\n",
    "an option of another target": f"{TARGETS}    channel: x\n",
    "a number below its bound": f"{TARGETS}    timeout_seconds: 0\n",
    "a text for a number": f"{TARGETS}    timeout_seconds: long\n",
    "an unknown retry option": f"{TARGETS}    retry: {{delay: 1}}\n",
    "an unknown type": "targets:\n  redis:\n    type: redis_key\n    url: redis://localhost\n",
    "a target without type": "targets:\n  redis:\n    url: redis://localhost\n",
    "a target with a capital": TARGETS.replace("edge", "Edge"),
    "rules that are no path": f"rules: 7\n{TARGETS}",
}


def written(folder: Path, schema: str, text: str) -> Path:
    """The text in a file that names its schema by a relative path, as the examples do."""
    (folder / "schema.json").write_bytes((SCHEMAS / f"{schema}.json").read_bytes())
    path = folder / "file.yaml"
    path.write_text(f"# yaml-language-server: $schema=schema.json\n{text}", encoding="utf-8")
    return path


def places(diagnostics: list[dict[str, Any]]) -> set[Place]:
    starts = [found["range"]["start"] for found in diagnostics]
    return {(start["line"] + 1, start["character"] + 1) for start in starts}


def marked(server: LanguageServer, path: Path) -> set[Place]:
    """Where the editor marks something."""
    return places(server.open(path)[path])


def refused(load: Callable[[], object]) -> set[Place]:
    """Where the program says that something is wrong."""
    try:
        load()
    except yamlfile.Invalid as invalid:
        return {(found.line, found.column) for found in invalid.diagnostics}
    return set()


@pytest.fixture(scope="module")
def broken(language_server: LanguageServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Each broken file by its name, and what the editor marks in it."""
    files: dict[str, Path] = {}
    for schema, texts in (("rules", BROKEN_RULES), ("settings", BROKEN_SETTINGS)):
        files |= {name: written(tmp_path_factory.mktemp("broken"), schema, text) for name, text in texts.items()}
    found = language_server.open(*files.values())
    return {name: (path, found[path]) for name, path in files.items()}


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_mistakes_in_rules_are_marked_where_the_program_marks_them(
    broken: dict[str, tuple[Path, Any]], name: str
) -> None:
    path, found = broken[name]

    expected = refused(lambda: document.load([path]))

    assert expected
    assert places(found) == expected


@pytest.mark.parametrize("name", BROKEN_SETTINGS)
def test_mistakes_in_settings_are_marked_where_the_program_marks_them(
    broken: dict[str, tuple[Path, Any]], name: str
) -> None:
    path, found = broken[name]

    expected = refused(lambda: config.load(path, environment={}))

    assert expected
    assert places(found) == expected


def test_nothing_is_marked_in_the_examples(language_server: LanguageServer) -> None:
    assert {path: found for path, found in language_server.open(*EXAMPLES).items() if found} == {}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_names_its_schema_in_its_first_line(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    _, separator, target = first.partition("# yaml-language-server: $schema=")

    assert separator
    assert (path.parent / target).resolve().parent == SCHEMAS


def test_what_may_come_from_the_environment_is_not_demanded(language_server: LanguageServer, tmp_path: Path) -> None:
    path = written(tmp_path, "settings", "targets:\n  edge:\n    type: fastly\n  redis:\n    type: redis_keys\n")

    assert refused(lambda: config.load(path, environment={}))
    assert marked(language_server, path) == set()


def test_every_layer_is_offered_with_what_it_means(language_server: LanguageServer, tmp_path: Path) -> None:
    path = written(tmp_path, "rules", f"version: 1\nrules:\n{RULE.split('keys', maxsplit=1)[0]}\n")
    language_server.open(path)

    offered = language_server.completions(path, 7, 7)

    fields = InvalidateModel.model_fields
    assert {item["label"]: item["documentation"] for item in offered} == {
        name: " ".join((field.description or "").split()) for name, field in fields.items()
    }
    assert list(fields) == ["keys", "tags", "l1", "cdn"]


def test_the_missing_fields_of_a_rule_are_offered(language_server: LanguageServer, tmp_path: Path) -> None:
    path = written(tmp_path, "rules", f"version: 1\nrules:\n{RULE}    \n")
    language_server.open(path)

    offered = {item["label"] for item in language_server.completions(path, 8, 5)}

    fields = {name for name, field in RuleModel.model_fields.items() if not field.exclude}
    assert fields - {"name", "table", "invalidate"} <= offered


def test_events_complete_and_tell_what_they_are(language_server: LanguageServer, tmp_path: Path) -> None:
    path = written(tmp_path, "rules", f"version: 1\nrules:\n{RULE}    events: [in]\n")
    language_server.open(path)

    offered = language_server.completions(path, 8, 16)

    assert {item["label"]: item["documentation"] for item in offered} == EVENTS


def test_a_new_rule_is_offered_as_a_whole(language_server: LanguageServer, tmp_path: Path) -> None:
    path = written(tmp_path, "rules", "version: 1\nrules:\n  - \n")
    language_server.open(path)

    offered = {item["label"]: item.get("insertText", "") for item in language_server.completions(path, 4, 5)}

    assert "invalidate:" in offered["rule"]


@pytest.mark.parametrize(
    ("line", "column", "told"),
    [
        (4, 6, RuleModel.model_fields["name"].description),
        (5, 6, RuleModel.model_fields["table"].description),
        (6, 6, RuleModel.model_fields["invalidate"].description),
        (7, 8, InvalidateModel.model_fields["keys"].description),
    ],
)
def test_hovering_over_a_field_tells_what_the_model_says(
    language_server: LanguageServer, tmp_path: Path, line: int, column: int, told: str
) -> None:
    path = written(tmp_path, "rules", f"version: 1\nrules:\n{RULE}")
    language_server.open(path)

    assert " ".join(told.split()) in language_server.hover(path, line, column)


def test_only_the_options_of_its_type_are_offered_for_a_target(language_server: LanguageServer, tmp_path: Path) -> None:
    path = written(tmp_path, "settings", "targets:\n  bus:\n    type: redis_bus\n    \n")
    language_server.open(path)

    offered = {item["label"] for item in language_server.completions(path, 5, 5)}

    assert {"channel", "heartbeat_seconds", "required"} <= offered
    assert offered.isdisjoint({"tag_prefix", "service_id", "api_token"})


def test_the_lock_names_the_tested_version_and_no_address() -> None:
    folder = Path(__file__).parent
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]["yaml-language-server"]
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]

    assert lock["node_modules/yaml-language-server"]["version"] == wanted
    assert [name for name, entry in lock.items() if "resolved" in entry] == []
    assert [name for name, entry in lock.items() if name and "integrity" not in entry] == []
