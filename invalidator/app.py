"""The composition root: settings become objects, the objects a daemon. Knows all; nobody knows it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING, Any

from invalidator import __version__, registry
from invalidator.config.agreement import check_agreement, tag_grammars
from invalidator.config.needs import needs
from invalidator.delivery import Delivery
from invalidator.errors import ConfigError, InvalidatorError, SlotLost
from invalidator.model import Lsn
from invalidator.net.clock import SystemClock
from invalidator.pipeline import Pipeline
from invalidator.ports import Background
from invalidator.postgres import provision
from invalidator.postgres.lookups import Lookups
from invalidator.rules import document
from invalidator.rules.engine import Engine
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.sources import pgoutput
from invalidator.telemetry import logs
from invalidator.telemetry.events import Events
from invalidator.telemetry.server import StatusServer
from invalidator.telemetry.state import State, TargetState
from invalidator.telemetry.watch import watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import AsyncConnection

    from invalidator.config import Settings
    from invalidator.ports import Source, Target
    from invalidator.postgres.side import SideConnection


def run(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; the result is the exit code.

    Raises:
        ConfigError: something is wrong that only an operator can mend; nothing was started.
        InvalidatorError: the stream cannot go on.
    """
    state = State(version=__version__)
    output = logs.configure(level=settings.log.level, form=settings.log.format, counts=state.log_messages)
    try:
        asyncio.run(_until_told(settings, state))
    finally:
        output.close()
    return 0


