"""A physical standby of a server of the test's own."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg

from invalidator.demo.servers import PostgresServer
from invalidator.demo.servers.process import ServerFailed, spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLLOW = {"hot_standby_feedback": "on"}


class Standby(PostgresServer):
    """Follows another cluster by streaming; readable.

    Args:
        primary: the cluster that it follows.
        physical_slot: made there for it; with one, the standby can copy failover slots (Postgres 17 and newer).
        settings: server settings, over those for tests and demo.
    """

    def __init__(
        self,
        primary: PostgresServer,
        *,
        physical_slot: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._primary = primary
        self._physical_slot = physical_slot
        follow = _FOLLOW if physical_slot is not None else {}
        super().__init__(binaries=primary.binaries, settings={**follow, **(settings or {})})

    def wait_for_slot(self, slot: str, *, deadline_seconds: float = 15) -> bool:
        """Whether a lasting copy of the logical slot is here within that time; its consumer must be at work."""
        query = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND synced AND NOT temporary"
        deadline = time.monotonic() + deadline_seconds
        with (
            psycopg.connect(self.dsn(), autocommit=True) as here,
            psycopg.connect(self._primary.dsn(), autocommit=True) as there,
        ):
            while here.execute(query, [slot]).fetchone() is None:
                if time.monotonic() > deadline:
                    return False
                # A copy lasts once the slot there has moved on, for which it needs to be told what is running. The
                # server does that by itself every 15 s; the worker that synchronizes looks up to every 30 s.
                there.execute("SELECT pg_log_standby_snapshot()")
                with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):  # the slot there is ahead
                    here.execute("SELECT pg_sync_replication_slots()")
                time.sleep(0.1)
        return True

    def promote(self) -> None:
        """Make it a primary of its own; returns when it takes writes."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def _environment(self) -> dict[str, str]:
        # In some builds the walreceiver finds another libpq than pg_basebackup, which writes down options of its own.
        return {**super()._environment(), "LD_LIBRARY_PATH": str(self.binaries.parent / "lib")}

    def _initialise(self) -> None:
        self._password = urlsplit(self._primary.dsn()).password or ""
        command: list[str | Path] = [self.binaries / "pg_basebackup", "-d", self._primary.dsn(), "-D", self._data]
        command += ["-R", "-X", "stream", "-c", "fast", "--no-sync"]
        if self._physical_slot is not None:
            command += ["-C", "-S", self._physical_slot]
        with self._log.open("ab") as log:
            process = spawn(command, account=self._account, env=self._environment(), stdout=log)
        if process.wait() != 0:
            msg = f"pg_basebackup ended with code {process.returncode}:\n{self.log_tail()}"
            raise ServerFailed(msg)
