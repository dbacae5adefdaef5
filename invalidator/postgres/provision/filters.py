"""Row filters that lose nothing: which there can be, and which one stands.

A filter is evaluated by Postgres for each image of a row. An UPDATE whose old row passes and whose new row does not
arrives as a DELETE, the other way round as an INSERT, and the other image is never sent
(https://www.postgresql.org/docs/current/logical-replication-row-filter.html, "UPDATE Transformations"). So there is a
filter only where each rule makes the same stale of what then arrives:

* no UPDATE is published, so none is turned into anything; or
* every rule fires for INSERT, UPDATE and DELETE alike, and its names are the same for all rows, so that it does not
  matter which image they come from (``Rows.survives_updates``).

It reads columns of the replica identity only, or else the application's UPDATE and DELETE would fail.

Postgres prints a filter in its own words, which cannot be compared with ours. So the publication's comment says what
the filters were made of. Filters of a publication without such a comment are somebody else's, and are left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from invalidator.postgres.catalog import ORDINARY, Publication, Table
from invalidator.postgres.provision.words import COLUMN_LISTS, Facts, Need, Request

_LEAD = "invalidator setup: "
_OR = " OR "
_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|[()]| OR """)
_PLAIN_TYPES = frozenset({16, 20, 21, 23, 25, 1043, 1082, 2950})
"""bool, int8, int2, int4, text, varchar, date, uuid: built in, and the same in every session."""
_PLAIN_COLLATIONS = frozenset({0, 100, 950, 951})
"""None, the database's (always deterministic), C and POSIX. Postgres refuses a filter over a user-defined one."""


def lossless(
    table: Table, needs: Sequence[Need], identity: frozenset[str], operations: frozenset[str], facts: Facts
) -> str | None:
    """The condition for which nothing is lost; None: all rows must be sent.

    Args:
        table: what is published.
        needs: of all rules that are about this table.
        identity: the columns of its replica identity.
        operations: what the publication publishes.
        facts: the database.
    """
    if facts.server.version < COLUMN_LISTS or table.kind != ORDINARY or table.root_oid is not None:
        return None  # Postgres takes no filter of a partitioned table without via_root
    plain = {
        column.name
        for column in table.columns
        if column.type_oid in _PLAIN_TYPES and column.collation_oid in _PLAIN_COLLATIONS and not column.generated
    }
    conditions: dict[str, None] = {}
    for need in needs:
        rows = need.rows
        if rows is None or not rows.columns <= identity & plain:
            return None
        if "update" in operations and not rows.survives_updates:
            return None
        condition = rows.written(table)
        if condition is None:
            return None
        conditions[condition] = None
    if len(conditions) == 1:
        return next(iter(conditions))
    return _OR.join(f"({condition})" for condition in sorted(conditions))


def passes(standing: str | None, wanted: str | None) -> bool:
    """Whether a filter that was made of one condition lets every row pass that another wants; None wants all rows."""
    return standing is not None and wanted is not None and _alternatives(wanted) <= _alternatives(standing)


def _alternatives(condition: str) -> frozenset[str]:
    """What is joined by OR, at whatever depth nothing else stands around it."""
    parts, depth, begin = list[str](), 0, 0
    is_enclosed = condition.startswith("(")
    for token in _TOKEN.finditer(condition):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0 and token.end() < len(condition) and token[0] == ")":
            is_enclosed = False
        if depth == 0 and token[0] == _OR:
            parts.append(condition[begin : token.start()])
            begin = token.end()
    if parts:
        return frozenset[str]().union(*map(_alternatives, (*parts, condition[begin:])))
    return _alternatives(condition[1:-1]) if is_enclosed else frozenset({condition})


def is_managed(publication: Publication) -> bool:
    """Whether the filters in it are those of ``setup``."""
    return "rows" in _noted(publication)


def is_made(publication: Publication) -> bool:
    """Whether ``setup`` made it, as its comment says: only then is it ours to drop."""
    return _noted(publication).get("made") is True


def recorded(publication: Publication | None) -> dict[str, str]:
    """The conditions that ``setup`` made filters of, by full table name."""
    rows = {} if publication is None else _noted(publication).get("rows")
    return {str(table): str(text) for table, text in rows.items()} if isinstance(rows, dict) else {}


def record(conditions: Mapping[str, str], *, is_made: bool) -> str | None:
    """The comment that says whose the publication is and what its filters are made of; None: neither."""
    noted: dict[str, object] = {"made": True} if is_made else {}
    if conditions:
        noted["rows"] = dict(sorted(conditions.items()))
    return _LEAD + json.dumps(noted, ensure_ascii=False) if noted else None


def _noted(publication: Publication) -> dict[str, Any]:
    """What the comment says, if it is one of ours."""
    if publication.comment is None or not publication.comment.startswith(_LEAD):
        return {}
    try:
        document = json.loads(publication.comment.removeprefix(_LEAD))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def is_manageable(publication: Publication | None) -> bool:
    """Whether nobody else's comment or filter is in it."""
    if publication is None or is_managed(publication):
        return True
    return (publication.comment is None or is_made(publication)) and not any(
        table.has_row_filter for table in publication.tables
    )


def settled(table: Table, wanted: str | None, facts: Facts, request: Request) -> str | None:
    """The condition that is to stand, given what is allowed and what is there."""
    publication = facts.publications.get(request.publication)
    if wanted is None or not is_manageable(publication):
        return None
    entry = publication.table(table.oid) if publication is not None else None
    is_there = entry is not None and entry.has_row_filter and recorded(publication).get(table.full_name) == wanted
    return wanted if request.may_filter or is_there else None
