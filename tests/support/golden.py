"""Streams recorded from real servers of each major version, in ``tests/golden``; and how to record them.

    python -m tests.support.golden [FOLDER WITH postgres]...

One message per line: its position and its pgoutput payload, in hexadecimal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import psycopg

from invalidator.demo.servers import PostgresServer
from tests.support.pgoutput import xlog_data

FOLDER = Path(__file__).parents[1] / "golden"
FILES = sorted(FOLDER.glob("*.hex"))

TABLES = """
CREATE SCHEMA "Odd Schema";
CREATE TYPE mood AS ENUM ('sad', 'so so');
CREATE TABLE keyed (id int PRIMARY KEY, m mood, ta text[], raw bytea, big text);
CREATE TABLE whole (id int, t text, big text);
CREATE TABLE "Odd Schema"."Ta""ble" ("a b" text NOT NULL UNIQUE, n numeric);
ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
ALTER TABLE whole ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
ALTER TABLE "Odd Schema"."Ta""ble" REPLICA IDENTITY USING INDEX "Ta""ble_a b_key";
"""
CHANGES = (
    "INSERT INTO keyed VALUES (1, 'so so', '{a,NULL,\"\"}', '\\x00ff', repeat('big ', 550))",
    "UPDATE keyed SET m = 'sad', ta = NULL",
    "UPDATE keyed SET id = 2",
    "DELETE FROM keyed",
    "INSERT INTO whole VALUES (1, 'ü€', repeat('big ', 550)), (2, '', NULL)",
    "UPDATE whole SET t = NULL WHERE id = 1",
    "BEGIN; SAVEPOINT s; INSERT INTO whole VALUES (3); ROLLBACK TO s; DELETE FROM whole WHERE id = 2; COMMIT",
    'INSERT INTO "Odd Schema"."Ta""ble" VALUES (\'it\'\'s\', 1.50)',
    'UPDATE "Odd Schema"."Ta""ble" SET "a b" = \'*\', n = \'NaN\'',
    "ALTER TABLE whole ADD COLUMN more int DEFAULT 7",
    "UPDATE whole SET more = 8",
    """SELECT pg_logical_emit_message(true, 'invalidator', '{"keys": ["cms:1", "no:1"], "cdn": ["cms-1"]}')""",
    "SELECT pg_logical_emit_message(false, 'invalidator.heartbeat', 'slot 17.5')",
    'TRUNCATE keyed, whole, "Odd Schema"."Ta""ble" RESTART IDENTITY',
)


def load(file: Path) -> list[tuple[int, bytes]]:
    """Position and payload of each message."""
    lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    return [(int(position, 16), bytes.fromhex(payload)) for position, payload in lines]


def stream(file: Path) -> list[bytes]:
    """The messages as XLogData."""
    return [xlog_data(payload, start=lsn, end=lsn) for lsn, payload in load(file)]


def record(binaries: Path | None) -> Path:
    """Write what a server of this kind streams."""
    with PostgresServer(binaries=binaries) as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute("CREATE PUBLICATION p FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        for change in CHANGES:
            connection.execute(change.encode())
        rows = connection.execute(
            "SELECT lsn - '0/0'::pg_lsn, data FROM pg_logical_slot_get_binary_changes('s', NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')"
        ).fetchall()
        version = connection.info.server_version // 10000
    file = FOLDER / f"postgres-{version}.hex"
    file.write_text("".join(f"{int(lsn):x} {bytes(data).hex()}\n" for lsn, data in rows), encoding="ascii")
    return file


def main(folders: Iterable[str]) -> None:
    """Record from each of these servers; without any from the usual one."""
    named: list[Path | None] = [Path(name) for name in folders]
    for folder in named or [None]:
        print(record(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
