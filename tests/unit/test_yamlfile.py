"""What the strict YAML loader reads, what it refuses, and where it says the mistake is."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, StrictInt, field_validator
from pydantic_core import PydanticCustomError

from invalidator import yamlfile
from invalidator.errors import ConfigError
from invalidator.yamlfile import Diagnostic, Invalid, document

FILE = "shop.yaml"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Parts(Strict):
    keys: list[str] = []
    cdn: list[str] = []


class Item(Strict):
    name: str
    events: list[Literal["insert", "update", "delete"]] = []
    parts: Parts = Parts()
    soft: StrictBool = False
    count: StrictInt = Field(default=1, ge=1)
    prefix: str | None = None
    credential: SecretStr = SecretStr("")
    dsn: SecretStr = SecretStr("")
    later: None = Field(default=None, exclude=True)

    @field_validator("prefix")
    @classmethod
    def own_words(cls, value: str | None) -> str | None:
        if value and "!" in value:
            context = {"offset": value.index("!"), "width": 1, "help": "leave it out"}
            raise PydanticCustomError("no-bangs", "'!' is too loud", context)
        return value


class File(Strict):
    version: Literal[1]
    items: list[Item] = []


def invalid(text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        yamlfile.validate(File, yamlfile.parse(text, FILE), suggestions={"on": "events"})
    return caught.value


def places(text: str) -> list[tuple[int, int, str]]:
    return [(found.line, found.column, found.code) for found in invalid(text).diagnostics]


def data(text: str) -> Any:
    return yamlfile.parse(text, FILE).data


# -- what is read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("22:22", "22:22"),
        ("0644", 644),
        ("0o17", 15),
        ("0x1F", 31),
        ("-12", -12),
        ("1_000", "1_000"),
        ("2024-01-02", "2024-01-02"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.INF", float("-inf")),
        ('"1"', "1"),
        ("'true'", "true"),
        ("user:{id}", "user:{id}"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_have_the_types_of_yaml_1_2_core(written: str, read: object) -> None:
    value = data(f"a: {written}")["a"]
    assert value == read
    assert type(value) is type(read)


def test_keys_are_always_text() -> None:
    assert data("on: 1\n1: 2\ntrue: 3\n") == {"on": 1, "1": 2, "true": 3}


def test_an_empty_file_has_no_data_and_is_validated_as_an_empty_mapping() -> None:
    assert data("# nothing\n") is None
    assert places("") == [(1, 1, "missing-field")]


def test_a_template_is_text_in_a_block_list() -> None:
    assert data("- user:{id}\n- 'a'\n") == ["user:{id}", "a"]


def test_the_place_of_every_key_and_value_is_known() -> None:
    found = yamlfile.parse('a:\n  - x: "yy"\n', FILE)
    assert found.span(("a", 0, "x"))[:4] == (2, 8, 2, 12)
    assert found.span(("a", 0, "x")).width == 4
    assert found.key_span(("a", 0, "x"))[:2] == (2, 5)
    assert found.span(("a", 5, "nowhere"))[:2] == (2, 3)  # the nearest known place around it


def test_a_byte_order_mark_does_not_move_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: {b: c, b: d}")
    with pytest.raises(Invalid) as caught:
        yamlfile.read(path)
    assert [(found.line, found.column) for found in caught.value.diagnostics] == [(1, 11)]


def test_the_pure_python_parser_gives_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &x 1\nb: {c: *x, c: '''q'}\nd: |\n  t\n"
    with_c = [(found.line, found.column, found.code) for found in _parse_errors(text)]
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    assert [(found.line, found.column, found.code) for found in _parse_errors(text)] == with_c
    assert data("a: 1\nb: 'x'\n") == {"a": 1, "b": "x"}


def _parse_errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(Invalid) as caught:
        yamlfile.parse(text, FILE)
    return caught.value.diagnostics


# -- what is refused by the parser -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "column", "help_part"),
    [
        ("keys: [user:{id}, b]", 1, 12, "needs quotes"),
        ("keys: [user:${id}, b]", 1, 14, "needs quotes"),
        ("keys: [user:{{id}}, b]", 1, 12, "needs quotes"),
        ("k: user: {id}", 1, 8, "needs quotes"),
        ("a: {id}:x", 1, 8, "needs quotes"),
        ("{{id}}: x", 1, 1, "needs quotes"),
        ("a:\n\tb: 1", 2, 1, "spaces, never tabs"),
        ("a: *user", 1, 4, "YAML alias: quote it"),
        ("l1: [*]", 1, 7, "YAML alias: quote it"),
        ("a: &anchor b", 1, 4, "quote it if it is text"),
        ("a: !tag b", 1, 4, "quote a value that starts with '!'"),
        ("<<: {a: b}", 1, 1, "write the value out"),
        ("p: %x", 1, 4, "a value that starts with '%' needs quotes"),
        ("p: @id", 1, 4, "a value that starts with '@' needs quotes"),
        ("a: 1\n---\nb: 2\n", 2, 1, "a file of its own"),
        ("a: \x07", 1, 4, "escape"),
    ],
)
def test_what_yaml_cannot_read_is_explained_at_its_place(text: str, line: int, column: int, help_part: str) -> None:
    (found,) = _parse_errors(text)
    assert (found.line, found.column, found.code) == (line, column, "yaml-syntax")
    assert help_part in (found.help or "")


def test_a_key_given_twice_names_the_first_place() -> None:
    error = invalid("version: 1\nitems:\n  - name: a\n    soft: true\n    name: b\n")
    assert str(error) == (
        "shop.yaml:5:5: error[duplicate-key]: 'name' is given twice in this mapping (first at line 3)\n"
        "   |\n"
        " 5 |     name: b\n"
        "   |     ^^^^\n"
        "   = help: keep one of the two"
    )


def test_all_parser_level_mistakes_are_reported_together() -> None:
    codes = [(found.line, found.code) for found in _parse_errors("a: &x 1\na: 2\nb: *x\nc: !!int 3\n")]
    assert codes == [(1, "yaml-syntax"), (2, "duplicate-key"), (3, "yaml-syntax"), (4, "yaml-syntax")]


def test_depth_is_bounded_before_it_can_exhaust_the_stack() -> None:
    (found,) = _parse_errors("[" * 100_000)
    assert (found.line, found.column) == (1, yamlfile.MAX_DEPTH + 1)
    assert "levels of nesting" in found.message


def test_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (yamlfile.MAX_BYTES + 1))
    with pytest.raises(Invalid, match="larger than 4 MiB"):
        yamlfile.read(path)
    with pytest.raises(Invalid, match="larger than 4 MiB"):
        yamlfile.parse("#" * (yamlfile.MAX_BYTES + 1), FILE)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 501, "0x" + "F" * 4000, "0o" + "7" * 5000])
def test_a_number_with_more_digits_than_can_be_printed_is_refused(number: str) -> None:
    (found,) = _parse_errors(f"a: {number}")
    assert (found.line, found.column, found.code) == (1, 4, "bad-value")


def test_a_long_number_of_another_kind_is_read() -> None:
    data = yamlfile.parse(f"whole: {'9' * 500}\nfraction: 0.{'1' * 5000}\ntext: '{'9' * 5000}'\n", FILE).data
    assert data == {"whole": 10**500 - 1, "fraction": 0.1111111111111111, "text": "9" * 5000}


def test_a_file_that_is_not_there_or_not_utf8_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as missing:
        yamlfile.read(tmp_path / "no.yaml")
    assert str(missing.value).endswith("no.yaml: error[unreadable-file]: cannot be read: No such file or directory")
    assert missing.value.diagnostics[0].help is None
    (tmp_path / "rules.yaml").touch()
    with pytest.raises(Invalid) as misspelt:
        yamlfile.read(tmp_path / "rule.yml")
    assert misspelt.value.diagnostics[0].help == f"did you mean '{tmp_path}/rules.yaml'?"
    bad = tmp_path / "latin.yaml"
    bad.write_bytes("a: 1\nb: é\n".encode("latin-1"))
    with pytest.raises(Invalid) as caught:
        yamlfile.read(bad)
    (found,) = caught.value.diagnostics
    assert (found.line, found.column, found.code) == (2, 4, "not-utf8")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "locked.yaml"
    path.write_text("a: 1")
    path.chmod(stat.S_IWUSR)
    with pytest.raises(Invalid, match="Permission denied"):
        yamlfile.read(path)


# -- what is refused by the model ------------------------------------------------------------------------------


def test_every_mistake_of_a_file_is_reported_in_order_with_place_and_help() -> None:
    text = (
        "version: 1\n"
        "items:\n"
        "  - name: user\n"
        "    on: [insert, update]\n"
        "    parts:\n"
        "      keys:\n"
        "        - {id}\n"
        "    cdn: [x]\n"
        "  - name: post\n"
        "    events: [insert, updtae]\n"
        "    soft: yes\n"
    )
    assert str(invalid(text)) == (
        "shop.yaml:4:5: error[unknown-field]: unknown field 'on' in item 'user'\n"
        "   |\n"
        " 4 |     on: [insert, update]\n"
        "   |     ^^\n"
        "   = help: did you mean 'events'? allowed here: count, credential, dsn, events, name, parts, prefix, soft\n"
        "\n"
        "shop.yaml:7:11: error[unquoted-template]: a template was expected here, but YAML read a mapping\n"
        "   |\n"
        " 7 |         - {id}\n"
        "   |           ^^^^\n"
        "   = help: a value that starts with '{', or stands inside [ ... ], needs quotes: '{id}'\n"
        "\n"
        "shop.yaml:8:5: error[unknown-field]: unknown field 'cdn' in item 'user'\n"
        "   |\n"
        " 8 |     cdn: [x]\n"
        "   |     ^^^\n"
        "   = help: 'cdn' is a field of 'parts': indent it under line 5\n"
        "\n"
        "shop.yaml:10:22: error[bad-value]: 'updtae' is not one of 'insert', 'update' or 'delete'\n"
        "    |\n"
        " 10 |     events: [insert, updtae]\n"
        "    |                      ^^^^^^\n"
        "   = help: did you mean 'update'?\n"
        "\n"
        "shop.yaml:11:11: error[bad-value]: true or false was expected here, but YAML read the text 'yes'\n"
        "    |\n"
        " 11 |     soft: yes\n"
        "    |           ^^^\n"
        "   = help: did you mean true?"
    )


@pytest.mark.parametrize(
    ("item", "column", "code", "message", "help_text"),
    [
        ("{name: 3}", 10, "bad-value", "text was expected here, but YAML read the number 3", "put it into quotes: '3'"),
        ("{name: true}", 10, "bad-value", "text was expected here, but YAML read true", "put it into quotes: 'true'"),
        (
            "{name: 007}",
            10,
            "bad-value",
            "text was expected here, but YAML read the number 7",
            "put it into quotes: '007'",
        ),
        (
            "{name: 1.50}",
            10,
            "bad-value",
            "text was expected here, but YAML read the number 1.5",
            "put it into quotes: '1.50'",
        ),
        ("{name: }", 10, "bad-value", "text was expected here, but YAML read nothing (null)", None),
        ("{name: [a]}", 10, "bad-value", "text was expected here, but YAML read a list", None),
        ("{name: a, count: 0}", 20, "bad-value", "0 is out of range: it must be at least 1", None),
        (
            "{name: a, count: '2'}",
            20,
            "bad-value",
            "a whole number was expected here, but YAML read the text '2'",
            "write it without quotes",
        ),
        (
            "{name: a, events: insert}",
            21,
            "bad-value",
            "a list was expected here, but YAML read the text 'insert'",
            None,
        ),
        ("{name: a, parts: [x]}", 20, "bad-value", "a mapping was expected here, but YAML read a list", None),
        ("{nmae: a, name: b}", 4, "unknown-field", "unknown field 'nmae' in item 'b'", None),
        ("{name: b, parts: {soft: x}}", 21, "unknown-field", "unknown field 'soft' in item 'b' > parts", None),
        ("{soft: true}", 3, "missing-field", "item #1 needs the field 'name'", None),
        ("{name: b, prefix: 'it''s!'}", 27, "no-bangs", "'!' is too loud", "leave it out"),
        ("null", 3, "bad-value", "a mapping was expected here, but YAML read nothing (null)", None),
    ],
)
def test_a_wrong_value_is_explained_without_the_validators_jargon(
    item: str, column: int, code: str, message: str, help_text: str | None
) -> None:
    error = invalid(f"version: 1\nitems:\n- {item}\n")
    found = error.diagnostics[0]
    assert (found.line, found.column, found.code, found.message) == (3, column, code, message)
    if help_text is not None:
        assert found.help == help_text


@pytest.mark.parametrize("value", ["[hunter2]", "{a: hunter2}", "12345678", "\n  - hunter2"])
def test_a_secret_is_shown_neither_in_the_message_nor_in_the_excerpt(value: str) -> None:
    text = str(invalid(f"version: 1\nitems:\n- name: a\n  credential: {value}\n"))
    assert "shop.yaml:4:3: error[bad-value]" in text
    assert "hunter2" not in text
    assert "12345678" not in text


def test_a_secret_under_an_unknown_field_or_in_a_url_is_masked() -> None:
    text = str(
        invalid("version: 1\napi_tokn_secret: hunter2\nurl: redis://user:hunter2@host/0\ndsn: password=hunter2\n")
    )
    assert "hunter2" not in text
    assert "redis://user:*******@host/0" in text


def test_a_secret_field_of_any_name_keeps_its_value_out_of_the_message() -> None:
    (found,) = invalid("version: 1\nitems:\n- name: a\n  dsn: 4711\n").diagnostics
    assert "4711" not in found.message


class Edge(Strict):
    zone: str
    port: StrictInt = 1


def test_a_part_of_a_document_is_validated_by_a_model_of_its_own() -> None:
    found = yamlfile.parse("targets:\n  edge: {zone: a}\n  bad: {zon: b}\n  none:\n", FILE)
    assert yamlfile.validate(Edge, found, path=("targets", "edge")).zone == "a"
    with pytest.raises(Invalid) as caught:
        yamlfile.validate(Edge, found, path=("targets", "bad"))
    assert [(each.line, each.column, each.message) for each in caught.value.diagnostics] == [
        (3, 3, "targets > bad needs the field 'zone'"),
        (3, 9, "unknown field 'zon' in targets > bad"),
    ]
    with pytest.raises(Invalid, match=r"^shop\.yaml:4:3: error\[missing-field"):
        yamlfile.validate(Edge, found, path=("targets", "none"))


def test_a_value_from_elsewhere_is_blamed_on_where_it_came_from() -> None:
    found = yamlfile.parse("targets:\n  edge: {zone: a}\n", FILE)
    with pytest.raises(Invalid) as caught:
        yamlfile.validate(
            Edge,
            found,
            path=("targets", "edge"),
            data={"zone": "a", "port": "x"},
            origins={("targets", "edge", "port"): "INVALIDATOR_TARGETS__EDGE__PORT"},
        )
    assert str(caught.value) == (
        "INVALIDATOR_TARGETS__EDGE__PORT: error[bad-value]: "
        "a whole number was expected here, but YAML read the text 'x'"
    )


def test_an_invalid_file_is_a_configuration_error() -> None:
    assert isinstance(invalid("version: 2"), ConfigError)


# -- how it is shown -------------------------------------------------------------------------------------------


def shown(source: str, column: int, width: int = 1) -> list[str]:
    return Diagnostic(FILE, 1, column, width, "code", "message").render(source).split("\n")


def test_a_source_line_cannot_steer_the_terminal() -> None:
    text = Diagnostic("a\x1b.yaml", 1, 2, 3, "code", "un\x1b[31mknown", "he\u202elp").render("a\x1b[0m\u202e\x9bb")
    assert not any(ord(character) < 0x20 and character != "\n" for character in text)
    assert "\u202e" not in text
    assert "\x9b" not in text
    assert " 1 | a\\x1b[0m\\u202e\\x9bb" in text


def test_the_caret_stands_under_the_character_behind_tabs_and_wide_and_combining_characters() -> None:
    assert shown("\ta: b", 5)[2:] == [" 1 |     a: b", "   |        ^"]
    assert shown("日本: x", 5)[2:] == [" 1 | 日本: x", "   |       ^"]
    assert shown("e\u0301: x", 5)[2:] == [" 1 | e\u0301: x", "   |    ^"]
    assert shown("日本", 1, 2)[3] == "   | ^^^^"


def test_a_very_long_line_is_cut_around_the_caret() -> None:
    place, _, line, caret = shown("x" * 1_000_000 + "!" + "y" * 1_000_000, 1_000_001)
    assert place.startswith("shop.yaml:1:1000001:")
    assert len(line) < 200
    assert line[len(caret) - 1] == "!"
    assert line.startswith(" 1 | …")
    assert line.endswith("…")


def test_a_place_behind_the_end_of_the_line_is_shown_there() -> None:
    assert shown("ab", 3)[2:] == [" 1 | ab", "   |   ^"]
    assert shown("ab", 99, 40)[3] == "   |   ^"


def test_hundreds_of_mistakes_do_not_flood_the_terminal() -> None:
    error = invalid("version: 1\n" + "".join(f"x{number}: 1\n" for number in range(500)))
    assert len(error.diagnostics) == 500
    assert str(error).endswith("… and 450 more")


# -- places inside a text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part", "line", "column"),
    [
        ("k: user:{id}", "{id}", 1, 9),
        ("k: 'it''s {id}'", "{id}", 1, 11),
        ('k: "a\\t\\u00e9\\x41{id}"', "{id}", 1, 18),
        ("k: plain text\n   goes {id} on", "{id}", 2, 9),
        ("k: 'one\n\n  two {id}'", "{id}", 3, 7),
        ('k: "one \\\n   two {id}"', "{id}", 2, 8),
        ("k: |\n  one\n    two {id}\n", "{id}", 3, 9),
        ("k: >-\n  one\n  two\n\n  three {id}\n", "{id}", 5, 9),
        ("k: |2-  # comment\n   x\n\n  {id}\n", "{id}", 4, 3),
        ("k: '日本{id}'", "{id}", 1, 7),
    ],
)
def test_a_part_of_a_text_is_found_in_the_source(text: str, part: str, line: int, column: int) -> None:
    found = yamlfile.parse(text, FILE)
    value: str = found.data["k"]
    span = found.within(("k",), value.index(part), len(part))
    assert (span.line, span.column, span.width) == (line, column, len(part))


def test_a_part_behind_the_end_of_a_text_stays_in_the_file() -> None:
    found = yamlfile.parse("k: 'ab'\ne: ''\n", FILE)
    assert found.within(("k",), 2)[:2] == (1, 7)
    assert found.within(("e",), 0)[:2] == (2, 4)


# -- anything at all -------------------------------------------------------------------------------------------

GOOD = (
    "version: 1\n"
    "items:\n"
    "  - name: user\n"
    "    parts: {keys: [\"user:{id}\", 'a'], cdn: [x]}\n"
    "    prefix: |\n"
    "      text!\n"
    "    events: [insert]\n"
)
PIECES = st.one_of(
    st.sampled_from([*"{}[]:,#&*!|>'\"%@`-?~ \t\n\r\0\x1b\x85\u2028\ufeff", "\n  ", "---\n", "<<: ", "\\x"]),
    st.characters(),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = GOOD
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 8))
        text = text[:at] + draw(PIECES) + text[at + cut :]
    return text


def check_places(text: str) -> None:
    found: tuple[Diagnostic, ...] = ()
    try:
        yamlfile.validate(File, yamlfile.parse(text, FILE))
    except Invalid as error:
        found = error.diagnostics
        assert found
    count = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text))
    assert all(1 <= each.line <= count and each.column >= 1 and each.width >= 1 for each in found)


@given(mutated())
def test_a_damaged_file_raises_nothing_but_invalid_and_names_places_inside_the_file(text: str) -> None:
    check_places(text)


@given(st.text(alphabet=st.characters(), max_size=80))
def test_any_text_raises_nothing_but_invalid(text: str) -> None:
    check_places(text)


@given(mutated())
def test_a_damaged_file_raises_nothing_but_invalid_with_the_pure_python_parser_either(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_LOADER", yaml.SafeLoader)
        check_places(text)
