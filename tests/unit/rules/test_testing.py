"""The tests of rule files: what they expect, and what is said when they get something else."""

# ruff: noqa: E501  (a case of a table is a line)

from __future__ import annotations

import re
from pathlib import Path

import pytest

from invalidator.model import Column, Relation
from invalidator.ports import TagGrammar
from invalidator.rules import document, testing
from invalidator.rules.document import Loaded
from invalidator.rules.testing import Report
from invalidator.yamlfile import Invalid

RULES = """\
version: 1
rules:
  - name: post
    table: public.posts
    changed: [slug, title]
    invalidate:
      keys: ["post:{new.slug}", "post:id:{id}"]
      cdn: ["post-{id}"]
    coarse: {tags: [posts], cdn: [posts]}
  - name: feed
    table: public.posts
    events: [insert]
    invalidate: {keys: ["feed:{author}"]}
  - name: user
    table: public.users
    soft: true
    invalidate: {keys: ["user:{id}"], cdn: ["user-{id}"]}
    coarse: {keys: ["user:*"], cdn: [users]}
  - name: item
    table: public.items
    lookup:
      order:
        sql: SELECT o.user_id FROM orders o WHERE o.id = {order_id}
        limit: 2
    invalidate: {keys: ["order:{order_id}", "user:{order.user_id}:orders"]}
tests:
"""


def load(tmp_path: Path, tests: str) -> Loaded:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES + tests, encoding="utf-8")
    return document.load_with_warnings([path])


def report_of(tmp_path: Path, change: str, expect: str, *, cdn_grammars: tuple[TagGrammar, ...] = ()) -> Report:
    loaded = load(tmp_path, f"  - {{name: it, {change}, expect: {{{expect}}}}}\n")
    return testing.run(loaded, cdn_grammars=cdn_grammars)


def reasons(tmp_path: Path, change: str, expect: str) -> dict[str, tuple[str, ...]]:
    """Every name that differs, with what is said about it; places without the folder."""
    [result] = report_of(tmp_path, change, expect).results
    said: dict[str, tuple[str, ...]] = {}
    for difference in result.differences:
        for name, lines in difference.reasons.items():
            said[name] = (*said.get(name, ()), *(line.replace(f"{tmp_path}/", "") for line in lines))
    return said


POSTS = "table: public.posts"
USERS = "table: public.users"
ITEMS = "table: public.items"
MOVED = f"{POSTS}, update: {{old: {{id: 1, slug: a, title: t}}, new: {{id: 1, slug: b, title: t}}}}"


@pytest.mark.parametrize(
    ("change", "expect"),
    [
        (MOVED, 'keys: ["post:b", "post:id:1"], cdn: [post-1]'),
        (f"{POSTS}, insert: {{id: 1, slug: a, title: t, author: 9}}", 'keys: ["post:a", "post:id:1", "feed:9"], cdn: [post-1]'),
        (f"{POSTS}, update: {{old: {{id: 1, slug: a, title: t}}, new: {{views: 2}}}}", ""),
        (f"{POSTS}, delete: {{id: 1, slug: a, title: t}}", 'keys: ["post:id:1"], cdn: [post-1]'),
        (f"{POSTS}, truncate: {{}}", "tags: [posts], cdn: [posts]"),
        (f"{POSTS}, truncate: {{}}", "tags: [posts], cdn: [posts], widened: [truncate]"),
        (f"{USERS}, insert: {{id: true}}", 'keys: ["user:t"], cdn_soft: [user-t]'),
        (f"{USERS}, insert: {{id: null}}", ""),
        (
            f"{USERS}, identity: [other], update: {{old: {{id: 1, other: 1}}, new: {{id: 2}}}}",
            'keys: ["user:2"], key_patterns: ["user:*"], cdn_soft: [user-2, users], widened: [old_unavailable]',
        ),
        (f"{USERS}, identity: [id], update: {{old: {{id: 1}}, new: {{id: 2}}}}", 'keys: ["user:1", "user:2"], cdn_soft: [user-1, user-2]'),
        (f"{ITEMS}, insert: {{order_id: 5}}, lookup: {{order: [{{user_id: 7}}, {{user_id: 8}}]}}", 'keys: ["order:5", "user:7:orders", "user:8:orders"]'),
        (f"{ITEMS}, insert: {{order_id: 5}}, lookup: {{order: []}}", 'keys: ["order:5"]'),
        (
            f"{ITEMS}, insert: {{order_id: 5}}, lookup: {{order: [{{user_id: 7}}, {{user_id: 8}}, {{user_id: 9}}]}}",
            'keys: ["order:5"], key_patterns: ["order:*", "user:*:orders"], widened: [lookup_overflow]',
        ),
    ],
)  # fmt: skip
def test_a_test_passes_if_the_rules_do_exactly_what_it_expects(tmp_path: Path, change: str, expect: str) -> None:
    report = report_of(tmp_path, change, expect)
    assert [result.differences for result in report.results] == [()]
    assert report.failures == ()


