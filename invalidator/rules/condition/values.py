"""Values as Postgres prints them, and values of a condition made equal to that.

The daemon's session prints dates in ISO form and in UTC, and floats in their shortest exact form, so one value has
one text. A written value is brought into that text once, while the rule is bound; then ``=`` compares bytes. Kinds
for which that does not hold (numeric keeps its scale, ``1.0`` and ``1.00``) are decoded by the functions below.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

from invalidator.rules.condition.kinds import FLOATS, Kind
from invalidator.rules.condition.tree import Value


class _NotANumber:
    """NaN as Postgres orders it: equal to itself, above every other number."""

    def __eq__(self, other: object) -> bool:
        return other is self

    def __hash__(self) -> int:
        return 0

    def __lt__(self, other: object) -> bool:
        return False

    def __le__(self, other: object) -> bool:
        return other is self

    def __gt__(self, other: object) -> bool:
        return other is not self

    def __ge__(self, other: object) -> bool:
        return True


NAN: Final = _NotANumber()
Ordered = int | float | Decimal | bytes | _NotANumber | tuple[int, bytes]
"""What the decoded values of one kind are compared as."""


def decode_numeric(value: bytes) -> Decimal | _NotANumber:
    """A ``numeric`` without loss."""
    number = Decimal(value.decode("ascii"))
    return NAN if number.is_nan() else number


def decode_double(value: bytes) -> float | _NotANumber:
    """A number of any kind as ``double precision``."""
    number = float(value)
    return number if number == number else NAN  # noqa: PLR0124  (only NaN differs from itself)


def decode_real(value: bytes) -> float | _NotANumber:
    """A ``real``: Postgres prints the shortest text, which as a double would be another number."""
    number = float(value)
    if number != number:  # noqa: PLR0124
        return NAN
    rounded: float = _REAL.unpack(_REAL.pack(number))[0]
    return rounded


def decode_moment(value: bytes) -> tuple[int, bytes]:
    """A date or timestamp as year, counted through BC, and the rest, which is in order as text."""
    year, dash, rest = value.partition(b"-")
    if not year.isdigit():
        if value in _INFINITIES:
            return _INFINITIES[value]
        msg = f"{len(value)} bytes that are no date"
        raise ValueError(msg)
    if rest.endswith(b" BC"):
        return 1 - int(year), rest[:-3]
    if not dash:
        msg = "a date without a month"
        raise ValueError(msg)
    return int(year), rest


def decode_padded(value: bytes) -> bytes:
    """A ``char(n)`` without the blanks that do not count."""
    return value.rstrip(b" ")


_REAL: Final = struct.Struct("f")
_INFINITIES: Final = {b"infinity": (10**9, b""), b"-infinity": (-(10**9), b"")}

DECODERS: Final[dict[Kind, Callable[[bytes], Ordered]]] = {
    Kind.INTEGER: int,
    Kind.NUMERIC: decode_numeric,
    Kind.REAL: decode_real,
    Kind.DOUBLE: decode_double,
    Kind.DATE: decode_moment,
    Kind.TIMESTAMP: decode_moment,
    Kind.TIMESTAMPTZ: decode_moment,
    Kind.PADDED: decode_padded,
}
"""How values are read to be ordered; of a kind that is not here the bytes are in order as they are."""

DECODED_FOR_EQUALITY: Final = FLOATS | {Kind.NUMERIC, Kind.PADDED}
"""Kinds of which equal values may have different texts."""


class Misfit(Exception):  # noqa: N818  (says what a value is)
    """A written value is none of the column's kind.

    Args:
        help: what to write instead.
    """

    def __init__(self, help: str | None = None) -> None:
        super().__init__(help)
        self.help = help


def canonical(value: Value, kind: Kind) -> bytes | None:
    """The text that Postgres prints for this value in a column of this kind; None is NULL.

    Raises:
        Misfit: the column cannot hold it.
    """
    if value.form == "null":
        return None
    if value.form == "boolean" and kind is not Kind.BOOLEAN:
        raise Misfit
    if value.form == "number" and kind not in _OF_NUMBERS:
        raise Misfit(f"a text stands in quotes: '{value.text}'" if kind in _OF_QUOTED else None)
    made = _CANONICAL[kind](value.text.strip(" \t\n\r\f\v") if kind in _TRIMMED else value.text)
    return made.encode("utf-8", "surrogateescape")


def _boolean(text: str) -> str:
    known = {"t": "t", "true": "t", "f": "f", "false": "f"}.get(text.lower())
    if known is None:
        raise Misfit(help="write true or false")
    return known


def _number(text: str) -> Decimal:
    if _NUMBER.fullmatch(text) is None:
        raise Misfit
    return Decimal(text)


def _integer(text: str) -> str:
    number = _number(text)
    if not number.is_finite() or number != number.to_integral_value():
        raise Misfit(help="the column holds whole numbers")
    if not -(1 << 63) <= number < 1 << 63:
        raise Misfit(help="the column cannot hold a number as large as this")
    return str(int(number))


def _numeric(text: str) -> str:
    return str(_number(text))


def _double(text: str) -> str:
    number = _number(text)
    found = float(number)
    if number.is_finite() and (math.isinf(found) or (found == 0) != (number == 0)):
        raise Misfit(help=_OUT_OF_RANGE)
    return repr(found)


def _real(text: str) -> str:
    number = _number(text)
    found = _nearest_real(number) if number.is_finite() else float(number)
    if number.is_finite() and (abs(found) >= _REAL_END or (found == 0) != (number == 0)):
        raise Misfit(help=_OUT_OF_RANGE)
    return repr(found)


def _nearest_real(number: Decimal) -> float:
    """Rounded once, as Postgres does; by way of the nearest double it would be rounded twice."""
    if abs(number) >= _REAL_END:
        return math.inf
    _, exponent = math.frexp(float(number))
    unit = Fraction(2) ** max(exponent - _REAL_BITS, _REAL_LEAST)
    return float(round(Fraction(number) / unit) * unit)


def _text(text: str) -> str:
    return text


def _padded(text: str) -> str:
    return text.rstrip(" ")


def _uuid(text: str) -> str:
    match = _UUID.fullmatch(text)
    if match is None or text.startswith("{") != text.endswith("}"):
        raise Misfit(help="write it as 0d9e3f1a-7c1f-4c36-9a52-3f4f4c1f5f0e")
    digits = match[1].replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _date(text: str) -> str:
    return _moment(text, Kind.DATE)


def _timestamp(text: str) -> str:
    return _moment(text, Kind.TIMESTAMP)


def _timestamptz(text: str) -> str:
    return _moment(text, Kind.TIMESTAMPTZ)


def _time(text: str) -> str:
    match = _TIME.fullmatch(text)
    if match is None:
        raise Misfit(help="write it as 13:45 or 13:45:00.5")
    if text in ("24:00", "24:00:00"):
        return "24:00:00"
    return _clock_text(_clock(match))


def _moment(text: str, kind: Kind) -> str:
    if text in ("infinity", "-infinity"):
        return text
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise Misfit(_MOMENT_HELP[kind])
    if kind is Kind.DATE and match["hour"] is not None:
        raise Misfit(help="the column holds days, without a time")
    if kind is not Kind.TIMESTAMPTZ and match["zone"] is not None:
        raise Misfit(help="the column knows no time zone: leave it out")
    year = 1 - int(match["year"]) if match["bc"] else int(match["year"])
    # The calendar repeats every 400 years; datetime knows the years 1 to 9999 only.
    try:
        shifted = datetime(2000 + year % 400, int(match["month"]), int(match["day"]))  # noqa: DTZ001  (UTC by then)
    except ValueError:
        raise Misfit(help="there is no such day") from None
    moment = shifted + (_clock(match) if match["hour"] is not None else timedelta()) - _zone(match["zone"])
    year += moment.year - shifted.year
    if not -4712 <= year <= (5_874_896 if kind is Kind.DATE else 294_275) or int(match["year"]) == 0:
        raise Misfit(help="the column cannot hold this year")
    return _moment_text(year, moment, kind)


def _moment_text(year: int, moment: datetime, kind: Kind) -> str:
    made = f"{year if year > 0 else 1 - year:04d}-{moment.month:02d}-{moment.day:02d}"
    if kind is not Kind.DATE:
        since = timedelta(
            hours=moment.hour, minutes=moment.minute, seconds=moment.second, microseconds=moment.microsecond
        )
        made += " " + _clock_text(since)
    if kind is Kind.TIMESTAMPTZ:
        made += "+00"
    return made if year > 0 else made + " BC"


def _clock(match: re.Match[str]) -> timedelta:
    hours, minutes, seconds = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise Misfit(help="there is no such time")
    microseconds = int((match["fraction"] or "").ljust(6, "0"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds)


def _clock_text(since: timedelta) -> str:
    minutes, seconds = divmod(since.seconds, 60)
    text = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
    return text + f".{since.microseconds:06d}".rstrip("0") if since.microseconds else text


def _zone(text: str | None) -> timedelta:
    if text is None or text in ("Z", "z"):
        return timedelta()
    digits = text[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 15 or minutes > 59 or seconds > 59:
        raise Misfit(help="there is no such time zone")
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return -offset if text[0] == "-" else offset


_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?|[+-]?Infinity|NaN")
_UUID: Final = re.compile(r"\{?((?:[0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4})\}?")
_CLOCK: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6}))?)?"
_TIME: Final = re.compile(_CLOCK)
_MOMENT: Final = re.compile(
    r"(?P<year>[0-9]{4,7})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    rf"(?:[ T]{_CLOCK}(?: ?(?P<zone>[zZ]|[+-][0-9]{{2}}(?:[0-9]{{2}}|:[0-9]{{2}}(?::[0-9]{{2}})?)?))?)?(?P<bc> BC)?"
)
_MOMENT_HELP: Final = {
    Kind.DATE: "write the day itself as 2026-05-01; words such as 'today' would be read only once",
    Kind.TIMESTAMP: "write it as 2026-05-01 13:45:00; words such as 'now' would be read only once",
    Kind.TIMESTAMPTZ: "write it as 2026-05-01 13:45:00+00; words such as 'now' would be read only once",
}
_CANONICAL: Final[dict[Kind, Callable[[str], str]]] = {
    Kind.BOOLEAN: _boolean,
    Kind.INTEGER: _integer,
    Kind.NUMERIC: _numeric,
    Kind.REAL: _real,
    Kind.DOUBLE: _double,
    Kind.TEXT: _text,
    Kind.PADDED: _padded,
    Kind.UUID: _uuid,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _timestamptz,
    Kind.ENUM: _text,
    Kind.UNKNOWN: _text,
}
_OUT_OF_RANGE: Final = "the column cannot hold a number as large or as small as this"
_REAL_BITS: Final = 24
_REAL_LEAST: Final = -149
_REAL_END: Final = 2.0**128
_OF_NUMBERS: Final = FLOATS | {Kind.INTEGER, Kind.NUMERIC, Kind.UNKNOWN}
_OF_QUOTED: Final = frozenset({Kind.TEXT, Kind.PADDED, Kind.ENUM})
_TRIMMED: Final = frozenset(_CANONICAL) - {Kind.TEXT, Kind.PADDED, Kind.ENUM, Kind.UNKNOWN}
