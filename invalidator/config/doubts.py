"""Settings and rules that can be used, and hardly do what is meant.

Names without a target, a DSN of a pooler, messages that may name nothing, a bound that nothing looks at, a debt that
nobody could remember.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from invalidator import registry, yamlfile
from invalidator.config.settings import Settings
from invalidator.credentials import is_reference
from invalidator.model import Layer
from invalidator.ports import TargetOptions
from invalidator.postgres.connection import parse_dsn
from invalidator.postgres.options import DatabaseOptions, StreamOptions
from invalidator.rules.rule import RuleSet

_LAYERS: Final = {"keys": Layer.L2, "tags": Layer.L2, "l1": Layer.L1, "cdn": Layer.L3}
_KINDS: Final = {Layer.L1: "a redis_bus", Layer.L2: "a redis_keys", Layer.L3: "a CDN"}
_POOLER_PORTS: Final = {"6432", "6543"}
_POOLER_HELP: Final = "name the server itself; a pooler is fine for lookups.dsn"


def unserved(settings: Settings, ruleset: RuleSet, sources: Mapping[str, str]) -> Iterator[yamlfile.Diagnostic]:
    """What the rules name and no target of these settings holds, once for each group; the same rules may serve others.

    Args:
        settings: tells which targets there are.
        ruleset: the rules.
        sources: the text of each rule file by its name, for the places.
    """
    served = {group for options in settings.targets.values() for group in _groups(options)}
    for group, layer in _LAYERS.items():
        rules = [rule for rule in ruleset.rules if getattr(rule.exact, group) and rule.place.file in sources]
        if group in served or not rules:
            continue
        document = yamlfile.parse(sources[rules[0].place.file], rules[0].place.file)
        names = [entry["name"] for entry in document.data["rules"]]
        span = document.key_span(("rules", names.index(rules[0].name), "invalidate", group))
        of_rules = f" of {len(rules)} rules" if len(rules) > 1 else ""
        message = f"no target of these settings holds what stands under {group}:{of_rules}, so it is dropped nowhere"
        help_text = f"add {_KINDS[layer]} to the targets; if there is no such cache here, all is well"
        at = (document.file, span.line, span.column, span.width)
        yield yamlfile.Diagnostic(*at, "layer-without-target", message, help_text, "info")


def _groups(options: TargetOptions) -> set[str]:
    """What of an invalidation a target uses. Told by its class, because building it may open connections."""
    layers = {getattr(made, "layer", None) for made in registry.classes("targets", options.type)}
    layers.add(getattr(options, "layer", None))
    return {group for group, layer in _LAYERS.items() if layer in layers} | set(getattr(options, "include", ()))


def pooled(settings: Settings) -> Iterator[yamlfile.Diagnostic]:
    """A source that is reached through a connection pooler, as far as its address tells."""
    if not isinstance(settings.source, DatabaseOptions):
        return
    written = settings.source.dsn.get_secret_value()
    parameters = parse_dsn(written) if not is_reference(written) else {}
    host, port = str(parameters.get("host", "")), str(parameters.get("port", ""))
    is_named = "-pooler." in host or "pooler" in host.split(".")
    if not is_named and port not in _POOLER_PORTS:
        return
    what = f"the host {host}" if is_named else f"port {port}"
    message = f"{what} looks like a connection pooler, and few of them let replication through"
    at = _place(settings, ("source", "dsn"))
    yield yamlfile.Diagnostic(*at, "pooler-dsn", message, _POOLER_HELP, "warning" if is_named else "info")


def unheard(settings: Settings) -> Iterator[yamlfile.Diagnostic]:
    """Explicit messages that are taken, and may name nothing."""
    if not isinstance(settings.source, StreamOptions):
        return
    messages = settings.source.messages
    if not messages.enabled or any(messages.allow.model_dump().values()):
        return
    message = "explicit messages are enabled, and may name nothing: each will be refused"
    help_text = 'say what they may name, as in allow: {keys: ["cms:"]}'
    at = _place(settings, ("source", "messages"))
    yield yamlfile.Diagnostic(*at, "messages-allow-nothing", message, help_text, "warning")


def bounds_unused(settings: Settings) -> Iterator[yamlfile.Diagnostic]:
    """A bound on WAL that nothing looks at."""
    has_slot = isinstance(settings.source, StreamOptions)
    if has_slot and settings.continuity.wal == "widen_and_skip":
        return
    for name in sorted({"wal_share", "wal_bytes"} & settings.continuity.model_fields_set):
        why = "without continuity.wal: widen_and_skip" if has_slot else f"by the source {settings.source.type}"
        message = f"nothing looks at continuity.{name} {why}"
        help_text = "add wal: widen_and_skip, or leave it out" if has_slot else "leave it out: there is no slot"
        at = _place(settings, ("continuity", name))
        yield yamlfile.Diagnostic(*at, "wal-bound-unused", message, help_text, "warning")


def debts_unwritten(settings: Settings) -> Iterator[yamlfile.Diagnostic]:
    """Positions that are to go on without a target, and no place to write down that they did."""
    targets = settings.targets.values()
    is_asked = settings.continuity.wal == "widen_and_skip" and isinstance(settings.source, StreamOptions)
    if not is_asked or not any(each.required for each in targets) or any(_keeps_record(settings, t) for t in targets):
        return
    message = "no target keeps a record, so nobody could remember what is owed: positions wait, as with wal: stall"
    help_text = "give the CDN a state.path on a volume, or leave wal: widen_and_skip out"
    at = _place(settings, ("continuity", "wal"))
    yield yamlfile.Diagnostic(*at, "debt-unwritten", message, help_text, "warning")


def _keeps_record(settings: Settings, options: TargetOptions) -> bool:
    has_journal = bool(settings.state.path) and "cdn" in _groups(options)
    return has_journal or any(hasattr(made, "keep_record") for made in registry.classes("targets", options.type))


def _place(settings: Settings, path: yamlfile.Path) -> tuple[str, int, int, int]:
    if settings.file is not None:
        document = yamlfile.read(settings.file)
        if path in document.keys:
            span = document.key_span(path)
            return document.file, span.line, span.column, span.width
    return "settings", 0, 0, 1