@pytest.mark.parametrize(
    "expect",
    [
        "",
        'keys: ["post:b", "post:id:1"]',
        'keys: ["post:b", "post:id:1", "post:a"], cdn: [post-1]',
        'keys: ["post:b", "post:id:1"], cdn_soft: [post-1]',
        'keys: ["post:b", "post:id:1"], cdn: [post-1], tags: [posts]',
        'keys: ["post:b", "post:id:1"], cdn: [post-1], l1: [x]',
        'keys: ["post:b", "post:id:1"], cdn: [post-1], cdn_all: true',
        'keys: ["post:b", "post:id:1"], cdn: [post-1], widened: [bulk]',
    ],
)
def test_a_test_fails_if_anything_is_missing_or_too_much(tmp_path: Path, expect: str) -> None:
    [result] = report_of(tmp_path, MOVED, expect).results
    assert not result.passed
    assert result.differences


@pytest.mark.parametrize(
    ("change", "expect", "name", "said"),
    [
        (MOVED, 'keys: ["post:a"]', "post:a", "rule 'post' uses {new.slug} (rules.yaml:7): the old slug is never rendered"),
        (MOVED, 'keys: ["post:id:2"]', "post:id:2", "rule 'post' uses {id} (rules.yaml:7): it would need id = '2', and the row has '1'"),
        (MOVED, 'keys: ["feed:9"]', "feed:9", "rule 'feed' has feed:{author} (rules.yaml:13), but it looks only at events [insert]"),
        (MOVED, 'keys: ["user:1"]', "user:1", "rule 'user' has user:{id} (rules.yaml:17), but is for public.users"),
        (MOVED, 'keys: ["posts:id"]', "posts:id", "no rule for public.posts makes such a name; the nearest is post:id:{id} of rule 'post' (rules.yaml:7)"),
        (MOVED, 'tags: [posts]', "posts", "rule 'post' (rules.yaml:3) has posts in its coarse form, and this change needs none: the exact names are known"),
        (MOVED, 'key_patterns: ["feed:*"]', "feed:*", "rule 'feed' (rules.yaml:10) has feed:* in its coarse form, and this change needs none: the exact names are known"),
        (MOVED, 'tags: [nonsense]', "nonsense", "no rule for public.posts makes such a name"),
        (MOVED, 'keys: ["post-1"]', "post-1", "it is under cdn, by rule 'post'"),
        (MOVED, "", "post:id:1", "rule 'post' (rules.yaml:7): post:id:{id}"),
        (
            f"{POSTS}, update: {{old: {{id: 1, slug: a, title: t}}, new: {{views: 1}}}}",
            'keys: ["post:id:1"]', "post:id:1",
            "rule 'post' has post:id:{id} (rules.yaml:7), but none of changed [slug, title] did change",
        ),
        (f"{USERS}, delete: {{id: 1}}", "cdn: [user-1]", "user-1", "it is under cdn_soft, by rule 'user' (it has soft: true)"),
        (f"{USERS}, truncate: {{}}", "", "user:*", "rule 'user' (rules.yaml:14): the coarse form, because a TRUNCATE carries no row"),
        (
            f"{USERS}, identity: [other], update: {{old: {{id: 1, other: 1}}, new: {{id: 2}}}}",
            'keys: ["user:1"]', "user:1",
            "rule 'user' uses {id} (rules.yaml:17): the old id is not sent, because the replica identity is other",
        ),
        (
            f"{USERS}, identity: [other], update: {{old: {{id: 1, other: 1}}, new: {{id: 2}}}}",
            "", "old_unavailable",
            "rule 'user' (rules.yaml:14): an old value is not in the replica identity, so it is not sent",
        ),
        (
            f"{ITEMS}, insert: {{order_id: 5}}, lookup: {{order: [{{user_id: 7}}]}}",
            'keys: ["user:8:orders"]', "user:8:orders",
            "rule 'item' uses {order.user_id} (rules.yaml:25): the lookup finds no row with order.user_id = '8'",
        ),
    ],
)  # fmt: skip
def test_a_difference_is_explained_by_the_line_of_a_rule(
    tmp_path: Path, change: str, expect: str, name: str, said: str
) -> None:
    assert said in reasons(tmp_path, change, expect)[name]


