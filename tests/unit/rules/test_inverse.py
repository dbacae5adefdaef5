from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.rules import document
from invalidator.rules.inverse import MAX_SOLUTIONS, droppers, search, solutions
from invalidator.rules.rule import RuleSet
from invalidator.rules.template import Literal, Template, encode, parse


def conditions(template: str, name: str, *, is_glob: bool = False) -> list[list[str]]:
    return [list(map(str, way)) for way in solutions(parse(template), encode(name), is_glob=is_glob)]


@pytest.mark.parametrize(
    ("template", "name", "found"),
    [
        ("user:{id}", "user:42", [["id = '42'"]]),
        ("user:{id}", "users:42", []),
        ("user:{id}", "user:", [["id = ''"]]),
        ("user:{id}:profile", "user:4:2:profile", [["id = '4:2'"]]),
        ("user:{id}:profile", "user:42:profiles", []),
        ("fixed", "fixed", [[]]),
        ("fixed", "fixes", []),
        ("a:{x}:{y}", "a:1:2:3", [["x = '1'", "y = '2:3'"], ["x = '1:2'", "y = '3'"]]),
        ("a:{x}:{x}", "a:1:1", [["x = '1'"]]),
        ("a:{x}:{x}", "a:1:2", []),
        ("a:{x|lower}:{x}", "a:hi:Hi", [["lower(x) = 'hi'", "x = 'Hi'"]]),
        ("a:{x|lower}:{x}", "a:hi:Ho", []),
        ("p:{slug|urlencode}", "p:caf%C3%A9", [["slug = 'café'"]]),
        ("p:{slug|urlencode}", "p:café", []),
        ("p:{slug|urlencode}", "p:caf%c3%a9", []),
        ("p:{slug|lower|urlencode}", "p:hello%20you", [["lower(slug) = 'hello you'"]]),
        ("p:{slug|lower|urlencode}", "p:Hello", []),
        ("p:{slug|urlencode|lower}", "p:caf%c3%a9", [["lower(urlencode(slug)) = 'caf%c3%a9'"]]),
        ("p:{slug|trim|upper}", "p:HI", [["upper(trim(slug)) = 'HI'"]]),
        ("u:{id|hashtag}:x", "u:{42}:x", [["id = '42'"]]),
        ("u:{id|hashtag}:x", "u:42:x", []),
        ("m:{id|md5}", "m:" + "0" * 32, [["md5(id) = '" + "0" * 32 + "'"]]),
        ("m:{id|md5}", "m:" + "0" * 31, []),
        ("m:{id|md5}", "m:" + "A" * 32, []),
        ("c:{coupon|default:'none'}", "c:none", [["coupon IS NULL"], ["coupon = 'none'"]]),
        ("c:{coupon|default:'none'}", "c:x", [["coupon = 'x'"]]),
        ("n:{new.a}:{old.a}", "n:1:2", [["new.a = '1'", "old.a = '2'"]]),
        ("q:{name}", "q:O'Hara", [["name = 'O''Hara'"]]),
        ("x:{meta.xid}", "x:99", [["meta.xid = '99'"]]),
        ("x:{meta.xid}", "x:ninety", []),
    ],
)
def test_a_name_tells_the_values_that_made_it(template: str, name: str, found: list[list[str]]) -> None:
    assert conditions(template, name) == found


@pytest.mark.parametrize(
    ("template", "name", "found"),
    [
        ("user:{id}:*", "user:42:profile", [["id = '42'"], ["id = '42:profile'"]][:1]),
        ("user:{id}:*", "user:42", []),
        ("user:?:{id}", "user:a:1", [["id = '1'"]]),
        ("user:[ab]:{id}", "user:c:1", []),
        ("user:[^ab]:{id}", "user:c:1", [["id = '1'"]]),
        ("user:[a-c]:{id}", "user:b:1", [["id = '1'"]]),
        ("user:[*]:{id}", "user:*:1", [["id = '1'"]]),
        ("user:[*]:{id}", "user:x:1", []),
        (r"user:\*", "user:*", [[]]),
    ],
)
def test_an_entry_tells_the_values_whose_pattern_covers_it(template: str, name: str, found: list[list[str]]) -> None:
    assert conditions(template, name, is_glob=True) == found


