"""The cases that the demo plays: what is committed, which pages must become fresh, and which must stay cached."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from invalidator.demo.pages import Page, category, product, reviews, user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Case:
    """One transaction and its consequences."""

    name: str
    what: str
    """What happens, for people."""
    statements: tuple[str, ...]
    """SQL of one transaction."""
    drops: tuple[Page, ...] = ()
    """Pages that change: cached everywhere before, and never seen stale again after."""
    keeps: tuple[Page, ...] = ()
    """Pages that do not change and must stay cached in every layer: dropping too much is wrong as well."""
    is_rolled_back: bool = False


_OTHERS: Final = (product("drum-599"), user(199))
"""Pages that no case touches."""

CASES: Final = (
    Case(
        "update", "a price changes",
        ("UPDATE products SET price_cents = price_cents + 100 WHERE slug = 'kettle-6'",),
        drops=(product("kettle-6"), category(1)), keeps=_OTHERS,
    ),
    Case(
        "key change", "an address changes: rake-1 becomes fork-1",
        ("UPDATE products SET slug = 'fork-1' WHERE slug = 'rake-1'",),
        drops=(product("rake-1"), product("fork-1"), category(2)), keeps=_OTHERS,
    ),
    Case(
        "insert", "a product appears whose address was asked for before",
        ("INSERT INTO products VALUES (1001, 'globe-1001', 'Globe', 4200, 5, 3)",),
        # The list shows the first 20 products, so it does not change; it is dropped all the same.
        drops=(product("globe-1001"),), keeps=_OTHERS,
    ),
    Case(
        "delete", "a product is deleted",
        ("DELETE FROM products WHERE slug = 'stapler-2'",),
        drops=(product("stapler-2"), category(3)), keeps=_OTHERS,
    ),
    Case(
        "tag", "a category gets a new name, which stands on all its products' pages",
        ("UPDATE categories SET name = 'Lamps' WHERE id = 4",),
        drops=(category(4), product("lamp-3"), product("lamp-9"), product("lamp-15")), keeps=_OTHERS,
    ),
    Case(
        "soft purge", "a review is written; the edge may show the old list once more",
        ("INSERT INTO reviews (product_id, stars, remark) VALUES (5, 1, 'Too loud')",),
        drops=(reviews(5),), keeps=(*_OTHERS, reviews(6)),
    ),
    Case(
        "private", "a user's name changes; no edge has the profile",
        ("UPDATE users SET name = 'Ada' WHERE id = 42",),
        drops=(user(42),), keeps=_OTHERS,
    ),
    Case(
        "two tables", "one transaction changes a product and a user",
        (
            "UPDATE products SET name = 'Silent drum' WHERE slug = 'drum-11'",
            "UPDATE users SET email = 'new@example.org' WHERE id = 43",
        ),
        drops=(product("drum-11"), user(43)), keeps=_OTHERS,
    ),
    Case(
        "not shown", "the stock changes, which no page shows",
        ("UPDATE products SET stock = stock - 1 WHERE slug = 'suitcase-4'",),
        keeps=(product("suitcase-4"), category(5), *_OTHERS),
    ),
    Case(
        "rollback", "a price changes, and the transaction is rolled back",
        ("UPDATE products SET price_cents = 1 WHERE slug = 'suitcase-10'",),
        keeps=(product("suitcase-10"), category(5), *_OTHERS), is_rolled_back=True,
    ),
    Case(
        "bulk", "600 prices in one transaction: everything that shows products, by one tag",
        ("UPDATE products SET price_cents = price_cents + 1",),
        drops=(product("kettle-12"), product("lamp-333"), category(1), category(6)), keeps=(user(199), reviews(6)),
    ),
    Case(
        "truncate", "all reviews are truncated: no row is sent, everything that shows reviews goes",
        ("TRUNCATE reviews",),
        drops=(reviews(7), reviews(8)), keeps=_OTHERS,
    ),
)  # fmt: skip
"""The scenario of ``--once``. Each case has rows of its own, so that none depends on another.

Product N has the slug KIND-N and category 1 + N % 6 (schema.sql).
"""


def sentinel(number: int) -> Case:
    """A change whose arrival proves that everything committed before it has arrived in every layer."""
    return Case(
        "sentinel", "a later change",
        (f"UPDATE products SET price_cents = {100_000 + number} WHERE slug = 'stapler-596'",),  # noqa: S608
        drops=(product("stapler-596"),),
    )  # fmt: skip


def endless() -> Iterator[Case]:
    """Changes without end for the live view, over the rows of the schema."""
    dice = random.Random(1)  # noqa: S311  (nothing secret, and the same each time)
    slugs = {number: _slug(number) for number in range(1, 301)}
    for turn in itertools.count(1):
        make: Callable[[random.Random, int, dict[int, str]], Case] = dice.choices(
            (_new_price, _new_address, _new_review, _new_name, _new_category_name), (5, 2, 3, 3, 1)
        )[0]
        yield make(dice, turn, slugs)


def _slug(number: int) -> str:
    return f"{('kettle', 'rake', 'stapler', 'lamp', 'suitcase', 'drum')[number % 6]}-{number}"


def _new_price(dice: random.Random, turn: int, slugs: dict[int, str]) -> Case:
    number = dice.choice(list(slugs))
    statement = f"UPDATE products SET price_cents = {turn * 10} WHERE slug = '{slugs[number]}'"  # noqa: S608
    return Case("update", f"{slugs[number]} costs {turn / 10:.2f}", (statement,), (product(slugs[number]),))


def _new_address(dice: random.Random, turn: int, slugs: dict[int, str]) -> Case:
    number = dice.choice(list(slugs))
    old, new = slugs[number], f"{_slug(number)}-v{turn}"
    slugs[number] = new
    statement = f"UPDATE products SET slug = '{new}' WHERE slug = '{old}'"  # noqa: S608
    return Case("key change", f"{old} → {new}", (statement,), (product(old), product(new)))


def _new_review(dice: random.Random, turn: int, slugs: dict[int, str]) -> Case:
    number = dice.choice(list(slugs))
    statement = f"INSERT INTO reviews (product_id, stars, remark) VALUES ({number}, 5, 'Remark {turn}')"  # noqa: S608
    return Case("soft purge", f"a review of product {number}", (statement,), (reviews(number),))


def _new_name(dice: random.Random, turn: int, _: dict[int, str]) -> Case:
    number = dice.randint(1, 200)
    statement = f"UPDATE users SET name = 'Name {turn}' WHERE id = {number}"  # noqa: S608
    return Case("private", f"user {number} has a new name", (statement,), (user(number),))


def _new_category_name(dice: random.Random, turn: int, slugs: dict[int, str]) -> Case:
    number = dice.randint(1, 6)
    shown = [slug for product_number, slug in slugs.items() if 1 + product_number % 6 == number][:2]
    statement = f"UPDATE categories SET name = 'Category {turn}' WHERE id = {number}"  # noqa: S608
    return Case(
        "tag", f"category {number} has a new name", (statement,), (category(number), *(product(slug) for slug in shown))
    )