def test_a_tag_that_a_cdn_does_not_take_is_explained(tmp_path: Path) -> None:
    grammar = TagGrammar("edge", re.compile(rb"[a-z0-9-]+"), 10, "letters, digits and -")
    report = report_of(
        tmp_path, f"{USERS}, insert: {{id: A}}", 'keys: ["user:A"], cdn_soft: [user-A]', cdn_grammars=(grammar,)
    )
    [difference, widened, *_] = [each for each in report.results[0].differences if each.kind in {"cdn_soft", "widened"}]
    assert difference.reasons["user-A"] == ("edge does not take it as a tag",)
    assert widened.got == ("unsafe_value",)


def test_a_lookup_that_no_row_answers_skips_the_test_unless_the_database_is_asked(tmp_path: Path) -> None:
    change = f"{ITEMS}, insert: {{order_id: 5}}"
    loaded = load(tmp_path, f'  - {{name: it, {change}, expect: {{keys: ["order:5"]}}}}\n')
    [skipped] = testing.run(loaded).skipped
    assert "asks its lookup 'order'" in str(skipped.needs)
    assert "with order_id = 5" in str(skipped.needs)
    testing.require(loaded)  # is no failure
    from invalidator.rules.explain import answered_by

    assert testing.run(loaded, otherwise=answered_by({"order": []})).results[0].passed


def test_a_row_that_a_lookup_is_said_to_find_needs_the_columns_of_the_templates(tmp_path: Path) -> None:
    [result] = report_of(tmp_path, f"{ITEMS}, insert: {{order_id: 5}}, lookup: {{order: [{{id: 7}}]}}", "").results
    assert result.error is not None
    assert "lacks user_id" in result.error
    assert result.diagnostic().help == "add user_id: …"


CONDITION = """\
version: 1
rules:
  - name: post
    table: public.posts
    when: status = 'published' and price > 5 and seen > '2026-01-01 00:00'
    invalidate: {keys: ["post:{id}"]}
tests:
"""


def with_condition(tmp_path: Path, row: str, expect: str) -> testing.Result:
    path = tmp_path / "rules.yaml"
    test = f"  - {{name: it, table: public.posts, {row}, expect: {{{expect}}}}}\n"
    path.write_text(CONDITION + test, encoding="utf-8")
    return testing.run(document.load_with_warnings([path])).results[0]


