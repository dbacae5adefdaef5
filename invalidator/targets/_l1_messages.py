"""What a message to in-process caches holds, and its bytes. Pure.

Messages are JSON and therefore valid UTF-8, whatever bytes names hold. Nothing is left out because it cannot be
said: a key that is no text becomes a glob, a tag that is no text (or a name too long for a message) clears all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from invalidator.model import Invalidation
from invalidator.targets._globs import escape, literal, literal_prefix

NOTHING: Final = Invalidation()

VERSION: Final = 1
"""``v`` of the format: raised when an old subscriber would misunderstand."""

_NO_TEXT: Final = re.compile("[\udc80-\udcff]+")  # what "surrogateescape" makes of bytes that are no UTF-8
_ENVELOPE_BYTES: Final = 200
"""More than all fields but the lists take: epoch 36, sequence and timestamp at most 20, position 17."""
_PATTERN_ENVELOPE_BYTES: Final = 50


@dataclass(slots=True)
class Content:
    """The lists of one or several messages; distinct names, as text."""

    keys: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    clear: bool = False
    """Everything is stale; the lists are empty then."""
    widened: int = 0
    """Names for which more is dropped than they say."""

    def __bool__(self) -> bool:
        return bool(self.keys or self.patterns or self.tags or self.clear)

    def lists(self) -> dict[str, list[str]]:
        """The lists by their name in the message."""
        return {"keys": self.keys, "patterns": self.patterns, "tags": self.tags}


def content(invalidation: Invalidation, include: frozenset[str]) -> Content:
    """What the included parts of an invalidation say to in-process caches."""
    keys: set[str] = set()
    patterns: set[str] = set()
    made = Content()
    if "l1" in include:
        _sort(invalidation.l1, keys, patterns, made)
    if "keys" in include:
        _sort(map(escape, invalidation.keys), keys, patterns, made)
        _sort(invalidation.key_patterns, keys, patterns, made)
    if "tags" in include:
        made.tags = sorted(tag for tag in map(_text, invalidation.tags) if tag is not None)
        # Subscribers look tags up and match no globs against them.
        vague = len(invalidation.tags) - len(made.tags) + len(invalidation.tag_patterns)
        made.widened += vague
        made.clear = vague > 0
    if made.clear or "*" in patterns:
        return Content(clear=True, widened=made.widened)
    made.keys, made.patterns = sorted(keys), sorted(patterns)
    return made


def _sort(globs: Iterable[bytes], keys: set[str], patterns: set[str], made: Content) -> None:
    """Put each glob where subscribers are quickest: a single name among the keys."""
    for glob in globs:
        name = literal(glob)
        if name is not None and (text := _text(name)) is not None:
            keys.add(text)
        elif (text := _text(glob)) is not None:
            patterns.add(text)
        else:
            made.widened += 1
            patterns.add(_without_what_is_no_text(glob, is_literal=name is not None))


def _text(name: bytes) -> str | None:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _without_what_is_no_text(glob: bytes, *, is_literal: bool) -> str:
    """A glob that is text and matches at least what the given one matches."""
    if is_literal:
        return _NO_TEXT.sub("*", glob.decode("utf-8", "surrogateescape"))
    # The bytes may stand inside a class, where "*" would mean something else.
    return _NO_TEXT.split(literal_prefix(glob).decode("utf-8", "surrogateescape"))[0] + "*"


def split(whole: Content, max_bytes: int) -> tuple[list[Content], int]:
    """Cut into parts whose messages are not longer than ``max_bytes``, and count what had to be widened for it.

    Always at least one part: the empty content is a heartbeat.
    """
    room = max_bytes - _ENVELOPE_BYTES
    parts = [Content(clear=whole.clear)]
    left = room
    for name, entries in whole.lists().items():
        for entry in entries:
            size = len(_json(entry).encode()) + 1
            if size > room:
                return [Content(clear=True)], 1
            if size > left:
                parts.append(Content())
                left = room
            parts[-1].lists()[name].append(entry)
            left -= size
    return parts, 0


def message(part: Content, *, epoch: str, sequence: int, position: str | None, timestamp: int) -> bytes:
    """One message of format ``invalidator``; see docs/reference/l1-messages.md.

    Args:
        part: the lists.
        epoch: of the process that numbers the messages.
        sequence: its number.
        position: LSN up to which the daemon has read, if the batch ends a transaction.
        timestamp: Unix milliseconds.
    """
    return _json(
        {
            "v": VERSION,
            "epoch": epoch,
            "seq": sequence,
            "lsn": position,
            "timestamp": timestamp,
            **part.lists(),
            "clear": part.clear,
        }
    ).encode()


def patterns(whole: Content, max_bytes: int) -> tuple[list[str], int]:
    """The globs for messages of format ``pattern``, and how many had to be widened to fit ``max_bytes``."""
    if whole.clear:
        return ["*"], 0
    room = max_bytes - _PATTERN_ENVELOPE_BYTES
    globs = sorted({*whole.patterns, *(escape(key.encode()).decode() for key in whole.keys)})
    fitting = [glob if len(_json(glob).encode()) <= room else _shortened(glob, room) for glob in globs]
    widened = sum(made != glob for made, glob in zip(fitting, globs, strict=True))
    return list(dict.fromkeys(fitting)), widened


def pattern_message(pattern: str, timestamp: int) -> bytes:
    """One message of format ``pattern``, spaces as its subscribers know them."""
    return json.dumps({"pattern": pattern, "timestamp": timestamp}, ensure_ascii=False).encode()


def _shortened(glob: str, room: int) -> str:
    """The glob of all names that begin like this one, as far as there is room."""
    # JSON writes one character as at most 6 bytes (a control character), or 4 (UTF-8).
    return literal_prefix(glob.encode()).decode()[: room // 6 - 1] + "*"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
