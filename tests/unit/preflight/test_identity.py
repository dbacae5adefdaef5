from __future__ import annotations

from dataclasses import replace
from typing import Any

from invalidator.postgres.catalog import Index, Publication, PublishedTable
from tests.support.preflight import POSTS, codes, column, examined, facts, only, publication, table

SLUG = """\
  - name: post
    table: public.posts
    invalidate:
      keys: ["post:{slug|lower|urlencode}"]
"""
UNIQUE = Index("posts_slug_key", ("slug",), is_primary=False, is_replica_identity=False)
ROOT = table("posts", POSTS.columns, oid=7, kind="p")
PARTS = [table(f"posts_{n}", POSTS.columns, oid=10 + n, root_oid=7, parent_oid=7) for n in (1, 2)]


def test_a_column_outside_the_identity_is_an_error_at_its_place_with_both_ways_out() -> None:
    found = only(examined(SLUG, facts(POSTS)), "old-value-needed").diagnostic
    assert found.severity == "error"
    assert (found.line, found.column, found.width) == (6, 21, 4)
    assert found.message == (
        "{slug|lower|urlencode} is not in the replica identity of public.posts (identity: primary key id)"
    )
    assert found.why == (
        "Postgres does not send the old 'slug', so every UPDATE and DELETE that fires the rule drops keys 'post:*'"
        " instead of post:{slug|lower|urlencode} of the old row"
    )
    assert found.fix == 'ALTER TABLE "public"."posts" REPLICA IDENTITY FULL;'
    assert found.help is not None
    assert "{new.slug|lower|urlencode}" in found.help


def test_a_unique_index_that_fits_is_cheaper_than_full() -> None:
    posts = replace(POSTS, indexes=(*POSTS.indexes, UNIQUE))
    found = only(examined(SLUG, facts(posts)), "old-value-needed").diagnostic
    assert found.fix == 'ALTER TABLE "public"."posts" REPLICA IDENTITY USING INDEX "posts_slug_key";'


def test_an_identity_that_holds_the_column_is_enough() -> None:
    chosen = replace(UNIQUE, is_replica_identity=True)
    assert codes(SLUG, facts(replace(POSTS, replica_identity="i", indexes=(*POSTS.indexes, chosen)))) == []
    assert codes(SLUG, facts(replace(POSTS, replica_identity="f"))) == []


def test_who_writes_the_coarse_form_has_agreed_to_it_and_is_warned_only() -> None:
    written = SLUG + "    coarse: {keys: ['post:*']}\n"
    found = only(examined(written, facts(POSTS)), "old-value-needed").diagnostic
    assert found.severity == "warning"


def test_where_only_processes_and_pages_are_told_more_than_needed_a_warning_is_enough() -> None:
    rules = SLUG.replace("keys: [", "l1: [")
    assert only(examined(rules, facts(POSTS)), "old-value-needed").diagnostic.severity == "warning"


def test_the_new_value_needs_no_identity() -> None:
    assert codes(SLUG.replace("{slug", "{new.slug"), facts(POSTS)) == []


def test_a_rule_for_inserts_needs_no_identity() -> None:
    assert codes(SLUG + "    events: [insert]\n", facts(POSTS)) == []


def test_a_column_of_changed_without_its_old_value_makes_the_rule_fire_always() -> None:
    rules = SLUG.replace("{slug|lower|urlencode}", "{id}") + "    changed: [slug]\n"
    found = only(examined(rules, facts(POSTS)), "old-value-needed").diagnostic
    assert found.severity == "warning"
    assert (found.line, found.column) == (7, 15)
    assert "fires for every UPDATE" in (found.why or "")
    assert "fires for every UPDATE" in (found.help or "")


def test_what_would_be_dropped_instead_is_told_with_what_it_is() -> None:
    rules = (
        SLUG + "      cdn: [\"post-{id}\"]\n    coarse: {tags: [posts], keys: [all], l1: ['post:*'], cdn: [posts]}\n"
    )
    found = only(examined(rules, facts(POSTS)), "old-value-needed").diagnostic
    assert "drops key 'all', tag 'posts', L1 'post:*', CDN tag 'posts' instead" in (found.why or "")


def test_the_fix_never_leaves_a_column_list_that_full_would_not_fit() -> None:
    listed = publication(PublishedTable(POSTS.oid, frozenset({"id", "slug"}), has_row_filter=False))
    found = only(examined(SLUG, facts(POSTS, published=listed)), "old-value-needed").diagnostic
    assert found.fix is not None
    assert found.fix.startswith("BEGIN; ALTER PUBLICATION")
    assert "REPLICA IDENTITY FULL" in found.fix
    assert found.fix.endswith("COMMIT;")


def test_each_partition_has_an_identity_of_its_own() -> None:
    of = facts(ROOT, replace(PARTS[0], replica_identity="f"), PARTS[1])
    found = only(examined(SLUG, of), "old-value-needed").diagnostic
    assert "public.posts_2 (partition of public.posts)" in found.message
    assert "posts_1" not in found.message
    assert found.fix == 'ALTER TABLE "public"."posts_2" REPLICA IDENTITY FULL;'


def test_a_published_table_without_identity_is_one_that_the_application_cannot_update() -> None:
    posts = table("posts", [column("id"), column("slug")], key=())
    found = only(examined(SLUG, facts(posts)), "no-identity").diagnostic
    assert found.severity == "error"
    assert "those of the application" in (found.why or "")
    assert found.fix == 'ALTER TABLE "public"."posts" REPLICA IDENTITY FULL;'


def test_a_table_without_identity_is_fine_when_only_its_inserts_are_published() -> None:
    posts = table("posts", [column("id"), column("slug")], key=())
    published = publication(posts, operations=frozenset({"insert", "truncate"}))
    rules = SLUG + "    events: [insert]\n"
    assert codes(rules, facts(posts, published=published)) == []


