"""Which CDN tags the coarse tags of rules cover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from invalidator.model import Invalidation
from invalidator.rules import document
from invalidator.rules.covering import CdnCover


def rule(name: str, *cdn: str, coarse: str | None = None, **more: object) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "table": f"public.{name}", "invalidate": {"cdn": list(cdn)}, **more}
    return made | ({"coarse": {"cdn": [coarse]}} if coarse else {})


@pytest.fixture
def cover(tmp_path: Path) -> Any:
    def make(*rules: dict[str, Any]) -> CdnCover:
        path = tmp_path / "rules.yaml"
        path.write_text(json.dumps({"version": 1, "rules": rules}))
        return CdnCover(document.load_with_warnings([path]).ruleset, ())

    return make


def tags(prefix: str, count: int) -> set[bytes]:
    return {b"%s-%d" % (prefix.encode(), i) for i in range(count)}


def test_the_rule_with_the_most_tags_is_made_coarse_first_and_no_more_than_needed(cover: Any) -> None:
    made = cover(rule("user", "user-{id}", coarse="users"), rule("post", "post-{id}", coarse="posts"))
    waiting = tags("user", 10) | tags("post", 20)

    assert made.shrink(waiting, 15) == (tags("post", 20), Invalidation(cdn={b"posts"}))
    assert made.shrink(waiting, 5) == (waiting, Invalidation(cdn={b"posts", b"users"}))
    assert made.shrink(waiting, 30) == (set(), Invalidation())


def test_a_tag_that_no_rule_can_have_made_stays_as_it_is(cover: Any) -> None:
    made = cover(rule("user", "user-{id}", coarse="users"))

    assert made.shrink({b"by-hand", b"a-user-1", b"user"}, 0) == (set(), Invalidation())


def test_a_tag_of_two_rules_needs_the_coarse_tags_of_both(cover: Any) -> None:
    made = cover(
        rule("user", "user-{id}", coarse="users"), rule("post", "post-{id}", "user-{author_id}", coarse="posts")
    )

    assert made.shrink({b"user-1"}, 0) == ({b"user-1"}, Invalidation(cdn={b"users", b"posts"}))


def test_a_rule_without_a_coarse_tag_covers_nothing(cover: Any) -> None:
    made = cover(rule("user", "user-{id}"), rule("post", "post-{id}", "user-{author_id}", coarse="posts"))

    replaced, instead = made.shrink({b"user-1", b"post-1"}, 0)

    assert (replaced, instead) == ({b"post-1"}, Invalidation(cdn={b"posts"}))
    assert made.everything().cdn_all, "whoever has lost track of such a rule needs everything"


def test_text_in_a_template_is_no_expression_and_a_value_may_be_anything(cover: Any) -> None:
    made = cover(rule("user", "u.{id}.x", coarse="users"))

    assert made.shrink({b"u.1\n2.x", b"u..x", b"uu1ux"}, 0)[0] == {b"u.1\n2.x", b"u..x"}


def test_a_soft_rule_stays_soft(cover: Any) -> None:
    made = cover(rule("user", "user-{id}", coarse="users", soft=True))

    assert made.shrink({b"user-1"}, 0)[1] == made.everything() == Invalidation(cdn_soft={b"users"})


def test_facts_of_the_rule_are_put_into_its_coarse_tag(cover: Any) -> None:
    made = cover(rule("user", "user-{id}", coarse="t-{meta.table}"))

    assert made.everything() == Invalidation(cdn={b"t-user"})
