"""What a rule file means, and what is said about one that is wrong."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invalidator.model import Operation
from invalidator.rules import document
from invalidator.rules.document import Loaded
from invalidator.rules.rule import Rule
from invalidator.rules.schema import DefaultsModel, RuleModel
from invalidator.rules.template import Template
from invalidator.yamlfile import Diagnostic, Invalid, Severity

ROOT = Path(__file__).parents[3]


def loaded(folder: Path, text: str) -> Loaded:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return document.load_with_warnings([path])


def only(folder: Path, rule: str, defaults: str = "{}") -> Rule:
    text = f"version: 1\ndefaults: {defaults}\nrules:\n  - name: r\n    table: public.t\n{rule}"
    (made,) = loaded(folder, text).ruleset.rules
    return made


def refused(folder: Path, text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        loaded(folder, text)
    return caught.value


def places(found: tuple[Diagnostic, ...], severity: Severity = "error") -> list[tuple[int, int, str]]:
    return [(each.line, each.column, each.code) for each in found if each.severity == severity]


def texts(templates: tuple[Template, ...]) -> list[str]:
    return [template.text for template in templates]


# -- what a rule means -----------------------------------------------------------------------------------------


def test_a_rule_is_filled_in_from_the_defaults(tmp_path: Path) -> None:
    rule = only(
        tmp_path,
        "    invalidate: {keys: ['user:{id}'], tags: [all], l1: ['user:{id}:*'], cdn: ['user-{id}']}\n",
        "{prefix: 'app:', soft: true, repeat_after: [5s, 500ms, 2m]}",
    )
    assert (rule.name, rule.schema, rule.table) == ("r", "public", "t")
    assert rule.events == frozenset(Operation)
    assert rule.changed is None
    assert rule.bulk_over is None
    assert rule.soft is True
    assert rule.repeat_after == (0.5, 5.0, 120.0)
    assert texts(rule.exact.keys) == ["app:user:{id}"]
    assert texts(rule.exact.tags) == ["app:all"]
    assert texts(rule.exact.l1) == ["app:user:{id}:*"]
    assert texts(rule.exact.cdn) == ["user-{id}"]  # CDN tags carry no prefix
    assert str(rule.place) == f"{tmp_path}/rules.yaml:4:5"


def test_a_rule_overrides_the_defaults_also_with_nothing(tmp_path: Path) -> None:
    rule = only(
        tmp_path,
        "    prefix: ''\n    soft: false\n    repeat_after: []\n    changed: [b, a]\n    events: [update]\n"
        "    bulk_over: 500\n    invalidate: {keys: ['user:{id}']}\n",
        "{prefix: 'app:', soft: true, repeat_after: [5s]}",
    )
    assert texts(rule.exact.keys) == ["user:{id}"]
    assert rule.soft is False
    assert rule.repeat_after == ()
    assert rule.changed == frozenset({"a", "b"})
    assert rule.events == frozenset({Operation.UPDATE})
    assert rule.bulk_over == 500


@pytest.mark.parametrize(
    ("written", "schema", "table"),
    [
        ("public.users", "public", "users"),
        ("tenant_*.users", "tenant_*", "users"),
        ("'*.*'", "*", "*"),
        ("'public.\"Order.Items\"'", "public", "Order.Items"),
        ('\'"My ""Schema""".t\'', 'My "Schema"', "t"),
        ("public.größe", "public", "größe"),
    ],
)
def test_a_table_is_named_with_its_schema(tmp_path: Path, written: str, schema: str, table: str) -> None:
    text = f"version: 1\nrules:\n  - name: r\n    table: {written}\n    invalidate: {{keys: ['a:{{id}}']}}\n"
    (rule,) = loaded(tmp_path, text).ruleset.rules
    assert (rule.schema, rule.table) == (schema, table)


@pytest.mark.parametrize(
    ("written", "seconds"), [("500ms", 0.5), ("5s", 5.0), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0)]
)
def test_delays_are_written_with_their_unit(tmp_path: Path, written: str, seconds: float) -> None:
    rule = only(tmp_path, f"    repeat_after: [{written}]\n    invalidate: {{keys: ['a:{{id}}']}}\n")
    assert rule.repeat_after == (seconds,)


