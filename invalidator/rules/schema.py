"""What a rule file may hold, as pydantic models; their attribute docstrings are the editor's and the docs' text.

Lists only, never "a text or a list": so editors complete well and errors stay exact. Unknown fields are refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, LiteralString, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from invalidator.rules import template

SUGGESTIONS: Final = {
    "on": "events",
    "event": "events",
    "operations": "events",
    "columns": "changed",
    "bulk": "bulk_over",
    "truncate": "coarse",
    "overflow": "coarse",
    "fallback": "coarse",
    "repeat": "repeat_after",
    "redis": "keys",
    "surrogate_keys": "cdn",
    "cache_tags": "cdn",
    "patterns": "l1",
}
"""What people write who know another tool → the field here."""

MAX_REPEAT_SECONDS: Final = 3600.0

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PART: Final = re.compile(r'"(?:[^"]|"")+"|[^\s".]+')


def duration_seconds(text: str) -> float:
    """How long ``500ms``, ``5s``, ``2m`` or ``1h`` is.

    Raises:
        ValueError: the text is no duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        msg = f"'{text}' is not a duration"
        raise ValueError(msg)
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def split_table(text: str) -> tuple[str, str]:
    """Schema and table of ``public.users`` or ``public."Order.Items"``, without the quotes.

    Raises:
        ValueError: the text is not of that form.
    """
    parts = [match[0] for match in _PART.finditer(text)]
    if len(parts) != 2 or ".".join(parts) != text:
        msg = f"'{text}' is not of the form schema.table"
        raise ValueError(msg)
    schema, table = (part[1:-1].replace('""', '"') if part[0] == '"' else part for part in parts)
    return schema, table


def _refuse(
    message: str, help_text: str | None = None, *, code: LiteralString = "bad-value", **context: Any
) -> NoReturn:
    """Refuse a value in our own words; ``invalidator.yamlfile.validate`` knows what the context means."""
    raise PydanticCustomError(code, "{message}", {"message": message, "help": help_text, **context})


def _check_name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        help_text = "use up to 63 lower-case letters, digits, '-', '_' and '.'; begin with a letter or a digit"
        _refuse(f"'{text[:80]}' is not a rule name", help_text)
    return text


def _check_table(text: str) -> str:
    try:
        split_table(text)
    except ValueError as error:
        bare = re.fullmatch(r"[\w*]+", text)
        help_text = f"write the schema too: public.{text}" if bare else "write schema.table, as in public.users"
        _refuse(str(error), help_text)
    if any("*" in part for part in re.findall(r'"[^"]*"', text)):
        _refuse("'*' cannot stand inside a quoted name", "write it without quotes to match any characters")
    return text


