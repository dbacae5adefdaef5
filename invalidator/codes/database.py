"""Codes about tables, columns, identities and publications, known with ``--online`` or ``--schema``."""

from __future__ import annotations

from typing import Final

from invalidator.codes._explanation import Code

TITLE: Final = "The database beside the rules (`--online` or `--schema`)"

CODES: Final = (
    Code(
        "unknown-table",
        "error",
        "There is no table of this name. Names are spelled exactly as in the database: in small letters, unless they"
        " were made with quotes. For a pattern such as `tenant_*.users` this is a warning.",
        "The rule would never see a change, and what it names would stay stale.",
    ),
    Code(
        "not-publishable",
        "error",
        "The relation writes no changes of its own: a view, a foreign or unlogged table; or a partition, whose rows"
        " come under the name of the partitioned table.",
        "The rule would never see a change. Name the tables behind a view, and the partitioned table.",
    ),
    Code(
        "unknown-column",
        "error",
        "The table has no column of this name. The caret stands at the name inside the template, list or SQL.",
        "A rule that names a missing column can only apply its coarse form, for every row.",
    ),
    Code(
        "column-not-published",
        "error",
        "The column is there and is not sent: a column list of the publication leaves it out, or it is a generated"
        " column (virtual ones are never sent, stored ones by Postgres 18 if the publication says so).",
        "The rule never sees its value and applies its coarse form instead.",
    ),
    Code(
        "old-value-needed",
        "error",
        "The rule needs a column of the row as it was before an UPDATE or DELETE, and the table's replica identity (by"
        " default the primary key) does not hold it. Each partition counts by itself. It is an error when every such"
        " change would drop a derived coarse form, which scans Redis or purges a CDN; a warning when the rule has a"
        " `coarse:` of its own, and for `changed:`, which then lets every UPDATE through.",
        "Nothing stays stale, because the rule widens. But it widens for every UPDATE: caches are emptied again and"
        " again. Widen the identity, write `{new.column}` if the old name may live on until it expires, or write the"
        " `coarse:` that you want. A coarse `tags:` costs least, and reaches only keys that your application added to"
        " the tag's set when it filled them.",
        'CREATE TABLE posts (id int PRIMARY KEY, slug text NOT NULL UNIQUE);\n-- rule: keys: ["post:{slug}"]',
        "ALTER TABLE posts REPLICA IDENTITY USING INDEX posts_slug_key;",
        "sql",
    ),
    Code(
        "no-identity",
        "error",
        "The table is in a publication of updates or deletes and has no replica identity: no primary key, or"
        " `REPLICA IDENTITY NOTHING`. Tables of our publication that no rule is about count too.",
        "Postgres refuses every UPDATE and DELETE on it, those of your application too.",
        "CREATE TABLE log (at timestamptz);\nCREATE PUBLICATION invalidator FOR TABLE log;",
        "CREATE TABLE log (at timestamptz, id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);\n"
        "CREATE PUBLICATION invalidator FOR TABLE log;",
        "sql",
    ),
    Code(
        "identity-not-covered",
        "error",
        "A publication of updates or deletes, yours or another, has a column list that leaves out a column of the"
        " table's replica identity (with `FULL`: any list), a row filter over other columns, or hides a generated one.",
        "Postgres refuses every UPDATE and DELETE on the table, those of your application too. It comes of an"
        " `ALTER TABLE … REPLICA IDENTITY` beside a list; take the table out and put it back in one transaction.",
        "ALTER TABLE posts REPLICA IDENTITY FULL;  -- published as posts (id, slug)",
        "BEGIN;\nALTER PUBLICATION invalidator DROP TABLE posts;\nALTER TABLE posts REPLICA IDENTITY FULL;\n"
        "ALTER PUBLICATION invalidator ADD TABLE posts;\nCOMMIT;",
        "sql",
    ),
    Code(
        "toast-key",
        "info",
        "The column can hold values so long that Postgres stores them apart (TOAST, above some 2 kB). An UPDATE that"
        " leaves such a value alone does not send it.",
        "The rule applies its coarse form for those rows, because it cannot know the name. `REPLICA IDENTITY FULL`"
        " sends the value always.",
    ),
    Code(
        "session-dependent-text",
        "info",
        "The text of the value (a time with zone, a float, `bytea`, an interval, money) depends on settings of the"
        " session that reads it. The daemon reads with `TimeZone=UTC`, `DateStyle=ISO`, `IntervalStyle=postgres` and"
        " `bytea_output=hex`.",
        "An application that writes the value in another form makes other keys, and those would stay stale.",
    ),
    Code(
        "publication-missing",
        "error",
        "There is no publication of the configured name in this database.",
        "Postgres sends nothing without one, and the daemon does not start. The fix is what `invalidator setup` runs.",
    ),
    Code(
        "publication-via-root",
        "error",
        "The publication has `publish_via_partition_root`.",
        "A TRUNCATE of one partition is not sent then. Without it, rules name the partitioned table all the same: the"
        " daemon looks it up.",
    ),
    Code(
        "not-published",
        "error",
        "A table that a rule names, or one of its partitions, is not in the publication.",
        "Its changes never arrive, and nothing else tells: this is the commonest cause of a stale cache. Rows that"
        " changed meanwhile are not sent later, so empty once what the rule can name.",
        "CREATE PUBLICATION invalidator FOR TABLE users;\n-- rule: table: public.posts",
        "ALTER PUBLICATION invalidator ADD TABLE posts;",
        "sql",
    ),
    Code(
        "operation-not-published",
        "error",
        "The publication leaves out INSERT, UPDATE, DELETE or TRUNCATE, and a rule waits for it.",
        "Those changes never arrive.",
        "CREATE PUBLICATION invalidator FOR TABLE posts WITH (publish = 'insert, update');",
        "ALTER PUBLICATION invalidator SET (publish = 'insert, update, delete, truncate');",
        "sql",
    ),
    Code(
        "row-filter",
        "warning",
        "The publication sends only those rows of the table that a `WHERE` lets pass. Filters of `setup` are compared"
        " with the rules: nothing is said while they pass all rows for which a rule can fire; else it is an"
        " error. Of a filter that somebody else wrote it is only told that it is there.",
        "Rules see nothing of the other rows, and what they name stays stale. Run the fix, or `setup --apply`.",
    ),
    Code(
        "partition-move-unseen",
        "warning",
        "A rule for a partitioned table looks at updates, but not at both deletes and inserts. An UPDATE that changes"
        " the partition key moves the row, and Postgres sends that as DELETE from the one partition and INSERT into the"
        " other.",
        "The rule sees only one half of the move, or nothing, and what it names stays stale. Let it look at all three"
        " events. Fine if no UPDATE ever changes the partition key.",
        "events: [update]",
        "events: [insert, update, delete]",
        "text",
    ),
    Code(
        "bad-schema-file",
        "error",
        "The file given by `--schema` is none that this version understands.",
        "A file that is read wrongly would let wrong rules pass. Write it again:"
        " `invalidator snapshot-schema -o FILE`.",
    ),
)
