"""What servers of each major version really sent is read alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from invalidator.model import Operation
from tests.support import golden
from tests.support.decoded import RowChange, Truncation, Values, by_us

BIG = "big " * 550
KEYED, WHOLE, ODD = "public.keyed", "public.whole", 'Odd Schema.Ta"ble'
FIRST: Values = {"id": "1", "m": "so so", "ta": '{a,NULL,""}', "raw": "\\x00ff", "big": BIG}
EVENTS = [
    [RowChange(KEYED, Operation.INSERT, None, FIRST)],
    [RowChange(KEYED, Operation.UPDATE, None, {"id": "1", "m": "sad", "ta": None, "raw": "\\x00ff"})],
    [RowChange(KEYED, Operation.UPDATE, {"id": "1"}, {"id": "2", "m": "sad", "ta": None, "raw": "\\x00ff"})],
    [RowChange(KEYED, Operation.DELETE, {"id": "2"}, None)],
    [
        RowChange(WHOLE, Operation.INSERT, None, {"id": "1", "t": "ü€", "big": BIG}),
        RowChange(WHOLE, Operation.INSERT, None, {"id": "2", "t": "", "big": None}),
    ],
    [RowChange(WHOLE, Operation.UPDATE, {"id": "1", "t": "ü€", "big": BIG}, {"id": "1", "t": None})],
    [RowChange(WHOLE, Operation.DELETE, {"id": "2", "t": "", "big": None}, None)],
    [RowChange(ODD, Operation.INSERT, None, {"a b": "it's", "n": "1.50"})],
    [RowChange(ODD, Operation.UPDATE, {"a b": "it's"}, {"a b": "*", "n": "NaN"})],
    [
        RowChange(
            WHOLE,
            Operation.UPDATE,
            {"id": "1", "t": None, "big": BIG, "more": "7"},
            {"id": "1", "t": None, "more": "8"},
        )
    ],
    [Truncation(frozenset({KEYED, WHOLE, ODD}))],
]


def test_every_supported_version_was_recorded() -> None:
    assert [file.stem for file in golden.FILES] == [f"postgres-{version}" for version in range(14, 19)]


@pytest.mark.parametrize("file", golden.FILES, ids=lambda file: file.stem)
def test_what_a_server_sent_is_read_as_it_was_written(file: Path) -> None:
    decoded = by_us(golden.load(file)).decoded

    assert [events for _, events in decoded.transactions] == EVENTS
    assert decoded.messages == [(True, '{"keys": ["cms:1", "no:1"], "cdn": ["cms-1"]}')]
    assert decoded.end == golden.load(file)[-1][0]
