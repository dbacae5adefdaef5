"""Random rule files: drawn from the schema and then spoiled, or cut out of the shipped files and then damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from invalidator.rules.schema import RuleFile
from tests.support.yaml_writer import STYLES, Node, Raw, Writer

ROOT: Final = Path(__file__).parents[2]
SCHEMA: Final[Mapping[str, Any]] = RuleFile.model_json_schema()

# -- what is right, by the name of the field -------------------------------------------------------------------------

COLUMNS: Final = ("id", "slug", "tenant_id", "status", "price", "Odd Name", "order")
EXACT: Final = (
    "users", "user:{id}", "user:{new.id}:{old.slug|lower}", 'o:{"Odd Name"}', "{meta.schema}:x:{id}", "p:{slug|md5}",
    "u:{order.user_id|hashtag}", "c:{status|default:'none'}", "a-{id}", "t:{meta.table}", "a{{b}}:{id}",
    "x:{tenant_id|urlencode|sha1}:y", "p:{post.id}", 'q:{old."order"|trim}', "m:{meta.lsn}:{id}", "user:{id}:profile",
)  # fmt: skip
COARSE: Final = ("users", "user:*", "{meta.schema}:x", "t:{meta.table}:*:y", "a-b")
ROWS: Final = (1, -2.5, "a", None, True, "2026-05-01", [1, {"a": None}], {"b": ["c"]}, "", "x y", 10**30)
TEXTS: Final[Mapping[str, Sequence[str]]] = {
    "name": ("user", "post_tags", "a.b-c", "0", "new-name"),
    "table": ("public.users", "public.users", "public.posts", "tenant_*.users", 'public."Odd.Table"', "*.*"),
    "prefix": ("app:", "", "t{tenant_id}:", "{meta.schema}:", "App\\Models\\"),
    "sql": (
        "SELECT o.user_id FROM orders o WHERE o.id = {id}",
        "WITH x AS (SELECT 1) SELECT * FROM x WHERE '{{' <> {new.slug} AND {meta.table} = 'a' -- so",
        "TABLE a",
        "select $a$ b $a$, e'\\'', {old.status} /* /* */ */",
    ),
    "when": (
        "status = 'published'", "old.price > new.price and not status", "changed(slug, price) or id in (1, 2, null)",
        "new.\"Odd Name\" is not null", "price >= -1.5", "order", "status = '2026-05-01'",
    ),
    "timeout": ("500ms", "2s"),
    "repeat_after": ("500ms", "5s", "1h", "0.5m"),
    "changed": COLUMNS,
    "identity": COLUMNS,
    "InvalidateModel.l1": (*EXACT, "user:{id}:*", "p:[ab]{id}:?", "post:*"),
    "CoarseModel.keys": COARSE,
    "CoarseModel.tags": COARSE,
    "CoarseModel.l1": (*COARSE, "*"),
    "CoarseModel.cdn": ("users", "{meta.schema}-users"),
}  # fmt: skip
INTEGERS: Final = (1, 2, 500, 100_000)
KEYS: Final[Mapping[str, Sequence[str]]] = {"lookup": ("order", "post")}

# -- what is wrong ---------------------------------------------------------------------------------------------------


_LONG: Final = (
    "x" * 3000, "0x" + "F" * 4000, "9" * 5000, "-0o" + "7" * 6000, '{"' + '"' * 41, "{a|" * 200, "(" * 300, "*a" * 40,
    "''" * 99, "[" * 40, "{" * 40, "/*" * 99, "$a$" * 99, "\\" * 99, "not " * 99, "é𝄞\u0300" * 40,
)  # fmt: skip
_RAW: Final = (
    "yes", "on", "~", "null", "true", "1", "-1", "1.0", ".nan", "-.inf", "1e999", "0x10", "0o17", "22:22", "2026-05-01",
    "{id}", "user:{id}", "{}", "[]", "[[]]", "[{}]", "*", "&", "!", "|", ">", "@", "`", "%", "-", "?", ":", "#", "*a",
    "&a x", "!!str x", "!x", "<<", "'x", '"x', "{a: 1, a: 2}", '[a, "b"]', "...", "---", "=", ",", "? x",
)  # fmt: skip
_PIECES: Final = (
    *"{}[]:,#&*!|>'\"%@`-?~.$;()<=/\\ \t\n\r\0\x1b\x7f\x85\u2028\ufeff\u202e\ud800\U0010ffff",
    "{{", "}}", "{id}", "{id", "{new.", "{meta.lsn}", "{meta.x}", "{nope.id}", "|lower", "|lowr", "|default:'", '{"',
    "''", '""', "\n  ", "\n- ", "---\n", "<<: ", "\\x", "\\u0000", "${id}", "%s", "/*", "--", "$1", "$$", " and ",
    "not ", "changed(", "old.", "in (", "null", "::text", "*", "[a-", "[^", "é", "ß", "٣", "𝄞", "\u0300",
)  # fmt: skip
PIECES: Final = st.one_of(st.sampled_from(_PIECES), st.sampled_from(_LONG), st.text(max_size=3))
WRONG: Final[st.SearchStrategy[Any]] = st.one_of(
    st.sampled_from([Raw(text) for text in (*_RAW, *_LONG)]),
    st.sampled_from([None, True, 0, -1, 1.5, "", " ", "x", [], ["x"], [[]], {}, {"a": 1}, {"id": None}, "user:{id}"]),
    st.sampled_from(_LONG),
    st.text(max_size=5),
)
_NAMES: Final = tuple(dict.fromkeys(re.findall(r'"(\w+)": \{', json.dumps(SCHEMA))))
WRONG_KEYS: Final = st.one_of(
    st.sampled_from([*_NAMES, "on", "key", "tabel", "password", "", "a b", "<<", "1", "null", "~", "[]", "é", "\n"]),
    st.sampled_from([*_LONG, *_RAW]),
    st.text(max_size=5),
)

# -- drawn from the schema -------------------------------------------------------------------------------------------


@cache
def _named(reference: str, name: str) -> st.SearchStrategy[Any]:
    return _made(SCHEMA["$defs"][reference.rpartition("/")[2]], name)


def _made(schema: Mapping[str, Any], name: str) -> st.SearchStrategy[Any]:
    """What the schema allows; ``name`` is the field that holds it."""
    if "$ref" in schema:
        return _named(schema["$ref"], name)
    if "anyOf" in schema:
        return _made(schema["anyOf"][0], name)
    if "const" in schema:
        return st.just(schema["const"])
    return st.sampled_from(schema["enum"]) if "enum" in schema else _of_type(schema, name)


def _of_type(schema: Mapping[str, Any], name: str) -> st.SearchStrategy[Any]:
    field = name.rpartition(".")[2]
    match schema.get("type"):
        case "object" if "properties" in schema:
            return _model(schema)
        case "object":
            values = schema["additionalProperties"]
            item = st.sampled_from(ROWS) if values is True else _made(values, name)
            return st.dictionaries(st.sampled_from(KEYS.get(field, COLUMNS)), item, min_size=1, max_size=3)
        case "array":
            return st.lists(_made(schema["items"], name), min_size=1, max_size=2)
        case "integer":
            return st.sampled_from(INTEGERS)
        case "boolean":
            return st.booleans()
        case _:
            return st.sampled_from(TEXTS.get(name) or TEXTS.get(field, EXACT))


def _model(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: _made(inner, f"{schema['title']}.{name}") for name, inner in schema["properties"].items()}
    needed = list(schema.get("required", ()))
    others = sorted(fields.keys() - needed)
    few = min(2, len(others))
    chosen = st.lists(st.sampled_from(others), min_size=few, max_size=5, unique=True) if others else st.just([])

    @st.composite
    def made(draw: st.DrawFn) -> dict[str, Any]:
        return {name: draw(fields[name]) for name in [*needed, *draw(chosen)]}

    return made()


_FILES: Final = _made(SCHEMA, "")
_EVENTS: Final = ("insert", "update", "delete", "truncate")


def _sensible(file: dict[str, Any]) -> dict[str, Any]:
    """The same with what the schema cannot ask for, so that most mistakes are those that are made afterwards."""
    for number, rule in enumerate(file["rules"]):
        rule["name"] += f"-{number}"
        if not rule["invalidate"]:
            rule["invalidate"]["keys"] = ["user:{id}"]
        for name in KEYS["lookup"]:
            if f"{{{name}." in str(rule["invalidate"]):
                rule.setdefault("lookup", {}).setdefault(name, {"sql": TEXTS["sql"][0]})
    for number, test in enumerate(file.get("tests", ())):
        test["name"] += f"-{number}"
        test["table"] = file["rules"][0]["table"].replace("*", "tenant_7")
        given = [event for event in _EVENTS if event in test] or ["truncate"]
        for event in given[1:]:
            del test[event]
        change = test.setdefault(given[0], {})
        images = {"update": list(change.values()), "truncate": []}.get(given[0], [change])
        for row in images:
            row.update({name: row.get(name, 1) for name in COLUMNS})
    return file


def _as_nodes(value: Any) -> Any:
    match value:
        case dict():
            return Node([(key, _as_nodes(inner)) for key, inner in value.items()])
        case list():
            return [_as_nodes(inner) for inner in value]
        case _:
            return value


def _spots(value: Any) -> Iterator[tuple[Any, int]]:
    """Every place where something stands: what it stands in, and the index there."""
    inside = [inner for _, inner in value.pairs] if isinstance(value, Node) else value
    for index, inner in enumerate(inside):
        yield value, index
        if isinstance(inner, Node | list):
            yield from _spots(inner)


def _spoil(draw: st.DrawFn, top: Node) -> None:
    """One mistake somewhere."""
    what = draw(st.sampled_from(["text", "text", "text", "text", "value", "value", "key", "drop", "twice"]))
    spots = list(_spots(top))
    texts = [(around, index) for around, index in spots if _is_read(around, index)] if what == "text" else []
    if not spots:
        return
    around, index = draw(st.sampled_from(texts or spots))
    inside = around.pairs if isinstance(around, Node) else around
    key, value = inside[index] if isinstance(around, Node) else (None, inside[index])
    if what == "drop":
        del inside[index]
        return
    if what == "twice":
        inside.insert(index, inside[index])
        return
    if what == "key" and isinstance(around, Node):
        key = draw(WRONG_KEYS)
    elif texts:
        at = draw(st.integers(0, len(value)))
        value = value[:at] + draw(PIECES) + value[at + draw(st.sampled_from([0, 0, 1, 3])) :]
    else:
        value = _as_nodes(draw(WRONG))
    inside[index] = (key, value) if isinstance(around, Node) else value


def _is_read(around: Any, index: int) -> bool:
    """Whether this is a text in a language of ours: a template, a condition, SQL, a pattern of tables, a duration."""
    value = around.pairs[index][1] if isinstance(around, Node) else around[index]
    return isinstance(value, str) and re.search(r"\W", value) is not None


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A file that the schema allows, with none to three mistakes in what it holds, and now and then in its text."""
    top = _as_nodes(_sensible(draw(_FILES)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        _spoil(draw, top)
    writer = Writer(draw(st.sampled_from([0, 2, 4, 4, 9])), draw(STYLES))
    raw = "\n".join(writer.lines(top)).encode("utf-8", "surrogatepass") + b"\n"
    return draw(damaged(raw)) if draw(st.integers(0, 5)) == 0 else raw


# -- damaged ---------------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """The file with one to three damages to its bytes or lines."""
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 2)):
            at, cut = draw(st.integers(0, len(raw))), draw(st.sampled_from([0, 0, 1, 2, 5, 20]))
            piece = draw(PIECES).encode("utf-8", "surrogatepass") if draw(st.integers(0, 9)) else draw(st.binary())
            raw = raw[:at] + piece + raw[at + cut :]
        else:
            raw = _with_lines_moved(draw, raw)
    return raw