@pytest.mark.parametrize("price", ["6", "6.5", '"10.00"'])
@pytest.mark.parametrize("seen", ["2026-02-03", '"2026-02-03 04:05:06"', '"2026-02-03 04:05:06.7+00"'])
def test_the_types_of_texts_follow_from_what_a_condition_asks(tmp_path: Path, price: str, seen: str) -> None:
    row = f"{{id: 1, status: published, price: {price}, seen: {seen}}}"
    assert with_condition(tmp_path, f"insert: {row}", 'keys: ["post:1"]').passed
    leaving = f"update: {{old: {row}, new: {{status: draft}}}}"
    assert with_condition(tmp_path, leaving, 'keys: ["post:1"]').passed
    for other in (
        row.replace("published", "draft"),
        row.replace(f"price: {price}", "price: 4"),
        row.replace("2026-0", "2025-0"),
    ):
        assert with_condition(tmp_path, f"insert: {other}", "").passed, other


def test_a_condition_that_does_not_hold_is_told_with_its_parts(tmp_path: Path) -> None:
    row = "insert: {id: 1, status: draft, price: 6, seen: 2026-02-03}"
    [difference] = with_condition(tmp_path, row, 'keys: ["post:1"]').differences
    [said] = difference.reasons["post:1"]
    assert "status = 'published': false; price > 5: true" in said


def test_a_row_that_does_not_fit_a_condition_is_an_error_and_no_widening(tmp_path: Path) -> None:
    result = with_condition(tmp_path, "insert: {id: 1, status: x, price: many, seen: 2026-02-03}", "")
    assert "the row does not fit the condition of rule 'post'" in str(result.error)
    assert "'price'" in str(result.error)


@pytest.mark.parametrize(
    ("tests", "code", "line", "column", "said"),
    [
        ("  - {name: a, table: public.post, insert: {id: 1}, expect: {}}", "test-without-rule", 27, 22, "public.posts"),
        ("  - {name: a, table: public.posts, insert: {id: 1}, expect: {}}", "test-missing-column", 27, 36, "slug: …, title: …"),
        ("  - {name: a, table: public.posts, expect: {}}", "test-event", 27, 5, "this one has none"),
        ("  - {name: a, table: public.users, insert: {id: 1}, delete: {id: 1}, expect: {}}", "test-event", 27, 5, "insert and delete"),
        ("  - {name: a, table: public.users, insert: {id: 1}, expcet: {}}", "unknown-field", 27, 53, "did you mean 'expect'"),
        ("  - {name: a, table: public.users, insert: {id: 1}, expect: {key: []}}", "unknown-field", 27, 62, "'keys'"),
        ("  - {name: a, table: public.users, insert: {id: 1}, expect: {widened: [bluk]}}", "bad-value", 27, 72, "'bulk'"),
        ("  - {name: a, table: 'public.*', insert: {id: 1}, expect: {}}", "bad-value", 27, 22, "cannot stand here"),
        ("  - {name: a, table: public.users, insert: {id: 1}, identity: [ids], expect: {}}", "test-missing-column", 27, 64, "'id'"),
        ("  - {name: a, table: public.items, insert: {order_id: 1}, lookup: {orders: []}, expect: {}}", "test-unknown-lookup", 27, 68, "'order'"),
        ("  - {name: a, table: public.users, insert: {id: 1}, lookup: {orders: []}, expect: {}}", "test-unknown-lookup", 27, 62, "no"),
        ("  - {name: a, table: public.users, insert: [1], expect: {}}", "bad-value", 27, 44, "mapping"),
    ],
)  # fmt: skip
def test_a_test_that_says_nothing_is_refused_at_its_place(
    tmp_path: Path, tests: str, code: str, line: int, column: int, said: str
) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, tests)
    found = [(each.code, each.line, each.column) for each in caught.value.diagnostics]
    assert (code, line, column) in found
    assert said in str(caught.value)


