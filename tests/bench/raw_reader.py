"""Reads a slot and throws it away: the floor under every Python consumer. Prints seconds from streaming to the end."""

from __future__ import annotations

import asyncio
import select
import struct
import sys
import time

from invalidator.model import Lsn
from invalidator.postgres.replication import ReplicationStream

_WAL_END = struct.Struct(">Q").unpack_from


async def main(dsn: str, slot: str, publication: str, end: str) -> None:
    """Drain, with the same naps as the daemon."""
    stream = await ReplicationStream.open(dsn, slot=slot, publication=publication)
    started = time.perf_counter()
    last = Lsn.parse(end).value
    poll = select.poll()
    poll.register(stream.socket, select.POLLIN)
    while True:
        rows = 0
        size, message = stream.read(1)
        while size > 0:
            rows += 1
            if message[0] == 107:
                position = _WAL_END(message, 1)[0]
            elif message[25] == 67:
                position = _WAL_END(message, 35)[0]
            else:
                position = 0
            if position >= last:
                print(time.perf_counter() - started)
                await stream.close()
                return
            size, message = stream.read(1)
        if rows > 20 and stream.bytes_waiting() < 16384:
            time.sleep(0.002)  # noqa: ASYNC251  (nothing else runs here)
        poll.poll(1000)
        stream.consume()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
