from __future__ import annotations

import hashlib
import string
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.rules.template import (
    FILTERS,
    MAX_FILTERS,
    META,
    Filter,
    Literal,
    Reference,
    Template,
    TemplateError,
    literal,
    parse,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("users", (Literal("users"),)),
        ("user:{id}", (Literal("user:"), Reference("row", "id"))),
        ("{new.a}{old.b}", (Reference("new", "a"), Reference("old", "b"))),
        ("{ id | lower }", (Reference("row", "id", (Filter("lower"),)),)),
        ("{meta.table}:", (Reference("meta", "table"), Literal(":"))),
        ('{"Weird Name"}', (Reference("row", "Weird Name"),)),
        ('{new."Order"}', (Reference("new", "Order"),)),
        ('{"say ""hi"""}', (Reference("row", 'say "hi"'),)),
        ('{"new.x"}', (Reference("row", "new.x"),)),
        ('{"a|b}c"}', (Reference("row", "a|b}c"),)),
        ("{new}{old}{meta}", (Reference("row", "new"), Reference("row", "old"), Reference("row", "meta"))),
        ("{userId}", (Reference("row", "userId"),)),
        ("{größe}", (Reference("row", "größe"),)),
        ("{a$1}", (Reference("row", "a$1"),)),
        ("a{{b}}c", (Literal("a{b}c"),)),
        ("{{{id}}}", (Literal("{"), Reference("row", "id"), Literal("}"))),
        ("{a|default:'x''}|'}", (Reference("row", "a", (Filter("default", "x'}|"),)),)),
        ('{a|default:"none"|md5}', (Reference("row", "a", (Filter("default", "none"), Filter("md5"))),)),
        ("{a|default:''}", (Reference("row", "a", (Filter("default", ""),)),)),
    ],
)
def test_a_template_is_text_and_references(text: str, parts: tuple[Literal | Reference, ...]) -> None:
    template = parse(text)
    assert template.parts == parts
    assert template.text == text


@pytest.mark.parametrize(
    ("text", "marked", "code", "help_text"),
    [
        ("user:{id", "{id", "template-syntax", "write '}' behind the name, as in {id}; '{{' is a literal brace"),
        ("user:id}", "}", "template-syntax", "write '}}' for a literal brace"),
        ("user:{}", "}", "template-syntax", "write the name of a column, as in {id}"),
        ("{1st}", "1", "template-syntax", 'put unusual column names in double quotes: {"Weird Name"}'),
        ('{""}', '""', "template-syntax", None),
        ('{"id}', '"id}', "template-syntax", None),
        ("{new.}", "}", "template-syntax", "write the name of a column, as in {id}"),
        ("{nwe.id}", "nwe", "unknown-lookup", "did you mean 'new'?"),
        ("{first name}", "n", "template-syntax", 'write {"first name"} if the column is called so'),
        ("{id|}", "}", "template-syntax", None),
        ("{id|lowr}", "lowr", "unknown-filter", "did you mean 'lower'?"),
        ("{id|zzz}", "zzz", "unknown-filter", None),
        ("{id|lower:'x'}", ":", "template-syntax", None),
        ("{id|default}", "default", "template-syntax", "write default:'none'"),
        ("{id|default:none}", "n", "template-syntax", "write default:'none'"),
        ("{id|default:'none}", "'none}", "template-syntax", None),
        ("a {meta.tabel}", "tabel", "unknown-meta", "did you mean 'table'?"),
        ('{meta."table"}', '"table"', "unknown-meta", "did you mean 'table'?"),
    ],
)
def test_an_error_says_where_and_what_was_meant(text: str, marked: str, code: str, help_text: str | None) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(text)
    error = caught.value
    assert text[error.offset : error.offset + error.width] == marked
    assert (error.code, error.help) == (code, help_text)
    assert error.message


@pytest.mark.parametrize(
    ("text", "prefix", "confined", "columns"),
    [
        ("user:{id}:x", "user:", "user:", {"id"}),
        ("{id}", "", "", {"id"}),
        ("{meta.table}:{new.id}", "", "{meta.table}:", {"id"}),
        ("all", "all", "all", set()),
        ("at {meta.lsn}", "at ", "at {meta.lsn}", set()),
    ],
)
def test_what_a_template_depends_on_is_known(text: str, prefix: str, confined: str, columns: set[str]) -> None:
    template = parse(text)
    assert template.literal_prefix == prefix
    assert template.before_row().text == confined
    assert template.columns == columns
    assert template.uses_row == bool(columns)