def test_two_tests_of_one_name_are_refused(tmp_path: Path) -> None:
    test = "  - {name: a, table: public.users, insert: {id: 1}, expect: {keys: [x]}}\n"
    with pytest.raises(Invalid, match="at line 27") as caught:
        load(tmp_path, test + test)
    assert [each.code for each in caught.value.diagnostics] == ["duplicate-test"]


def test_the_gate_refuses_rules_that_fail_their_own_tests_with_the_place_of_each(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "  - {name: good, table: public.users, insert: {id: 1}, expect: {keys: ['user:1'], cdn_soft: [user-1]}}\n"
        "  - {name: bad, table: public.users, insert: {id: 1}, expect: {}}\n",
    )
    with pytest.raises(
        Invalid, match="test 'bad' fails: keys: unexpected user:1; cdn_soft: unexpected user-1"
    ) as caught:
        testing.require(loaded)
    assert [(each.code, each.line) for each in caught.value.diagnostics] == [("test-failed", 28)]


def test_rules_and_templates_that_no_test_reaches_are_told(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "  - {name: a, table: public.users, insert: {id: 1}, expect: {}}\n"
        "  - {name: b, table: public.posts, delete: {id: 1, slug: a, title: t}, expect: {}}\n",
    )
    report = testing.run(loaded)
    assert [rule.name for rule in report.never_fired] == ["feed", "item"]
    untested = [
        (each.group, each.template.text, each.place.line) for each in testing.untested_templates(loaded, report)
    ]
    assert untested == [("keys", "post:{new.slug}", 7)]
    found = {(each.code, each.line, each.severity) for each in testing.findings(testing.run(loaded))}
    assert found == {
        ("test-failed", 27, "error"),
        ("test-failed", 28, "error"),
        ("untested-rule", 10, "info"),
        ("untested-rule", 19, "info"),
    }


def test_an_untested_rule_says_which_table_a_test_of_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    names = ("public.users", "tenant_*.users", 'public."Order.Items"')
    rules = [
        f"  - {{name: r{at}, table: '{name}', invalidate: {{keys: ['r{at}:{{id}}']}}}}\n"
        for at, name in enumerate(names)
    ]
    test = "tests:\n  - {name: a, table: public.users, insert: {id: 1}, expect: {keys: ['r0:1']}}\n"
    path.write_text("version: 1\nrules:\n" + "".join(rules) + test, encoding="utf-8")
    found = testing.findings(testing.run(document.load_with_warnings([path])))
    assert [each.help for each in found] == [
        "add one under tests: with a table that tenant_*.users matches",
        'add one under tests: with table: public."Order.Items"',
    ]


def test_without_tests_no_rule_counts_as_untested(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.removesuffix("tests:\n"), encoding="utf-8")
    assert testing.findings(testing.run(document.load_with_warnings([path]))) == []


def test_tests_are_chosen_by_a_part_of_their_names(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "  - {name: A user comes, table: public.users, insert: {id: 1}, expect: {}}\n"
        "  - {name: it goes, table: public.users, delete: {id: 1}, expect: {}}\n",
    )
    assert [each.test.name for each in testing.run(loaded, select="user").results] == ["A user comes"]


def test_the_catalog_may_tell_columns_and_identity_of_a_table(tmp_path: Path) -> None:
    columns = (Column("id", 23, is_identity=True), Column("mail", 25, is_identity=False))
    relation = Relation(9, "public", "users", "d", columns)
    loaded = load(
        tmp_path,
        "  - {name: a, table: public.users, delete: {id: 1}, expect: {keys: ['user:1'], cdn_soft: [user-1]}}\n"
        "  - {name: b, table: public.users, delete: {id: 1, age: 2}, expect: {keys: ['user:1'], cdn_soft: [user-1]}}\n",
    )
    first, second = testing.run(loaded, relations={("public", "users"): relation}).results
    assert first.passed
    assert "public.users has no column 'age'" in str(second.error)
