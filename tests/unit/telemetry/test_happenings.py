"""What watchers are told is bounded, and numbered so that they learn what they missed."""

from __future__ import annotations

from invalidator.model import Applied, Batch, Invalidation, Layer
from invalidator.telemetry.happenings import MAX_CHARACTERS, MAX_KEPT, MAX_NAMES, Happenings


def apply(happenings: Happenings, invalidation: Invalidation, layer: Layer = Layer.L2) -> None:
    batch = Batch(invalidation)
    happenings.applied("redis", layer, batch, Applied(removed=1), at=1.0, seconds=0.002, age_seconds=None)


def test_a_watcher_gets_what_is_new_since_its_number_and_can_count_what_it_missed() -> None:
    happenings = Happenings()
    with happenings.watched():
        for number in range(MAX_KEPT + 10):
            apply(happenings, Invalidation(keys={b"%d" % number}))
        newest = happenings.number
        assert [each["invalidation"] for each in happenings.after(newest - 2)] == [
            {"keys": [str(newest - 2)]},
            {"keys": [str(newest - 1)]},
        ]
        assert len(happenings.after(0)) == MAX_KEPT
        assert happenings.after(newest) == []
    assert happenings.after(0) == []


def test_of_a_huge_batch_some_names_are_kept_and_all_are_counted() -> None:
    happenings = Happenings()
    with happenings.watched():
        apply(happenings, Invalidation(keys={b"%06d" % number for number in range(5000)}, tags={b"x" * 10_000}))
        (made,) = happenings.after(0)
    assert made["names"] == 5001
    assert len(made["invalidation"]["keys"]) == MAX_NAMES
    assert [len(tag) for tag in made["invalidation"]["tags"]] == [MAX_CHARACTERS + 1]


def test_a_target_is_told_with_the_names_of_its_own_layer() -> None:
    happenings = Happenings()
    every = Invalidation(keys={b"k"}, l1={b"l"}, cdn={b"c"}, cdn_all=True)
    with happenings.watched():
        for layer in Layer:
            apply(happenings, every, layer)
        made = [each["invalidation"] for each in happenings.after(0)]
    assert made == [{"keys": ["k"]}, {"l1": ["l"]}, {"cdn": ["c"], "cdn_all": True}]


def test_lines_of_the_log_are_taken_while_somebody_watches_and_passed_on_unchanged() -> None:
    happenings = Happenings()
    line = {"ts": "2026-11-22T12:00:00.000Z", "level": "info", "event": "rules.loaded", "rules": 9}
    assert happenings(None, "info", dict(line)) == line
    assert happenings.number == 0
    with happenings.watched():
        assert happenings(None, "info", dict(line)) == line
        assert happenings.after(0) == [
            {"record": "event", "at": 1795348800.0, "level": "info", "event": "rules.loaded", "facts": {"rules": 9}}
        ]
