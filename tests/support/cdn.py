"""CDN targets as the tests find them: by file, with the example values of their own options."""

from __future__ import annotations

from typing import Any

from invalidator import registry
from invalidator.model import Batch, Invalidation
from invalidator.targets.cdn._tag_purge import TagPurge

SECRET = "a-secret-of-the-tests"  # noqa: S105


def cdn_types() -> list[str]:
    """Every CDN that there is a file for."""
    return [name for name, module in registry.types("targets").items() if ".targets.cdn." in module]


def build_cdn(type_name: str, url: str, **options: object) -> TagPurge[Any]:
    """A target of this type that talks to the URL, without a rate that a test would notice."""
    module = registry.load("targets", type_name)
    fields = module.Settings.model_fields
    values: dict[str, object] = {"type": type_name, "rate_per_second": 1e6, "rate_burst": 1e6}
    for name, field in fields.items():
        if name in {"url", "api_url"}:
            values[name] = url
        elif "Secret" in str(field.annotation):
            values[name] = SECRET
        elif name not in values and field.is_required():
            values[name] = field.examples[0]
    target = module.build("edge", module.Settings.model_validate(values | options))
    assert isinstance(target, TagPurge)
    return target


def tags_batch(*tags: str, soft: tuple[str, ...] = (), everything: bool = False) -> Batch:
    """A batch that makes these CDN tags stale."""
    return Batch(
        Invalidation(cdn={tag.encode() for tag in tags}, cdn_soft={tag.encode() for tag in soft}, cdn_all=everything)
    )
