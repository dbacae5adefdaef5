"""The verbs, their exit codes and what they print."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import signal
from pathlib import Path
from typing import Any

import click
import pytest

from invalidator.cli import status, verbs
from invalidator.cli._exits import Exit, report
from invalidator.codes import all_codes
from invalidator.config import Settings
from invalidator.errors import ConfigError, ProtocolError, SlotInUse, SlotLost, SourceDisconnected
from invalidator.telemetry.problems import CODES
from tests.support import commandline
from tests.support.commandline import Ended

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    changed: [slug]
    invalidate:
      keys: ["post:{slug}", "post:id:{id}"]
      cdn: ["post-{id}"]
    coarse: {tags: [posts], keys: [], cdn: [posts]}
    repeat_after: [500ms]
"""
SETTINGS = """\
targets:
  edge: {type: varnish, url: "http://varnish:6081"}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "rules.yaml").write_text(RULES)
    (tmp_path / "config" / "invalidator.yaml").write_text(SETTINGS)
    return tmp_path


def run(folder: Path, *arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> Ended:
    """The command; what it does about SIGTERM ends with it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return commandline.run(folder, *arguments, stdin=stdin, environment=environment)
    finally:
        signal.signal(signal.SIGTERM, handler)


# -- the group -------------------------------------------------------------------------------------------------------


def test_every_file_without_underscore_is_a_verb() -> None:
    context = click.Context(verbs)
    files = {file.stem.replace("_", "-") for file in Path("invalidator/cli").glob("[a-z]*.py")}
    assert set(verbs.list_commands(context)) == files
    assert {"run", "check", "explain", "setup", "status", "config", "demo"} <= files
    for name in files:
        command = verbs.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(), name


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 78),
        (SourceDisconnected("gone"), 69),
        (SlotInUse("busy"), 69),
        (SlotLost("lost"), 1),
        (ProtocolError("what"), 1),
        (ZeroDivisionError("oops"), 70),
    ],
)
def test_each_error_has_its_exit_code_and_only_our_mistakes_a_traceback(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 70) or error.__traceback__ is None


def test_no_error_shows_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    report(ConfigError("cannot connect to postgresql://u:canary@h/d, password=canary"))
    report(RuntimeError("postgresql://u:canary@h/d"))
    assert "canary" not in capsys.readouterr().err


def test_usage_errors_exit_2(project: Path) -> None:
    for arguments in (["rnu"], ["check", "--frobnicate"], ["explain"], ["run", "--set", "novalue"]):
        result = run(project, *arguments)
        assert result.code == Exit.USAGE, arguments
        assert "Usage" in result.errors
        assert result.output == ""


def test_wrong_settings_exit_78_with_the_place_and_start_nothing(project: Path) -> None:
    (project / "config" / "invalidator.yaml").write_text(SETTINGS.replace("varnish,", "varnihs,"))
    result = run(project, "run")
    assert result.code == Exit.CONFIG
    assert result.errors.startswith("config/invalidator.yaml:2:16: error[unknown-type]")
    assert "Traceback" not in result.errors
    assert result.output == ""


# -- check -----------------------------------------------------------------------------------------------------------


def test_check_is_silent_about_what_is_right(project: Path) -> None:
    result = run(project, "check")
    assert (result.code, result.errors) == (0, "")
    assert result.output.splitlines()[-1] == "1 rule in 1 file: no problem found"


def test_check_shows_place_line_caret_and_help(project: Path) -> None:
    (project / "config" / "rules.yaml").write_text(RULES.replace("changed", "chnaged"))
    result = run(project, "check")
    assert result.code == Exit.PROBLEMS
    assert "config/rules.yaml:5:5: error[unknown-field]: unknown field 'chnaged'" in result.output
    assert " 5 |     chnaged: [slug]" in result.output
    assert "did you mean 'changed'?" in result.output
    assert result.output.splitlines()[-1] == "1 rule in 1 file: 1 error"


def test_check_of_a_path_that_cannot_be_looked_at_is_a_finding(tmp_path: Path) -> None:
    result = run(tmp_path, "check", "x" * 300)
    assert (result.code, result.errors) == (Exit.PROBLEMS, "")
    assert "error[unreadable-file]: cannot be read: File name too long" in result.output