# -- the coarse form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "prefix", "keys", "patterns"),
    [
        (["user:{id}"], "", [], ["user:*"]),
        (["catalog"], "", ["catalog"], []),
        (["user:{id}:profile"], "", [], ["user:*:profile"]),
        (["user:{id}", "user:{id}:profile"], "", [], ["user:*"]),
        (["user:{a}{b}-{c}"], "", [], ["user:*-*"]),
        (["user:{id}"], "{meta.schema}:", [], ["{meta.schema}:user:*"]),
        (["product:{id}", "all"], "t{tenant_id}:", [], ["t*:product:*", "t*:all"]),
        (["log:{meta.table}"], "", ["log:{meta.table}"], []),
        (["log:{meta.op}"], "", [], ["log:*"]),  # TRUNCATE has another op than the rows that made the keys
        (["a\\b:{id}"], "", [], ["a[\\\\]b:*"]),
        (["x:{new.slug|lower}", "y:{old.slug}"], "", [], ["x:*", "y:*"]),
    ],
)
def test_without_a_written_coarse_form_one_is_derived_that_covers_all_keys(
    tmp_path: Path, exact: list[str], prefix: str, keys: list[str], patterns: list[str]
) -> None:
    quoted = ", ".join(f"'{each}'" for each in exact)
    rule = only(tmp_path, f"    invalidate: {{keys: [{quoted}], tags: [{quoted}]}}\n    prefix: '{prefix}'\n")
    assert texts(rule.coarse.keys) == texts(rule.coarse.tags) == keys
    assert texts(rule.coarse.key_patterns) == texts(rule.coarse.tag_patterns) == patterns


@pytest.mark.parametrize(
    ("exact", "derived"),
    [
        (["user:{id}"], ["user:*"]),
        (["user:{id}:*"], ["user:*"]),
        (["user:*:{id}"], ["user:*:*"]),
        (["catalog:*"], ["catalog:*"]),
        (["user:{id}:a", "user:{id}:b"], ["user:*"]),
        (["{meta.schema}:user:{id}"], ["{meta.schema}:user:*"]),
        (["user*{id}"], ["user*"]),
    ],
)
def test_a_derived_l1_pattern_ends_at_the_first_value(tmp_path: Path, exact: list[str], derived: list[str]) -> None:
    quoted = ", ".join(f"'{each}'" for each in exact)
    assert texts(only(tmp_path, f"    invalidate: {{l1: [{quoted}]}}\n").coarse.l1) == derived


def test_what_is_written_under_coarse_replaces_only_its_own_layer(tmp_path: Path) -> None:
    rule = only(
        tmp_path,
        "    invalidate: {keys: ['user:{id}'], tags: ['u:{id}'], l1: ['user:{id}:*'], cdn: ['user-{id}']}\n"
        "    coarse: {tags: [users, 'u:x*'], cdn: [users]}\n",
    )
    assert texts(rule.coarse.tags) == ["users"]
    assert texts(rule.coarse.tag_patterns) == ["u:x*"]
    assert rule.coarse.keys == rule.coarse.key_patterns == ()  # tags cover what Redis holds
    assert texts(rule.coarse.l1) == ["user:*"]  # not written, so derived
    assert texts(rule.coarse.cdn) == ["users"]
    assert rule.coarse.cdn_all is False


def test_a_star_under_coarse_makes_a_pattern_and_its_absence_a_name(tmp_path: Path) -> None:
    rule = only(
        tmp_path,
        "    prefix: 'app:'\n    invalidate: {keys: ['user:{id}']}\n"
        "    coarse: {keys: [user-list, 'user:*'], l1: ['*']}\n",
    )
    assert texts(rule.coarse.keys) == ["app:user-list"]
    assert texts(rule.coarse.key_patterns) == ["app:user:*"]
    assert texts(rule.coarse.l1) == ["app:*"]


def test_row_values_of_the_prefix_become_stars_in_a_written_coarse_form(tmp_path: Path) -> None:
    rule = only(
        tmp_path,
        "    invalidate: {keys: ['user:{id}'], l1: ['user:{id}']}\n    coarse: {keys: [user-list], l1: ['user:*']}\n",
        "{prefix: 't{tenant_id}:'}",
    )
    assert rule.coarse.keys == ()
    assert texts(rule.coarse.key_patterns) == ["t*:user-list"]
    assert texts(rule.coarse.l1) == ["t*:user:*"]