def _with_lines_moved(draw: st.DrawFn, raw: bytes) -> bytes:
    lines = raw.split(b"\n")
    at, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["drop", "twice", "swap", "indent", "unindent", "return", "foreign"])):
        case "drop":
            del lines[at]
        case "twice":
            lines.insert(other, lines[at])
        case "swap":
            lines[at], lines[other] = lines[other], lines[at]
        case "indent":
            lines[at] = draw(st.sampled_from([b" ", b"  ", b"\t"])) + lines[at]
        case "unindent":
            lines[at] = lines[at].removeprefix(b" ")
        case "return":
            lines[at] += b"\r"
        case _:
            lines.insert(at, draw(st.sampled_from(_shipped_lines())))
    return b"\n".join(lines)


@cache
def shipped() -> tuple[str, ...]:
    """The rule files that we ship."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((ROOT / "config").rglob("*.yaml")))
    return tuple(text for text in texts if re.search(r"(?m)^rules:$", text))


@cache
def _shipped_lines() -> list[bytes]:
    return sorted({line.encode() for text in shipped() for line in text.split("\n")})


@cache
def _cut(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What stands before the rules, the rules, and the tests."""
    head, rules, tests = re.split(r"(?m)^(?:rules|tests):$", text + "tests:\n", maxsplit=2)[:3]
    return head, _items(rules), _items(tests)


def _items(text: str) -> tuple[str, ...]:
    return tuple(re.split(r"(?m)^(?=  - name:)", text.removesuffix("tests:\n"))[1:])


_MAX_LINES: Final = 60


@st.composite
def damaged_shipped(draw: st.DrawFn) -> bytes:
    """Some rules and tests of a shipped file, damaged."""
    head, rules, tests = _cut(draw(st.sampled_from(shipped())))
    text = head + "rules:\n" + "".join(draw(st.lists(st.sampled_from(rules), min_size=1, max_size=2, unique=True)))
    chosen = draw(st.lists(st.sampled_from(tests), max_size=2, unique=True)) if tests else []
    text += "tests:\n" * bool(chosen) + "".join(chosen)
    lines = text.split("\n")[:_MAX_LINES]
    return draw(damaged("\n".join(lines).encode()))
