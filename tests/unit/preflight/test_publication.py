from __future__ import annotations

from dataclasses import replace

import pytest

from invalidator.postgres.catalog import Publication, PublishedTable
from invalidator.postgres.provision import filters
from invalidator.preflight.finding import At
from tests.support.preflight import (
    POSTS,
    codes,
    examined,
    facts,
    needs_of,
    only,
    publication,
    table,
    without_publication,
)

RULE = """\
  - name: post
    table: public.posts
    invalidate: {keys: ["post:{id}"]}
"""
ROOT = table("posts", POSTS.columns, oid=7, kind="p")
MIDDLE = table("posts_2026", POSTS.columns, oid=8, kind="p", root_oid=7, parent_oid=7)
LEAF = table("posts_2026_01", POSTS.columns, oid=9, root_oid=7, parent_oid=8)
OTHER = table("posts_old", POSTS.columns, oid=10, root_oid=7, parent_oid=7)


def test_a_publication_that_is_not_there_comes_with_the_statement_that_makes_it() -> None:
    at = {"publication": At("invalidator.yaml", 4, 16, 11)}
    found = only(examined(RULE, without_publication(facts(POSTS)), settings_at=at), "publication-missing").diagnostic
    assert (found.file, found.line, found.column) == ("invalidator.yaml", 4, 16)
    assert found.fix is not None
    assert found.fix.startswith('CREATE PUBLICATION "invalidator" FOR TABLE "public"."posts"')


def test_without_a_publication_each_fix_stands_alone_and_the_publication_is_made_once() -> None:
    """Two tables that lack an old value: neither of their fixes makes a publication for one table only."""
    notes = table("notes", POSTS.columns, oid=2)
    rules = RULE.replace("{id}", "{slug}") + RULE.replace("post", "note").replace("{id}", "{slug}")
    of = without_publication(facts(POSTS, notes))
    found = examined(rules, replace(of, database=replace(of.database, slot=None)))
    fixes = [each.diagnostic.fix or "" for each in found if each.code == "old-value-needed"]
    assert fixes == [f'ALTER TABLE "public"."{name}" REPLICA IDENTITY FULL;' for name in ("posts", "notes")]
    made = [each for each in found if "CREATE PUBLICATION" in (each.diagnostic.fix or "")]
    assert [each.code for each in made] == ["publication-missing"]
    assert "invalidator setup --apply" in (made[0].diagnostic.help or "")
    codes_found = [each.code for each in found]
    assert codes_found.index("publication-missing") < codes_found.index("slot-missing")


def test_what_the_daemon_makes_by_itself_is_no_error() -> None:
    of = replace(facts(POSTS), database=replace(without_publication(facts(POSTS)).database, slot=None))
    assert set(codes(RULE, of)) == {"publication-missing", "slot-missing"}
    assert codes(RULE, of, is_made_at_start=True) == []


def test_a_table_that_is_not_published_is_added_by_the_fix() -> None:
    found = only(examined(RULE, facts(POSTS, published=publication())), "not-published")
    assert found.subject == "public.posts"
    assert found.diagnostic.severity == "error"
    assert found.diagnostic.fix is not None
    assert found.diagnostic.fix.startswith('ALTER PUBLICATION "invalidator" ADD TABLE "public"."posts"')


def test_tables_can_be_published_by_schema_and_all_at_once() -> None:
    assert codes(RULE, facts(POSTS, published=publication(schemas=frozenset({"public"})))) == []
    assert codes(RULE, facts(POSTS, published=publication(is_for_all_tables=True))) == []


def test_a_partition_is_published_by_any_table_over_it() -> None:
    assert codes(RULE, facts(ROOT, MIDDLE, LEAF)) == []
    assert codes(RULE, facts(ROOT, MIDDLE, LEAF, published=publication(MIDDLE))) == []


def test_a_partition_beside_the_published_ones_is_found() -> None:
    of = facts(ROOT, MIDDLE, LEAF, OTHER, published=publication(MIDDLE))
    found = only(examined(RULE, of), "not-published").diagnostic
    assert "public.posts_old" in found.message
    assert "2026" not in found.message


def test_an_event_that_is_not_published_is_shown_at_the_events_of_the_rule() -> None:
    published = publication(POSTS, operations=frozenset({"insert", "update", "truncate"}))
    rules = RULE + "    events: [insert, delete]\n"
    found = only(examined(rules, facts(POSTS, published=published)), "operation-not-published").diagnostic
    assert (found.line, found.column) == (6, 13)
    assert "does not publish delete" in found.message
    assert found.fix == "ALTER PUBLICATION \"invalidator\" SET (publish = 'insert, update, delete, truncate');"


def test_each_event_that_is_not_published_is_a_finding_of_its_own() -> None:
    published = publication(POSTS, operations=frozenset({"insert", "update"}))
    found = [
        each for each in examined(RULE, facts(POSTS, published=published)) if each.code == "operation-not-published"
    ]
    assert [each.subject for each in found] == ["invalidator delete", "invalidator truncate"]
    assert {each.diagnostic.fix for each in found} == {
        "ALTER PUBLICATION \"invalidator\" SET (publish = 'insert, update, delete, truncate');"
    }


def test_a_column_list_that_hides_a_column_is_shown_at_the_column() -> None:
    listed = publication(PublishedTable(POSTS.oid, frozenset({"id"}), has_row_filter=False))
    rules = RULE.replace("{id}", "{new.slug}")
    found = only(examined(rules, facts(POSTS, published=listed)), "column-not-published").diagnostic
    assert (found.line, found.column) == (5, 36)
    assert found.fix is not None
    assert '("id", "slug")' in found.fix
    assert codes(RULE, facts(POSTS, published=listed)) == []


