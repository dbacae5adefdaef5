"""Whether an outbox can be read here."""

from __future__ import annotations

from typing import Any

import psycopg

from invalidator.errors import ConfigError, SourceDisconnected
from invalidator.postgres import catalog


async def verify(connection: psycopg.AsyncConnection[Any]) -> None:
    """See that it is there, as this version reads it, and that the role may do what the daemon does.

    Raises:
        ConfigError: it is not; says what to run.
        SourceDisconnected: this server is a standby now.
    """
    from invalidator.postgres.catalog.outbox import outbox
    from invalidator.postgres.provision.outbox import OLDEST_SERVER
    from invalidator.postgres.provision.outbox_table import PRIVILEGES, misfit

    version = connection.info.server_version
    if version < OLDEST_SERVER:
        msg = f"Postgres {version // 10000} is too old: 14 or newer is needed"
        raise ConfigError(msg)
    if (await catalog.server(connection)).is_standby:
        msg = "this server is a standby: the outbox is read, and emptied, on the primary"
        raise SourceDisconnected(msg, reason="configuration")
    found = await outbox(connection, None)
    fix = "invalidator setup --source outbox   (prints the SQL that makes what is missing)"
    if wrong := misfit(found):
        raise ConfigError(wrong, fix=fix)
    if missing := set(PRIVILEGES) - found.privileges:
        msg = f"the role '{connection.info.user}' lacks {', '.join(sorted(missing))} in the schema invalidator"
        raise ConfigError(msg, fix=fix)
