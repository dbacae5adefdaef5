"""Names that an application invalidates itself, by a logical message in its own transaction.

    SELECT pg_logical_emit_message(true, 'invalidator', '{"keys": ["cms:page:7"], "cdn": ["cms-page-7"]}')

Every database user may emit messages. So a message is data like a row: only names that begin with an allowed prefix
are taken, whatever is wrong is counted and told by reason, and nothing of a message's content reaches a log.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from invalidator.model import Invalidation
from invalidator.ports import TagGrammar
from invalidator.telemetry.state import MessageState

PREFIX: Final = "invalidator"
"""The prefix of the messages that are meant."""
MAX_BYTES: Final = 1024 * 1024
MAX_NAMES: Final = 10_000
MAX_NAME_BYTES: Final = 4096
KINDS: Final = ("keys", "tags", "l1", "cdn")
_FIELDS: Final = (*KINDS, "soft")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Verdict(StrEnum):
    """What became of a message, or of names in it."""

    APPLIED = "applied"
    DISABLED = "disabled"  # source.messages.enabled is false
    NOT_TRANSACTIONAL = "not_transactional"  # it would come although the transaction is rolled back
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"  # no JSON object of the documented form
    BAD_NAME = "bad_name"  # empty, too long, with control characters, or no valid text
    NOT_ALLOWED = "not_allowed"  # outside the allowed prefixes
    BAD_CDN_TAG = "bad_cdn_tag"  # a configured CDN does not take it


class _Refused(Exception):  # noqa: N818  (a verdict on a message)
    def __init__(self, verdict: Verdict, text: str) -> None:
        super().__init__(text)
        self.verdict = verdict


class ExplicitInvalidation:
    """Takes messages; never raises for what one holds.

    Args:
        allowed: kind (``keys``, ``tags``, ``l1``, ``cdn``) → the prefixes that names of it may begin with.
        grammars: what the configured CDNs take as a tag.
        state: counts messages by verdict, and each name that was left out by its reason.
        is_enabled: otherwise messages are only counted.
    """

    def __init__(
        self,
        allowed: Mapping[str, Sequence[str]],
        *,
        grammars: Sequence[TagGrammar],
        state: MessageState,
        is_enabled: bool = True,
    ) -> None:
        self._is_enabled = is_enabled
        self._allowed = {kind: tuple(allowed.get(kind, ())) for kind in KINDS}
        self._grammars = tuple(grammars)
        self._state = state

    def __call__(self, content: bytes, *, is_transactional: bool, invalidation: Invalidation) -> None:
        """Add what the message names and may name to the invalidation."""
        try:
            names, is_soft = self._read(content, is_transactional=is_transactional)
        except _Refused as refused:
            self._refuse(refused.verdict, str(refused))
            return
        taken = 0
        for kind, texts in names.items():
            target: set[bytes] = getattr(invalidation, "cdn_soft" if kind == "cdn" and is_soft else kind)
            for text in texts:
                name = self._checked(kind, text)
                if name is not None:
                    target.add(name)
                    taken += 1
        if taken or not any(names.values()):
            self._state.counts[Verdict.APPLIED] += 1

    def _read(self, content: bytes, *, is_transactional: bool) -> tuple[dict[str, list[str]], bool]:
        if not self._is_enabled:
            raise _Refused(Verdict.DISABLED, "source.messages.enabled is false")
        if not is_transactional:
            text = "it was emitted outside the transaction: the first argument must be true"
            raise _Refused(Verdict.NOT_TRANSACTIONAL, text)
        if len(content) > MAX_BYTES:
            raise _Refused(Verdict.TOO_LARGE, f"it has more than {MAX_BYTES} bytes")
        data = _object(content)
        _check_fields(data)
        is_soft = data.pop("soft", False)
        if not isinstance(is_soft, bool):
            raise _Refused(Verdict.MALFORMED, "'soft' must be true or false")
        for kind, texts in data.items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise _Refused(Verdict.MALFORMED, f"'{kind}' must be a list of texts")
        if sum(map(len, data.values())) > MAX_NAMES:
            raise _Refused(Verdict.TOO_LARGE, f"it has more than {MAX_NAMES} names")
        return data, is_soft

    def _checked(self, kind: str, text: str) -> bytes | None:
        """The name as bytes; None if it may not be named, which is counted."""
        try:
            name = text.encode("utf-8")
        except UnicodeEncodeError:  # half a surrogate pair
            name = b""
        if not name or len(name) > MAX_NAME_BYTES or _CONTROL.search(text):
            self._refuse(Verdict.BAD_NAME, f"a name in '{kind}' is empty, too long or holds control characters")
        elif not text.startswith(self._allowed[kind]):
            self._refuse(
                Verdict.NOT_ALLOWED, f"a name in '{kind}' begins with no prefix of source.messages.allow.{kind}"
            )
        elif kind == "cdn" and not all(grammar.allows(name) for grammar in self._grammars):
            self._refuse(Verdict.BAD_CDN_TAG, "a name in 'cdn' is no tag for every configured CDN")
        else:
            return name
        return None

    def _refuse(self, verdict: Verdict, text: str) -> None:
        self._state.counts[verdict] += 1
        self._state.refusal = text


def _object(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        text = str(error) if isinstance(error, _RepeatedError) else "it is no JSON"
        raise _Refused(Verdict.MALFORMED, text) from None
    if not isinstance(data, dict):
        raise _Refused(Verdict.MALFORMED, "it is no JSON object")
    return data


def _check_fields(data: Mapping[str, Any]) -> None:
    for field in data:
        if field not in _FIELDS:
            near = difflib.get_close_matches(field[:40], _FIELDS, 1, 0.5)
            text = f"it has an unknown field{f' (did you mean {near[0]!r}?)' if near else ''}"
            raise _Refused(Verdict.MALFORMED, f"{text}; known are {', '.join(_FIELDS)}")


class _RepeatedError(ValueError):
    """An object names a field twice."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        msg = "it names a field twice"
        raise _RepeatedError(msg)
    return made
