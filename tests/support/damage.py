"""Messages as no server sends them, from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

KINDS = b"BCRIUDTMYO"


def damaged(chance: random.Random, messages: Sequence[bytes]) -> bytes:
    """One of the messages, damaged in one or two ways; or bytes that were never one."""
    if chance.random() < 0.1:
        body = chance.randbytes(chance.randrange(80))
        return chance.choice([body, b"w" + bytes(24) + chance.choice(KINDS).to_bytes() + body, b"k" + body]) or b"w"
    message = chance.choice(messages)
    for _ in range(chance.choice([1, 1, 1, 2])):
        message = chance.choice(_WAYS)(chance, message, messages)
    return message or b"w"


def cut(chance: random.Random, message: bytes, _: Sequence[bytes] = ()) -> bytes:
    """Without its end."""
    return message[: chance.randrange(len(message))] if message else message


def _flip(chance: random.Random, message: bytes, _: Sequence[bytes]) -> bytes:
    made = bytearray(message)
    for _bit in range(chance.choice([1, 1, 2, 8]) if made else 0):
        made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
    return bytes(made)


def _overwrite(chance: random.Random, message: bytes, _: Sequence[bytes]) -> bytes:
    """A length, a count or a kind becomes an extreme one."""
    made = bytearray(message)
    extreme = chance.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff\xff", b"\0\x01", b"t", b"u"])
    at = chance.randrange(len(made) + 1)
    made[at : at + len(extreme)] = extreme
    return bytes(made)


def _remove(chance: random.Random, message: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(message) + 1)
    return message[:at] + message[at + chance.randrange(1, 9) :]


def _insert(chance: random.Random, message: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(message) + 1)
    return message[:at] + chance.randbytes(chance.randrange(1, 9)) + message[at:]


def _splice(chance: random.Random, message: bytes, messages: Sequence[bytes]) -> bytes:
    """The beginning of one and the end of another."""
    other = chance.choice(messages)
    return message[: chance.randrange(len(message) + 1)] + other[chance.randrange(len(other)) :]


_WAYS = (cut, cut, _flip, _flip, _overwrite, _remove, _insert, _splice)
