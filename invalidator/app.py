"""The composition root: parts become a daemon. Knows all; nobody knows it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from invalidator import __version__, reloading, wiring
from invalidator.admin.handlers import Admin
from invalidator.admin.purging import Purging
from invalidator.admin.server import AdminServer
from invalidator.admin.tailing import Recalling
from invalidator.config.agreement import check_agreement, tag_grammars
from invalidator.errors import InvalidatorError, SlotLost, most_telling
from invalidator.model import Lsn
from invalidator.net.clock import SystemClock
from invalidator.pipeline import Pipeline
from invalidator.ports import Background
from invalidator.postgres.options import MessageOptions
from invalidator.preflight.watch import watch_targets
from invalidator.rules import document, testing
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.sources import pgoutput
from invalidator.telemetry import logs
from invalidator.telemetry.events import Events
from invalidator.telemetry.server import StatusServer
from invalidator.telemetry.state import MessageState, State
from invalidator.telemetry.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from invalidator.config import Settings
    from invalidator.model import Gap


def run(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; the result is the exit code.

    Raises:
        ConfigError: something is wrong that only an operator can mend; nothing was started.
        InvalidatorError: the stream cannot go on.
    """
    state = State(version=__version__)
    output = logs.configure(
        level=settings.log.level, form=settings.log.format, counts=state.log_messages, watch=state.happenings
    )
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
        grammars = tuple(tag_grammars(settings).values())
        testing.require(loaded, cdn_grammars=grammars)
        self._rules = rules = wiring.RulesInUse(loaded, grammars, state)
        self._targets = wiring.build_targets(settings, state)
        self._journal = wiring.build_journal(settings, rules, self.events, clock)
        self._appliers = [wiring.applier(target, self._journal, settings) for target in self._targets]
        self._continuity = wiring.build_continuity(settings, self._appliers, self.events, clock)
        self._preflight = wiring.build_preflight(settings, rules, self.events)
        self._source = wiring.build_source(
            settings,
            self.events,
            rules=rules,
            preflight=self._preflight,
            continuity=self._continuity,
            catalog_watch=wiring.build_catalog_watch(settings, self._appliers, rules, self._continuity, self._repair),
        )
        self._delivery = wiring.build_delivery(settings, self._appliers, state, self.events, clock)
        self._lookups = wiring.build_lookups(settings, self.events)
        self._pipeline = Pipeline(
            self._source,
            rules.engine(),
            self._delivery,
            events=self.events,
            clock=clock,
            continuity=self._continuity,
            lookups=self._lookups,
        )
        self._reloader = self._build_reloader(loaded)
        self._reload_asked = asyncio.Event()
        self._server = StatusServer(settings.http.listen, state, clock=clock.time)
        self._admin = self._build_admin()
        self._is_released = False

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
            await self._release()
            self.events.daemon_stopped(confirmed=Lsn(self.state.source.confirmed_position), clean=is_clean)
        except ExceptionGroup as failures:
            expected, unexpected = failures.split(InvalidatorError)
            if expected is None or unexpected is not None:
                raise
            raise self._told(most_telling(expected)) from None
        finally:
            await self._release()
            await self._server.stop()
            await self._admin.stop()

    def _told(self, failure: InvalidatorError) -> InvalidatorError:
        if isinstance(failure, SlotLost):
            self.events.slot_lost(error=str(failure))
        self.events.daemon_failed(failure)
        return failure

    async def _release(self) -> None:
        """Close source and targets, once; what is said of it comes before the last line of the log."""
        if self._is_released:
            return
        self._is_released = True
        await self._source.close()
        if self._lookups is not None:
            await self._lookups.close()
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
                # crash point: drained
                await self._continuity.tend()
                await self._source.close()
                # crash point: source-closed
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
        ruleset = self._rules.ruleset
        self.events.rules_loaded(rules_hash=ruleset.hash, count=len(ruleset.rules))

    async def _watch_targets(self) -> None:
        rules = self._rules
        await watch_targets(self._settings.preflight, self._targets, lambda: rules.ruleset, self.events, self._clock)

    # ---------------------------------------------------------------- rules

    def ask_for_reload(self) -> None:
        """Read the rules again soon; returns at once."""
        self._reload_asked.set()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self._reloader.reload(trigger="signal")

    async def _admit(self, in_force: document.Loaded, wanted: document.Loaded) -> list[str]:
        check_agreement(self._settings, wanted.ruleset, wanted.sources)
        tested = testing.require(wanted, cdn_grammars=self._rules.grammars)
        if self._preflight is not None and wanted.ruleset.hash != in_force.ruleset.hash:
            await self._preflight.admit(in_force, wanted)
        return [result.note for result in tested.skipped]

    def _use(self, wanted: document.Loaded) -> None:
        before, self._rules.loaded = self._rules.loaded, wanted
        if wanted.ruleset.hash != before.ruleset.hash:
            for state in self.state.rules.values():
                state.forget_relations()
            self._pipeline.swap(self._rules.engine())
            # crash point: rules-swapped
            for name in self.state.rules.keys() - {rule.name for rule in wanted.ruleset.rules}:
                del self.state.rules[name]  # the engine of before keeps what it needs until its transaction ends
        if self._preflight is not None:
            self._preflight.use(wanted)

    # ---------------------------------------------------------------- parts

    def _repair(self, gap: Gap, on_repaired: Callable[[], None]) -> None:
        self._pipeline.repair(gap, on_repaired)

    def _explicit(self, state: MessageState) -> ExplicitInvalidation:
        source = self._settings.source
        messages = source.messages if isinstance(source, pgoutput.Settings) else MessageOptions()
        return self._rules.explicit(messages, state)

    def _build_admin(self) -> AdminServer:
        source, path, rules = self._source, self._settings.admin.socket, self._rules
        admin = Admin(
            self._reloader,
            source.recent if isinstance(source, Recalling) else list,
            lambda: rules.ruleset,
            rules.grammars,
            self.state,
            self._clock.time,
            self._explicit,
            reloading.watch_file(self._settings.file),
            Purging(self._delivery.deliver, rules.engine, rules.grammars, self.events),
            source if isinstance(source, Recalling) else None,
        )
        return AdminServer(Path(path) if path else None, posts=admin.posts, gets=admin.gets, watches=admin.watches)

    def _build_reloader(self, loaded: document.Loaded) -> reloading.Reloader:
        return reloading.Reloader(
            self._settings.rules,
            loaded,
            settings=self._settings.reload,
            admit=self._admit,
            use=self._use,
            events=self.events,
            clock=self._clock,
        )
