"""What the shop shows: pages read from the database, with the names under which caches know them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

_PRODUCT = """
    SELECT p.id, p.slug, p.name, p.price_cents, c.name AS category, c.id AS category_id
    FROM products p JOIN categories c ON c.id = p.category_id WHERE p.slug = %s
"""
_CATEGORY = "SELECT id, name FROM categories WHERE id = %s"
_CATEGORY_PRODUCTS = "SELECT slug, name, price_cents FROM products WHERE category_id = %s ORDER BY id LIMIT 20"
_REVIEWS = "SELECT count(*), round(avg(stars), 2)::text FROM reviews WHERE product_id = %s"
_LATEST_REVIEWS = "SELECT stars, remark FROM reviews WHERE product_id = %s ORDER BY id DESC LIMIT 3"
_USER = "SELECT name, email FROM users WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its kind and what tells it from others of the kind."""

    kind: str
    name: str

    @property
    def path(self) -> str:
        """Where origin and edge serve it."""
        return f"/{self.kind}/{self.name}"

    @property
    def key(self) -> str:
        """What Redis and L1 hold it under; the rules name the same."""
        match self.kind:
            case "categories":
                return f"category:{self.name}:products"
            case "reviews":
                return f"reviews:{self.name}"
            case "users":
                return f"user:{self.name}:profile"
            case _:
                return f"product:{self.name}"

    @property
    def is_private(self) -> bool:
        """Whether it is one user's own and no shared cache may hold it."""
        return self.kind == "users"


def product(slug: str) -> Page:
    """A product by its address."""
    return Page("products", slug)


def category(number: int) -> Page:
    """The list of a category's products."""
    return Page("categories", str(number))


def reviews(number: int) -> Page:
    """What people say of a product."""
    return Page("reviews", str(number))


def user(number: int) -> Page:
    """A user's profile, which no edge may cache."""
    return Page("users", str(number))


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page as it was at one moment; two of them are equal when a visitor would see the same."""

    status: int
    body: str
    tags: tuple[str, ...]
    """Tag sets that its Redis key is put into."""
    cdn_tags: tuple[str, ...]
    """Tags that the edge is told."""

    def encode(self) -> bytes:
        """The form in Redis."""
        return json.dumps([self.status, self.body, self.tags, self.cdn_tags]).encode()

    @classmethod
    def decode(cls, stored: bytes | str) -> Self:
        """Read what :meth:`encode` wrote."""
        status, body, tags, cdn_tags = json.loads(stored)
        return cls(status, body, tuple(tags), tuple(cdn_tags))


async def render(connection: Connection, page: Page) -> Rendered:
    """The page as the database has it now; status 404 when there is no such thing (cached like any other)."""
    match page.kind:
        case "products":
            return await _product(connection, page.name)
        case "categories":
            return await _category(connection, int(page.name))
        case "reviews":
            return await _reviews(connection, int(page.name))
        case "users":
            return await _user(connection, int(page.name))
        case _:
            return _body(404, {"error": "no such page"})


def _body(status: int, content: dict[str, Any], tags: tuple[str, ...] = (), cdn: tuple[str, ...] = ()) -> Rendered:
    return Rendered(status, json.dumps(content), tags, cdn)


async def _product(connection: Connection, slug: str) -> Rendered:
    row = await (await connection.execute(_PRODUCT, [slug])).fetchone()
    if row is None:
        return _body(404, {"error": "no such product"}, ("products",), (f"product-{slug}", "products"))
    content = dict(zip(("id", "slug", "name", "price_cents", "category"), row, strict=False))
    number = row[5]
    return _body(
        200, content, (f"category:{number}", "products"), (f"product-{slug}", f"category-{number}", "products")
    )


async def _category(connection: Connection, number: int) -> Rendered:
    row = await (await connection.execute(_CATEGORY, [number])).fetchone()
    listed = await (await connection.execute(_CATEGORY_PRODUCTS, [number])).fetchall()
    content = {"category": row[1] if row else None, "products": listed}
    return _body(
        200 if row else 404, content,
        (f"category:{number}", "products"), (f"category-{number}", f"list-{number}", "products"),
    )  # fmt: skip


async def _reviews(connection: Connection, number: int) -> Rendered:
    [(count, stars)] = await (await connection.execute(_REVIEWS, [number])).fetchall()
    latest = await (await connection.execute(_LATEST_REVIEWS, [number])).fetchall()
    content = {"reviews": count, "stars": stars, "latest": latest}
    return _body(200, content, ("reviews",), (f"reviews-{number}", "reviews"))


async def _user(connection: Connection, number: int) -> Rendered:
    row = await (await connection.execute(_USER, [number])).fetchone()
    if row is None:
        return _body(404, {"error": "no such user"}, ("users",))
    return _body(200, {"name": row[0], "email": row[1]}, ("users",))
