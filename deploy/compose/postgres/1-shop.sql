-- The application's own tables and data.
CREATE TABLE products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    price_cents bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO products (name, price_cents)
SELECT 'Product ' || n, 1000 + n FROM generate_series(1, 100) AS n;