def test_cdn_tags_over_rows_have_no_coarse_form_unless_it_is_written(tmp_path: Path) -> None:
    text = (
        "version: 1\nrules:\n"
        "  - {name: all, table: a.b, invalidate: {cdn: ['p-{id}', pages]}}\n"
        "  - {name: one, table: a.c, invalidate: {cdn: [pages]}}\n"
        "  - {name: own, table: a.d, invalidate: {cdn: ['p-{id}']}, coarse: {cdn: [pages]}}\n"
        "  - {name: none, table: a.e, invalidate: {keys: ['p-{id}']}}\n"
    )
    ruleset = loaded(tmp_path, text).ruleset
    assert [rule.coarse.cdn_all for rule in ruleset.rules] == [True, False, False, False]
    assert [texts(rule.coarse.cdn) for rule in ruleset.rules] == [["pages"], ["pages"], ["pages"], []]
    assert [rule.name for rule in document.rules_without_coarse_cdn(ruleset)] == ["all"]


# -- several files ---------------------------------------------------------------------------------------------

RULE = "version: 1\nrules:\n  - name: {name}\n    table: public.{name}\n    invalidate: {{keys: ['{name}:{{id}}']}}\n"


def test_a_directory_is_read_in_order_of_names_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "c.yaml.bak"):
        (tmp_path / name).write_text(RULE.format(name=name[0] if name[0] != "." else "hidden"))
    (tmp_path / "sub.yaml").mkdir()
    ruleset = document.load([tmp_path])
    assert [rule.name for rule in ruleset.rules] == ["a", "b"]


def test_a_file_that_is_reached_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RULE.format(name="a"))
    (tmp_path / "z.yaml").symlink_to("a.yaml")
    assert len(document.load([tmp_path, tmp_path / "a.yaml"]).rules) == 1


def test_defaults_hold_for_their_own_file_only(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RULE.format(name="a") + "defaults: {prefix: 'x:'}\n")
    (tmp_path / "b.yaml").write_text(RULE.format(name="b"))
    first, second = document.load([tmp_path]).rules
    assert (texts(first.exact.keys), texts(second.exact.keys)) == (["x:a:{id}"], ["b:{id}"])


def test_a_name_used_twice_names_the_earlier_place_in_whatever_file_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RULE.format(name="user"))
    (tmp_path / "b.yaml").write_text(RULE.format(name="user"))
    with pytest.raises(Invalid) as caught:
        document.load([tmp_path])
    (found,) = caught.value.diagnostics
    assert (found.file, found.line, found.column, found.code) == (f"{tmp_path}/b.yaml", 3, 11, "duplicate-rule")
    assert found.message == f"there is a rule 'user' already, at {tmp_path}/a.yaml:3:5"


def test_the_mistakes_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 2\n")
    (tmp_path / "b.yaml").write_text("a: [user:{id}]\n")
    (tmp_path / "c.yaml").write_text(RULE.format(name="c").replace("c:{id}", "{id}"))
    (tmp_path / "d.yaml").symlink_to("nowhere")
    with pytest.raises(Invalid) as caught:
        document.load([tmp_path])
    found = [(Path(each.file).name, each.line, each.code) for each in caught.value.diagnostics]
    assert found == [
        ("a.yaml", 1, "missing-field"),
        ("a.yaml", 1, "bad-value"),
        ("b.yaml", 1, "yaml-syntax"),
        ("c.yaml", 5, "unconfined-template"),
        ("d.yaml", 0, "unreadable-file"),
    ]
    assert " 1 | version: 2" in str(caught.value)


def test_a_directory_without_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="this directory holds no rule file"):
        document.load([tmp_path])


def test_a_directory_that_cannot_be_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(directory: Path) -> Iterator[Path]:
        raise OSError(errno.ESTALE, "Stale file handle", str(directory))

    monkeypatch.setattr(Path, "iterdir", lost)  # a network file system does so; permissions do not stop root
    too_long = tmp_path / ("x" * 300)

    with pytest.raises(Invalid) as caught:
        document.load([tmp_path, too_long])

    assert [(found.file, found.code, found.message) for found in caught.value.diagnostics] == [
        (str(tmp_path), "unreadable-file", "cannot be read: Stale file handle"),
        (str(too_long), "unreadable-file", "cannot be read: File name too long"),
    ]


