# ruff: noqa: S608  (statements are put together from our own words)
"""Random SQL of the kind that decoders get wrong, from a seed: the same seed writes the same statements."""

from __future__ import annotations

import random
from typing import Any

import psycopg
from psycopg import sql

SCHEMA = """
CREATE SCHEMA "Odd Schema";
CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s "fine"');
CREATE TYPE "Odd Schema"."we:ird]:ty""pe" AS ENUM ('a', 'b''c', 'd,e');
CREATE DOMAIN word AS text CHECK (VALUE <> 'forbidden');
CREATE DOMAIN flag AS boolean;
CREATE TYPE pair AS (x int, "y z" text);
CREATE TABLE keyed (
  id int PRIMARY KEY, i2 smallint, i8 bigint, n numeric, n2 numeric(12,4), f4 real, f8 double precision, b boolean,
  t text, v varchar(40), c char(5), c1 "char", nm name, raw bytea, u uuid, d date, tm time, ttz timetz, ts timestamp,
  tstz timestamptz, iv interval, j json, jb jsonb, ip inet, net cidr, mac macaddr, pt point, bx box, pg polygon,
  pa path, ci circle, ls lseg, tv tsvector, tq tsquery, r4 int4range, rt tstzrange, mr int4multirange, ia int[],
  ta text[], ma mood[], wa word[], bt bit(4), vb varbit, o oid, ln pg_lsn, jp jsonpath, mo money, m mood, w word,
  fl flag, p pair, pp pair[], odd "Odd Schema"."we:ird]:ty""pe", big text, big2 bytea
);
ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL, ALTER big2 SET STORAGE EXTERNAL, ALTER jb SET STORAGE EXTERNAL;
CREATE TABLE whole (id int, t text, m mood, n numeric, ta text[], big text, jb jsonb, b boolean, raw bytea);
ALTER TABLE whole ALTER big SET STORAGE EXTERNAL, ALTER ta SET STORAGE EXTERNAL;
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE "Odd Schema"."Ta""ble.x, y: z" (
  "a b" text NOT NULL, "c""d" int NOT NULL, "e'f" text, "g.h" int, "i:j[k]:'l'" text, "ÜÖ€" text, "select" int,
  "new" text, "old" mood, "x y" text, UNIQUE ("a b", "c""d")
);
ALTER TABLE "Odd Schema"."Ta""ble.x, y: z" REPLICA IDENTITY USING INDEX "Ta""ble.x, y: z_a b_c""d_key";
CREATE TABLE long_key (k text PRIMARY KEY, v int);
ALTER TABLE long_key ALTER k SET STORAGE EXTERNAL;
CREATE TABLE nothing (id int, t text);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE keyless (id int, t text);
CREATE TABLE computed (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, t text);
CREATE TABLE parent (id serial PRIMARY KEY, t text);
CREATE TABLE child (id int PRIMARY KEY, t text, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE event (id int, region text, day int, t text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE event_a PARTITION OF event FOR VALUES IN ('a');
CREATE TABLE "event B" PARTITION OF event FOR VALUES IN ('b') PARTITION BY RANGE (id);
CREATE TABLE event_b_low PARTITION OF "event B" FOR VALUES FROM (MINVALUE) TO (5);
CREATE TABLE event_b_high PARTITION OF "event B" FOR VALUES FROM (5) TO (MAXVALUE);
CREATE TABLE event_rest (gone int, t text, day int, region text NOT NULL, id int NOT NULL);
ALTER TABLE event_rest DROP COLUMN gone;
ALTER TABLE event ATTACH PARTITION event_rest DEFAULT;
CREATE TABLE born (id int PRIMARY KEY, t text);
"""

WIDE = "CREATE TABLE wide (id int PRIMARY KEY, " + ", ".join(f"c{number} text" for number in range(80)) + ")"

TABLES = {
    "keyed": "keyed",
    "whole": "whole",
    "odd": '"Odd Schema"."Ta""ble.x, y: z"',
    "long_key": "long_key",
    "nothing": "nothing",
    "keyless": "keyless",
    "computed": "computed",
    "parent": "parent",
    "child": "child",
    "event": "event",
    "born": "born",
    "wide": "wide",
}

