"""What the pipeline asks of its parts: the guarantees are the docstrings."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from invalidator.model import Applied, Batch, Invalidation, Layer, Lsn, Relation, Transaction, WidenReason

RowFunction = Callable[[bytes, Invalidation, Transaction], None]
"""One XLogData message (Insert, Update or Delete, its 25 header bytes included) of the relation that it was
made for: adds what the row makes stale to the invalidation. Never raises for what a row holds."""


class Options(BaseModel):
    """The options of one component as written in the settings file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RetryOptions(Options):
    """Full jitter: each wait is random between 0 and a bound that doubles up to the maximum."""

    initial_delay_seconds: float = Field(default=0.1, gt=0)
    """Bound of the first wait."""
    max_delay_seconds: float = Field(default=30, gt=0)
    """Bound that the doubling stops at."""
    deadline_seconds: float = Field(default=600, gt=0)
    """After this a best-effort target gives the batch up (counted); a required one goes on and is
    reported as a problem from then on."""


class TargetOptions(Options):
    """What every target can be told."""

    type: str
    """The component's file name."""
    required: bool = True
    """Hold the confirmed position back until this target has applied a batch. False: best effort."""
    retry: RetryOptions = RetryOptions()
    """How failed applications are tried again."""


class SourceOptions(Options):
    """What every source can be told."""

    type: str
    """The component's file name."""

    @property
    def record_name(self) -> str:
        """What our record is kept under beside each cache: daemons that share a Redis have different ones."""
        return self.type


class Rules(Protocol):
    """The compiled rules: the only thing a source knows of them."""

    def bind(self, relation: Relation) -> RowFunction | None:
        """The function for rows of this relation; None when no rule wants any of its rows.

        Called again for each Relation message, because columns and identity may have changed.
        """
        ...

    def truncate(self, relations: Sequence[Relation], invalidation: Invalidation, transaction: Transaction) -> None:
        """Add the coarse form of every rule that wants the TRUNCATE of one of these relations."""
        ...

    def widen(
        self, relation: Relation, invalidation: Invalidation, transaction: Transaction, reason: WidenReason
    ) -> None:
        """Add the coarse form of every rule of this relation: it changed, and nobody knows how."""
        ...


class RulesInForce(Rules, Protocol):
    """What the pipeline knows of them besides."""

    def coarse(self, tables: Collection[str] | None = None) -> Iterable[tuple[str, Invalidation]]:
        """The coarse form of every rule by its name, for when changes are missing; counted as widened.

        Args:
            tables: ``schema.table`` of those that it is about: only of rules for one of them. None: of all rules.
        """
        ...


class Source(Protocol):
    """Where committed changes come from."""

    async def batches(self, rules: Rules) -> AsyncIterator[Batch]:
        """Yield batches in commit order for one connection to the source.

        While the consumer works on one batch, the next one grows (natural batching) up to the bounds of the
        source, then reading pauses. What was yielded but not confirmed comes again in the next call.

        Raises:
            SourceDisconnected: call again after a pause.
            SlotInUse: another process streams; call again after a pause.
            SlotLost: changes are missing.
            ProtocolError: the stream cannot be understood.
            ConfigError: slot, publication, privileges or server settings are wrong.
        """
        yield Batch(Invalidation())  # pragma: no cover  (makes this an async generator for the type checker)

    def swap(self, rules: Rules) -> None:
        """Put other rules in force for the connection that there is: between two transactions, never inside one.

        The next call of ``batches`` brings its own.
        """
        ...

    def confirm(self, position: Lsn) -> None:
        """Tell the source that everything up to the position is applied. Positions never go back."""
        ...

    def restart(self, why: str) -> None:
        """End this connection, so that ``batches`` raises SourceDisconnected: what is not confirmed comes again."""
        ...

    async def close(self) -> None:
        """End the connection so that the slot is free at once."""
        ...