def test_a_column_that_one_partition_does_not_send_is_not_published() -> None:
    rules = RULE.replace("{id}", "{new.slug}")
    lists = {LEAF.oid: frozenset({"id"}), OTHER.oid: frozenset({"id", "slug"})}
    listed = publication(*(PublishedTable(oid, columns, has_row_filter=False) for oid, columns in lists.items()))
    assert "column-not-published" in codes(rules, facts(ROOT, MIDDLE, LEAF, OTHER, published=listed))


def filtered(made_of: str | None = None, columns: frozenset[str] | None = None) -> Publication:
    """Posts with a filter over id; of setup if there is something that it was made of."""
    comment = None if made_of is None else filters.record({"public.posts": made_of}, is_made=True)
    entry = PublishedTable(POSTS.oid, columns, True, "(id = 5)", filter_columns=frozenset({"id"}))
    return publication(entry, comment=comment)


def test_somebody_elses_row_filter_is_worth_a_warning_and_its_fix_keeps_the_column_list() -> None:
    of = facts(POSTS, published=filtered(columns=frozenset({"id", "slug"})))
    found = only(examined(RULE, of), "row-filter").diagnostic
    assert found.severity == "warning"
    assert found.fix == (
        'BEGIN; ALTER PUBLICATION "invalidator" DROP TABLE "public"."posts";'
        ' ALTER PUBLICATION "invalidator" ADD TABLE "public"."posts" ("id", "slug"); COMMIT;'
    )


def test_the_filter_that_setup_wants_for_these_rules_is_nothing_to_tell() -> None:
    rules = RULE.replace("post:{id}", "posts") + "    when: id = 5\n"
    wanted = facts(POSTS).wanted_filter(needs_of(rules), POSTS)
    assert wanted is not None
    assert codes(rules, facts(POSTS, published=filtered(wanted))) == []
    assert codes(rules, facts(POSTS, published=filtered(f"({wanted}) OR ((id IS NOT DISTINCT FROM 6))"))) == []


def test_a_filter_of_setup_that_leaves_out_what_the_rules_need_is_an_error_that_keeps_the_column_list() -> None:
    fixed = RULE.replace("post:{id}", "posts")
    of = facts(POSTS, published=filtered("(id IS NOT DISTINCT FROM 5)", frozenset({"id"})))
    for rules in (RULE, fixed, fixed + "    when: id = 6\n", fixed + "    when: id in (5, 6)\n"):
        found = only(examined(rules, of), "row-filter").diagnostic
        assert found.severity == "error"
        assert "would never see the others" in (found.why or "")
        assert (found.fix or "").startswith(
            'BEGIN; ALTER PUBLICATION "invalidator" DROP TABLE "public"."posts";'
            ' ALTER PUBLICATION "invalidator" ADD TABLE "public"."posts" ("id");'
        ), found.fix


def test_a_publication_via_root_is_refused() -> None:
    found = only(
        examined(RULE, facts(ROOT, LEAF, published=publication(ROOT, is_via_root=True))), "publication-via-root"
    )
    assert found.diagnostic.fix == 'ALTER PUBLICATION "invalidator" SET (publish_via_partition_root = false);'


@pytest.mark.parametrize(
    ("standing", "wanted", "is_passed"),
    [
        ("(a = 1)", "(a = 1)", True),
        ("((a = 1)) OR ((b = 2))", "(b = 2)", True),
        ("((a = 1) OR (b = 2))", "((b = 2)) OR ((a = 1))", True),
        ("(a = 1)", "((a = 1)) OR ((b = 2))", False),
        ("((a = 1) AND ((b = 2) OR (c = 3)))", "(c = 3)", False),
        ("(a = 'x) OR (b = 2)')", "(b = 2)", False),
        ("(a = 1)", None, False),
        (None, "(a = 1)", False),
    ],
)
def test_a_filter_passes_what_another_wants_only_if_each_alternative_is_one_of_its(
    standing: str | None, wanted: str | None, *, is_passed: bool
) -> None:
    assert filters.passes(standing, wanted) is is_passed


@pytest.mark.parametrize(
    ("events", "keys", "missed"),
    [
        ("[update]", "post:{id}", "delete and insert"),
        ("[update, insert]", "post:{id}", "delete"),
        ("[update, insert]", "post:{new.slug}", None),
        ("[update, delete]", "post:{new.slug}", "insert"),
        ("[update, delete]", "post:{old.id}", None),
        ("[insert, update, delete]", "post:{id}", None),
        ("[insert]", "post:{id}", None),
    ],
)
def test_rules_that_do_not_see_a_row_move_between_partitions_are_told(
    events: str, keys: str, missed: str | None
) -> None:
    part = table("posts_1", POSTS.columns, oid=9, root_oid=7, parent_oid=7)
    written = f"  - {{name: post, table: public.posts, events: {events}, invalidate: {{keys: ['{keys}']}}}}\n"
    assert "partition-move-unseen" not in codes(written, facts(POSTS))
    found = [each for each in examined(written, facts(ROOT, part)) if each.code == "partition-move-unseen"]
    assert [each.diagnostic.message.rpartition(" look at ")[2] for each in found] == ([missed] if missed else [])
    assert all((each.diagnostic.line, each.diagnostic.severity) == (3, "warning") for each in found)
