"""Whether rules and targets fit: what neither file shows alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from invalidator import registry, yamlfile
from invalidator.config.settings import Settings
from invalidator.ports import TagGrammar, TargetOptions
from invalidator.rules.document import rules_without_coarse_cdn
from invalidator.rules.rule import Rule, RuleSet
from invalidator.rules.template import Literal, Template


def disagreements(settings: Settings, ruleset: RuleSet, sources: Mapping[str, str]) -> list[yamlfile.Diagnostic]:
    """Everything in the rules that a configured CDN could not carry out.

    Args:
        settings: tells which CDNs there are.
        ruleset: the rules.
        sources: the text of each rule file by its name, for the places.
    """
    cdns = tag_grammars(settings)
    documents = {file: yamlfile.parse(text, file) for file, text in sources.items()}
    findings = [
        finding
        for rule in ruleset.rules
        if rule.place.file in documents
        for finding in _ungrammatical(rule, cdns, documents[rule.place.file])
    ]
    silent = [name for name in cdns if not getattr(settings.targets[name], "purge_all_on_gap", False)]
    if silent:
        findings += [
            _without_coarse(rule, silent, documents[rule.place.file]) for rule in rules_without_coarse_cdn(ruleset)
        ]
    return findings


def tag_grammars(settings: Settings) -> dict[str, TagGrammar]:
    """The targets that purge by tag, and what they take as a tag.

    Told by their class, because building a target may open connections.
    """
    grammars = ((name, _grammar(options)) for name, options in settings.targets.items())
    return {name: grammar for name, grammar in grammars if grammar is not None}


def check_agreement(settings: Settings, ruleset: RuleSet, sources: Mapping[str, str]) -> None:
    """Refuse rules that a configured CDN could not carry out.

    Raises:
        yamlfile.Invalid: holds all of them.
    """
    findings = disagreements(settings, ruleset, sources)
    if findings:
        raise yamlfile.Invalid(findings, sources)


def _grammar(options: TargetOptions) -> TagGrammar | None:
    for made in registry.classes("targets", options.type):
        grammar = getattr(made, "tag_grammar", None)
        if isinstance(grammar, TagGrammar):
            return grammar
    return None


def _ungrammatical(
    rule: Rule, cdns: Mapping[str, TagGrammar], document: yamlfile.Document
) -> Iterator[yamlfile.Diagnostic]:
    for section, templates in (("invalidate", rule.exact.cdn), ("coarse", rule.coarse.cdn)):
        for index, template in enumerate(templates):
            refusing = [name for name, grammar in cdns.items() if not _fits(template, grammar)]
            if not refusing:
                continue
            span = document.span((*_path(rule, document), section, "cdn", index))
            grammar = cdns[refusing[0]]
            message = f"'{template.text}' cannot be a tag at {', '.join(refusing)} ({grammar.provider})"
            help_text = f"a tag there is {grammar.description}, and has at most {grammar.max_bytes} bytes"
            yield document.diagnostic(span, "cdn-tag-grammar", message, help_text)


def _fits(template: Template, grammar: TagGrammar) -> bool:
    """Whether the literal parts alone are allowed; what rows put between them is checked at run time."""
    literals = [part.text.encode() for part in template.parts if isinstance(part, Literal)]
    return grammar.allows(b"".join(literals)) if literals else True


def _without_coarse(rule: Rule, targets: Sequence[str], document: yamlfile.Document) -> yamlfile.Diagnostic:
    span = document.key_span((*_path(rule, document), "invalidate", "cdn"))
    message = (
        f"rule '{rule.name}' has CDN tags but no coarse one: after a TRUNCATE, a bulk change or a gap,"
        f" {', '.join(targets)} could not be told what is stale"
    )
    consent = f"targets.{targets[0]}.purge_all_on_gap: true"
    help_text = f'coarse: {{cdn: ["some-tag-that-all-these-pages-carry"]}}\nor let everything be purged then: {consent}'
    return document.diagnostic(span, "coarse-missing", message, help_text)


def _path(rule: Rule, document: yamlfile.Document) -> yamlfile.Path:
    rules = document.data.get("rules", ()) if isinstance(document.data, dict) else ()
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in rules]
    return ("rules", names.index(rule.name)) if rule.name in names else ()
