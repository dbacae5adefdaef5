"""The composition root: settings become objects, the objects a daemon. Knows all; nobody knows it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invalidator import __version__, registry, reloading
from invalidator.admin import Admin
from invalidator.config.agreement import check_agreement, tag_grammars
from invalidator.config.needs import needs
from invalidator.continuity import Continuity
from invalidator.delivery import Delivery
from invalidator.delivery.journal import Journal
from invalidator.delivery.journaled import JournaledTarget
from invalidator.errors import InvalidatorError, SlotLost, most_telling
from invalidator.model import Layer, Lsn
from invalidator.net.clock import SystemClock
from invalidator.pipeline import Pipeline
from invalidator.ports import Background, Recording
from invalidator.postgres import provision
from invalidator.postgres.lookups import Lookups
from invalidator.postgres.options import DatabaseOptions, MessageOptions
from invalidator.preflight.watch import Preflight, watch_targets
from invalidator.purging import Purging
from invalidator.rules import document, testing
from invalidator.rules.covering import CdnCover
from invalidator.rules.engine import Engine
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.sources import outbox, pgoutput
from invalidator.telemetry import logs
from invalidator.telemetry.admin import AdminServer
from invalidator.telemetry.events import Events
from invalidator.telemetry.server import StatusServer
from invalidator.telemetry.state import MessageState, State, TargetState
from invalidator.telemetry.watch import watch
from invalidator.unstreamed import CatalogWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import AsyncConnection

    from invalidator.config import Settings
    from invalidator.model import Gap
    from invalidator.ports import Source, Target
    from invalidator.postgres.companions import Preparation
    from invalidator.postgres.side import SideConnection
    from invalidator.rules.rule import RuleSet


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

    loop.add_signal_handler(signal.SIGHUP, daemon.ask_for_reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came during the start is handled now
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
        self._grammars = tuple(tag_grammars(settings).values())
        testing.require(loaded, cdn_grammars=self._grammars)
        self._loaded = loaded
        self._preflight: Preflight | None = None
        self._targets = self._build_targets()
        self._continuity = self._build_continuity()
        self._source = self._build_source()
        self._journal = self._build_journal()
        self._appliers = [self._applier(target) for target in self._targets]
        self._delivery = Delivery(
            [(t, settings.targets[t.name].required, settings.targets[t.name].retry) for t in self._appliers],
            settings=settings.delivery,
            events=self.events,
            states=state.targets,
            clock=clock,
        )
        self._lookups = self._build_lookups()
        self._pipeline = Pipeline(
            self._source,
            self._engine(loaded),
            self._delivery,
            events=self.events,
            clock=clock,
            continuity=self._continuity,
            lookups=self._lookups,
        )
        self._reloader = reloading.Reloader(
            settings.rules,
            loaded,
            settings=settings.reload,
            admit=self._admit,
            use=self._use,
            events=self.events,
            clock=clock,
        )
        self._reload_asked = asyncio.Event()
        self._server = StatusServer(settings.http.listen, state, clock=clock.time)
        self._admin = self._build_admin()

    async def run(self, stop: asyncio.Event) -> None:
        """Stream until told to stop; then finish what was begun, confirm it, and leave.

        Raises:
            InvalidatorError: the first failure that nothing here can mend.
        """
        await self._server.start()
        await self._admin.start()
        self._announce()
        if self._journal is not None:
            await self._journal.open()
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: the collector need not look at it again
        try:
            async with asyncio.TaskGroup() as group:
                work = [*self._delivery.tasks(), *self._pipeline.tasks()]
                work += [target.run for target in self._appliers if isinstance(target, Background)]
                background = [group.create_task(each()) for each in work]
                background.append(group.create_task(watch(self.events, self._clock.time)))
                background.append(group.create_task(self._watch_targets()))
                background.append(group.create_task(self._reloader.watch()))
                background.append(group.create_task(self._reload_when_asked()))
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
            failure = most_telling(expected)
            if isinstance(failure, SlotLost):
                self.events.slot_lost(error=str(failure))
            self.events.daemon_failed(failure)
            raise failure from None
        finally:
            await self._source.close()
            if self._lookups is not None:
                await self._lookups.close()
            await self._close_targets()
            await self._server.stop()
            await self._admin.stop()

    async def _close_targets(self) -> None:
        await self._delivery.close()
        if self._journal is not None:
            await self._journal.close()

    async def _finish(self, pipeline: asyncio.Task[None]) -> bool:
        """Stop reading, then apply and confirm what was accepted, within the grace."""
        pipeline.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pipeline
        try:
            async with asyncio.timeout(self._settings.shutdown.grace_seconds):
                await self._delivery.drain()
                await self._continuity.tend()
                await self._source.close()
                if self._journal is not None:  # what does not go out now waits in the file
                    await self._journal.drain()
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
        ruleset = self._loaded.ruleset
        self.events.rules_loaded(rules_hash=ruleset.hash, count=len(ruleset.rules))

    async def _watch_targets(self) -> None:
        await watch_targets(self._settings.preflight, self._targets, self._ruleset, self.events, self._clock)

    # ---------------------------------------------------------------- rules

    def ask_for_reload(self) -> None:
        """Read the rules again soon; returns at once."""
        self._reload_asked.set()

    def _ruleset(self) -> RuleSet:
        return self._loaded.ruleset

    def _engine(self, loaded: document.Loaded) -> Engine:
        state = self.state
        return Engine(loaded.ruleset, states=state.rules, tables=state.tables, cdn_grammars=self._grammars)

    def _coarse(self) -> Engine:
        return self._engine(self._loaded)

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self._reloader.reload(trigger="signal")

    async def _admit(self, in_force: document.Loaded, wanted: document.Loaded) -> list[str]:
        check_agreement(self._settings, wanted.ruleset, wanted.sources)
        tested = testing.require(wanted, cdn_grammars=self._grammars)
        if self._preflight is not None and wanted.ruleset.hash != in_force.ruleset.hash:
            await self._preflight.admit(in_force, wanted)
        return [result.note for result in tested.skipped]

    def _use(self, wanted: document.Loaded) -> None:
        before, self._loaded = self._loaded, wanted
        if wanted.ruleset.hash != before.ruleset.hash:
            for state in self.state.rules.values():
                state.forget_relations()
            self._pipeline.swap(self._engine(wanted))
            for name in self.state.rules.keys() - {rule.name for rule in wanted.ruleset.rules}:
                del self.state.rules[name]  # the engine of before keeps what it needs until its transaction ends
        if self._preflight is not None:
            self._preflight.use(wanted)

    # ---------------------------------------------------------------- parts

    def _build_source(self) -> Source:
        options = self._settings.source
        module = registry.load("sources", options.type)
        if not isinstance(options, DatabaseOptions):
            source: Source = module.build(options, self.events)
            return source
        lookups_dsn = self._settings.lookups.dsn.get_secret_value()
        preflight = Preflight(self._settings.preflight, options, lookups_dsn, self._loaded, self.events)
        self._preflight = preflight
        if isinstance(options, outbox.Settings):
            return outbox.build(options, self.events, inspection=preflight)
        assert isinstance(options, pgoutput.Settings)  # noqa: S101  (the only other one in a database)
        admin = self._settings.admin
        return pgoutput.build(
            options,
            self.events,
            prepare=self._preparation(options, preflight),
            inspections=(preflight, self._build_catalog_watch(options)),
            keeper=self._continuity,
            on_message=self._explicit(self.state.source.messages),
            recent_rows=admin.recent_rows if admin.socket else 0,
        )

    def _build_continuity(self) -> Continuity:
        settings = self._settings
        recorders = [
            (target.name, target, settings.targets[target.name].required)
            for target in self._targets
            if isinstance(target, Recording)
        ]
        slot = getattr(settings.source, "slot", settings.source.type)
        return Continuity(recorders, slot=slot, settings=settings.continuity, events=self.events, clock=self._clock)

    def _build_catalog_watch(self, options: pgoutput.Settings) -> CatalogWatch:
        recorders = [target for target in self._targets if isinstance(target, Recording)]
        recorders.sort(key=lambda target: not self._settings.targets[target.name].required)

        def repair(gap: Gap, on_repaired: Callable[[], None]) -> None:
            self._pipeline.repair(gap, on_repaired)

        return CatalogWatch(
            interval_seconds=self._settings.continuity.catalog_seconds,
            publication=options.publication,
            name=f"{options.slot}:catalog",
            patterns=lambda: [(rule.schema, rule.table) for rule in self._ruleset().rules],
            recorder=recorders[0] if recorders else None,
            repair=repair,
        )

    def _explicit(self, state: MessageState) -> ExplicitInvalidation:
        """Takes messages of applications; counts them in the state."""
        source = self._settings.source
        messages = source.messages if isinstance(source, pgoutput.Settings) else MessageOptions()
        return ExplicitInvalidation(
            messages.allow.model_dump(), grammars=self._grammars, state=state, is_enabled=messages.enabled
        )

    def _preparation(self, options: pgoutput.Settings, preflight: Preflight) -> Preparation:
        """Holds the database against the rules at each connect; makes publication and slot at the first, if asked to.

        Never a change to a table. A table that is not published would be silent for ever: that must be said.
        """
        request = provision.Request(options.slot, options.publication, role=None, may_alter_tables=False)
        only = frozenset({provision.Purpose.PUBLICATION, provision.Purpose.SLOT})

        async def prepare(side: SideConnection, *, is_first: bool) -> None:
            wanted = needs(self._loaded.ruleset.rules)

            async def plan(connection: AsyncConnection[Any]) -> provision.Plan:
                return provision.plan(wanted, await provision.facts(connection, wanted, request), request)

            if options.create and is_first:
                left = await side.ask(plan)
                await provision.apply(side.connection, left, only=only, report=self._report_step)
            await preflight.look(side)

        return prepare

    def _report_step(self, step: provision.Step) -> None:
        for statement in step.texts:
            self.events.setup_applied(purpose=step.purpose.value, statement=statement)

    def _build_lookups(self) -> Lookups | None:
        """None: the source is no database, and no other one is given."""
        settings = self._settings.lookups
        source = self._settings.source
        if isinstance(source, DatabaseOptions):
            return Lookups(settings, dsn=source.dsn.get_secret_value(), events=self.events)
        return Lookups(settings, dsn="", events=self.events) if settings.dsn.get_secret_value() else None

    def _build_admin(self) -> AdminServer:
        source, path = self._source, self._settings.admin.socket
        recent = source.recent if isinstance(source, pgoutput.PgoutputSource) else list
        edited = reloading.watch_file(self._settings.file)
        purging = Purging(self._delivery.deliver, self._coarse, self._grammars, self.events)
        admin = Admin(
            self._reloader,
            recent,
            self._ruleset,
            self._grammars,
            self.state,
            self._clock.time,
            self._explicit,
            edited,
            purging,
        )
        return AdminServer(Path(path) if path else None, posts=admin.posts, gets=admin.gets)

    def _build_journal(self) -> Journal | None:
        state = self._settings.state
        if not state.path:
            return None
        return Journal(state, lambda: CdnCover(self._ruleset(), self._grammars), self.events, self._clock)

    def _applier(self, target: Target) -> Target:
        """What batches are handed to: a CDN stands behind the journal, if there is one."""
        if self._journal is None or target.layer is not Layer.L3:
            return target
        options = self._settings.targets[target.name]
        return JournaledTarget(target, self._journal, required=options.required, retry=options.retry)

    def _build_targets(self) -> list[Target]:
        targets: list[Target] = []
        for name, options in self._settings.targets.items():
            target: Target = registry.load("targets", options.type).build(name, options)
            layer = target.layer.value
            self.state.targets[name] = TargetState(name, type=options.type, layer=layer, required=options.required)
            targets.append(target)
        return targets
