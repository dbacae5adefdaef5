"""Row images as the outbox holds them become row messages as logical replication would send them. No I/O.

The outbox holds a two-dimensional ``text[]``: one line per row, one text per column. In binary form
(``array_send``) each text has its length before it, as in a tuple of pgoutput, so that only a letter has to be put
before each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct, error
from typing import Final

from invalidator.errors import ProtocolError

_HEADER: Final = Struct(">iiI")
"""Number of dimensions, whether there are NULLs, type of the elements."""
_DIMENSION: Final = Struct(">ii")
_TWO_DIMENSIONS: Final = Struct(">iiii")
_LENGTH: Final = Struct(">i")
_XLOG_DATA: Final = b"w" + bytes(24)

Tuple = bytes
"""What stands in a message behind the letter of the image: the number of columns, then the columns."""


def texts(array: bytes) -> tuple[str | None, ...]:
    """The elements of a one-dimensional ``text[]`` in binary form.

    Raises:
        ProtocolError: it is none.
    """
    found: list[str | None] = []
    try:
        dimensions = _HEADER.unpack_from(array)[0]
        count, _ = _DIMENSION.unpack_from(array, _HEADER.size) if dimensions else (0, 0)
        at = _HEADER.size + _DIMENSION.size * dimensions
        for _ in range(count):
            size = _LENGTH.unpack_from(array, at)[0]
            at += 4
            found.append(None if size < 0 else array[at : at + size].decode("utf-8", "surrogateescape"))
            at += max(size, 0)
    except error:
        raise _damaged(array) from None
    if dimensions not in (0, 1) or at != len(array):
        raise _damaged(array)
    return tuple(found)


def tuples(array: bytes) -> list[Tuple]:
    """One tuple per line of a two-dimensional ``text[]`` in binary form.

    Raises:
        ProtocolError: it is none.
    """
    # One of the two loops that a change passes (`scripts/bench outbox`): no list for each line, no call for each text.
    try:
        found = _HEADER.unpack_from(array)[0]
        if found == 0 and len(array) == _HEADER.size:
            return []
        lines, _, width, _ = _TWO_DIMENSIONS.unpack_from(array, _HEADER.size)
        if found != 2 or lines < 1 or width < 1:
            raise _damaged(array)
        head, length, at = width.to_bytes(2), _LENGTH.unpack_from, _HEADER.size + _TWO_DIMENSIONS.size
        images: list[Tuple] = []
        for _ in range(lines):
            parts = [head]
            for _ in range(width):
                end = at + 4 + length(array, at)[0]
                if end < at + 4:
                    parts.append(b"n")
                    at += 4
                else:
                    parts += (b"t", array[at:end])
                    at = end
            images.append(b"".join(parts))
    except (error, OverflowError):
        raise _damaged(array) from None
    if at != len(array):
        raise _damaged(array)
    return images


def messages(operation: str, oid: int, old: Sequence[Tuple], new: Sequence[Tuple]) -> Iterator[bytes]:
    """One message (XLogData, its 25 header bytes included) per changed row, of a relation with full identity.

    Args:
        operation: ``I``, ``U`` or ``D``.
        oid: the relation's.
        old: images before; empty for ``I``.
        new: images after; empty for ``D``, and as many as old ones for ``U``.
    """
    head = _XLOG_DATA + operation.encode("ascii") + oid.to_bytes(4)
    if operation == "U":
        for before, after in zip(old, new, strict=True):
            yield b"%bO%bN%b" % (head, before, after)
    elif operation == "I":
        head += b"N"
        for after in new:
            yield head + after
    else:
        head += b"O"
        for before in old:
            yield head + before


def _damaged(array: bytes) -> ProtocolError:
    msg = f"an array of {len(array)} bytes in the outbox is none of texts (first bytes: {array[:20].hex()})"
    return ProtocolError(msg)
