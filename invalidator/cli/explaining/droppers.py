"""``explain --key`` and its like: which rules can drop a name, and with what row values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invalidator.rules.document import Loaded
    from invalidator.rules.inverse import Dropper

_NOUNS = {"keys": "key", "tags": "tag", "l1": "L1 entry", "cdn": "CDN tag"}


def lines(loaded: Loaded, found: Sequence[Dropper], group: str, name: str) -> list[str]:
    """For people: a line for each template and way, coarse forms last."""
    made = [line for each in found if not each.is_coarse for line in _exact(loaded, each)]
    made += [_coarse(each) for each in found if each.is_coarse]
    if not made:
        made = [f"no rule can drop the {_NOUNS[group]} {name}", *_nearest(loaded, group, name)]
        made += _by_tags(loaded) if group == "keys" else []
    everything = [rule.name for rule in loaded.ruleset.rules if group == "cdn" and rule.coarse.cdn_all]
    if everything:
        made.append(f"also by everything at the CDN, the coarse form of {', '.join(everything)} (no coarse CDN tag)")
    return made


def _exact(loaded: Loaded, dropper: Dropper) -> Iterator[str]:
    rule, text = dropper.rule, dropper.template.text
    place = loaded.places.get((rule.name, dropper.group, text), rule.place)
    head = f"rule {rule.name} ({place.file}:{place.line})  {text}  {rule.schema}.{rule.table}"
    ways = [" and ".join(map(str, way)) or "any row" for way in dropper.solutions]
    yield head + (f"  {ways[0]}" if ways else "")
    yield from (f"{'or':>{len(head)}}  {way}" for way in ways[1:])
    if not dropper.is_complete:
        yield f"{'':>{len(head)}}  … and maybe more: too many values can stand side by side"


def _coarse(dropper: Dropper) -> str:
    rule = dropper.rule
    place = f"{rule.place.file}:{rule.place.line}"
    return f"rule {rule.name} ({place})  {dropper.template.text}  {rule.schema}.{rule.table}  with its coarse form"


def _nearest(loaded: Loaded, group: str, name: str) -> Iterator[str]:
    import difflib

    templates = {template.text: rule.name for rule in loaded.ruleset.rules for template in getattr(rule.exact, group)}
    near = difflib.get_close_matches(name, templates, 1, 0.4)
    if near:
        yield f"   = help: the nearest is {near[0]} of rule '{templates[near[0]]}'"


def _by_tags(loaded: Loaded) -> list[str]:
    """Rules cannot tell what the application put into a tag set."""
    if not any(rule.exact.tags or rule.coarse.tags or rule.coarse.tag_patterns for rule in loaded.ruleset.rules):
        return []
    return ["   = help: keys in tag sets go with their tag: if the application gave it a tag, ask with --tag TAG"]


def document(loaded: Loaded, found: Sequence[Dropper], group: str, name: str) -> dict[str, Any]:
    """For programs."""
    return {
        "kind": group,
        "name": name,
        "rules": [
            {
                "rule": each.rule.name,
                "table": f"{each.rule.schema}.{each.rule.table}",
                "template": each.template.text,
                "place": str(loaded.places.get((each.rule.name, group, each.template.text), each.rule.place)),
                "coarse": each.is_coarse,
                "complete": each.is_complete,
                "conditions": [list(map(str, way)) for way in each.solutions],
            }
            for each in found
        ],
        "cdn_all": [rule.name for rule in loaded.ruleset.rules if group == "cdn" and rule.coarse.cdn_all],
    }
