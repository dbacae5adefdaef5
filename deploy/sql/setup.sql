-- What `invalidator setup` would print for two tables, public.users and public.posts, on Postgres 18, with comments.
-- Let it print yours: it looks at your rules and at your catalog.
--
--   psql -v ON_ERROR_STOP=1 -f setup.sql "host=db user=owner dbname=app"

-- The daemon's role: no superuser, no privilege on any table. Then: \password invalidator
CREATE ROLE "invalidator" LOGIN REPLICATION;

-- A rule names the key post:{slug}. To drop the key of the old slug, Postgres must send it; by default it sends old
-- values of the primary key only. FULL makes the WAL of each UPDATE larger by the old row; a unique index over NOT NULL
-- columns that holds the slug would be smaller: REPLICA IDENTITY USING INDEX posts_slug_key.
ALTER TABLE "public"."posts" REPLICA IDENTITY FULL;

-- Only the rules' tables, and only the columns that rules read: fewer bytes, and nothing else can leave the database.
-- A column list must hold the replica identity, and FULL allows none: otherwise the application's own UPDATE fails.
-- Before Postgres 18: without the last line. Before Postgres 15: also without the column list.
BEGIN;
CREATE PUBLICATION "invalidator" FOR TABLE "public"."posts", "public"."users" ("id", "email")
  WITH (publish_generated_columns = stored);
-- By this comment it is known again: `setup --drop` and `teardown` drop no publication without it.
COMMENT ON PUBLICATION "invalidator" IS 'invalidator setup: {"made": true}';
COMMIT;

-- After the publication. From here on WAL is kept for the daemon, whether it runs or not. With failover, standbys
-- that synchronize slots (sync_replication_slots = on) keep a copy of it. Before Postgres 17: without failover.
SELECT pg_create_logical_replication_slot('invalidator', 'pgoutput', failover => true);

-- Recommended: beyond this size the slot is given up (the daemon says so) instead of the disk filling up.
-- ALTER SYSTEM SET max_slot_wal_keep_size = '20GB';
-- SELECT pg_reload_conf();

-- pg_hba.conf, to its database only; no line with the pseudo-database `replication`, which would allow copies of all:
-- hostssl  app  invalidator  10.0.0.0/8  scram-sha-256
