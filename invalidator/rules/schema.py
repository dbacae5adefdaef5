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
    model_validator,
)
from pydantic_core import PydanticCustomError

from invalidator.model import WidenReason
from invalidator.rules import condition, lookup_sql, table_names, template

MAX_REPEAT_SECONDS: Final = 3600.0

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_NAME_HELP: Final = "use up to 63 lower-case letters, digits, '-', '_' and '.'; begin with a letter or a digit"
_LOOKUP_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_DURATION_HELP: Final = "write a number and ms, s, m or h, as in 500ms or 5s"
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


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


def _refuse(
    message: str, help_text: str | None = None, *, code: LiteralString = "bad-value", **context: Any
) -> NoReturn:
    """Refuse a value in our own words; ``invalidator.yamlfile.validate`` knows what the context means."""
    raise PydanticCustomError(code, "{message}", {"message": message, "help": help_text, **context})


def _check_name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        _refuse(f"'{text[:80]}' is not a rule name", _NAME_HELP)
    return text


def _check_table(text: str) -> str:
    try:
        table_names.split_table(text)
    except ValueError as error:
        _refuse(str(error), table_names.instead_of(text))
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
        _refuse(str(error), _DURATION_HELP)
    if not 0 < seconds <= MAX_REPEAT_SECONDS:
        _refuse(f"'{text}' is out of range: it must be more than 0 and at most 1h")


def _check_template(text: str) -> str:
    control = _CONTROL.search(text)
    if control is not None:
        message = f"the control character U+{ord(control[0]):04X} cannot stand in a template"
        help_text = "after '|' or '>' YAML keeps the last line break: write '|-' or '>-', or use quotes"
        _refuse(message, help_text if control[0] == "\n" else None, offset=control.start())
    try:
        template.parse(text, None)  # which lookups the rule has is not known here
    except template.TemplateError as error:
        _refuse(error.message, error.help, code=error.code, offset=error.offset, width=error.width)
    return text


def _check_sql(text: str) -> str:
    try:
        lookup_sql.parse_sql(text)
    except template.TemplateError as error:
        _refuse(error.message, error.help, code=error.code, offset=error.offset, width=error.width)
    return text


def _check_lookup_name(text: str) -> str:
    if _LOOKUP_NAME.fullmatch(text) is None:
        _refuse(
            f"'{text[:80]}' is not a lookup's name",
            "use lower-case letters, digits and '_'; begin with a letter",
            at="key",
        )
    if text in template.RESERVED_SCOPES:
        message = f"'{text}' cannot be a lookup's name: it means something else in templates"
        _refuse(message, "name it after the rows that it finds", at="key")
    return text


def _check_entry(text: str) -> str:
    if not text:
        _refuse("a template must not be empty")
    return _check_template(text)


def _check_no_boolean(value: object) -> object:
    if isinstance(value, bool):
        help_text = "remove `when:` if every row counts; a condition is a text such as status = 'published'"
        _refuse(f"{str(value).lower()} is no condition", help_text)
    return value


def _check_column_name(value: object) -> object:
    if isinstance(value, dict) and list(value.values()) == [None]:
        _refuse("a column is named here, and YAML read a mapping", f"write {next(iter(value))}")
    return value


def _check_condition(text: str) -> str:
    try:
        condition.parse(text)
    except condition.ConditionError as error:
        _refuse(error.message, error.help, code=error.code, offset=error.offset, width=error.width)
    return text


def _examples(*examples: str, pattern: re.Pattern[str], message: str) -> Any:
    """What an editor offers, the form that it checks, and what it says; the validators say more."""
    form: dict[str, Any] = {"pattern": f"^(?:{pattern.pattern})$", "patternErrorMessage": message}
    return Field(examples=list(examples), json_schema_extra=form)


