-- By itself: a transaction that has written anything may not make a slot.
SELECT pg_create_logical_replication_slot('invalidator', 'pgoutput');