def test_a_literal_template_takes_braces_as_text() -> None:
    template = literal("a{b}")
    assert template.parts == (Literal("a{b}"),)
    assert parse(template.text).parts == template.parts
    assert literal("").parts == ()


NAMES = st.sampled_from(["id", "new", "a b", 'q"', "{", "}", "|", "'", "é", "1"])
FILTER = st.sampled_from([*map(Filter, FILTERS), Filter("default", "it's"), Filter("default", "")])
ROW_REFERENCES = st.builds(
    Reference, st.sampled_from(["row", "new", "old"]), NAMES, st.lists(FILTER, max_size=3).map(tuple)
)
FACT_REFERENCES = st.builds(Reference, st.just("meta"), st.sampled_from(META))


@given(st.lists(st.builds(Literal, st.text("ab{}|'\" *", max_size=4)) | ROW_REFERENCES | FACT_REFERENCES, max_size=5))
def test_the_text_of_what_confines_any_template_reads_as_the_same(parts: list[Literal | Reference]) -> None:
    confined = Template("", (Literal("x"), *parts)).before_row()
    assert parse(confined.text).parts == confined.parts


@given(st.text("{}|.'\":ab new meta\\\n", max_size=30))
def test_any_text_is_a_template_or_an_error_inside_the_text(text: str) -> None:
    try:
        parse(text)
    except TemplateError as error:
        assert 0 <= error.offset < len(text)  # noqa: PT017  (most texts are no error)
        assert 1 <= error.width <= len(text) - error.offset  # noqa: PT017


def test_the_number_of_filters_on_a_value_is_bounded() -> None:
    parse("a{x" + "|lower" * MAX_FILTERS + "}")
    text = "a{x" + "|lower" * 250 + "}"
    with pytest.raises(TemplateError, match=f"more than {MAX_FILTERS} filters") as caught:
        parse(text)
    assert text[caught.value.offset :].startswith("{x|lower")


@pytest.mark.parametrize(
    ("filters", "value", "expected"),
    [
        ("lower", "ÄB\u0130".encode(), "äbi\u0307".encode()),
        ("upper", "straße".encode(), b"STRASSE"),
        ("lower", b"A\xffB", b"a\xffb"),
        ("upper", b"a\xe9b", b"A\xe9B"),
        ("trim", " \t\u00a0x y\n ".encode(), b"x y"),
        ("trim", b" \xff ", b"\xff"),
        ("urlencode", b"a b/\xc3\xa4\xff~-._", b"a%20b%2F%C3%A4%FF~-._"),
        ("md5", b"x", hashlib.md5(b"x", usedforsecurity=False).hexdigest().encode()),
        ("sha1", b"\xff", hashlib.sha1(b"\xff", usedforsecurity=False).hexdigest().encode()),
        ("sha256", b"", b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("hashtag", b"42", b"{42}"),
        ("default:'x'", b"", b""),
        ("default:'x'", None, b"x"),
        ("default:'X'|lower|hashtag", None, b"{x}"),
        ("lower|hashtag", None, None),
        ("trim|lower|hashtag", b" A ", b"{a}"),
    ],
)
def test_filters_change_bytes(filters: str, value: bytes | None, expected: bytes | None) -> None:
    [reference] = parse(f"{{x|{filters}}}").references
    assert reference.filtered(value) == expected


@given(st.binary())
def test_urlencode_leaves_only_unreserved_characters_and_loses_nothing(value: bytes) -> None:
    encoded = FILTERS["urlencode"](value)
    assert set(encoded) <= set((string.ascii_letters + string.digits + "-._~%").encode())
    assert unquote_to_bytes(encoded) == value


@given(st.binary(), st.sampled_from(sorted(FILTERS)))
def test_no_filter_fails_on_any_bytes(value: bytes, name: str) -> None:
    assert isinstance(FILTERS[name](value), bytes)
