"""Replies as the types that commands promise."""

from __future__ import annotations

from typing import TypeAlias

from redis.exceptions import RedisError, ResponseError

from invalidator.errors import TargetUnavailable

Reply: TypeAlias = "bytes | int | list[Reply] | None"
"""What a command answers when it is no error."""


def checked(reply: Reply | ResponseError) -> Reply:
    """The reply, if neither it nor anything nested in it is an error.

    Raises:
        RedisError: the first error in it.
    """
    if isinstance(reply, RedisError):
        raise reply
    if isinstance(reply, list):
        for each in reply:
            if isinstance(each, (list, RedisError)):
                checked(each)
    return reply


def as_integer(reply: Reply) -> int:
    """The reply as the number that the command promises.

    Raises:
        TargetUnavailable: it is something else, so it is not the answer to what we asked.
    """
    if not isinstance(reply, int):
        msg = f"redis: expected a number, got {type(reply).__name__}"
        raise TargetUnavailable(msg)
    return reply


def as_bytes(reply: Reply) -> bytes:
    """The reply as the string that the command promises.

    Raises:
        TargetUnavailable: it is something else, so it is not the answer to what we asked.
    """
    if not isinstance(reply, bytes):
        msg = f"redis: expected a string, got {type(reply).__name__}"
        raise TargetUnavailable(msg)
    return reply


def as_list(reply: Reply) -> list[Reply]:
    """The reply as the list that the command promises.

    Raises:
        TargetUnavailable: it is something else, so it is not the answer to what we asked.
    """
    if not isinstance(reply, list):
        msg = f"redis: expected a list, got {type(reply).__name__}"
        raise TargetUnavailable(msg)
    return reply
