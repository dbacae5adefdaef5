"""Secrets that are read when they are used: from a file or from a command, anew for each connection.

``file:/run/secrets/password`` is a file that holds the secret, ``command:vault read -field=password db/app`` a program
that prints it; anything else is the secret itself. So a rotated password needs no restart. The program is started
without a shell, gets no input, and has ten seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from invalidator.errors import ConfigError, InvalidatorError

FILE: Final = "file:"
COMMAND: Final = "command:"
COMMAND_SECONDS: Final = 10.0
MAX_BYTES: Final = 65_536


class Secret(SecretStr):
    """A setting that may also say where its value is to be read from."""


class SecretUnavailableError(InvalidatorError):
    """The command gave no secret this time; it may the next time."""


def is_reference(text: str) -> bool:
    """Whether the text says where the secret is, instead of being it."""
    return text.startswith((FILE, COMMAND))


def label(text: str) -> str:
    """A reference for messages: without the arguments of a command, which may be secret."""
    if text.startswith(FILE):
        return text
    with contextlib.suppress(ValueError):
        return COMMAND + shlex.split(text.removeprefix(COMMAND))[0]
    return COMMAND + "…"


def check(text: str) -> None:
    """See that a reference can be understood; nothing is read.

    Raises:
        ValueError: it cannot.
    """
    if text.startswith(FILE) and text == FILE:
        msg = "a path must follow 'file:'"
        raise ValueError(msg)
    if not text.startswith(COMMAND):
        return
    try:
        words = shlex.split(text.removeprefix(COMMAND))
    except ValueError:
        words = []
    if not words:
        msg = "a program must follow 'command:', quoted as in a shell"
        raise ValueError(msg)


def checked_secret(secret: Secret) -> Secret:
    """See, as a validator of pydantic, that a reference can be understood.

    Raises:
        ValueError: it cannot.
    """
    check(secret.get_secret_value())
    return secret


async def read(text: str, *, what: str) -> str:
    """The secret.

    Args:
        text: itself, or a reference.
        what: the setting, for messages.

    Raises:
        ConfigError: the file or the program cannot be used.
        SecretUnavailableError: the program failed or took too long.
    """
    if text.startswith(FILE):
        return await asyncio.to_thread(_of_file, Path(text.removeprefix(FILE)), what)
    if text.startswith(COMMAND):
        return await _of_command(shlex.split(text.removeprefix(COMMAND)), what)
    return text


def _of_file(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        msg = f"the file '{path}' of {what} cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    return _decoded(content, f"the file '{path}' of {what}")


async def _of_command(words: list[str], what: str) -> str:
    who = f"the command '{words[0]}' of {what}"
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # it may say the secret there, too
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        msg = f"{who} cannot be started: {getattr(error, 'strerror', None) or 'its arguments hold a NUL'}"
        raise ConfigError(msg) from None
    assert process.stdout is not None  # noqa: S101  (it is a pipe)
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            content = await _at_most(process.stdout, MAX_BYTES + 1)
            code = None if len(content) > MAX_BYTES else await process.wait()
    except TimeoutError:
        msg = f"{who} has not ended within {COMMAND_SECONDS:g} s"
        raise SecretUnavailableError(msg) from None
    finally:
        await _end(process)
    if code:
        msg = f"{who} ended with code {code}: run it by hand to see what it says"
        raise SecretUnavailableError(msg)
    return _decoded(content, who)


async def _at_most(stream: asyncio.StreamReader, size: int) -> bytes:
    content = b""
    while len(content) < size and (more := await stream.read(size - len(content))):
        content += more
    return content


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it with what it started, if it has not ended by itself: then its number may be somebody else's by now."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except PermissionError:
            return  # it runs as somebody else (sudo), and nobody knows for how long
        except ProcessLookupError:
            pass
        await process.wait()


def _decoded(content: bytes, who: str) -> str:
    if len(content) > MAX_BYTES:
        msg = f"{who} holds more than {MAX_BYTES} bytes, which is no secret"
        raise ConfigError(msg)
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        msg = f"{who} holds what is not UTF-8"
        raise ConfigError(msg) from None
    if not text:
        msg = f"{who} holds nothing"
        raise ConfigError(msg)
    return text
