from __future__ import annotations

from dataclasses import replace

from invalidator.postgres.catalog import PublishedTable
from invalidator.preflight.finding import At
from tests.support.preflight import POSTS, codes, examined, facts, only, publication, table, without_publication

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


def test_a_column_list_that_hides_a_column_is_shown_at_the_column() -> None:
    listed = publication(PublishedTable(POSTS.oid, frozenset({"id"}), has_row_filter=False))
    rules = RULE.replace("{id}", "{new.slug}")
    found = only(examined(rules, facts(POSTS, published=listed)), "column-not-published").diagnostic
    assert (found.line, found.column) == (5, 36)
    assert found.fix is not None
    assert '("id", "slug")' in found.fix
    assert codes(RULE, facts(POSTS, published=listed)) == []


def test_a_row_filter_is_worth_a_warning() -> None:
    filtered = publication(PublishedTable(POSTS.oid, None, has_row_filter=True))
    found = only(examined(RULE, facts(POSTS, published=filtered)), "row-filter").diagnostic
    assert found.severity == "warning"


def test_a_publication_via_root_is_refused() -> None:
    found = only(
        examined(RULE, facts(ROOT, LEAF, published=publication(ROOT, is_via_root=True))), "publication-via-root"
    )
    assert found.diagnostic.fix == 'ALTER PUBLICATION "invalidator" SET (publish_via_partition_root = false);'
