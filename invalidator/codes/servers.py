"""Codes about servers, known with ``--online`` alone."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "Servers (`--online`)"

CODES: Final = (
    Code(
        "database-unreachable",
        "error",
        "Postgres does not answer at `source.dsn`. The exit code is 69, because nothing could be checked there.",
    ),
    Code(
        "database-refused",
        "error",
        "Postgres answers and does not let us in, or not ask: password, database, `pg_hba.conf`, TLS.",
    ),
    Code("server-too-old", "error", "The server is older than Postgres 14."),
    Code(
        "server-is-standby",
        "error",
        "`source.dsn` leads to a standby.",
        "A slot there ends when the standby is promoted, and commits are decoded before the primary's readers see them."
        " Name the primary.",
    ),
    Code(
        "wal-level",
        "error",
        "`wal_level` is not `logical`: the server writes too little to decode changes.",
        "Changing it needs a restart of Postgres.",
        "wal_level = replica",
        "wal_level = logical",
        "text",
    ),
    Code(
        "wal-keep-size",
        "warning",
        "`max_slot_wal_keep_size` is -1: what the server keeps for a slot has no bound.",
        "A daemon that is stopped and forgotten fills the primary's disk. With a bound the slot is given up instead,"
        " and the coarse forms repair what was missed.",
    ),
    Code(
        "no-replication-privilege",
        "error",
        "The role of `source.dsn` may not read the replication stream.",
        "",
        "CREATE ROLE invalidator LOGIN;",
        "CREATE ROLE invalidator LOGIN REPLICATION;",
        "sql",
    ),
    Code(
        "no-execute-privilege",
        "error",
        "With an outbox or notifications: a role may not call a function of Postgres that PUBLIC may call by default."
        " The daemon's role needs two for the advisory lock that tells which daemon leads; with `wake: notify` the"
        " owner of the outbox' triggers needs two to wake it.",
        "The daemon does not start; or each statement of the application is written down as one of which nobody knows"
        " what it changed, and the rules of its table apply their coarse form.",
        "REVOKE EXECUTE ON FUNCTION pg_try_advisory_lock(bigint) FROM PUBLIC;",
        "GRANT EXECUTE ON FUNCTION pg_try_advisory_lock(bigint) TO invalidator;",
        "sql",
    ),
    Code(
        "slot-missing",
        "error",
        "There is no replication slot of the configured name. With `source.create: true` the daemon makes it at its"
        " first start.",
        "The slot is what makes Postgres keep changes for the daemon while it is away.",
    ),
    Code(
        "slot-wrong-plugin",
        "error",
        "A slot of the configured name is there, physical or for another plugin than pgoutput: it is somebody else's.",
    ),
    Code(
        "slot-wrong-database",
        "error",
        "A slot of the configured name belongs to another database of this server. Slot names are unique on a server.",
    ),
    Code(
        "slot-lost",
        "error",
        "The server has given the slot up, because it kept more WAL than `max_slot_wal_keep_size` allows.",
        "Changes are missing: drop what the rules can name from the caches, then make the slot anew.",
    ),
    Code(
        "slot-not-failover",
        "warning",
        "Standbys follow this server (17 and newer), and the slot is none that is copied to them.",
        "After a failover the slot is missing. That is a gap: a new slot, and the coarse form of every rule.",
        "SELECT pg_create_logical_replication_slot('invalidator', 'pgoutput');",
        "SELECT pg_create_logical_replication_slot('invalidator', 'pgoutput', failover => true);",
        "sql",
    ),
    Code(
        "slot-not-synced",
        "warning",
        "Asked of a standby (17 and newer): it has no copy of the slot that a promotion would keep. Either slots are"
        " not synchronized there, or the copy is still temporary (`synced` and `temporary` in `pg_replication_slots`).",
        "A copy becomes ready when the daemon has confirmed a position for which the standby still has the catalog:"
        " with `hot_standby_feedback` that is soon, but not before the daemon has confirmed something.",
        "sync_replication_slots = off",
        "sync_replication_slots = on\nhot_standby_feedback = on\nprimary_slot_name = 'standby_1'",
        "text",
    ),
    Code(
        "standby-not-awaited",
        "warning",
        "`synchronized_standby_slots` leaves out a standby that follows, so the daemon may be ahead of it.",
        "A change that was applied and that the promoted standby never had may be cached again as it was there. The"
        " daemon sees the new timeline and applies every coarse form, so nothing stays stale; but the copy of the slot"
        " may not be ready.",
        "synchronized_standby_slots = ''",
        "synchronized_standby_slots = 'standby_1'",
        "text",
    ),
    Code(
        "standby-away",
        "error",
        "`synchronized_standby_slots` names a slot that is not in use, or not there at all: Postgres sends nothing to"
        " failover slots until that standby has it.",
        "The stream stands still without an error. Start the standby, or take it out of the setting.",
    ),
    Code(
        "lookup-invalid",
        "error",
        "Postgres refuses the SQL of a lookup. It is only explained, never run; the caret stands where Postgres stops.",
        "The rule could only apply its coarse form.",
    ),
    Code(
        "unknown-lookup-column",
        "error",
        "A template names a column that the lookup's SELECT does not give, or gives twice.",
        "The rule could only apply its coarse form. Name columns by `AS`.",
    ),
    Code(
        "lookup-not-indexed",
        "warning",
        "The lookup reads a whole table of more than 10,000 rows to find a few.",
        "It is asked for each batch of changes, and deliveries wait for its answer.",
    ),
    Code(
        "lookup-filtered",
        "warning",
        "A lookup reads a table with row-level security, and no policy shows all of its rows to the role that asks.",
        "What a policy hides is not found, without an error, and what it names stays stale. Streaming itself passes by"
        " all policies. Fine if the hidden rows are in no cache.",
        "ALTER TABLE post_authors ENABLE ROW LEVEL SECURITY;\n"
        "-- lookup: SELECT post_id FROM post_authors WHERE author_id = {id}",
        "CREATE POLICY invalidator ON post_authors FOR SELECT TO invalidator USING (true);",
        "sql",
    ),
    Code(
        "no-select-privilege",
        "error",
        "The role may not read a table that a lookup reads.",
        "The rule could only apply its coarse form. Streaming itself needs no SELECT.",
        "GRANT SELECT ON users TO invalidator;\n-- lookup: SELECT post_id FROM post_authors WHERE author_id = {id}",
        "GRANT SELECT ON post_authors TO invalidator;",
        "sql",
    ),
    Code(
        "target-unreachable",
        "error",
        "A target does not answer. The exit code is 69, because nothing could be checked there.",
    ),
    Code(
        "target-rejected",
        "error",
        "A Redis answers and refuses our calls: password, ACL, or a kind of server that cannot be used.",
        "Nothing that the rules name would be dropped there.",
    ),
    Code(
        "record-refused",
        "error",
        "A Redis would drop entries, and its ACL does not let us keep our record there: the string with `record_prefix`"
        " and the slot's name as its key, and the same with `:owner` behind, which says whose the record is.",
        "A required target without a record holds every position back, and Postgres keeps WAL. What an optional one"
        " loses would not be noticed.",
        "ACL SETUSER NAME ~cache:* ~invalidator:shop",
        "ACL SETUSER NAME ~cache:* ~invalidator:*",
        "text",
    ),
    Code(
        "cdn-credentials",
        "error",
        "A CDN refuses to purge. It is tried by purging the tag `invalidator-probe`, which nothing carries: only that"
        " proves the permission, and it needs no other one.",
        "Nothing that the rules name would be purged there.",
    ),
    Code(
        "eviction-evicts-tags",
        "warning",
        "Redis may throw tag sets away when its memory is full: `maxmemory-policy` is `allkeys-…`, or it is"
        " `volatile-…` and tag sets have a TTL. Told only if a rule uses tags.",
        "The keys in an evicted tag set cannot be found by their tag any more, and stay stale until they expire. Give"
        " cached keys a TTL and tag sets none, and let only keys with a TTL go.",
        "maxmemory-policy allkeys-lru",
        "maxmemory-policy volatile-lru",
        "text",
    ),
)