def _check_duration(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        _refuse(f"{value} has no unit", f"write {value}ms or {value}s")
    if isinstance(value, str):
        _check_seconds(value)
    return value


def _check_seconds(text: str) -> None:
    try:
        seconds = duration_seconds(text)
    except ValueError as error:
        _refuse(str(error), "write a number and ms, s, m or h, as in 500ms or 5s")
    if not 0 < seconds <= MAX_REPEAT_SECONDS:
        _refuse(f"'{text}' is out of range: it must be more than 0 and at most 1h")


def _check_template(text: str) -> str:
    control = _CONTROL.search(text)
    if control is not None:
        message = f"the control character U+{ord(control[0]):04X} cannot stand in a template"
        help_text = "after '|' or '>' YAML keeps the last line break: write '|-' or '>-', or use quotes"
        _refuse(message, help_text if control[0] == "\n" else None, offset=control.start())
    try:
        template.parse(text)
    except template.TemplateError as error:
        _refuse(error.message, error.help, code=error.code, offset=error.offset, width=error.width)
    return text


def _check_entry(text: str) -> str:
    if not text:
        _refuse("a template must not be empty")
    return _check_template(text)


def _not_yet(_value: object, info: ValidationInfo) -> None:
    _refuse(f"`{info.field_name}:` is not supported by this version", code="unsupported-field", at="key")


RuleName = Annotated[str, AfterValidator(_check_name), Field(examples=["user", "post_tags"])]
TableName = Annotated[str, AfterValidator(_check_table), Field(examples=["public.users", "tenant_*.users"])]
Duration = Annotated[str, BeforeValidator(_check_duration), Field(examples=["500ms", "5s", "2m", "1h"])]
Entry = Annotated[str, AfterValidator(_check_entry), Field(examples=["user:{id}", "post:{slug|lower|urlencode}"])]
Prefix = Annotated[str, AfterValidator(_check_template), Field(examples=["app:", "t{tenant_id}:"])]
ColumnName = Annotated[str, Field(min_length=1)]
Event = Literal["insert", "update", "delete", "truncate"]
# Room for what a later version brings; hidden from the JSON schema and from suggestions.
Later = SkipJsonSchema[Annotated[None, BeforeValidator(_not_yet)]]


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class InvalidateModel(Strict):
    """What one row makes stale, in the order in which it is dropped."""

    keys: list[Entry] = []
    """Redis keys to unlink, exact names."""
    tags: list[Entry] = []
    """Tag sets in Redis: every key recorded under the tag is unlinked, then the set itself."""
    l1: list[Entry] = []
    """Patterns published to the in-process caches. A `*` that is written here is a glob; row values are escaped."""
    cdn: list[Entry] = []
    """Tags to purge at CDNs and reverse proxies. No prefix is put before them."""


class CoarseModel(Strict):
    """What is dropped when it cannot be told exactly what is stale. Only `{meta.…}` may stand in the braces."""

    keys: list[Entry] = []
    """Redis keys; one with `*` is a pattern whose keys are found by SCAN."""
    tags: list[Entry] = []
    """Tag sets in Redis; one with `*` is a pattern over tag names."""
    l1: list[Entry] = []
    """Patterns published to the in-process caches; `*` alone clears them."""
    cdn: list[Entry] = []
    """Tags to purge at CDNs: the tags that all pages of this rule carry."""


class DefaultsModel(Strict):
    """What rules of this file have unless they say otherwise."""

    prefix: Prefix = ""
    """Put before every key, tag and L1 pattern, not before CDN tags."""
    soft: StrictBool = False
    """Mark CDN objects stale instead of removing them."""
    repeat_after: list[Duration] = []
    """Drop the same again after each of these delays."""


class RuleModel(Strict):
    """Which rows make what stale."""

    name: RuleName
    """Unique over all files; the label `rule` of metrics and logs."""
    table: TableName
    """schema.table, spelled exactly as in the database; `*` stands for any characters in either part."""
    events: Annotated[list[Event], Field(min_length=1)] = ["insert", "update", "delete", "truncate"]
    """What the rule looks at."""
    changed: Annotated[list[ColumnName], Field(min_length=1)] | None = None
    """For updates: only when one of these columns changed, or may have. Inserts and deletes always count."""
    invalidate: InvalidateModel
    """What one row makes stale."""
    coarse: CoarseModel = CoarseModel()
    """What is dropped when it cannot be told exactly what is stale: TRUNCATE, bulk changes, old values that Postgres
    did not send. What is not written here is derived from `invalidate`, but for CDN tags."""
    bulk_over: Annotated[StrictInt, Field(ge=1)] | None = None
    """More rows of this rule than this in one transaction: the coarse form replaces the exact one."""
    prefix: Prefix | None = None
    """Replaces `defaults.prefix` for this rule."""
    soft: StrictBool | None = None
    """Replaces `defaults.soft` for this rule."""
    repeat_after: list[Duration] | None = None
    """Replaces `defaults.repeat_after` for this rule."""
    when: Later = Field(default=None, exclude=True)
    lookup: Later = Field(default=None, exclude=True)


class RuleFile(Strict):
    """One file of rules."""

    version: Annotated[Literal[1], Field()]
    """The version of this format."""
    defaults: DefaultsModel = DefaultsModel()
    """What rules of this file have unless they say otherwise."""
    rules: Annotated[list[RuleModel], Field(min_length=1)]
    """The rules; their order has no meaning."""
    tests: Later = Field(default=None, exclude=True)