RuleName = Annotated[
    str, AfterValidator(_check_name), _examples("user", "post_tags", pattern=_NAME, message=_NAME_HELP)
]
TableName = Annotated[
    str,
    AfterValidator(_check_table),
    _examples(
        "public.users",
        "tenant_*.users",
        pattern=re.compile(table_names.PATTERN),
        message="write schema.table, as in public.users",
    ),
]
Duration = Annotated[
    str,
    BeforeValidator(_check_duration),
    _examples("500ms", "5s", "2m", "1h", pattern=_DURATION, message=_DURATION_HELP),
]
Entry = Annotated[
    str,
    AfterValidator(_check_entry),
    Field(examples=["user:{id}", "post:{slug|lower|urlencode}"], json_schema_extra={"minLength": 1}),
]
Prefix = Annotated[str, AfterValidator(_check_template), Field(examples=["app:", "t{tenant_id}:"])]
Sql = Annotated[
    str, AfterValidator(_check_sql), Field(examples=["SELECT o.user_id FROM orders o WHERE o.id = {order_id}"])
]
ConditionText = Annotated[
    str,
    BeforeValidator(_check_no_boolean),
    AfterValidator(_check_condition),
    Field(examples=["status = 'published'", "old.price > new.price", "changed(status) or featured"]),
]
LookupName = Annotated[str, AfterValidator(_check_lookup_name)]
ColumnName = Annotated[str, BeforeValidator(_check_column_name), Field(min_length=1)]
Row = Annotated[dict[ColumnName, Any], Field(examples=[{"id": 1, "slug": "a"}])]
Event = Literal["insert", "update", "delete", "truncate"]
EVENTS: Final[dict[str, str]] = {
    "insert": "A row is new. There is no old image.",
    "update": "A row is another than before. There are both images; how much of the old one Postgres sends depends on "
    "the replica identity.",
    "delete": "A row is gone. There is only the old image; Postgres sends what the replica identity holds.",
    "truncate": "All rows are gone. There is no row at all, so the coarse form is dropped.",
}
"""What each event is, for the editor and the docs."""


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class InvalidateModel(Strict):
    """What one row makes stale, in the order in which it is dropped."""

    keys: Annotated[list[Entry], Field(examples=[["user:{id}", "user:{id}:profile"]])] = []
    """Redis keys to unlink, exact names."""
    tags: Annotated[list[Entry], Field(examples=[["product:{id}"]])] = []
    """Tag sets in Redis: every key recorded under the tag is unlinked, then the set itself."""
    l1: Annotated[list[Entry], Field(examples=[["user:{id}:*"]])] = []
    """Patterns published to the in-process caches. A `*` that is written here is a glob; row values are escaped."""
    cdn: Annotated[list[Entry], Field(examples=[["user-{id}"]])] = []
    """Tags to purge at CDNs and reverse proxies. No prefix is put before them."""


class CoarseModel(Strict):
    """What is dropped when it cannot be told exactly what is stale. Only `{meta.…}` may stand in the braces."""

    keys: Annotated[list[Entry], Field(examples=[["user:*"]])] = []
    """Redis keys; one with `*` is a pattern whose keys are found by SCAN."""
    tags: Annotated[list[Entry], Field(examples=[["users"]])] = []
    """Tag sets in Redis; one with `*` is a pattern over tag names."""
    l1: Annotated[list[Entry], Field(examples=[["user:*"]])] = []
    """Patterns published to the in-process caches; `*` alone clears them."""
    cdn: Annotated[list[Entry], Field(examples=[["users"]])] = []
    """Tags to purge at CDNs: the tags that all pages of this rule carry."""


class DefaultsModel(Strict):
    """What rules of this file have unless they say otherwise."""

    prefix: Prefix = ""
    """Put before every key, tag and L1 pattern, not before CDN tags."""
    soft: StrictBool = False
    """Mark CDN objects stale instead of removing them."""
    repeat_after: list[Duration] = []
    """Drop the same again after each of these delays (`ms`, `s`, `m`, `h`; at most `1h`)."""


class LookupModel(Strict):
    """A SELECT that finds rows related to the changed one, such as a parent."""

    sql: Sql
    """One SELECT. `{column}`, `{new.column}`, `{old.column}`, `{meta.schema}` and `{meta.table}` become bound
    parameters of the column's type, never text; a bare column is asked for every row image there is. It runs in a
    read-only transaction that sees what the change has committed, and whatever was committed later."""
    limit: Annotated[StrictInt, Field(ge=1, le=100_000)] = 100
    """More rows than this for one changed row: the coarse form replaces the exact one."""
    timeout: Duration | None = None
    """How long an answer may take, replaces `lookups.timeout_seconds` of the settings; after that the coarse form is
    applied."""