TEXTS = (
    "''", "' '", "'null'", "'NULL'", "'unchanged-toast-datum'", "'it''s'", "E'a\\nb\\tc\\\\'", "E'\\x01\\x7f'",
    "'[x]:y'",
    "' old-key: id[integer]:1'", "' new-tuple: '", "'ä€😀'", "'\"quoted\"'", "'{\"a\": 1}'", "'%s %% :x'", "'COMMIT 1'",
)  # fmt: skip
LONG = ("repeat('long ', 700)", "repeat('ü€', 2500)", "repeat(md5(random()::text), 300)")
INTEGERS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
VALUES: dict[str, tuple[str, ...]] = {
    "integer": (*INTEGERS, "-2147483648", "2147483647"),
    "smallint": ("0", "-32768"),
    "bigint": ("0", "-9223372036854775808", "9223372036854775807"),
    "numeric": ("0", "1.0", "1.00", "-0.000001", "1e30", "'NaN'", "12345678901234567890.123456789"),
    "numeric(12,4)": ("1.5", "-1", "99999999.9999"),
    "real": ("0", "1.1", "'NaN'", "'-Infinity'", "1e-30"),
    "double precision": ("0.1", "1e300", "'Infinity'", "'-0'", "123456789012345680"),
    "boolean": ("true", "false"),
    "flag": ("true", "false"),
    "text": (*TEXTS, *LONG),
    "word": TEXTS,
    "character varying(40)": TEXTS[:-1],
    "character(5)": ("'a'", "'abcde'", "''"),
    '"char"': ("'x'", "''''", "''"),
    "name": ("'pg_class'", "'a b'"),
    "bytea": ("''", "'\\x00ff27'", "convert_to(repeat('raw', 3000), 'UTF8')"),
    "uuid": ("'00000000-0000-0000-0000-000000000001'",),
    "date": ("'2026-02-28'", "'infinity'", "'0044-03-15 BC'"),
    "time without time zone": ("'23:59:59.999999'", "'24:00'"),
    "time with time zone": ("'12:00+05:30'",),
    "timestamp without time zone": ("'2026-01-01 00:00:00.000001'", "'-infinity'"),
    "timestamp with time zone": ("'2026-06-01 12:00+02'", "'infinity'"),
    "interval": ("'1 year -2 days 03:04:05.6'", "'-1 second'", "'0'"),
    "json": ("""'{"a" : [1, null, "x''y"]}'""", "'null'", "'\"\"'"),
    "jsonb": ("""'{"b":1,"a":{"c":"]:"}}'""", "'[]'", "jsonb_build_object('long', repeat('j', 9000))"),
    "inet": ("'10.0.0.1/8'", "'::1'"),
    "cidr": ("'10.0.0.0/8'",),
    "macaddr": ("'08:00:2b:01:02:03'",),
    "point": ("'(1,2)'",),
    "box": ("'(1,2),(0,0)'",),
    "polygon": ("'((0,0),(1,1),(2,0))'",),
    "path": ("'[(0,0),(1,1)]'",),
    "circle": ("'<(0,0),3>'",),
    "lseg": ("'[(0,0),(1,1)]'",),
    "tsvector": ("'a:1 b:2A ''x y'''",),
    "tsquery": ("'a & !b'",),
    "int4range": ("'empty'", "'[1,5)'", "'(,)'"),
    "tstzrange": ("'[2026-01-01 00:00+00,)'",),
    "int4multirange": ("'{}'", "'{[1,3),[5,7)}'"),
    "integer[]": ("'{}'", "'{1,NULL,3}'", "'[2:3]={7,8}'", "'{{1,2},{3,4}}'"),
    "text[]": ("""'{"",NULL,"NULL","a,b","c\\"d","e\\\\f","{g}"}'""", "array_fill('long text'::text, '{900}')"),
    "mood[]": ("""'{sad,"so so"}'""", "'{}'"),
    "word[]": ("'{a,b}'",),
    "bit(4)": ("B'1010'",),
    "bit varying": ("B''", "B'10101'"),
    "oid": ("0", "4294967295"),
    "pg_lsn": ("'16/B374D848'",),
    "jsonpath": ("'$.a[*] ? (@ > 1)'",),
    "money": ("1234.5", "-1"),
    "mood": ("'sad'", "'so so'"),
    "pair": ("""'(1,"a ""b"",c")'""", "'(,)'"),
    "pair[]": ("""'{"(1,x)","(2,\\"y z\\")"}'""",),
}
ODD = ("'a'", "'b''c'", "'d,e'")

