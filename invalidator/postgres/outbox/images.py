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
_LENGTH: Final = Struct(">i")
_XLOG_DATA: Final = b"w" + bytes(24)

Tuple = bytes
"""What stands in a message behind the letter of the image: the number of columns, then the columns."""


def texts(array: bytes) -> tuple[str | None, ...]:
    """The elements of a one-dimensional ``text[]`` in binary form.

    Raises:
        ProtocolError: it is none.
    """
    return tuple(
        None if len(part) == 1 else part[5:].decode("utf-8", "surrogateescape")
        for line in _lines(array, 1)
        for part in line
    )


def tuples(array: bytes) -> list[Tuple]:
    """One tuple per line of a two-dimensional ``text[]`` in binary form.

    Raises:
        ProtocolError: it is none.
    """
    return [len(parts).to_bytes(2) + b"".join(parts) for parts in _lines(array, 2)]


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


def _lines(array: bytes, dimensions: int) -> list[list[bytes]]:
    """The elements line by line, each as a column of a tuple."""
    try:
        found, _, _ = _HEADER.unpack_from(array)
        if found == 0:
            return []
        if found != dimensions:
            raise _damaged(array)
        sizes = [_DIMENSION.unpack_from(array, 12 + 8 * at)[0] for at in range(found)]
        at = 12 + 8 * found
        lines: list[list[bytes]] = []
        for _ in range(sizes[0] if found > 1 else 1):
            line: list[bytes] = []
            for _ in range(sizes[-1]):
                size = _LENGTH.unpack_from(array, at)[0]
                if size < 0:
                    line.append(b"n")
                    at += 4
                else:
                    end = at + 4 + size
                    line.append(b"t" + array[at:end])
                    at = end
            lines.append(line)
    except error:
        raise _damaged(array) from None
    if at != len(array):
        raise _damaged(array)
    return lines


def _damaged(array: bytes) -> ProtocolError:
    msg = f"an array of {len(array)} bytes in the outbox is none of texts (first bytes: {array[:20].hex()})"
    return ProtocolError(msg)
