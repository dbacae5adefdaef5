"""Settings become parts: each function makes one part of the daemon that ``app`` puts together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from invalidator import registry
from invalidator.continuity import Continuity
from invalidator.continuity.unstreamed import Beside, CatalogWatch, Look
from invalidator.delivery import Delivery
from invalidator.delivery.journal import Journal
from invalidator.delivery.journaled import JournaledTarget
from invalidator.model import Gap, Layer
from invalidator.ports import Recording
from invalidator.postgres import provision
from invalidator.postgres.catalog import unstreamed
from invalidator.postgres.lookups import Lookups
from invalidator.postgres.options import DatabaseOptions, MessageOptions
from invalidator.preflight.needs import needs
from invalidator.preflight.watch import Preflight
from invalidator.rules.covering import CdnCover
from invalidator.rules.engine import Engine
from invalidator.rules.explicit import ExplicitInvalidation
from invalidator.sources import notify, outbox, pgoutput
from invalidator.telemetry.state import MessageState, State, TargetState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from invalidator.config import Settings
    from invalidator.ports import Clock, Source, TagGrammar, Target
    from invalidator.postgres.companions import Inspection, Preparation
    from invalidator.postgres.side import SideConnection
    from invalidator.rules.document import Loaded
    from invalidator.rules.rule import RuleSet
    from invalidator.telemetry.events import Events

Repair = Callable[[Gap, Callable[[], None]], None]
"""Takes a gap, and what to call when it is made good."""


class RulesInUse:
    """The rule files as they are in force now.

    Args:
        loaded: as they were read at the start.
        grammars: of the CDNs that there are.
        state: counts what each rule does.
    """

    def __init__(self, loaded: Loaded, grammars: tuple[TagGrammar, ...], state: State) -> None:
        self.loaded = loaded
        self.grammars = grammars
        self._state = state

    def __repr__(self) -> str:
        return f"<RulesInUse {self.ruleset.hash}>"

    @property
    def ruleset(self) -> RuleSet:
        """Its rules."""
        return self.loaded.ruleset

    def engine(self) -> Engine:
        """Made anew: it can bind tables and give coarse forms."""
        return Engine(self.ruleset, states=self._state.rules, tables=self._state.tables, cdn_grammars=self.grammars)

    def explicit(self, messages: MessageOptions, state: MessageState) -> ExplicitInvalidation:
        """Takes messages of applications; counts them in the state given."""
        return ExplicitInvalidation(
            messages.allow.model_dump(), grammars=self.grammars, state=state, is_enabled=messages.enabled
        )


def build_targets(settings: Settings, state: State) -> list[Target]:
    """Every target of the settings, in their order."""
    targets: list[Target] = []
    for name, options in settings.targets.items():
        target: Target = registry.load("targets", options.type).build(name, options)
        state.targets[name] = TargetState(name, type=options.type, layer=target.layer.value, required=options.required)
        targets.append(target)
    return targets


def build_journal(settings: Settings, rules: RulesInUse, events: Events, clock: Clock) -> Journal | None:
    """What takes the work of CDNs, if the settings name a file for it."""
    if not settings.state.path:
        return None
    return Journal(settings.state, lambda: CdnCover(rules.ruleset, rules.grammars), events, clock)


def applier(target: Target, journal: Journal | None, settings: Settings) -> Target:
    """What batches are handed to: a CDN stands behind the journal, if there is one."""
    if journal is None or target.layer is not Layer.L3:
        return target
    options = settings.targets[target.name]
    return JournaledTarget(target, journal, required=options.required, retry=options.retry)


def build_delivery(
    settings: Settings, appliers: Sequence[Target], state: State, events: Events, clock: Clock
) -> Delivery:
    """What brings batches to the targets."""
    options = settings.targets
    return Delivery(
        [(target, options[target.name].required, options[target.name].retry) for target in appliers],
        settings=settings.delivery,
        events=events,
        states=state.targets,
        clock=clock,
    )


def build_continuity(settings: Settings, appliers: Sequence[Target], events: Events, clock: Clock) -> Continuity:
    """What notices missing changes, by a record beside each target that can keep one."""
    recorders = [
        (target.name, target, settings.targets[target.name].required)
        for target in appliers
        if isinstance(target, Recording)
    ]
    return Continuity(
        recorders,
        slot=settings.source.record_name,
        settings=settings.continuity,
        events=events,
        clock=clock,
        targets=[target.name for target in appliers],
    )


def build_lookups(settings: Settings, events: Events) -> Lookups | None:
    """None: the source is no database, and no other one is given."""
    own = settings.lookups.address
    if isinstance(settings.source, DatabaseOptions):
        return Lookups(settings.lookups, dsn=settings.source.address, events=events)
    return Lookups(settings.lookups, dsn="", events=events) if own else None


def build_preflight(settings: Settings, rules: RulesInUse, events: Events) -> Preflight | None:
    """What holds the database against the rules again and again; None: the source is no database."""
    if not isinstance(settings.source, DatabaseOptions):
        return None
    return Preflight(settings.preflight, settings.source, settings.lookups.address, rules.loaded, events)


def build_source(
    settings: Settings,
    events: Events,
    *,
    rules: RulesInUse,
    preflight: Preflight | None,
    continuity: Continuity,
    catalog_watch: CatalogWatch | None,
) -> Source:
    """The source of the settings, with what looks after it while it streams."""
    options = settings.source
    recent_rows = settings.admin.recent_rows if settings.admin.socket else 0
    if isinstance(options, outbox.Settings):
        looking = _inspections(preflight, catalog_watch)
        return outbox.build(options, events, inspections=looking, recent_rows=recent_rows)
    if isinstance(options, notify.Settings):
        return notify.build(options, events, inspection=preflight, keeper=continuity, recent_rows=recent_rows)
    if not isinstance(options, pgoutput.Settings):
        source: Source = registry.load("sources", options.type).build(options, events)
        return source
    assert preflight is not None  # noqa: S101  (it is a database)
    return pgoutput.build(
        options,
        events,
        prepare=_preparation(options, rules, preflight, events),
        inspections=_inspections(preflight, catalog_watch),
        keeper=continuity,
        on_message=rules.explicit(options.messages, events.state.source.messages),
        on_ddl=catalog_watch.take if catalog_watch is not None else None,
        recent_rows=recent_rows,
    )


def build_catalog_watch(
    settings: Settings, appliers: Sequence[Target], rules: RulesInUse, continuity: Continuity, repair: Repair
) -> CatalogWatch | None:
    """What looks for changes that neither a stream nor an outbox tells; None: the source is none of them."""
    options = settings.source
    look: Look
    if isinstance(options, pgoutput.Settings):
        look = partial(unstreamed.look, publication=options.publication)
    elif isinstance(options, outbox.Settings):
        look = unstreamed.look_at_triggers
    else:
        return None
    recorders = [(target.name, target) for target in appliers if isinstance(target, Recording)]
    recorders.sort(key=lambda each: (not settings.targets[each[0]].required, each[1].lies_apart))
    beside = None
    if recorders:
        name, recorder = recorders[0]
        beside = Beside(recorder, f"{settings.source.record_name}:catalog", lambda: continuity.owns_record(name))
    return CatalogWatch(
        interval_seconds=settings.continuity.catalog_seconds,
        look=look,
        patterns=lambda: [(rule.schema, rule.table) for rule in rules.ruleset.rules],
        beside=beside,
        repair=repair,
        wants=lambda schema, table: bool(rules.ruleset.for_table(schema, table)),
    )


def _inspections(preflight: Preflight | None, catalog_watch: CatalogWatch | None) -> tuple[Inspection, ...]:
    return tuple(each for each in (preflight, catalog_watch) if each is not None)


def _preparation(options: pgoutput.Settings, rules: RulesInUse, preflight: Preflight, events: Events) -> Preparation:
    """Holds the database against the rules at each connect; makes publication and slot at the first, if asked to.

    Never a change to a table. A table that is not published would be silent for ever: that must be said.
    """
    request = provision.Request(
        options.slot, options.publication, role=None, may_alter_tables=False, wants_failover=True
    )
    only = frozenset({provision.Purpose.PUBLICATION, provision.Purpose.SLOT})

    def report(step: provision.Step) -> None:
        for statement in step.texts:
            events.setup_applied(purpose=step.purpose.value, statement=statement)

    async def prepare(side: SideConnection, *, is_first: bool) -> None:
        wanted = needs(rules.ruleset.rules)

        async def plan(connection: AsyncConnection[Any]) -> provision.Plan:
            return provision.plan(wanted, await provision.facts(connection, wanted, request), request)

        if options.create and is_first:
            left = await side.ask(plan)
            await provision.apply(side.connection, left, only=only, report=report)
        await preflight.look(side)

    return prepare