_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""


class Writer:
    """Writes as an application that does everything."""

    def __init__(self, dsn: str, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  (a test, and it must be the same each time)
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute("SELECT setseed(%s)", [seed % 1000 / 1000])
        self._number = 0
        self.written: list[str] = []
        """Statements that the server took."""

    def close(self) -> None:
        """End with a commit: it flushes what is not flushed by itself, a message outside of a transaction."""
        self._connection.execute("CREATE TABLE last ()")
        self._connection.close()

    def run(self, transactions: int) -> None:
        """Write so many transactions, some of which are rolled back."""
        for number in range(transactions):
            self._transaction(number)

    def _transaction(self, number: int) -> None:
        chance = self._chance
        if chance.random() < 0.2:
            self._statement()  # in autocommit
            return
        self._connection.execute("BEGIN")
        self._block(depth=0)
        end = chance.choices(["COMMIT", "ROLLBACK", "PREPARE"], [8, 1, 2])[0]
        if end != "PREPARE":
            self._connection.execute(end)
            return
        name = f"nasty {self._connection.info.dbname} {number}"
        self._connection.execute(f"PREPARE TRANSACTION '{name}'")
        self._connection.execute(f"{chance.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{name}'")

    def _block(self, depth: int) -> None:
        chance = self._chance
        for _ in range(chance.randrange(1, 6)):
            if depth < 4 and chance.random() < 0.25:
                name = f"s{depth}"
                self._connection.execute(f"SAVEPOINT {name}")
                self._block(depth + 1)
                self._connection.execute(f"{chance.choice(['RELEASE', 'ROLLBACK TO'])} {name}")
            else:
                self._statement()

    def _statement(self) -> None:
        """One statement; one that the database refuses is undone, which leaves a subtransaction in the log."""
        makers = [self._insert, self._update, self._delete, self._copy, self._truncate, self._define, self._message]
        maker = self._chance.choices(makers, [12, 12, 4, 1, 1, 2, 1])[0]
        try:
            with self._connection.transaction():
                maker()
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in {"22", "23", "0A", "2B", "42", "54", "55"}:
                raise

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())
        self.written.append(statement)

    # ---------------------------------------------------------------- rows

    def _table(self) -> str:
        return TABLES[self._chance.choices(list(TABLES), [4 if name == "keyed" else 1 for name in TABLES])[0]]

    def _columns(self, table: str) -> list[tuple[str, str, bool]]:
        return self._connection.execute(_COLUMNS, [table]).fetchall()

    def _value(self, name: str, kind: str, *, required: bool) -> str:
        chance = self._chance
        if kind not in VALUES:
            return chance.choice(ODD) if "ird" in kind else "NULL"
        if not required and chance.random() < 0.15:
            return "NULL"
        if name in {"id", "parent", 'c"d'}:
            return chance.choice(INTEGERS)
        if name in {"region", "a b"}:
            return chance.choice(("'a'", "'b'", "'c'"))
        return chance.choice(VALUES[kind])

    def _insert(self) -> None:
        table = self._table()
        columns = self._columns(table)
        kept = [column for column in columns if column[2] or self._chance.random() < 0.8]
        rows = ", ".join(
            "(" + ", ".join(self._value(name, kind, required=required) for name, kind, required in kept) + ")"
            for _ in range(self._chance.choice([1, 1, 1, 2, 5]))
        )
        names = ", ".join(_quoted(name) for name, _, _ in kept)
        conflict = self._chance.choice(["", " ON CONFLICT DO NOTHING"])
        if table == "parent" or (table == "keyed" and self._chance.random() < 0.5):
            conflict = f" ON CONFLICT (id) DO UPDATE SET t = {self._chance.choice(TEXTS)}"
            rows = rows if rows.count("), (") == 0 else rows[: rows.index("), (") + 1]
        self._execute(f"INSERT INTO {table} ({names}) VALUES {rows}{conflict}")

    def _update(self) -> None:
        table = self._table()
        columns = self._columns(table)
        some = self._chance.sample(columns, self._chance.randrange(1, min(4, len(columns)) + 1))
        values = ", ".join(f"{_quoted(name)} = {self._value(name, kind, required=must)}" for name, kind, must in some)
        self._execute(f"UPDATE {table} SET {values}{self._where(columns)}")

    def _delete(self) -> None:
        table = self._table()
        self._execute(f"DELETE FROM {table}{self._where(self._columns(table))}")

    def _where(self, columns: list[tuple[str, str, bool]]) -> str:
        names = {name for name, _, _ in columns}
        key = next((name for name in ("id", 'c"d', "v") if name in names), None)
        if key is None or self._chance.random() < 0.1:
            return ""
        return f" WHERE {_quoted(key)} % 4 = {self._chance.randrange(4)}"

    def _copy(self) -> None:
        """Rows of one multi-insert record share a position in the log."""
        self._number += 1
        table = self._chance.choice(["whole", "keyless", "event"])
        count = self._chance.randrange(2, 12)
        with self._connection.cursor().copy(f"COPY {table} (id, t) FROM STDIN") as copy:
            for number in range(count):
                copy.write_row((self._number * 1000 + number, f"copied\t{number}\\"))

    def _truncate(self) -> None:
        self._execute(
            self._chance.choice(
                [
                    "TRUNCATE parent CASCADE",
                    "TRUNCATE whole, keyless RESTART IDENTITY",
                    'TRUNCATE "Odd Schema"."Ta""ble.x, y: z", born',
                    "TRUNCATE event",
                    "TRUNCATE event_a",
                ]
            )
        )

    def _message(self) -> None:
        is_transactional = self._chance.choice(["true", "false"])
        content = self._chance.choice(TEXTS)
        self._execute(f"SELECT pg_logical_emit_message({is_transactional}, 'invalidator', {content})")

    # ---------------------------------------------------------------- tables

    def _define(self) -> None:
        self._number += 1
        number = self._number
        table = self._chance.choice(["whole", "born", "computed", "child"])
        self._execute(
            self._chance.choice(
                [
                    f"ALTER TABLE {table} ADD COLUMN added{number} text DEFAULT 'fast {number}'",
                    f"ALTER TABLE {table} ADD COLUMN added{number} integer",
                    f'ALTER TABLE {table} RENAME COLUMN t TO "t {number}"',
                    f"ALTER TABLE {table} ALTER COLUMN t TYPE varchar(4000)",
                    f"ALTER TABLE {table} ALTER COLUMN id TYPE bigint; ALTER TABLE {table} ALTER COLUMN id TYPE int",
                    "ALTER TABLE whole DROP COLUMN IF EXISTS n",
                    "ALTER TABLE keyed DROP COLUMN mo; ALTER TABLE keyed ADD COLUMN mo money",
                    f"ALTER TABLE {table} REPLICA IDENTITY {self._chance.choice(['FULL', 'DEFAULT'])}",
                    "ALTER TABLE whole REPLICA IDENTITY FULL",
                    f"DROP TABLE born; CREATE TABLE born (t text, n{number} text, id int PRIMARY KEY)",
                    f"CREATE TABLE made{number} AS SELECT i AS id, 'x' || i AS t FROM generate_series(1, 3) i",
                    f"ALTER TYPE mood RENAME VALUE 'so so' TO 'renamed'; UPDATE whole SET m = 'renamed', id = {number};"
                    "ALTER TYPE mood RENAME VALUE 'renamed' TO 'so so'",
                    "ALTER TABLE event DETACH PARTITION event_a; INSERT INTO event_a VALUES (1, 'a', 1, 'alone')"
                    " ON CONFLICT DO NOTHING; ALTER TABLE event ATTACH PARTITION event_a FOR VALUES IN ('a')",
                    "CREATE INDEX ON keyed (t) WHERE id > 5",
                    "ALTER TABLE born RENAME TO unborn; UPDATE unborn SET id = id + 100; "
                    "ALTER TABLE unborn RENAME TO born",
                ]
            )
        )


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make the tables."""
    connection.execute(SCHEMA.encode())
    connection.execute(WIDE.encode())
