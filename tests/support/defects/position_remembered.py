"""A daemon that begins where the server is instead of where the slot is."""

# mypy: ignore-errors

from __future__ import annotations

from invalidator.cli import main
from invalidator.postgres import replication

_start = replication._start_replication


async def _open(cls, dsn, *, slot, publication, receive_buffer_bytes=0):
    connection = await replication.connect(dsn, application_name="defect")
    position = (await (await connection.execute("SELECT pg_current_wal_flush_lsn()::text")).fetchone())[0]
    await connection.close()
    replication._start_replication = lambda *names: _start(*names).replace(b"0/0", position.encode())
    return await _opened(cls, dsn, slot=slot, publication=publication, receive_buffer_bytes=receive_buffer_bytes)


_opened = replication.ReplicationStream.open.__func__
replication.ReplicationStream.open = classmethod(_open)

if __name__ == "__main__":
    main()