def test_the_hash_names_the_meaning_not_the_layout(tmp_path: Path) -> None:
    a, b = RULE.format(name="a"), RULE.format(name="b")
    (tmp_path / "1.yaml").write_text(a)
    (tmp_path / "2.yaml").write_text(b)
    first = document.load([tmp_path]).hash
    (tmp_path / "1.yaml").write_text("# a comment\n" + b.replace("{id}", "{ id }").replace("    table", "\n    table"))
    (tmp_path / "2.yaml").write_text(a + "    repeat_after: []\n")
    assert document.load([tmp_path]).hash == first
    assert re.fullmatch("[0-9a-f]{12}", first)
    for changed in (a.replace("{id}", "{uid}"), a + "    soft: true\n", a + "    bulk_over: 3\n"):
        (tmp_path / "2.yaml").write_text(changed)
        assert document.load([tmp_path]).hash != first


# -- what is refused -------------------------------------------------------------------------------------------

BAD = """\
version: 1
defaults: {prefix: ""}
rules:
  - name: user
    table: public.users
    on: [insert, update]
    when: new.active =
    lookup: {old: {sql: "SELECT 1;"}}
    invalidate:
      keys:
        - {id}
        - user:{id|lowr}
        - 'it''s {id'
        - "\\u00e9{meta.tabel}"
      tags: []
    cdn: ["user-{id}"]
  - name: Post
    table: posts
    events: [insert, updtae]
    changed: []
    bulk_over: "500"
    soft: yes
    repeat_after: [5, 3 days, 2h, 0s]
  - name: sub.rule
    table: public."*"
    invalidate: {keys: post, l1: ["", "a\\nb"], coarse: {}}
tests: []
"""


def test_every_mistake_of_a_file_is_found_at_its_place(tmp_path: Path) -> None:
    error = refused(tmp_path, BAD)
    assert places(error.diagnostics) == [
        (6, 5, "unknown-field"),
        (7, 22, "condition-syntax"),
        (8, 14, "bad-value"),
        (8, 34, "lookup-syntax"),
        (11, 11, "unquoted-template"),
        (12, 20, "unknown-filter"),
        (13, 18, "template-syntax"),
        (14, 24, "unknown-meta"),
        (16, 5, "unknown-field"),
        (17, 5, "missing-field"),
        (17, 11, "bad-value"),
        (18, 12, "bad-value"),
        (19, 22, "bad-value"),
        (20, 14, "bad-value"),
        (21, 16, "bad-value"),
        (22, 11, "bad-value"),
        (23, 20, "bad-value"),
        (23, 23, "bad-value"),
        (23, 31, "bad-value"),
        (23, 35, "bad-value"),
        (25, 12, "bad-value"),
        (26, 24, "bad-value"),
        (26, 35, "bad-value"),
        (26, 41, "bad-value"),
        (26, 48, "unknown-field"),
    ]
    text = str(error)
    assert "something is missing at the end" in text
    assert "= help: did you mean 'events'? allowed here: bulk_over, changed, coarse, events," in text
    assert "= help: 'cdn' is a field of 'invalidate': indent it under line 9" in text
    assert "= help: did you mean 'update'?" in text
    assert "= help: did you mean 'lower'?" in text
    assert "= help: write the schema too: public.posts" in text
    assert "5 has no unit" in text
    assert "= help: 'coarse' is a field of rule 'sub.rule': indent it less." in text
    assert re.search(r"pydantic|Input should|model_|validation", text) is None


def invalidate(entries: str) -> str:
    return f"version: 1\nrules:\n  - name: r\n    table: a.b\n    invalidate: {{{entries}}}\n"