class Target(Protocol):
    """A place where stale entries live."""

    @property
    def layer(self) -> Layer:
        """Where it stands in the order of application."""
        ...

    @property
    def name(self) -> str:
        """Its name in the settings: the label ``target`` of metrics and logs."""
        ...

    async def apply(self, batch: Batch) -> Applied:
        """Drop everything that the batch names and this target can hold.

        Idempotent: the same batch may come again, whole or merged with others. When this returns, every reply
        was checked. A batch that names nothing for this target makes no call, unless it carries a heartbeat,
        which is answered by the cheapest round trip that proves the target alive (if there is one).
        Cancellation leaves nothing running.

        Raises:
            TargetError: not all of it was applied; see its subclasses and ``remaining``.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True, slots=True)
class TagGrammar:
    """Which CDN tags a provider takes."""

    provider: str
    pattern: re.Pattern[bytes]
    """A tag is allowed if this matches all of it."""
    max_bytes: int
    description: str
    """For messages: ``printable ASCII without space and comma``."""

    def allows(self, tag: bytes) -> bool:
        """Whether the provider would take this tag as one tag."""
        return len(tag) <= self.max_bytes and self.pattern.fullmatch(tag) is not None


@runtime_checkable
class TagPurging(Protocol):
    """A target that purges by CDN tag: rules are checked against its grammar."""

    tag_grammar: ClassVar[TagGrammar]
    consents_to_purge_all: bool
    """The settings allow ``cdn_all``; without it, rules that need it are refused at start."""


@dataclass(frozen=True, slots=True)
class ProbeFinding:
    """Something about a target that works today and will not do what it should."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    why: str | None = None
    help: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What a target answered to a probe."""

    facts: tuple[str, ...]
    """What is well, a few words each: ``Redis 8.2.1``, ``UNLINK 0.3 ms``."""
    findings: tuple[ProbeFinding, ...] = ()


@runtime_checkable
class Probing(Protocol):
    """A target that can be asked whether it would take our calls, without anything being dropped."""

    async def probe(self) -> Probe:
        """Make the cheapest calls that prove address, credentials and permission, and touch nothing that is cached.

        Raises:
            TargetError: it would not take our calls; as ``Target.apply``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What a target holds of ours beside what it caches."""

    content: bytes | None
    """None: nothing (any more)."""
    incarnation: str
    """Changes when this may be another server, or one that was started anew."""


@runtime_checkable
class Recording(Protocol):
    """A target that keeps a small record, which is lost whenever what the target applied before it may be lost.

    Writes and applications reach it over one connection in order, so a copy of the target that holds a record also
    holds everything that was applied before the record was written.
    """

    lies_apart: bool
    """The record is not kept by the cache itself, which outlives its loss; a record that cannot be written then holds
    nothing back."""

    async def load_record(self, name: str) -> Kept:
        """What is kept under this name.

        Raises:
            TargetError: as ``Target.apply``.
        """
        ...

    async def claim_record(self, name: str, owner: str, *, before: str, seconds: float) -> str:
        """Say for so long whose the record of this name is, unless somebody else has said so of late.

        Args:
            name: of the record.
            owner: names the database whose changes it is about.
            before: what we have said last, which may be replaced; empty: nothing.
            seconds: how long it is to count; 0: only look.

        Returns:
            Whose it is now; empty: nobody's.

        Raises:
            TargetError: as ``Target.apply``.
        """
        ...

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        """Replace the record, unless it is another one than expected.

        Returns:
            What is kept now: ``content`` if it was replaced.

        Raises:
            TargetError: as ``Target.apply``; also when fewer replicas have it than the settings demand.
        """
        ...


@runtime_checkable
class Forgetting(Recording, Protocol):
    """One whose records can be taken away, when nothing is to be left."""

    async def forget_record(self, name: str, *, expected: bytes) -> bool:
        """Remove the record, unless it is another one than expected; whether it is gone.

        Raises:
            TargetError: as ``Target.apply``.
        """
        ...


@runtime_checkable
class Repeating(Protocol):
    """A target that wants everything applied again some time later."""

    repeat_after_seconds: tuple[float, ...]
    """After each of these, counted from the application that succeeded."""


@runtime_checkable
class Pacing(Protocol):
    """A target that holds itself back, lest its provider refuses calls."""

    @property
    def rate_limit_wait_seconds(self) -> float:
        """How long it has waited in all."""
        ...


@runtime_checkable
class Background(Protocol):
    """A target that has something to do beside applying batches."""

    async def run(self) -> None:
        """Do it until cancelled; returns at once when the settings leave nothing to do.

        Runs in the daemon's task group beside ``apply``. Raises no TargetError: what it could not do is done next
        time, and ``apply`` is what reports a target that fails.
        """
        ...


class Clock(Protocol):
    """Time as the deciding code gets it, so that tests can turn it."""

    def time(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        ...
