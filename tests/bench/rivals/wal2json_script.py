"""The script that is in many repositories: psycopg2, wal2json, one UNLINK per transaction."""

from __future__ import annotations

import json
import sys
import time

import psycopg2  # type: ignore[import-untyped]
import psycopg2.extras  # type: ignore[import-untyped]
import redis

dsn, url, slot, end = sys.argv[1:5]
high, low = end.split("/")
last = (int(high, 16) << 32) | int(low, 16)
client = redis.Redis.from_url(url)
connection = psycopg2.connect(dsn, connection_factory=psycopg2.extras.LogicalReplicationConnection)
cursor = connection.cursor()
cursor.start_replication(slot_name=slot, decode=True, options={"format-version": "2", "add-tables": "public.article"})
started = time.perf_counter()
keys: set[str] = set()


class EndReachedError(Exception):
    pass


def consume(message) -> None:  # type: ignore[no-untyped-def]
    row = json.loads(message.payload)
    action = row["action"]
    if action in "IUD":
        for column in (*row.get("columns", ()), *row.get("identity", ())):
            if column["name"] == "id":
                keys.add(f"article:{column['value']}")
            elif column["name"] == "slug":
                keys.add(f"article:slug:{column['value']}")
    elif action == "C":
        if keys:
            client.unlink(*keys)
            keys.clear()
        message.cursor.send_feedback(flush_lsn=message.data_start)
    if message.data_start >= last:
        raise EndReachedError


try:
    cursor.consume_stream(consume)
except EndReachedError:
    print(time.perf_counter() - started)
