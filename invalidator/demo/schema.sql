-- A small shop. What its rows are cached as, and how those entries are dropped: rules.yaml.

CREATE TABLE categories (
    id   integer PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE products (
    id          integer PRIMARY KEY,
    slug        text NOT NULL UNIQUE,
    name        text NOT NULL,
    price_cents integer NOT NULL,
    stock       integer NOT NULL,
    category_id integer NOT NULL REFERENCES categories
);
-- The rule names slug, category_id and `changed:` columns of the old row, so Postgres has to send the old row.
ALTER TABLE products REPLICA IDENTITY FULL;

CREATE TABLE reviews (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id integer NOT NULL,
    stars      integer NOT NULL,
    remark     text NOT NULL
);
-- A deleted review must name its product. A unique index over both columns is cheaper than the whole old row.
CREATE UNIQUE INDEX reviews_identity ON reviews (id, product_id);
ALTER TABLE reviews REPLICA IDENTITY USING INDEX reviews_identity;

CREATE TABLE users (
    id    integer PRIMARY KEY,
    name  text NOT NULL,
    email text NOT NULL
);

INSERT INTO categories SELECT n, (ARRAY['Kitchen', 'Garden', 'Office', 'Light', 'Travel', 'Music'])[n] FROM generate_series(1, 6) AS n;

INSERT INTO products
SELECT n, (ARRAY['kettle', 'rake', 'stapler', 'lamp', 'suitcase', 'drum'])[1 + n % 6] || '-' || n, 'Product ' || n, 1000 + 7 * n, 20, 1 + n % 6
FROM generate_series(1, 600) AS n;

INSERT INTO reviews (product_id, stars, remark) SELECT 1 + n % 600, 1 + n % 5, 'Review ' || n FROM generate_series(1, 1800) AS n;

INSERT INTO users SELECT n, 'User ' || n, 'user' || n || '@example.org' FROM generate_series(1, 200) AS n;

ANALYZE;