def test_a_partition_without_identity_is_found_although_the_root_has_a_key() -> None:
    bare = replace(PARTS[1], replica_identity="n")
    found = only(examined(SLUG.replace("{slug", "{id"), facts(ROOT, PARTS[0], bare)), "no-identity").diagnostic
    assert "public.posts_2" in found.message


def test_two_rules_about_one_table_get_a_fix_that_serves_both() -> None:
    posts = replace(POSTS, indexes=(*POSTS.indexes, UNIQUE))
    other = SLUG.replace("name: post", "name: body").replace("{slug|lower|urlencode}", "{body}")
    fixes = {each.diagnostic.fix for each in examined(SLUG + other, facts(posts)) if each.code == "old-value-needed"}
    assert fixes == {'ALTER TABLE "public"."posts" REPLICA IDENTITY FULL;'}


def test_a_condition_on_the_old_row_lets_more_through_without_it() -> None:
    rules = SLUG.replace("{slug|lower|urlencode}", "{id}") + "    when: \"slug = 'a' and changed(body)\"\n"
    found = [each.diagnostic for each in examined(rules, facts(POSTS)) if each.code == "old-value-needed"]
    assert [(each.severity, each.line, each.column) for each in found] == [("warning", 7, 12), ("warning", 7, 35)]
    assert "every UPDATE and DELETE" in (found[0].why or "")
    assert "every UPDATE that" in (found[1].why or "")
    assert all("never less" in (each.help or "") or "never too little" in (each.help or "") for each in found)


def test_a_value_bound_in_a_lookup_is_needed_of_the_old_row_too() -> None:
    rules = (
        "  - name: post\n    table: public.posts\n    lookup:\n"
        "      other: {sql: 'SELECT name FROM others WHERE slug = {slug}'}\n"
        "    invalidate: {keys: ['other:{other.name}']}\n"
    )
    found = only(examined(rules, facts(POSTS)), "old-value-needed").diagnostic
    assert (found.line, found.column, found.width) == (6, 59, 4)
    assert "'other:*' instead of what lookup 'other' finds" in (found.why or "")


def listing(*columns: str, **other: Any) -> Publication:
    return publication(PublishedTable(POSTS.oid, frozenset(columns), has_row_filter=False), **other)


ID = SLUG.replace("{slug|lower|urlencode}", "{id}")
FULL = replace(POSTS, replica_identity="f")
BY_SLUG = replace(POSTS, replica_identity="i", indexes=(*POSTS.indexes, replace(UNIQUE, is_replica_identity=True)))


def test_full_beside_a_column_list_is_an_error_with_the_sql_that_takes_the_list_away() -> None:
    found = only(examined(ID, facts(FULL, published=listing("id", "slug"))), "identity-not-covered").diagnostic
    assert found.severity == "error"
    assert found.why == "Postgres refuses every UPDATE and DELETE on it, those of the application too"
    assert found.fix == (
        'BEGIN; ALTER PUBLICATION "invalidator" DROP TABLE "public"."posts";'
        ' ALTER PUBLICATION "invalidator" ADD TABLE "public"."posts"; COMMIT;'
    )
    inserts = listing("id", "slug", operations=frozenset({"insert", "truncate"}))
    assert "identity-not-covered" not in codes(ID, facts(FULL, published=inserts))


def test_a_list_that_leaves_out_a_column_of_the_identity_is_widened_by_the_fix() -> None:
    found = only(examined(ID, facts(BY_SLUG, published=listing("id"))), "identity-not-covered").diagnostic
    assert "leaves out 'slug'" in found.message
    assert (found.fix or "").endswith('ADD TABLE "public"."posts" ("id", "slug"); COMMIT;')
    assert "identity-not-covered" not in codes(ID, facts(BY_SLUG, published=listing("id", "slug")))


def test_a_row_filter_over_other_columns_is_an_error_but_not_with_full() -> None:
    entry = PublishedTable(POSTS.oid, None, True, "(slug = 'a')", filter_columns=frozenset({"slug"}))
    found = only(examined(ID, facts(POSTS, published=publication(entry))), "identity-not-covered").diagnostic
    assert "row filter reads 'slug'" in found.message
    assert "identity-not-covered" not in codes(ID, facts(FULL, published=publication(entry)))


def test_a_list_of_another_publication_breaks_writers_as_well() -> None:
    of = facts(FULL)
    theirs = replace(listing("id"), name="theirs")
    both = replace(of, database=replace(of.database, publications={**of.database.publications, "theirs": theirs}))
    found = only(examined(ID, both), "identity-not-covered")
    assert found.subject == "public.posts theirs"
    assert (found.diagnostic.fix or "").startswith('BEGIN; ALTER PUBLICATION "theirs" DROP TABLE')


def test_a_table_of_the_publication_that_no_rule_is_about_breaks_writers_as_well() -> None:
    bare = table("logs", [column("id")], oid=50, key=())
    of = facts(POSTS, published=publication(POSTS, bare))
    found = only(examined(ID, replace(of, database=replace(of.database, others=(bare,)))), "no-identity").diagnostic
    assert "public.logs has no replica identity" in found.message
    assert found.file == "source.publication"
    assert found.fix == 'ALTER PUBLICATION "invalidator" DROP TABLE "public"."logs";'
    everything = facts(POSTS, published=publication(is_for_all_tables=True))
    other = replace(everything, database=replace(everything.database, others=(bare,)))
    assert only(examined(ID, other), "no-identity").diagnostic.fix == (
        'ALTER TABLE "public"."logs" REPLICA IDENTITY FULL;'
    )