@pytest.mark.parametrize(
    ("entries", "column", "code"),
    [
        ("keys: ['{slug}']", 26, "unconfined-template"),
        ("tags: ['{new.slug}-x']", 26, "unconfined-template"),
        ("cdn: ['{id}']", 25, "unconfined-template"),
        ("l1: ['{id}:*']", 24, "unconfined-template"),
        ("keys: ['{meta.schema}{id}']", 26, "unconfined-template"),
        ("l1: ['*']", 24, "unconfined-template"),
        ("l1: ['*:{id}']", 24, "unconfined-template"),
        ("l1: ['{meta.schema}*']", 37, "unconfined-template"),
        ("keys: ['user:*']", 31, "glob-in-key"),
        ("tags: ['user:{id|default:''?''}:[']", 50, "glob-in-key"),
        ("keys: []", 5, "empty-invalidate"),
    ],
)
def test_a_template_that_names_too_much_is_refused(tmp_path: Path, entries: str, column: int, code: str) -> None:
    assert places(refused(tmp_path, invalidate(entries)).diagnostics) == [(5, column, code)]


@pytest.mark.parametrize(
    "entries",
    [
        "keys: ['{meta.schema}:{id}']",
        "cdn: ['{meta.table}']",
        "keys: ['a{id}', '{{x}}{id}']",
        "l1: ['user:*', 'user:{id|default:''*''}']",
        "keys: ['a:{\"odd*name\"}']",
    ],
)
def test_a_template_that_begins_with_something_literal_is_taken(tmp_path: Path, entries: str) -> None:
    assert loaded(tmp_path, invalidate(entries)).ruleset.rules


def test_the_prefix_counts_as_something_literal_but_not_for_cdn_tags(tmp_path: Path) -> None:
    text = invalidate("keys: ['{id}'], cdn: ['{id}']") + "    prefix: 'p:'\n"
    assert places(refused(tmp_path, text).diagnostics) == [(5, 41, "unconfined-template")]


def test_a_prefix_that_begins_with_a_row_value_is_blamed_itself(tmp_path: Path) -> None:
    text = invalidate("keys: ['a:{id}', 'b:{id}'], l1: ['c:{id}']") + "defaults: {prefix: '{tenant}:'}\n"
    assert places(refused(tmp_path, text).diagnostics) == [(6, 21, "unconfined-template")]


def test_a_glob_in_a_prefix_is_refused(tmp_path: Path) -> None:
    text = invalidate("l1: ['c:{id}']") + "    prefix: 'a*:'\n"
    assert places(refused(tmp_path, text).diagnostics) == [(6, 15, "glob-in-key")]


@pytest.mark.parametrize(
    ("coarse", "column", "code"),
    [
        ("keys: ['user:{id}']", 27, "row-in-coarse"),
        ("cdn: ['user-{new.id}']", 26, "row-in-coarse"),
        ("l1: ['{old.id}*']", 20, "row-in-coarse"),
        ("keys: ['user:{meta.xid}']", 27, "row-in-coarse"),
        ("cdn: ['user-{meta.lsn}']", 26, "row-in-coarse"),
        ("tags: ['t:{meta.op}']", 24, "row-in-coarse"),
        ("keys: ['*']", 22, "unconfined-template"),
        ("tags: ['*:x']", 22, "unconfined-template"),
        ("keys: ['user:?']", 27, "glob-in-key"),
    ],
)
def test_a_coarse_form_that_cannot_be_applied_is_refused(tmp_path: Path, coarse: str, column: int, code: str) -> None:
    text = invalidate("keys: ['user:{id}']") + f"    coarse: {{{coarse}}}\n"
    assert places(refused(tmp_path, text).diagnostics) == [(6, column, code)]


def test_a_line_break_that_a_block_text_keeps_is_refused(tmp_path: Path) -> None:
    text = (
        "version: 1\nrules:\n  - name: r\n    table: a.b\n    invalidate:\n      keys:\n        - |\n          a:{id}\n"
    )
    error = refused(tmp_path, text)
    assert [(each.line, each.code) for each in error.diagnostics] == [(8, "bad-value")]
    assert "write '|-' or '>-'" in str(error)


# -- what is only said -----------------------------------------------------------------------------------------


def test_a_derived_pattern_that_matches_nearly_everything_is_a_warning(tmp_path: Path) -> None:
    found = loaded(tmp_path, invalidate("keys: ['u{id}'], l1: ['us{id}']"))
    assert places(found.warnings, "warning") == [(5, 18, "pattern-too-wide"), (5, 35, "pattern-too-wide")]


