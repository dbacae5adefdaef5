"""What a plan decides on facts that are hard to come by on a real server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from invalidator.postgres.catalog import Column, Index, Publication, Role, Server, Slot, Table
from invalidator.postgres.provision import Facts, Lookup, Need, Plan, Provider, Purpose, Request, offline_plan, plan
from invalidator.postgres.provision.guess import tables_named
from invalidator.postgres.provision.providers import detect

SERVER = Server(
    version=170002,
    database="app",
    user="owner",
    is_superuser=False,
    is_standby=False,
    encoding="UTF8",
    wal_level="logical",
    max_slot_wal_keep_size="20GB",
    max_replication_slots=10,
    max_wal_senders=10,
    has_rds_replication=False,
)
ROLE = Role("inv", can_login=True, can_replicate=True, is_superuser=False, can_connect=True)
SLOT = Slot("s", "pgoutput", "app", is_temporary=False, active_pid=None, restart_lsn=None, confirmed_flush_lsn=None,
            wal_status="reserved", safe_wal_bytes=None)  # fmt: skip
TABLE = Table(
    1, "public", "t", "r", is_permanent=True, root_oid=None, replica_identity="d", has_children=False,
    columns=tuple(Column(name, 25, "text", is_not_null=True, generated="") for name in ("id", "slug", "body")),
    indexes=(Index("t_pkey", ("id",), is_primary=True, is_replica_identity=False),),
)  # fmt: skip
NEED = Need("rule", "rules.yaml:1", "public", "t", frozenset({"id"}), frozenset({"id"}))
REQUEST = Request("s", "p", "inv")
FACTS = Facts(SERVER, ROLE, (TABLE,), {}, SLOT)
MADE = """COMMENT ON PUBLICATION "p" IS 'invalidator setup: {"made": true}';"""


def planned(facts: Facts = FACTS, need: Need = NEED, request: Request = REQUEST) -> Plan:
    return plan([need], facts, request)


def texts(made: Plan, purpose: Purpose) -> list[str]:
    return [text for step in made.steps if step.purpose is purpose for text in step.texts]


def test_a_missing_role_is_made_without_password() -> None:
    assert texts(planned(replace(FACTS, role=None)), Purpose.ROLE) == ['CREATE ROLE "inv" LOGIN REPLICATION;']


def test_on_rds_replication_is_a_membership() -> None:
    server = replace(SERVER, has_rds_replication=True)
    made = planned(replace(FACTS, server=server, role=None))
    assert texts(made, Purpose.ROLE) == ['CREATE ROLE "inv" LOGIN;']
    assert texts(made, Purpose.GRANT) == ['GRANT rds_replication TO "inv";']
    assert texts(planned(replace(FACTS, server=server)), Purpose.GRANT) == []


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (replace(ROLE, can_replicate=False), ['ALTER ROLE "inv" REPLICATION;']),
        (replace(ROLE, can_login=False, can_replicate=False), ['ALTER ROLE "inv" LOGIN REPLICATION;']),
        (replace(ROLE, can_replicate=False, is_superuser=True), []),
        (ROLE, []),
    ],
)
def test_an_existing_role_gets_only_what_it_lacks(role: Role, expected: list[str]) -> None:
    assert texts(planned(replace(FACTS, role=role)), Purpose.ROLE) == expected


def test_a_role_that_may_not_connect_is_granted_that() -> None:
    made = planned(replace(FACTS, role=replace(ROLE, can_connect=False)))
    assert texts(made, Purpose.GRANT) == ['GRANT CONNECT ON DATABASE "app" TO "inv";']


def test_on_a_standby_nothing_is_planned() -> None:
    made = planned(replace(FACTS, server=replace(SERVER, is_standby=True)))
    assert made.steps == ()
    assert "standby" in made.problems[0].text


def test_an_old_server_is_refused() -> None:
    made = planned(replace(FACTS, server=replace(SERVER, version=130012)))
    assert made.steps == ()
    assert "too old" in made.problems[0].text


def test_without_logical_decoding_there_is_no_slot_yet() -> None:
    made = planned(replace(FACTS, slot=None, server=replace(SERVER, wal_level="replica")))
    assert texts(made, Purpose.SLOT) == []
    assert "wal_level" in made.problems[0].text
    assert texts(made, Purpose.PUBLICATION) != []


def test_an_unbounded_slot_gets_advice_that_is_not_run() -> None:
    made = planned(replace(FACTS, server=replace(SERVER, max_slot_wal_keep_size="-1")))
    assert texts(made, Purpose.SERVER)[0] == "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB';"
    assert all(step.purpose is not Purpose.SERVER for step in made.to_run)


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        (replace(SLOT, plugin=None, database=None), "physical"),
        (replace(SLOT, database="other"), "belongs to database 'other'"),
        (replace(SLOT, wal_status="lost"), "lost its WAL"),
    ],
)
def test_a_slot_that_cannot_be_used_is_a_problem_and_left_alone(slot: Slot, words: str) -> None:
    made = planned(replace(FACTS, slot=slot))
    assert any(words in finding.text for finding in made.problems)
    assert texts(made, Purpose.SLOT) == []


@pytest.mark.parametrize(("version", "has_list"), [(140010, False), (150002, True), (180000, True)])
def test_column_lists_begin_with_postgres_15(version: int, has_list: bool) -> None:
    text, comment = texts(planned(replace(FACTS, server=replace(SERVER, version=version))), Purpose.PUBLICATION)
    assert comment == MADE
    assert ('("id")' in text) == has_list
    assert ("publish_generated_columns" in text) == (version >= 180000)


def test_a_publication_of_all_tables_is_left_as_it_is() -> None:
    everything = Publication(
        "p", "owner", is_for_all_tables=True, operations=frozenset({"insert", "update", "delete", "truncate"}),
        is_via_root=False, sends_generated=False, schemas=frozenset(), tables=(),
    )  # fmt: skip
    made = planned(replace(FACTS, publications={"p": everything}))
    assert made.to_run == ()
    assert made.problems == ()


def test_names_are_quoted_everywhere() -> None:
    hostile = 'x"; DROP TABLE y; --'
    table = replace(TABLE, schema=hostile, name=hostile, replica_identity="n")
    need = Need("rule", "rules.yaml:1", hostile, hostile, frozenset({"id"}), frozenset({"id"}))
    made = planned(Facts(SERVER, None, (table,), {}, None), need, Request("s", hostile, hostile))
    quoted = '"x""; DROP TABLE y; --"'
    for step in made.to_run:
        for text in step.texts:
            assert hostile not in text.replace(quoted, "")


def test_a_glob_matches_only_what_its_star_stands_for() -> None:
    need = Need("rule", "rules.yaml:1", "tenant_*", "a.b", frozenset({"id"}))
    assert need.wants(replace(TABLE, schema="tenant_1", name="a.b"))
    assert not need.wants(replace(TABLE, schema="tenantx1", name="a.b"))
    assert not need.wants(replace(TABLE, schema="tenant_1", name="axb"))
    assert not need.wants(replace(TABLE, schema="a tenant_1", name="a.b"))


def test_offline_a_glob_is_a_problem_and_an_old_value_a_note() -> None:
    made = offline_plan([NEED, replace(NEED, table="t*")], REQUEST)
    assert [finding.is_problem for finding in made.findings] == [True, False]
    guard, create, comment = texts(made, Purpose.PUBLICATION)
    assert comment == MADE
    assert guard.startswith("DO $guard$")
    assert create == 'CREATE PUBLICATION "p" FOR TABLE ONLY "public"."t";'


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM posts WHERE id = NULL", ["public.posts"]),
        ('select x from A, b.c d, only e JOIN "F g" ON true left join h using (id)',
         ["public.a", "b.c", "public.e", "public.F g", "public.h"]),
        ("WITH u AS (SELECT 'FROM posts' FROM authors), v(x) AS NOT MATERIALIZED (SELECT 1) SELECT 1 FROM u, v -- FROM",
         ["public.authors"]),
        ("SELECT * FROM unnest(ARRAY[1]) x JOIN away.links l ON l.post = x", ["away.links"]),
        ("SELECT a FROM o WHERE extract(year FROM o.ts) = 1 AND o.a IS DISTINCT FROM b", ["public.o"]),
        ("SELECT 1 FROM (SELECT * FROM deep) q JOIN LATERAL (SELECT 1 FROM l) z ON true", ["public.deep", "public.l"]),
        ("SELECT $$ FROM x $$, $t$ FROM y $t$ /* FROM z */ FROM real", ["public.real"]),
        ("SELECT 1 FROM", []),
        (")( FROM , ) AS (", []),
    ],
)  # fmt: skip
def test_offline_the_tables_of_a_lookup_are_told_from_its_words(query: str, expected: list[str]) -> None:
    assert [".".join(table) for table in tables_named(query)] == expected


def test_offline_lookups_get_grants_and_a_note_that_they_are_a_guess() -> None:
    lookup = Lookup("l", ("SELECT a FROM away.links WHERE p = ", ""), ("id",))
    made = offline_plan([replace(NEED, lookups=(lookup,))], REQUEST)
    assert texts(made, Purpose.GRANT) == [
        'GRANT USAGE ON SCHEMA "away" TO "inv";',
        'GRANT SELECT ON "away"."links" TO "inv";',
    ]
    assert any("guessed" in finding.text for finding in made.findings)


def test_offline_rules_for_inserts_only_publish_those_and_need_no_guard() -> None:
    made = offline_plan([replace(NEED, operations=frozenset({"insert"}))], REQUEST)
    assert texts(made, Purpose.PUBLICATION) == [
        """CREATE PUBLICATION "p" FOR TABLE ONLY "public"."t" WITH (publish = 'insert, truncate');""",
        MADE,
    ]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ((), Provider.SELF),
        (("rds_replication",), Provider.RDS),
        (("cloudsqlsuperuser",), Provider.CLOUDSQL),
        (("azure_pg_admin",), Provider.AZURE),
        (("neon_superuser",), Provider.NEON),
        (("supabase_admin",), Provider.SUPABASE),
    ],
)
def test_whose_server_it_is_is_told_from_its_roles(roles: tuple[str, ...], expected: Provider) -> None:
    server = replace(SERVER, provider_roles=frozenset(roles), has_rds_replication="rds_replication" in roles)
    assert detect(server) is expected


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        (Provider.RDS, "rds.logical_replication"),
        (Provider.CLOUDSQL, "cloudsql.logical_decoding"),
        (Provider.AZURE, "server parameter wal_level"),
        (Provider.NEON, "project's settings"),
        (Provider.SUPABASE, "support"),
        (Provider.SELF, "ALTER SYSTEM"),
    ],
)
def test_decoding_is_turned_on_in_the_providers_own_way(provider: Provider, words: str) -> None:
    server = replace(SERVER, wal_level="replica", max_slot_wal_keep_size="-1")
    made = planned(replace(FACTS, slot=None, server=server), request=replace(REQUEST, provider=provider))
    assert words in (made.problems[0].fix or "")
    has_advice = any(step.purpose is Purpose.SERVER for step in made.steps)
    assert has_advice == (provider is Provider.SELF)
    assert has_advice or any("max_slot_wal_keep_size" in finding.text for finding in made.findings)
    offline = offline_plan([NEED], replace(REQUEST, provider=provider))
    assert (provider is Provider.SELF) or any(words in (finding.fix or "") for finding in offline.findings)


@pytest.mark.parametrize(("version", "is_told"), [(150000, True), (170000, False)])
def test_supabase_before_17_replicates_as_postgres_only(version: int, is_told: bool) -> None:
    request = replace(REQUEST, provider=Provider.SUPABASE)
    made = planned(replace(FACTS, server=replace(SERVER, version=version)), request=request)
    assert any("--role postgres" in finding.text for finding in made.findings) == is_told


@pytest.mark.parametrize(
    ("version", "wants", "has"), [(160000, True, False), (170000, True, True), (180000, False, False)]
)
def test_a_slot_gets_failover_where_it_is_wanted_and_known(version: int, wants: bool, has: bool) -> None:
    request = replace(REQUEST, wants_failover=wants)
    made = planned(replace(FACTS, slot=None, server=replace(SERVER, version=version)), request=request)
    (step,) = [step for step in made.steps if step.purpose is Purpose.SLOT]
    assert ("failover => true" in step.texts[0]) == has
    assert ("sync_replication_slots" in step.note) == has


def test_offline_on_rds_replication_is_a_membership_too() -> None:
    made = offline_plan([NEED], replace(REQUEST, provider=Provider.RDS))
    assert texts(made, Purpose.ROLE) == ['CREATE ROLE "inv" LOGIN;']
    assert texts(made, Purpose.GRANT) == ['GRANT rds_replication TO "inv";']
