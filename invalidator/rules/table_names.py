"""How rules name tables: ``public.users``, or ``public."Order.Items"`` where a name needs quotes."""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = r'[^\s".]+'
_PART: Final = re.compile(rf'"(?:[^"]|"")+"|{_PLAIN}')
PATTERN: Final = rf"(?:{_PART.pattern})\.(?:{_PART.pattern})"


def split_table(text: str) -> tuple[str, str]:
    """Schema and table of ``public.users`` or ``public."Order.Items"``, without the quotes.

    Raises:
        ValueError: the text is not of that form.
    """
    parts = [match[0] for match in _PART.finditer(text)]
    if len(parts) != 2 or ".".join(parts) != text:
        msg = f"'{text}' is not of the form schema.table"
        raise ValueError(msg)
    schema, table = (part[1:-1].replace('""', '"') if part[0] == '"' else part for part in parts)
    return schema, table


def join_table(schema: str, table: str) -> str:
    """As a rule writes it: what ``split_table`` reads."""
    return f"{_quoted(schema)}.{_quoted(table)}"


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return name if re.fullmatch(_PLAIN, name) else f'"{doubled}"'


def instead_of(text: str) -> str:
    """What to write in the place of a text that is not of the form ``schema.table``."""
    if re.fullmatch(r"[\w*]+", text):
        return f"write the schema too: public.{text}"
    if "," in text:
        return "write a rule for each table; '*' stands for any characters, as in tenant_*.users"
    if text.count(".") > 1:
        return 'write schema.table without the database; a name that holds a dot needs quotes: public."Order.Items"'
    stripped = text.strip()
    return f"write {stripped}" if re.fullmatch(PATTERN, stripped) else "write schema.table, as in public.users"
