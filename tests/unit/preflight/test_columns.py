from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.preflight import POSTS, SERVER, codes, column, examined, facts, only, publication, table

RULE = """\
  - name: post
    table: public.posts
    events: [insert]
    changed: [slug]
    invalidate: {keys: ["post:{id}"]}
"""


def rule(template: str = "post:{id}", *, name: str = "public.posts", events: str = "insert") -> str:
    return f"  - name: post\n    table: {name}\n    events: [{events}]\n    invalidate: {{keys: ['{template}']}}\n"


def test_rules_that_fit_the_database_have_no_finding() -> None:
    assert examined(rule(), facts(POSTS)) == []


def test_a_table_that_is_not_there_is_shown_at_its_name_with_the_one_that_was_meant() -> None:
    found = only(examined(rule(name="public.psots"), facts(POSTS)), "unknown-table").diagnostic
    assert found.severity == "error"
    assert (found.line, found.column, found.width) == (4, 12, len("public.psots"))
    assert found.message == "there is no table public.psots in database 'app'"
    assert "stay stale" in (found.why or "")


def test_the_suggestion_comes_from_all_tables_of_the_database_and_also_from_another_schema() -> None:
    of = facts(POSTS)
    of = replace(of, database=replace(of.database, table_names=("blog.psots", "public.posts")))
    assert (
        only(examined(rule(name="public.psots"), of), "unknown-table").diagnostic.help == "did you mean 'blog.psots'?"
    )
    assert (
        only(examined(rule(name="public.pots"), of), "unknown-table").diagnostic.help == "did you mean 'public.posts'?"
    )


def test_a_suggested_name_with_a_dot_is_spelled_as_a_rule_has_to_spell_it() -> None:
    of = facts(POSTS)
    of = replace(of, database=replace(of.database, table_names=("public.Order.Items",)))
    found = only(examined(rule(name='public."order.items"'), of), "unknown-table").diagnostic
    assert found.help == "did you mean 'public.\"Order.Items\"'?"


def test_a_pattern_that_matches_nothing_yet_is_no_more_than_a_warning() -> None:
    assert only(examined(rule(name="tenant_*.posts"), facts()), "unknown-table").diagnostic.severity == "warning"


@pytest.mark.parametrize(
    ("kind", "word"), [("v", "view"), ("m", "materialized view"), ("f", "foreign table"), ("S", "sequence")]
)
def test_what_is_no_table_cannot_be_published(kind: str, word: str) -> None:
    found = examined(rule(), facts(replace(POSTS, kind=kind)))
    assert [each.code for each in found] == ["not-publishable"]
    assert word in found[0].diagnostic.message


def test_an_unlogged_table_writes_no_wal_and_the_fix_makes_it_logged() -> None:
    found = only(examined(rule(), facts(replace(POSTS, is_permanent=False))), "not-publishable").diagnostic
    assert found.fix == 'ALTER TABLE "public"."posts" SET LOGGED;'


def test_a_rule_for_a_partition_is_told_the_name_of_the_partitioned_table() -> None:
    root = table("posts", POSTS.columns, oid=7, kind="p")
    part = table("posts_1", POSTS.columns, oid=8, root_oid=7, parent_oid=7)
    found = only(examined(rule(name="public.posts_1"), facts(root, part)), "not-publishable").diagnostic
    assert "public.posts" in (found.help or "")


def test_a_pattern_passes_over_what_is_no_table_in_silence() -> None:
    view = replace(POSTS, oid=2, name="posts_view", kind="v")
    assert codes(rule(name="public.posts*"), facts(POSTS, view)) == []


def test_a_misspelled_column_is_shown_inside_its_template() -> None:
    found = only(examined(rule("post:{id}:{ slgu |lower}"), facts(POSTS)), "unknown-column").diagnostic
    line = "    invalidate: {keys: ['post:{id}:{ slgu |lower}']}"
    assert (found.line, found.column, found.width) == (6, line.index("slgu") + 1, 4)
    assert found.help == "did you mean 'slug'? columns: id, slug, body"


def test_a_column_in_other_letters_is_suggested_before_one_that_looks_alike() -> None:
    posts = replace(POSTS, columns=(*POSTS.columns, column("userId", "bigint")))
    help_texts = [
        only(examined(rule(f"post:{{{name}}}"), facts(posts)), "unknown-column").diagnostic.help
        for name in ("Id", "userid", "published")
    ]
    assert help_texts == [
        "did you mean 'id'? columns: id, slug, body, userId",
        "did you mean 'userId'? columns: id, slug, body, userId",
        "columns: id, slug, body, userId",
    ]


