"""What a stream of changes can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from invalidator.credentials import Secret, checked_secret
from invalidator.ports import Options, SourceOptions
from invalidator.postgres.connection import Address, checked_dsn
from invalidator.postgres.replication import RECEIVE_BUFFER_BYTES

Prefix = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^*?\[\]\\\x00-\x1f\x7f]+$")]
"""Literal text: a glob character in it would match nothing."""


class AllowedNames(Options):
    """What logical messages may name: literal prefixes by kind; a kind without any may not be named at all."""

    keys: tuple[Prefix, ...] = ()
    """Prefixes of Redis keys, as in `cms:`."""
    tags: tuple[Prefix, ...] = ()
    """Prefixes of tags."""
    l1: tuple[Prefix, ...] = ()
    """Prefixes of L1 patterns."""
    cdn: tuple[Prefix, ...] = ()
    """Prefixes of CDN tags."""


class MessageOptions(Options):
    """Explicit invalidation by `pg_logical_emit_message(true, 'invalidator', …)` in the application's transaction."""

    enabled: bool = False
    """Take such messages. Any database user can emit them: allow only what all of them may invalidate."""
    allow: AllowedNames = AllowedNames()
    """What they may name."""


class DatabaseOptions(SourceOptions):
    """What every source in a Postgres can be told."""

    dsn: Annotated[Secret, AfterValidator(checked_dsn)] = Secret("")
    """Where Postgres is: ``postgresql://user@host:5432/database``, or ``file:/path`` of a file that holds this. Several
    hosts: ``postgresql://user@a,b/database``; the one that can be written to is taken. Empty: libpq's own PG*
    variables."""
    password: Annotated[Secret, AfterValidator(checked_secret)] = Secret("")
    """The password, in the place of one in the DSN. Both may be ``file:/path`` or ``command:program argument``: read
    anew for each connection, so that they may be rotated."""
    silence_seconds: float = Field(default=20, ge=1)
    """A server that says nothing for so long, not even what it is asked for meanwhile, is gone, whatever TCP says: we
    connect again."""

    @property
    def address(self) -> Address:
        """What connections are opened with."""
        return Address(self.dsn.get_secret_value(), self.password.get_secret_value())


class StreamOptions(DatabaseOptions):
    """What a stream can be told."""

    slot: str = Field(default="invalidator", pattern=r"^[a-z0-9_]{1,63}$")
    """Name of the logical replication slot. The slot is the leader lock: one daemon streams, others stand by."""
    publication: str = Field(default="invalidator", min_length=1, max_length=63)
    """Name of the publication that holds the rules' tables."""
    heartbeat_seconds: float = Field(default=10, gt=0)
    """How often a message goes through Postgres and every target to measure freshness end to end."""
    status_seconds: float = Field(default=1, gt=0, le=4)
    """How often the server is told where we are, also while targets stall."""
    max_batch_items: int = Field(default=5000, ge=1)
    """Distinct names in one batch; at this bound reading pauses until the batch is handed over."""
    max_batch_bytes: int = Field(default=16 * 1024 * 1024, ge=65536)
    """Bytes of the stream that go into one batch."""
    messages: MessageOptions = MessageOptions()
    """Explicit invalidation by logical messages."""
    receive_buffer_bytes: int = Field(default=RECEIVE_BUFFER_BYTES, ge=0)
    """Receive buffer of the stream's socket. A bounded one lets the server send fewer, larger segments. Over a network
    with more than some 20 ms of round trip it can be too small to catch up quickly: 0 leaves the size to the kernel."""

    @property
    def record_name(self) -> str:
        """The slot's name."""
        return self.slot

    @property
    def status_interval_seconds(self) -> float:
        """How often the server is told indeed: an answer is asked for with it, and needs time to come."""
        return min(self.status_seconds, self.silence_seconds / 4)