def test_check_reports_settings_and_rules_in_one_go(project: Path) -> None:
    (project / "config" / "rules.yaml").write_text(RULES.replace("changed", "chnaged"))
    result = run(project, "check", "config/rules.yaml", environment={"INVALIDATOR_LOGLEVEL": "x"})
    assert "INVALIDATOR_LOGLEVEL" in result.output
    assert "chnaged" in result.output
    assert "2 errors" in result.output


def test_check_of_files_needs_no_settings(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RULES)
    assert run(tmp_path, "check", "r.yaml").code == 0
    result = run(tmp_path, "check")
    assert result.code == Exit.PROBLEMS
    assert "there are no settings" in result.output
    assert "--settings FILE" in result.output


def test_check_says_what_it_could_not_check_without_settings(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RULES.replace("    coarse: {tags: [posts], cdn: [posts]}\n", ""))
    (tmp_path / "plain.yaml").write_text(RULES.replace('      cdn: ["post-{id}"]\n', "").replace(", cdn: [posts]", ""))

    result = run(tmp_path, "check", "r.yaml")

    assert "no settings were read, so the CDN tags of 1 rule were not checked" in result.output
    assert "--settings FILE" in result.output
    assert "no settings" not in run(tmp_path, "check", "plain.yaml").output


def test_check_reads_the_rules_in_a_markdown_page_at_their_places(tmp_path: Path) -> None:
    broken = RULES.replace("{slug}", "{slug|lowr}")
    page = f"# Rules\n\n```yaml\n{RULES}```\n\n```yaml invalid\nrules: [\n```\n\n```yaml\n{broken}```\n"
    (tmp_path / "page.md").write_text(page)
    line = page.split("\n").index('      keys: ["post:{slug|lowr}", "post:id:{id}"]') + 1

    result = run(tmp_path, "check", "page.md")

    assert result.code == Exit.PROBLEMS
    assert f"page.md:{line}:" in result.output
    assert f'{line} |       keys: ["post:{{slug|lowr}}"' in result.output
    assert "page.md: 2 blocks of rules" in result.output
    assert "2 rules in 1 file: 1 error" in result.output
    (tmp_path / "page.md").write_text(page.replace("|lowr", ""))
    assert run(tmp_path, "check", "page.md", "--strict").code == Exit.FINE


@pytest.mark.parametrize("page", ["how-to/recipes.md", "reference/rules.md"])
def test_check_accepts_the_pages_of_the_documentation(tmp_path: Path, page: str) -> None:
    result = run(tmp_path, "check", str(Path(__file__).parents[3] / "docs" / page))
    assert result.code == Exit.FINE, result.output
    assert " 0 blocks" not in result.output


def test_check_names_the_tests_that_it_could_not_run(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "version: 1\n"
        "rules:\n"
        "  - name: item\n"
        "    table: public.items\n"
        '    lookup: {order: {sql: "SELECT user_id FROM orders WHERE id = {order_id}"}}\n'
        '    invalidate: {keys: ["user:{order.user_id}"]}\n'
        "    coarse: {tags: [users]}\n"
        "tests:\n"
        "  - {name: open, table: public.items, insert: {order_id: 1}, expect: {}}\n"
    )

    result = run(tmp_path, "check", "r.yaml")

    assert result.code == Exit.FINE
    assert "test 'open' (r.yaml:9) was not run: rule 'item' asks its lookup 'order'" in result.output
    assert "1 test (1 skipped)" in result.output


def test_check_finds_cdn_tags_that_a_provider_would_split(project: Path) -> None:
    (project / "config" / "rules.yaml").write_text(RULES.replace('"post-{id}"', '"post {id}"'))
    result = run(project, "check")
    assert result.code == Exit.PROBLEMS
    assert "config/rules.yaml:8:13: error[cdn-tag-grammar]" in result.output
    assert "edge (Varnish xkey)" in result.output


def test_check_wants_a_coarse_cdn_tag_or_the_targets_consent(project: Path) -> None:
    (project / "config" / "rules.yaml").write_text(RULES.replace(", cdn: [posts]", ""))
    result = run(project, "check")
    assert result.code == Exit.PROBLEMS
    assert "config/rules.yaml:8:7: error[coarse-missing]" in result.output
    consent = {"INVALIDATOR_TARGETS__EDGE__PURGE_ALL_ON_GAP": "true"}
    assert run(project, "check", environment=consent).code == 0


