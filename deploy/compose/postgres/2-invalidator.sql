-- What the daemon needs, and no more: a role that may stream and read nothing else, a publication with only the
-- column that the rules use, and the slot. `invalidator setup` prints the same for your own rules.
CREATE ROLE invalidator LOGIN REPLICATION PASSWORD 'invalidator';

CREATE PUBLICATION invalidator FOR TABLE products (id);

SELECT pg_create_logical_replication_slot('invalidator', 'pgoutput');