class RuleModel(Strict):
    """Which rows make what stale."""

    name: RuleName
    """Lower-case letters, digits, `-`, `_` and `.`; unique over all files; the label `rule` of metrics and logs."""
    table: TableName
    """schema.table, spelled exactly as in the database; `*` stands for any characters in either part."""
    events: Annotated[list[Event], Field(min_length=1)] = ["insert", "update", "delete", "truncate"]
    """What the rule looks at; all four if this is not given."""
    changed: Annotated[list[ColumnName], Field(min_length=1, examples=[["name", "email"]])] | None = None
    """For updates: only when one of these columns changed, or may have. Inserts and deletes always count."""
    invalidate: InvalidateModel
    """What one row makes stale."""
    coarse: CoarseModel = CoarseModel()
    """What is dropped when it cannot be told exactly what is stale: TRUNCATE, bulk changes, old values that Postgres
    did not send. What is not written here is derived from `invalidate`, but for CDN tags."""
    bulk_over: Annotated[StrictInt, Field(ge=1, examples=[500])] | None = None
    """More rows of this rule than this in one transaction: the coarse form replaces the exact one."""
    prefix: Prefix | None = None
    """Replaces `defaults.prefix` for this rule."""
    soft: StrictBool | None = None
    """Replaces `defaults.soft` for this rule."""
    repeat_after: list[Duration] | None = None
    """Replaces `defaults.repeat_after` for this rule."""
    when: ConditionText | None = None
    """Only rows for which this holds, or may hold. A bare column is asked of every row image there is, so the rule also
    fires for a row that leaves the condition; `new.` and `old.` narrow it."""
    lookup: dict[LookupName, LookupModel] = {}
    """SELECTs that find related rows, each under a name: `{name.column}` in a template is a column of its result.
    Both images of an UPDATE are asked for, and each row that is found makes a name."""


class UpdatedRow(Strict):
    """The images of an update. A column that only one of them gives has the same value in both."""

    old: Row
    """The row before the update."""
    new: Row
    """The row after the update."""


class NoRow(Strict):
    """A TRUNCATE carries no row."""


class ExpectModel(Strict):
    """Exactly what the rules make of the change: what is not named must not happen."""

    keys: list[str] = []
    """Redis keys that are unlinked."""
    tags: list[str] = []
    """Tag sets whose keys are unlinked."""
    key_patterns: list[str] = []
    """Patterns of Redis keys; only coarse forms make them."""
    tag_patterns: list[str] = []
    """Patterns of tag sets; only coarse forms make them."""
    l1: list[str] = []
    """Patterns that are published."""
    cdn: list[str] = []
    """CDN tags that are purged."""
    cdn_soft: list[str] = []
    """CDN tags that are marked stale, by rules with `soft: true`."""
    cdn_all: StrictBool = False
    """Everything at the CDNs: the coarse form of a rule that has no coarse CDN tag."""
    widened: list[WidenReason] = []
    """Why coarse forms are used. The reason `truncate` of a TRUNCATE need not be named."""


class InlineTestModel(Strict):
    """One change, and what all rules of all files together must make of it."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """What is tested, as a sentence; unique in the file."""
    table: TableName
    """schema.table of the changed row, without `*`."""
    insert: Row | None = None
    """The inserted row: the columns that the rules need."""
    update: UpdatedRow | None = None
    """The row before and after the update."""
    delete: Row | None = None
    """The deleted row."""
    truncate: NoRow | None = None
    """All rows are removed; write `truncate: {}`."""
    identity: Annotated[list[ColumnName], Field(min_length=1)] | None = None
    """The replica identity: of the old row only these columns are sent. Without it all of them are, as with FULL."""
    lookup: dict[str, list[Row]] = {}
    """What lookups find, by the lookup's name; stands in for the SQL."""
    expect: ExpectModel
    """Exactly what the rules make of the change; `{}` for nothing."""

    @model_validator(mode="after")
    def _check_event(self) -> InlineTestModel:
        given = [name for name in ("insert", "update", "delete", "truncate") if getattr(self, name) is not None]
        if len(given) != 1:
            named = f"has {' and '.join(given)}" if given else "has none"
            example = "write truncate: {}" if "truncate" in self.model_fields_set else "as in insert: {id: 1}"
            _refuse(
                f"a test needs exactly one of insert, update, delete and truncate; this one {named}",
                "write a test for each" if given else example,
                code="test-event",
            )
        return self


class RuleFile(Strict):
    """One file of rules."""

    version: Annotated[Literal[1], Field()]
    """The version of this format."""
    defaults: DefaultsModel = DefaultsModel()
    """What rules of this file have unless they say otherwise."""
    rules: Annotated[list[RuleModel], Field(min_length=1)]
    """The rules; their order has no meaning."""
    tests: list[InlineTestModel] = []
    """Changes and what must come of them; `invalidator test` runs them, and no rules are used whose tests fail."""