def test_strict_makes_warnings_fail(project: Path) -> None:
    twice = RULES + RULES.split("rules:\n")[1].replace("name: post", "name: again")
    (project / "config" / "rules.yaml").write_text(twice)
    lenient = run(project, "check")
    assert lenient.code == 0
    assert "warning[same-target]" in lenient.output
    assert run(project, "check", "--strict").code == Exit.PROBLEMS


def test_check_speaks_json_and_github(project: Path) -> None:
    (project / "config" / "rules.yaml").write_text(RULES.replace("changed", "chnaged"))
    document = json.loads(run(project, "check", "--json").output)
    assert document["errors"] == 1
    assert document["findings"][0]["line"] == 5
    annotation = run(project, "check", "--format", "github").output.splitlines()[0]
    assert annotation.startswith(
        "::error file=config/rules.yaml,line=5,col=5,endColumn=12,title=unknown-field::unknown field"
    )


# -- explain ---------------------------------------------------------------------------------------------------------


def explained(project: Path, *arguments: str, stdin: str = "") -> Any:
    result = run(project, "explain", *arguments, "--json", stdin=stdin)
    assert result.code == 0, result.errors
    return json.loads(result.output)["rules"][0]


def test_an_update_shows_old_and_new_names(project: Path) -> None:
    row = '{"old": {"id": 1, "slug": "a"}, "new": {"id": 1, "slug": "b"}}'
    rule = explained(project, "public.posts", row)
    assert rule["invalidation"]["keys"] == ["post:a", "post:b", "post:id:1"]
    assert rule["repeats"][0]["after_seconds"] == [0.5]
    text = run(project, "explain", "public.posts", row).output
    assert "rule post (config/rules.yaml:3)" in text
    assert 'slug "a" → "b"' in text
    assert "post:a  post:b  post:id:1" in text


def test_with_the_primary_key_alone_the_rule_widens(project: Path) -> None:
    row = '{"old": {"id": 1, "slug": "a"}, "new": {"id": 1, "slug": "b"}}'
    rule = explained(project, "public.posts", row, "--identity", "id")
    assert rule["widened"] == ["old_unavailable"]
    assert "posts" in rule["invalidation"]["tags"]


@pytest.mark.parametrize(
    ("row", "options", "event"),
    [
        ('{"id": 1, "slug": "a"}', [], "insert"),
        ('{"new": {"id": 1, "slug": "a"}}', [], "insert"),
        ('{"old": {"id": 1, "slug": "a"}}', [], "delete"),
        ('{"id": 1, "slug": "a"}', ["--event", "delete"], "delete"),
        ('{"new": 1, "old": 2, "id": 1, "slug": "a"}', [], "insert"),
    ],
)
def test_the_event_follows_from_the_images(project: Path, row: str, options: list[str], event: str) -> None:
    result = run(project, "explain", "public.posts", row, *options, "--json")
    document = json.loads(result.output)
    assert document["event"] == event
    assert document["rules"][0]["invalidation"]["keys"] == ["post:a", "post:id:1"]


def test_the_row_may_come_from_standard_input(project: Path) -> None:
    assert explained(project, "public.posts", "-", stdin='{"id": 7, "slug": "x"}')["outcome"] == "fired"


def test_a_rule_that_does_not_fire_says_why(project: Path) -> None:
    row = '{"old": {"id": 1, "slug": "a"}, "new": {"id": 1, "slug": "a"}}'
    assert "not fired: none of changed [slug] did change" in run(project, "explain", "public.posts", row).output


def test_a_table_without_rule_is_a_problem_with_a_suggestion(project: Path) -> None:
    result = run(project, "explain", "public.post", '{"id": 1}')
    assert result.code == Exit.PROBLEMS
    assert "did you mean public.posts?" in result.output


@pytest.mark.parametrize("row", ["{", "[]", "1", "{}", ""])
def test_a_row_that_is_no_object_is_a_usage_error(project: Path, row: str) -> None:
    assert run(project, "explain", "public.posts", row).code == Exit.USAGE


def test_a_hostile_value_cannot_steer_the_terminal(project: Path) -> None:
    result = run(project, "explain", "public.posts", '{"id": "\\u001b[31m", "slug": "\\u202e"}')
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output


# -- config ----------------------------------------------------------------------------------------------------------


