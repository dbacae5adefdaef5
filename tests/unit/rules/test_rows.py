from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invalidator.errors import ConfigError
from invalidator.model import Operation
from invalidator.rules.rows import JsonRow, read_message, relation_of, row_message, value_text
from tests.support.pgoutput import make_relation

KEYED = make_relation("id", "slug", "body")
FULL = make_relation("id", "slug", "body", replica_identity="f")
ROWS = st.dictionaries(st.sampled_from(["id", "slug", "body"]), st.one_of(st.none(), st.text(max_size=5)))


@given(ROWS.filter(len), ROWS.filter(len))
def test_a_message_tells_the_row_that_it_was_made_of(old: JsonRow, new: JsonRow) -> None:
    for operation in (Operation.INSERT, Operation.UPDATE, Operation.DELETE):
        made = read_message(FULL, row_message(FULL, operation, old, new))
        expected = {
            Operation.INSERT: (None, new),
            Operation.UPDATE: (old, new),
            Operation.DELETE: (old, None),
        }[operation]
        assert made == (operation, *expected)


@pytest.mark.parametrize("value", ["a\ud800", {"a": ["\ud800"]}])
def test_half_of_a_surrogate_pair_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"\\ud800 is half of a surrogate pair"):
        row_message(FULL, Operation.INSERT, None, {"id": value})


def test_of_a_key_only_the_identity_is_told() -> None:
    old, new = {"id": "1", "slug": "a"}, {"id": "2", "slug": "b"}
    sent = row_message(KEYED, Operation.UPDATE, old, new)
    assert read_message(KEYED, sent) == (Operation.UPDATE, {"id": "1"}, new)
    same = row_message(KEYED, Operation.UPDATE, {"id": "1"}, {"id": "1"})
    assert read_message(KEYED, same) == (Operation.UPDATE, None, {"id": "1"})


def test_a_message_that_ends_early_is_an_error_at_every_length() -> None:
    sent = row_message(FULL, Operation.UPDATE, {"id": "1", "slug": "a"}, {"id": "2", "slug": "b"})
    whole = read_message(FULL, sent)
    for length in range(26, len(sent)):
        try:
            assert read_message(FULL, sent[:length]) != whole
        except ValueError:
            continue
    with pytest.raises(ValueError, match="no row message"):
        read_message(FULL, sent[:20])


def test_the_columns_of_a_table_without_a_catalog_are_those_of_its_rows() -> None:
    rows: list[JsonRow] = [
        {"id": 1, "ok": True, "price": 1, "name": None},
        {"id": 2, "price": 1.5, "tags": ["a"], "name": "x"},
    ]
    relation = relation_of("public", "t", rows, ["id"])
    assert [(column.name, column.type_oid, column.is_identity) for column in relation.columns] == [
        ("id", 20, True),
        ("ok", 16, False),
        ("price", 1700, False),
        ("name", 25, False),
        ("tags", 3802, False),
    ]
    assert relation.replica_identity == "d"
    assert relation_of("public", "t", rows).replica_identity == "f"


@pytest.mark.parametrize(
    ("value", "text"), [(float("inf"), b"Infinity"), (float("-inf"), b"-Infinity"), (float("nan"), b"NaN")]
)
def test_numbers_that_are_none_are_written_as_postgres_does(value: float, text: bytes) -> None:
    assert value_text(value) == text
