"""Logical messages of applications: only what is allowed is taken, whatever they hold."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.model import Invalidation
from invalidator.ports import TagGrammar
from invalidator.rules.explicit import MAX_NAMES, ExplicitInvalidation, Verdict
from invalidator.telemetry.state import MessageState

ALLOWED = {"keys": ["cms:", "shop:"], "tags": ["cms:"], "l1": ["cms:"], "cdn": ["cms-"]}
GRAMMAR = TagGrammar("edge", re.compile(rb"[!-~]+"), 40, "printable ASCII without space")


def taken(content: bytes | str | object, *, is_transactional: bool = True) -> tuple[Invalidation, MessageState]:
    state = MessageState()
    messages = ExplicitInvalidation(ALLOWED, grammars=[GRAMMAR], state=state)
    invalidation = Invalidation()
    if not isinstance(content, (bytes, str)):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content
    messages(data, is_transactional=is_transactional, invalidation=invalidation)
    return invalidation, state


def test_names_of_every_kind_are_taken() -> None:
    invalidation, state = taken({"keys": ["cms:1", "shop:é"], "tags": ["cms:t"], "l1": ["cms:1:*"], "cdn": ["cms-1"]})
    assert invalidation == Invalidation(
        keys={b"cms:1", "shop:é".encode()}, tags={b"cms:t"}, l1={b"cms:1:*"}, cdn={b"cms-1"}
    )
    assert state.counts == {Verdict.APPLIED: 1}


def test_soft_marks_tags_stale() -> None:
    assert taken({"cdn": ["cms-1"], "soft": True})[0] == Invalidation(cdn_soft={b"cms-1"})


@pytest.mark.parametrize(
    ("content", "verdict", "text"),
    [
        (b"\xff", Verdict.MALFORMED, "no JSON"),
        ("", Verdict.MALFORMED, "no JSON"),
        ("[" * 100_000, Verdict.MALFORMED, "no JSON"),
        ("[]", Verdict.MALFORMED, "no JSON object"),
        ('{"keys": "cms:1"}', Verdict.MALFORMED, "'keys' must be a list of texts"),
        ('{"keys": [1]}', Verdict.MALFORMED, "'keys' must be a list of texts"),
        ('{"key": ["cms:1"]}', Verdict.MALFORMED, "did you mean 'keys'"),
        ('{"keys": ["cms:1"], "keys": []}', Verdict.MALFORMED, "twice"),
        ('{"keys": ["cms:1"], "soft": 1}', Verdict.MALFORMED, "'soft' must be true or false"),
        (" " * 1_100_000, Verdict.TOO_LARGE, "bytes"),
        (json.dumps({"keys": ["cms:1"] * (MAX_NAMES + 1)}), Verdict.TOO_LARGE, "names"),
    ],
)
def test_a_message_of_another_form_does_nothing_and_is_counted(content: bytes | str, verdict: str, text: str) -> None:
    invalidation, state = taken(content)
    assert not invalidation
    assert state.counts == {verdict: 1}
    assert text in str(state.refusal)


def test_a_message_outside_the_transaction_does_nothing() -> None:
    invalidation, state = taken({"keys": ["cms:1"]}, is_transactional=False)
    assert not invalidation
    assert state.counts == {Verdict.NOT_TRANSACTIONAL: 1}


@pytest.mark.parametrize(
    ("kind", "name", "verdict"),
    [
        ("keys", "other:1", Verdict.NOT_ALLOWED),
        ("keys", "", Verdict.BAD_NAME),
        ("keys", "cms:\n", Verdict.BAD_NAME),
        ("keys", "cms:\ud800", Verdict.BAD_NAME),
        ("keys", "cms:" + "x" * 5000, Verdict.BAD_NAME),
        ("l1", "*", Verdict.NOT_ALLOWED),
        ("l1", "c*", Verdict.NOT_ALLOWED),
        ("tags", "shop:1", Verdict.NOT_ALLOWED),
        ("cdn", "cms-a b", Verdict.BAD_CDN_TAG),
        ("cdn", "cms-" + "x" * 40, Verdict.BAD_CDN_TAG),
    ],
)
def test_a_name_that_may_not_be_named_is_left_out_and_the_others_are_taken(kind: str, name: str, verdict: str) -> None:
    invalidation, state = taken({kind: [name], "keys": [name, "cms:9"] if kind == "keys" else ["cms:9"]})
    assert invalidation == Invalidation(keys={b"cms:9"})
    assert state.counts == {verdict: 1, Verdict.APPLIED: 1}


def test_a_kind_without_a_prefix_cannot_be_named() -> None:
    state = MessageState()
    messages = ExplicitInvalidation({"keys": ["cms:"]}, grammars=[], state=state)
    invalidation = Invalidation()
    messages(b'{"cdn": ["cms-1"], "tags": ["cms:1"]}', is_transactional=True, invalidation=invalidation)
    assert not invalidation
    assert state.counts == {Verdict.NOT_ALLOWED: 2}


def test_nothing_of_the_content_is_in_what_is_told() -> None:
    for content in ('{"sekret": 1}', '{"keys": ["sekret"]}', '{"keys": {"sekret": 1}}', "sekret"):
        assert "sekret" not in str(taken(content)[1].refusal)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
_names = st.lists(
    st.sampled_from(["cms:", "cms-", "shop:", "*", ""]).flatmap(lambda p: st.text(max_size=5).map(p.__add__))
)
_messages = st.dictionaries(st.sampled_from([*ALLOWED, "soft", "key"]), _names | st.booleans() | _json).map(json.dumps)


@given(st.binary(max_size=60) | _json.map(json.dumps).map(str.encode) | _messages.map(str.encode))
def test_no_message_raises_or_names_what_is_not_allowed(content: bytes) -> None:
    invalidation, state = taken(content)
    assert sum(state.counts.values())
    assert invalidation.cdn_all is False
    assert not invalidation.key_patterns
    for kind, names in {
        "keys": invalidation.keys,
        "tags": invalidation.tags,
        "l1": invalidation.l1,
        "cdn": invalidation.cdn | invalidation.cdn_soft,
    }.items():
        assert all(name.decode().startswith(tuple(ALLOWED[kind])) for name in names)
