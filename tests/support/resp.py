"""A server that speaks Redis' protocol and answers by script: any reply, an error, half of one, or none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable

import hiredis
import pytest

from tests.support.scripted import LoopbackServer

Command = tuple[bytes, ...]


class Silence:
    """An answer that never comes."""


class Cut:
    """The connection ends in the middle of the answer.

    Args:
        sent: what still comes through.
    """

    def __init__(self, sent: bytes = b"") -> None:
        self.sent = sent


Answer = bytes | Silence | Cut


def well(command: Command) -> bytes:
    """What a healthy, empty server answers, as far as our targets ask."""
    match command[0].upper():
        case b"ROLE":
            return b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
        case b"EVALSHA" | b"EVAL":
            return b"*4\r\n:%d\r\n:0\r\n:0\r\n:0\r\n" % int(command[2])
        case b"SCAN":
            return b"*2\r\n$1\r\n0\r\n*0\r\n"
        case b"UNLINK" | b"PUBLISH":
            return b":0\r\n"
        case b"PING":
            return b"+PONG\r\n"
        case b"INFO":
            return b"$44\r\n# Server\r\nredis_version:8.2.1\r\nmaxmemory:0\r\n\r\n"
        case b"PUBSUB":
            return b"*2\r\n$%d\r\n%s\r\n:0\r\n" % (len(command[2]), command[2])
        case _:
            return b"+OK\r\n"


class ScriptedRedis(LoopbackServer):
    """Answers every command by ``answer``; keeps all commands but those that introduce a connection.

    Args:
        tls: with a certificate, for a server that speaks TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__("redis", tls)
        self.commands: list[Command] = []
        self.introductions: list[Command] = []
        self.answer: Callable[[Command], Answer] = well

    @property
    def kept(self) -> list[Command]:
        return self.commands

    @property
    def url(self) -> str:
        return f"{super().url}/0"

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                assert isinstance(command, list)
                if not await self._reply(tuple(command), writer):
                    return

    async def _reply(self, command: Command, writer: asyncio.StreamWriter) -> bool:
        async with self._came:
            kept = self.introductions if command[0] in {b"CLIENT", b"ROLE", b"AUTH", b"SELECT"} else self.commands
            kept.append(command)
            self._came.notify_all()
        match self.answer(command):
            case bytes() as answer:
                writer.write(answer)
            case Cut() as cut:
                writer.write(cut.sent)
                await writer.drain()
                return False
            case Silence():
                pass
        await writer.drain()
        return True


@pytest.fixture
async def resp_server() -> AsyncIterator[ScriptedRedis]:
    """A scripted Redis on a free port of the loopback."""
    async with ScriptedRedis() as server:
        yield server
