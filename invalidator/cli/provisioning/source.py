"""The source that ``setup`` and ``teardown`` are about, as the settings and the options say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from invalidator.config import Settings
    from invalidator.postgres.connection import Dsn
    from invalidator.postgres.options import DatabaseOptions
    from invalidator.postgres.provision import Need

Function = TypeVar("Function", bound="Callable[..., object]")

KINDS: Final = ("pgoutput", "outbox", "notify")
"""Types of sources that need something in Postgres."""


def owner_options(function: Function) -> Function:
    """Add ``--dsn`` and ``--role``; the function gets ``dsn`` and ``role``."""
    function = click.option(
        "--role", metavar="NAME", help="The daemon's role.  [default: the user of source.dsn, or invalidator]"
    )(function)
    return click.option(
        "--dsn",
        metavar="DSN",
        help="Connect as an owner of the tables instead of by source.dsn. "
        "Keep passwords out of it: PGPASSWORD, pgpass.",
    )(function)


@dataclass(frozen=True, slots=True)
class Source:
    """What the settings of a source in Postgres say, as far as set-up needs it."""

    kind: str
    """One of ``KINDS``."""
    dsn: Dsn
    role: str
    """The daemon's, which may not exist yet."""
    slot: str = "invalidator"
    publication: str = "invalidator"
    channel: str = "cache_changes"
    wakes: bool = False
    """The triggers of the outbox notify."""
    fires_always: bool = False
    """They fire for replicated changes too (``ENABLE ALWAYS``)."""

    @classmethod
    def of(cls, settings: Settings, *, kind: str | None, dsn: str | None, role: str | None) -> Source:
        """The source of the settings, with what the options say in the place of what they say.

        Raises:
            ConfigError: it needs nothing in Postgres, or its secret cannot be read.
        """
        import asyncio
        import os

        from invalidator.errors import ConfigError
        from invalidator.postgres.options import DatabaseOptions

        options = settings.source
        if not isinstance(options, DatabaseOptions) or (kind or options.type) not in KINDS:
            msg = f"setup prepares Postgres for source types {', '.join(KINDS)}; the settings say '{options.type}'"
            raise ConfigError(msg)
        is_written = bool(options.dsn.get_secret_value())
        user = asyncio.run(options.address.parameters()).get("user") if is_written else os.environ.get("PGUSER")
        return cls(
            kind=kind or options.type,
            dsn=options.address if dsn is None else dsn,
            role=role or (str(user) if user else "invalidator"),
            **_of_its_type(options),
        )

    def refuse_hook(self, *, is_asked_for: bool) -> None:
        """Raises click.UsageError: event triggers are asked for, and nothing reads what they write."""
        if is_asked_for and self.kind != "pgoutput":
            msg = f"--ddl-hook tells a stream of DDL, and '{self.kind}' has none"
            raise click.UsageError(msg)

    def refuse_offline(self) -> None:
        """Raises click.UsageError: what this source needs cannot be worked out without the database."""
        if self.kind != "pgoutput":
            msg = f"--offline knows nothing of '{self.kind}': what triggers write depends on the columns of your tables"
            raise click.UsageError(msg)


def _of_its_type(options: DatabaseOptions) -> dict[str, Any]:
    from invalidator.postgres.notify.options import NotifyOptions
    from invalidator.postgres.options import StreamOptions
    from invalidator.postgres.outbox.options import OutboxOptions

    match options:
        case StreamOptions():
            return {"slot": options.slot, "publication": options.publication}
        case NotifyOptions():
            return {"channel": options.channels[0]}
        case OutboxOptions():
            return {"wakes": options.wake == "notify", "fires_always": options.fire_always}
        case _:
            return {}


def needs_of(settings: Settings) -> tuple[Need, ...]:
    """What the rules of the settings need of the database."""
    from invalidator.preflight.needs import needs
    from invalidator.rules import document

    return needs(document.load(settings.rules).rules)