async def _until_told(settings: Settings, state: State) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    daemon = Daemon(settings, state)

    def on_signal(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)  # a second one ends the process at once
        daemon.events.daemon_stopping(signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await daemon.run(stop)


class Daemon:
    """One daemon: a source, rules, targets, and what watches them.

    Args:
        settings: everything it is told.
        state: what it shows; the caller may look at it meanwhile.

    Raises:
        ConfigError: rules, targets and settings do not fit together.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self.state = state
        self._settings = settings
        self._clock = clock = SystemClock()
        self.events = Events(state, clock.time)
        loaded = document.load_with_warnings(settings.rules)
        check_agreement(settings, loaded.ruleset, loaded.sources)
        self._ruleset = loaded.ruleset
        self._engine = Engine(
            loaded.ruleset,
            states=state.rules,
            tables=state.tables,
            cdn_grammars=tuple(tag_grammars(settings).values()),
        )
        self._source = self._build_source()
        self._targets = self._build_targets()
        self._delivery = Delivery(
            [(t, settings.targets[t.name].required, settings.targets[t.name].retry) for t in self._targets],
            settings=settings.delivery,
            events=self.events,
            states=state.targets,
            clock=clock,
        )
        self._lookups = self._build_lookups()
        self._pipeline = Pipeline(
            self._source, self._engine, self._delivery, events=self.events, clock=clock, lookups=self._lookups
        )
        self._server = StatusServer(settings.http.listen, state, clock=clock.time)

    async def run(self, stop: asyncio.Event) -> None:
        """Stream until told to stop; then finish what was begun, confirm it, and leave.

        Raises:
            InvalidatorError: the first failure that nothing here can mend.
        """
        await self._server.start()
        self._announce()
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: the collector need not look at it again
        try:
            async with asyncio.TaskGroup() as group:
                work = [*self._delivery.tasks(), *(t.run for t in self._targets if isinstance(t, Background))]
                background = [group.create_task(each()) for each in work]
                background.append(group.create_task(watch(self.events, self._clock.time)))
                pipeline = group.create_task(self._pipeline.run())
                await stop.wait()
                is_clean = await self._finish(pipeline)
                for task in background:
                    task.cancel()
            self.events.daemon_stopped(confirmed=Lsn(self.state.source.confirmed_position), clean=is_clean)
        except ExceptionGroup as failures:
            expected, unexpected = failures.split(InvalidatorError)
            if expected is None or unexpected is not None:
                raise
            failure = _most_telling(expected)
            if isinstance(failure, SlotLost):
                self.events.slot_lost(error=str(failure))
            self.events.daemon_failed(failure)
            raise failure from None
        finally:
            await self._source.close()
            if self._lookups is not None:
                await self._lookups.close()
            await self._delivery.close()
            await self._server.stop()

    async def _finish(self, pipeline: asyncio.Task[None]) -> bool:
        """Stop reading, then apply and confirm what was accepted, within the grace."""
        pipeline.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pipeline
        try:
            async with asyncio.timeout(self._settings.shutdown.grace_seconds):
                await self._delivery.drain()
        except TimeoutError:
            return False  # what is not applied is not confirmed, and comes again
        finally:
            await self._source.close()
        return True

    def _announce(self) -> None:
        self.events.daemon_started(
            version=__version__,
            facts={
                "source": self._settings.source.type,
                "slot": self.state.source.slot,
                "targets": [target.name for target in self._targets],
                "http": self._server.address,
            },
        )
        self.events.rules_loaded(rules_hash=self._ruleset.hash, count=len(self._ruleset.rules))

    def _build_source(self) -> Source:
        options = self._settings.source
        module = registry.load("sources", options.type)
        if isinstance(options, pgoutput.Settings):
            return pgoutput.build(
                options, self.events, prepare=self._preparation(options), on_message=self._on_message(options)
            )
        source: Source = module.build(options, self.events)
        return source

    def _on_message(self, options: pgoutput.Settings) -> ExplicitInvalidation | None:
        if not options.messages.enabled:
            return None
        return ExplicitInvalidation(
            options.messages.allow.model_dump(),
            grammars=tuple(tag_grammars(self._settings).values()),
            state=self.state.source.messages,
        )

    def _preparation(self, options: pgoutput.Settings) -> pgoutput.Preparation:
        """Holds the database against the rules at each connect; makes publication and slot at the first, if asked to.

        Never a change to a table. A table that is not published would be silent for ever: that must be said.
        """
        wanted = needs(self._ruleset.rules)
        request = provision.Request(options.slot, options.publication, role=None, may_alter_tables=False)
        only = frozenset({provision.Purpose.PUBLICATION, provision.Purpose.SLOT})

        async def prepare(side: SideConnection, *, is_first: bool) -> None:
            async def plan(connection: AsyncConnection[Any]) -> provision.Plan:
                return provision.plan(wanted, await provision.facts(connection, wanted, request), request)

            left = await side.ask(plan)
            if options.create and is_first:
                await provision.apply(side.connection, left, only=only, report=self._report_step)
                left = await side.ask(plan)
            unpublished = [step for step in left.to_run if step.purpose is provision.Purpose.PUBLICATION]
            self.events.setup_checked(
                [finding.text for finding in left.problems]
                + [f"not done yet: {' '.join(step.texts)} ({step.why})" for step in unpublished]
            )

        return prepare

    def _report_step(self, step: provision.Step) -> None:
        for statement in step.texts:
            self.events.setup_applied(purpose=step.purpose.value, statement=statement)

    def _build_lookups(self) -> Lookups | None:
        """None: the source is no database, and no other one is given."""
        settings = self._settings.lookups
        source = self._settings.source
        if isinstance(source, pgoutput.Settings):
            return Lookups(settings, dsn=source.dsn.get_secret_value(), events=self.events)
        return Lookups(settings, dsn="", events=self.events) if settings.dsn.get_secret_value() else None

    def _build_targets(self) -> list[Target]:
        targets: list[Target] = []
        for name, options in self._settings.targets.items():
            target: Target = registry.load("targets", options.type).build(name, options)
            layer = target.layer.value
            self.state.targets[name] = TargetState(name, type=options.type, layer=layer, required=options.required)
            targets.append(target)
        return targets


def _most_telling(failures: ExceptionGroup[InvalidatorError]) -> InvalidatorError:
    """The failure that the operator should read: what only an operator can mend comes first."""
    leaves = list(_leaves(failures))
    return min(leaves, key=lambda error: not isinstance(error, (ConfigError, SlotLost)))


def _leaves(failures: ExceptionGroup[InvalidatorError]) -> Iterator[InvalidatorError]:
    for error in failures.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
