"""Event triggers of ``setup --ddl-hook`` in a test's database."""

from __future__ import annotations

from invalidator.postgres import provision
from invalidator.postgres.connection import connect
from invalidator.postgres.provision import Plan, Provider


async def hook(dsn: str, *, remove: bool = False, provider: Provider | None = None) -> Plan:
    """Run what ``setup --ddl-hook --apply`` would; what is left afterwards."""
    async with await connect(dsn, application_name="test") as connection:

        async def plan() -> Plan:
            facts = await provision.hook_facts(connection)
            if remove:
                return provision.without_hook(Plan(()), facts)
            return provision.with_hook(Plan(()), facts, provider)

        await provision.apply(connection, await plan())
        return await plan()