def test_a_column_of_changed_is_checked_too() -> None:
    found = only(examined(RULE.replace("changed: [slug]", "changed: [id, Slug]"), facts(POSTS)), "unknown-column")
    assert (found.diagnostic.line, found.diagnostic.column) == (6, 19)
    assert "'slug'" in (found.diagnostic.help or "")


def test_a_column_of_the_prefix_is_shown_in_the_prefix() -> None:
    found = only(examined(rule() + "    prefix: 't{tenant}:'\n", facts(POSTS)), "unknown-column").diagnostic
    assert (found.line, found.column) == (7, 16)


def test_a_virtual_column_is_never_sent() -> None:
    posts = replace(POSTS, columns=(*POSTS.columns, column("upper_slug", "text", generated="v")))
    found = only(examined(rule("post:{upper_slug}"), facts(posts)), "column-not-published").diagnostic
    assert found.help == "use the columns that it is made of"


def test_a_stored_column_is_sent_by_18_if_the_publication_says_so() -> None:
    posts = replace(POSTS, columns=(*POSTS.columns, column("upper_slug", "text", generated="s")))
    assert codes(rule("post:{upper_slug}"), facts(posts)) == []
    without = facts(posts, published=publication(posts, sends_generated=False))
    found = only(examined(rule("post:{upper_slug}"), without), "column-not-published").diagnostic
    assert 'ADD TABLE "public"."posts" ("id", "upper_slug")' in (found.fix or "")
    old = facts(posts, server=replace(SERVER, version=170002))
    assert codes(rule("post:{upper_slug}"), old) == ["column-not-published"]


@pytest.mark.parametrize(
    ("type_name", "setting"),
    [
        ("timestamp(3) with time zone", "TimeZone"),
        ("double precision", "extra_float_digits"),
        ("bytea", "bytea_output"),
        ("interval day to second(2)", "IntervalStyle"),
        ("money", "lc_monetary"),
    ],
)
def test_a_text_that_depends_on_the_session_is_worth_knowing(type_name: str, setting: str) -> None:
    posts = replace(POSTS, columns=(column("id"), column("at", type_name)))
    found = only(examined(rule("post:{at}"), facts(posts)), "session-dependent-text").diagnostic
    assert found.severity == "info"
    assert setting in found.message


@pytest.mark.parametrize("type_name", ["integer", "text", "uuid", "numeric(9,2)", "boolean", "character varying(9)"])
def test_most_texts_are_the_same_everywhere(type_name: str) -> None:
    posts = replace(POSTS, columns=(column("id"), column("at", type_name)))
    assert examined(rule("post:{at}"), facts(posts)) == []


def test_a_long_value_in_a_key_is_worth_knowing_unless_the_identity_sends_it_always() -> None:
    written = rule("post:{new.body}", events="insert, update")
    assert [each.code for each in examined(written, facts(POSTS))] == ["toast-key"]
    assert examined(written, facts(replace(POSTS, replica_identity="f"))) == []
    assert examined(rule("post:{new.slug}", events="insert, update"), facts(POSTS)) == []
    assert examined(rule("post:{new.body}", events="insert"), facts(POSTS)) == []


def under(condition: str) -> str:
    return rule() + f'    when: "{condition}"\n'


@pytest.mark.parametrize(
    ("condition", "at", "part"),
    [("idd = 1", (7, 12), "unknown-column"), ("slug = 'a' and id = 'abc'", (7, 32), "condition-type")],
)
def test_a_condition_is_held_against_the_types_and_shown_inside(condition: str, at: tuple[int, int], part: str) -> None:
    posts = replace(POSTS, columns=(column("id"), column("slug", "text", type_oid=25)))
    found = only(examined(under(condition), facts(posts)), part).diagnostic
    assert (found.line, found.column) == at


def test_an_enum_and_a_domain_are_known_by_what_they_come_down_to() -> None:
    mood = column("mood", "mood", type_oid=16400, base_oid=3500, enum_labels=("sad", "glad"))
    posts = replace(POSTS, columns=(column("id"), mood))
    assert codes(under("mood = 'glad'"), facts(posts)) == []
    assert codes(under("mood = 'gald'"), facts(posts)) == ["condition-type"]
