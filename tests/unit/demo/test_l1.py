from __future__ import annotations

from typing import Any

import pytest

from invalidator.demo.l1 import L1Cache
from invalidator.demo.pages import Rendered

PAGE = Rendered(200, "{}", tags=("category:3", "products"), cdn_tags=())


def _message(sequence: int, epoch: str = "a", **content: Any) -> dict[str, Any]:
    return {"v": 1, "epoch": epoch, "seq": sequence, "keys": [], "patterns": [], "tags": [], **content}


@pytest.fixture
def cache() -> L1Cache:
    made = L1Cache()
    made.connected()
    made.apply(_message(7))
    for key in ("product:a", "product:b", "user:1:profile"):
        assert made.put(key, PAGE if key.startswith("product") else Rendered(200, "{}", (), ()), made.generation)
    return made


def _held(cache: L1Cache) -> set[str]:
    return {key for key in ("product:a", "product:b", "user:1:profile") if cache.get(key) is not None}


def test_a_heartbeat_drops_nothing(cache: L1Cache) -> None:
    cache.apply(_message(8))
    assert len(cache) == 3


def test_a_key_drops_one_entry(cache: L1Cache) -> None:
    cache.apply(_message(8, keys=["product:a"]))
    assert _held(cache) == {"product:b", "user:1:profile"}


def test_a_pattern_drops_what_it_matches(cache: L1Cache) -> None:
    cache.apply(_message(8, patterns=["product:*"]))
    assert _held(cache) == {"user:1:profile"}


def test_an_escaped_star_in_a_pattern_is_only_a_star(cache: L1Cache) -> None:
    cache.apply(_message(8, patterns=["product:[*]"]))
    assert len(cache) == 3


def test_a_tag_drops_the_entries_that_carry_it(cache: L1Cache) -> None:
    cache.apply(_message(8, tags=["category:3"]))
    assert _held(cache) == {"user:1:profile"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_message(9), "hole"),
        (_message(7), "hole"),
        (_message(1, epoch="b"), "epoch"),
        (_message(8, clear=True), "asked"),
    ],
)
def test_what_may_have_been_missed_clears_everything(cache: L1Cache, message: dict[str, Any], reason: str) -> None:
    cache.apply(message)
    assert len(cache) == 0
    assert cache.clears[reason] == 1


def test_a_new_subscription_clears_and_takes_any_number_as_its_first(cache: L1Cache) -> None:
    cache.connected()
    assert len(cache) == 0
    cache.put("product:a", PAGE, cache.generation)
    cache.apply(_message(4000))
    assert _held(cache) == {"product:a"}


def test_a_value_that_was_read_before_a_message_is_not_stored_after_it(cache: L1Cache) -> None:
    generation = cache.generation
    cache.apply(_message(8, keys=["product:c"]))
    assert not cache.put("product:c", PAGE, generation)
    assert cache.get("product:c") is None
