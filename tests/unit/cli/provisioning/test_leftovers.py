"""Which records beside a cache are proved to be ours."""

from __future__ import annotations

import pytest

from invalidator.checkpoint.record import Record
from invalidator.cli.provisioning import leftovers
from invalidator.model import Lsn
from invalidator.ports import Kept


class Holder:
    """Holds one record."""

    def __init__(self, system: str) -> None:
        self._content = Record("shop", system, 1, Lsn(7), "rules").encode()

    async def load_record(self, name: str) -> Kept:
        return Kept(self._content if name == "shop" else None, "this one")

    async def forget_record(self, name: str, *, expected: bytes) -> bool:
        return name == "shop" and expected == self._content


@pytest.mark.parametrize(
    ("system", "of", "is_ours"),
    [
        ("7", "7", True),
        ("8", "7", False),
        ("7/5/900", "7/5/", True),
        ("7/51/900", "7/5/", False),
        ("7", "7/5/", True),  # of notifications, by an earlier version
        ("77", "7/5/", False),
        ("8", "7/5/", False),
    ],
)
async def test_a_record_is_ours_if_it_is_of_the_cluster_and_of_the_database_where_it_names_one(
    system: str, of: str, is_ours: bool
) -> None:
    found = await leftovers.records("shop", of, [("redis", Holder(system))])  # type: ignore[list-item]  # the two that are called

    assert found.has_record is is_ours
    assert len(found.leftovers) == is_ours
    assert len(found.findings) == (not is_ours)
