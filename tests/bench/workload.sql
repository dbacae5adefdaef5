-- A table as shops have them: 12 columns, a wide text that is stored out of line and not compressed.
CREATE TABLE article (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant_id int NOT NULL,
    slug text NOT NULL,
    title text NOT NULL,
    status text NOT NULL,
    price numeric(12, 2),
    attributes jsonb NOT NULL,
    author_id bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    body text
);
ALTER TABLE article ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE unwatched (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE big (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);

CREATE FUNCTION make_article(g bigint) RETURNS SETOF article LANGUAGE sql AS $$
    SELECT g, gen_random_uuid(), (g % 500)::int, 'article-slug-' || g || '-' || substr(md5(g::text), 1, 8),
           'Title of article number ' || g, (array['draft', 'published', 'archived'])[1 + g % 3],
           ((g % 10000) / 7.0)::numeric(12, 2),
           jsonb_build_object('color', 'red', 'size', g % 40, 'nested', jsonb_build_object('a', g, 'b', md5(g::text)),
                              'list', jsonb_build_array(1, 2, 3, g)),
           g % 9999, now(), now(), (SELECT string_agg(md5((g + i)::text), '') FROM generate_series(1, 80) i)
$$;
-- Number 0 is changed last of all, in both: whoever applied that has applied everything.
INSERT INTO unwatched VALUES (0);
INSERT INTO article SELECT a.* FROM generate_series(0, 50000) g, make_article(g) a;

CREATE PUBLICATION bench_full FOR TABLE article;
CREATE PUBLICATION bench_columns FOR TABLE article (id, slug), unwatched (id);
CREATE PUBLICATION bench_big FOR TABLE big;

-- 60 % updates, 20 % inserts, 20 % deletes, ten rows a transaction.
CREATE PROCEDURE ten_row_transactions(transactions int) LANGUAGE plpgsql AS $$
DECLARE
    fresh bigint := (SELECT max(id) FROM article);
BEGIN
    FOR i IN 1..transactions LOOP
        FOR j IN 1..6 LOOP
            UPDATE article SET updated_at = clock_timestamp(), status = 'published', price = price + 1,
                               title = 'Title of article number ' || id || ' v' || i
             WHERE id = 1 + ((i::bigint * 6 + j) * 7919) % 50000;
        END LOOP;
        INSERT INTO article SELECT a.* FROM generate_series(fresh + 1, fresh + 2) g, make_article(g) a;
        IF i > 1 THEN
            DELETE FROM article WHERE id IN (fresh - 1, fresh);
        ELSE
            UPDATE article SET price = price + 1 WHERE id IN (1, 2);
        END IF;
        fresh := fresh + 2;
        COMMIT;
    END LOOP;
END $$;

CREATE PROCEDURE one_row_transactions(transactions int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..transactions LOOP
        UPDATE article SET updated_at = clock_timestamp(), price = price + 1
         WHERE id = 1 + (i::bigint * 7919) % 50000;
        COMMIT;
    END LOOP;
END $$;