def test_scanning_redis_is_mentioned_only_where_the_coarse_form_is_asked_for(tmp_path: Path) -> None:
    text = invalidate("keys: ['user:{id}']")
    assert loaded(tmp_path, text).warnings == ()
    for more in ("    bulk_over: 9\n", "    events: [delete, truncate]\n"):
        (found,) = loaded(tmp_path, text + more).warnings
        assert (found.line, found.column, found.code, found.severity) == (5, 18, "coarse-derived", "info")
    assert loaded(tmp_path, text + "    bulk_over: 9\n    coarse: {keys: [], tags: [users]}\n").warnings == ()


def test_two_rules_that_name_the_same_for_one_table_are_a_warning(tmp_path: Path) -> None:
    text = invalidate("keys: ['user:{id}']") + (
        "  - name: s\n    table: a.b\n    invalidate: {keys: ['user:{ id }', 'xx:{id}']}\n"
        "  - name: other-table\n    table: a.c\n    invalidate: {keys: ['user:{id}']}\n"
    )
    (found,) = loaded(tmp_path, text.replace("{ id }", "{id}")).warnings
    assert (found.line, found.column, found.code) == (8, 25, "same-target")
    assert found.message == f"rule 'r' at {tmp_path}/rules.yaml:3:5 names the same for the same table"


def test_rules_for_different_events_may_name_the_same(tmp_path: Path) -> None:
    text = invalidate("keys: ['user:{id}']") + "    events: [insert]\n"
    text += "  - name: s\n    table: a.b\n    events: [delete]\n    invalidate: {keys: ['user:{id}']}\n"
    assert loaded(tmp_path, text).warnings == ()


def test_changed_columns_without_updates_are_a_warning(tmp_path: Path) -> None:
    text = invalidate("keys: ['user:{id}']") + "    events: [insert]\n    changed: [a]\n"
    assert places(loaded(tmp_path, text).warnings, "warning") == [(7, 5, "changed-without-update")]


def test_a_star_in_a_cdn_tag_is_a_warning(tmp_path: Path) -> None:
    found = loaded(tmp_path, invalidate("cdn: ['pages*']"))
    assert places(found.warnings, "warning") == [(5, 30, "glob-in-key")]
    shown = found.warnings[0].render(found.sources[found.warnings[0].file])
    assert shown.startswith(f"{tmp_path}/rules.yaml:5:30: warning[glob-in-key]: '*' is no glob")


# -- anything at all -------------------------------------------------------------------------------------------

GOOD = (ROOT / "config" / "rules.yaml").read_text(encoding="utf-8")
PIECES = st.one_of(
    st.sampled_from(
        [*"{}[]:,#&*!|>'\"%@`-?~ \t\n\r\0\x1b\x85", "\n  ", "{id}", "{meta.op}", "*", "1", "null", "- ", "x: "]
    ),
    st.characters(),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = GOOD
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(PIECES) + text[at + draw(st.integers(0, 12)) :]
    return text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=damaged())
def test_a_damaged_file_raises_nothing_but_invalid_and_names_places_inside_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found: tuple[Diagnostic, ...] = ()
    try:
        found = document.load_with_warnings([path]).warnings
    except Invalid as error:
        found = error.diagnostics
    lines = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text))
    assert all(1 <= each.line <= lines and each.column >= 1 and each.width >= 1 for each in found)


# -- the shipped files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rules.yaml", "rules.minimal.yaml"])
def test_the_shipped_examples_load_without_a_warning(name: str) -> None:
    found = document.load_with_warnings([ROOT / "config" / name])
    assert found.ruleset.rules
    assert found.warnings == ()
    assert document.rules_without_coarse_cdn(found.ruleset) == ()


def test_the_full_example_uses_every_field() -> None:
    text = (ROOT / "config" / "rules.yaml").read_text(encoding="utf-8")
    schema = RuleModel.model_json_schema()
    names = {name for model in (schema, *schema["$defs"].values()) for name in model.get("properties", ())}
    names |= DefaultsModel.model_fields.keys() | {"version", "defaults", "rules"}
    assert [name for name in sorted(names) if f"{name}:" not in text] == []
    assert {"lookup", "sql", "limit", "timeout"} <= names