def test_the_number_of_answers_is_bounded() -> None:
    found = conditions("a{x}{y}{z}", "a" + "b" * 1000)
    assert len(found) == MAX_SOLUTIONS
    assert search(parse("a{x}{y}{z}"), b"a" + b"b" * 1000)[1] is False
    assert search(parse("a" + "{x}" * 5000), b"a") == ([], False)
    assert search(parse("a{x}"), b"ab")[1]


def load(tmp_path: Path, text: str) -> RuleSet:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return document.load([path])


def test_every_rule_that_can_drop_a_key_is_found_exact_and_coarse(tmp_path: Path) -> None:
    rules = load(
        tmp_path,
        """\
version: 1
defaults: {prefix: "shop:"}
rules:
  - {name: user, table: public.users, invalidate: {keys: ["user:{id}"], l1: ["user:{id}:*"], cdn: ["u{id}"]}}
  - {name: post, table: public.posts, invalidate: {keys: ["post:{id}"]}, coarse: {keys: ["user:*", "home"]}}
  - {name: tenant, table: t_*.users, prefix: "{meta.schema}:", invalidate: {keys: ["user:{id}"], tags: [all]}}
""",
    )

    def found(group: str, name: str) -> list[tuple[str, str, list[list[str]], bool]]:
        return [
            (each.rule.name, each.template.text, [list(map(str, way)) for way in each.solutions], each.is_coarse)
            for each in droppers(rules, group, encode(name))
        ]

    assert found("keys", "shop:user:42") == [
        ("user", "shop:user:{id}", [["id = '42'"]], False),
        ("user", "shop:user:*", [[]], True),
        ("post", "shop:user:*", [[]], True),
    ]
    assert found("keys", "shop:home") == [("post", "shop:home", [[]], True)]
    assert found("keys", "t_7:user:1")[0] == (
        "tenant",
        "{meta.schema}:user:{id}",
        [["meta.schema = 't_7'", "id = '1'"]],
        False,
    )
    assert found("keys", "other:user:1") == []
    assert [each[0] for each in found("l1", "shop:user:42:profile")] == ["user", "user"]
    assert found("cdn", "u7") == [("user", "u{id}", [["id = '7'"]], False)]
    assert [each[0] for each in found("tags", "t_7:all")] == ["tenant", "tenant"]


COLUMNS = ("a", "b")
FILTER_CHAINS = st.lists(
    st.sampled_from(["lower", "upper", "trim", "urlencode", "md5", "sha1", "sha256", "hashtag", "default:'n'"]),
    max_size=3,
)
REFERENCES = st.builds(
    lambda column, filters: "{" + "|".join([column, *filters]) + "}", st.sampled_from(COLUMNS), FILTER_CHAINS
)
TEXTS = st.sampled_from(["x:", ":", "/", "-y"])
TEMPLATES = st.lists(st.one_of(TEXTS, REFERENCES), min_size=1, max_size=5).map("".join)
VALUES = st.one_of(
    st.none(), st.sampled_from([b"", b"1", b"Hello You", b"caf\xc3\xa9", b"\xff:", b":", b"x:y"]), st.binary(max_size=4)
)


def rendered(template: Template, row: dict[str, bytes | None]) -> bytes | None:
    made = b""
    for part in template.parts:
        value = encode(part.text) if isinstance(part, Literal) else part.filtered(row[part.name])
        if value is None:
            return None
        made += value
    return made


def fits(way: tuple[object, ...], row: dict[str, bytes | None]) -> bool:
    return all(value.holds(row[value.reference.name]) for value in way)  # type: ignore[attr-defined]


@given(TEMPLATES, VALUES, VALUES)
def test_the_values_that_made_a_name_are_among_the_answers(text: str, a: bytes | None, b: bytes | None) -> None:
    template, row = parse(text), {"a": a, "b": b}
    name = rendered(template, row)
    if name is None:
        return
    found, is_complete = search(template, name)
    assert not is_complete or any(fits(way, row) for way in found), (text, row, found)
    for way in found:  # and each answer whose values are exact makes the name again
        exact = {value.reference.name: value.text for value in way if not value.reference.filters}
        if {reference.name for reference in template.references} <= exact.keys():
            assert rendered(template, {**row, **exact}) == name