def test_config_shows_values_with_origin_and_no_secret(project: Path) -> None:
    environment = {
        "INVALIDATOR_SOURCE__DSN": "postgresql://u:canary@db/app",
        "INVALIDATOR_TARGETS__EDGE__SECRET": "canary",
        "INVALIDATOR_LOOKUPS__DSN": "postgresql://u:canary@replica/app",
        "INVALIDATOR_LOOKUPS__PASSWORD": "canary",
    }
    text = run(project, "config", environment=environment).output
    assert "canary" not in text
    assert "postgresql://u:***@db/app" in text
    assert "(INVALIDATOR_SOURCE__DSN)" in text
    assert "(config/invalidator.yaml:2)" in text
    rows = {row["setting"]: row for row in json.loads(run(project, "config", "--json").output)}
    assert rows["source.slot"] == {
        "setting": "source.slot",
        "value": "invalidator",
        "origin": "default",
        "variable": "INVALIDATOR_SOURCE__SLOT",
    }


def test_config_shows_every_section_of_the_settings(project: Path) -> None:
    shown = {row["setting"].partition(".")[0] for row in json.loads(run(project, "config", "--json").output)}

    assert shown == {field.name for field in dataclasses.fields(Settings)} - {"file"}


# -- reference pages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["cli", "findings", "metrics", "settings"])
def test_the_reference_page_is_what_the_code_says(page: str) -> None:
    pages = importlib.import_module("invalidator.cli.generators.reference").PAGES
    written = Path(f"docs/reference/{page}.md").read_text()
    assert written == pages[page](), f"python -m invalidator.cli.generators.reference {page} > docs/reference/{page}.md"


def test_every_exit_code_is_documented() -> None:
    text = Path("docs/reference/exit-codes.md").read_text()
    for code in Exit:
        assert f"| {code.value} |" in text


def test_a_misspelled_verb_is_told_the_one_that_is_meant(tmp_path: Path) -> None:
    result = run(tmp_path, "chekc")
    assert result.code == Exit.USAGE
    assert "No such command 'chekc'. Did you mean 'check'?" in result.errors
    assert "Did you mean" not in run(tmp_path, "zzz").errors


def test_check_explains_a_code_and_knows_what_was_meant(tmp_path: Path) -> None:
    result = run(tmp_path, "check", "--explain", "glob-in-key")
    assert result.code == 0
    assert result.output.startswith("# `glob-in-key`\n")
    unknown = run(tmp_path, "check", "--explain", "glob-in-keys")
    assert unknown.code == Exit.USAGE
    assert "did you mean glob-in-key" in unknown.errors


def test_check_explains_where_problems_of_a_daemon_are_described(tmp_path: Path) -> None:
    for code in CODES:
        result = run(tmp_path, "check", "--explain", code)
        assert result.code == Exit.FINE
        [page] = re.findall(r"docs/operations/[\w-]+\.md", result.output)
        assert (Path(__file__).parents[3] / page).exists()
    near = run(tmp_path, "check", "--explain", "setup-incomplet")
    assert near.code == Exit.USAGE
    assert "setup-incomplete?" in near.errors


def test_sarif_says_what_each_code_means(project: Path) -> None:
    (project / "config" / "rules.yaml").write_text(RULES.replace("table:", "tabel:"))
    [made] = json.loads(run(project, "check", "--format", "sarif").output)["runs"]
    for rule in made["tool"]["driver"]["rules"]:
        assert rule["shortDescription"]["text"] == all_codes()[rule["id"]].meaning
        assert all_codes()[rule["id"]].why in rule["fullDescription"]["text"]
        assert rule["help"]["markdown"].startswith(f"# `{rule['id']}`")
    assert "unknown-field" in {rule["id"] for rule in made["tool"]["driver"]["rules"]}


def test_status_sets_the_further_lines_of_a_text_in() -> None:
    problem = {"severity": "critical", "code": "reload-refused", "text": "refused: a\n  b", "fix": "BEGIN;\nCOMMIT;"}
    lines = status.render({"problems": [problem], "source": {"last_error": "one\ntwo"}})
    assert lines[lines.index("critical[reload-refused]: refused: a") + 1] == "        b"
    assert lines[-2:] == ["   = fix: BEGIN;", "      COMMIT;"]
    assert lines[lines.index("  error  one") + 1] == "      two"


def test_status_without_a_daemon_says_what_to_do(tmp_path: Path) -> None:
    result = run(tmp_path, "status", "--url", "http://127.0.0.1:1")
    assert result.code == Exit.UNREACHABLE
    assert "invalidator run" in result.errors
    assert "--url" in result.errors
