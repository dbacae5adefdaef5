-- What the daemon needs, and no more: a role that may stream and read nothing else, and a publication with only the
-- column that the rules use. `invalidator setup` prints the same for your own rules.
CREATE ROLE invalidator LOGIN REPLICATION PASSWORD 'invalidator';

CREATE PUBLICATION invalidator FOR TABLE products (id);
