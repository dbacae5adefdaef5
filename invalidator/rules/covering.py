"""Many CDN tags become few: which tags the coarse tags of rules cover, when too many wait for a CDN that is down."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from invalidator.batching import coalesce
from invalidator.model import Invalidation
from invalidator.ports import TagGrammar
from invalidator.rules.coarse import CoarseForm, rule_facts
from invalidator.rules.rule import Rule, RuleSet
from invalidator.rules.template import Literal, Template, encode


@dataclass(frozen=True, slots=True)
class _Form:
    """The CDN tags of one rule: what its exact ones look like, and its coarse ones."""

    exact: re.Pattern[bytes]
    coarse: Invalidation

    @property
    def is_expressible(self) -> bool:
        """Whether there are coarse tags, and not everything instead of one of them."""
        return bool(self.coarse) and not self.coarse.cdn_all


class CdnCover:
    """The coarse CDN tags of a rule set, and which exact tags they cover.

    A tag is a rule's if one of the rule's templates can have made it; what the coarse form of a rule covers is all that
    the rule can name. A tag that several rules can name is covered only by the coarse tags of all of them.

    Args:
        ruleset: the rules in force.
        grammars: what the configured CDNs take as a tag.
    """

    def __init__(self, ruleset: RuleSet, grammars: Sequence[TagGrammar]) -> None:
        self._forms = [_form(rule, grammars) for rule in ruleset.rules if rule.exact.cdn or rule.coarse.cdn]

    def everything(self) -> Invalidation:
        """The coarse CDN tags of every rule, for when nobody knows which tags are stale."""
        every = Invalidation()
        for form in self._forms:
            coalesce.add(every, form.coarse)
        return every

    def shrink(self, tags: Collection[bytes], wanted: int) -> tuple[set[bytes], Invalidation]:
        """Replace the tags of rules by coarse ones, most first, until no more than ``wanted`` are left.

        Args:
            tags: exact CDN tags that wait to be purged.
            wanted: how many of them may be left. More are, if no rule's coarse tags cover enough of them.

        Returns:
            The tags that are replaced, and what replaces them; tags of no rule are never among them.
        """
        groups: dict[tuple[int, ...], list[bytes]] = {}
        for tag in tags:
            makers = tuple(at for at, form in enumerate(self._forms) if form.exact.fullmatch(tag))
            groups.setdefault(makers, []).append(tag)
        replaced: set[bytes] = set()
        instead = Invalidation()
        for makers, members in sorted(groups.items(), key=lambda group: -len(group[1])):
            if len(tags) - len(replaced) <= wanted:
                break
            forms = [self._forms[at] for at in makers]
            if forms and all(form.is_expressible for form in forms):
                replaced.update(members)
                for form in forms:
                    coalesce.add(instead, form.coarse)
        return replaced, instead


def _form(rule: Rule, grammars: Sequence[TagGrammar]) -> _Form:
    whole = Invalidation()
    CoarseForm(rule, rule_facts(rule), grammars).add(whole, None)
    coarse = Invalidation(cdn=whole.cdn, cdn_soft=whole.cdn_soft, cdn_all=whole.cdn_all)
    return _Form(re.compile(b"|".join(map(_expression, rule.exact.cdn)) or rb"(?!)", re.DOTALL), coarse)


def _expression(template: Template) -> bytes:
    return b"".join(re.escape(encode(part.text)) if isinstance(part, Literal) else b".*" for part in template.parts)
