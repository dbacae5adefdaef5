"""A password is rotated while the daemon runs, which goes on without a restart."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.daemon import Stack, write_whole
from tests.support.watched import Watched

LOOKING = {
    "name": "tag",
    "table": "public.tag",
    "lookup": {"owner": {"sql": "SELECT id FROM item WHERE id = {item}"}},
    "invalidate": {"keys": ["owner:{owner.id}"]},
}


class Rotation:
    """A role whose password changes."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.role = f"{stack.database.name}_role"
        self.file: Path = stack.folder / "password"

    async def to(self, password: str) -> None:
        """Change it where the daemon finds it, which has no reason to connect meanwhile, and in the database."""
        write_whole(self.file, f"{password}\n")
        await self.stack.sql(f"ALTER ROLE {self.role} PASSWORD '{password}'")

    async def end_sessions(self) -> None:
        """All that the role has."""
        await self.stack.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", self.role)

    def dsn(self, **more: str) -> str:
        known: dict[str, Any] = {**conninfo_to_dict(self.stack.database.dsn), "user": self.role}
        known.pop("password", None)
        return make_conninfo(**known | more)


@pytest.fixture
async def rotation(stack: Stack) -> AsyncIterator[Rotation]:
    made = Rotation(stack)
    await stack.sql(f"CREATE ROLE {made.role} LOGIN SUPERUSER PASSWORD 'one'")
    await made.to("one")
    await stack.sql("CREATE TABLE tag (id int PRIMARY KEY, item int)")
    stack.rules.append(LOOKING)
    yield made
    await made.end_sessions()
    await stack.sql(f"ALTER ROLE {made.role} NOLOGIN")
    await stack.sql(f"DROP OWNED BY {made.role}")


@pytest.mark.parametrize("form", ["file", "command", "variable", "dsn"])
async def test_a_password_that_was_rotated_is_used_for_the_next_connection(rotation: Rotation, form: str) -> None:
    stack, env = rotation.stack, dict[str, str]()
    whole = stack.folder / "dsn"
    stack.source["dsn"] = rotation.dsn()
    match form:
        case "file":
            stack.source["password"] = f"file:{rotation.file}"
        case "command":
            stack.source["password"] = f"command:cat {shlex.quote(str(rotation.file))}"
            stack.settings["lookups"] = {"dsn": rotation.dsn(), "password": stack.source["password"]}
        case "variable":
            env["INVALIDATOR_SOURCE__PASSWORD_FILE"] = str(rotation.file)
        case _:
            write_whole(whole, rotation.dsn(password="one"))  # noqa: S106  (of this test)
            stack.source["dsn"] = f"file:{whole}"
    program = stack.run(env)
    await program.event("stream.connected")
    await stack.sql("INSERT INTO item VALUES (1), (2)")
    await check_round(stack, 1)

    await rotation.to("two")
    if form == "dsn":
        write_whole(whole, rotation.dsn(password="two"))  # noqa: S106
    await rotation.end_sessions()
    await program.event("stream.connected", count=2)

    await check_round(stack, 2)
    assert "password authentication failed" not in program.output
    assert not any(secret in program.output for secret in ("'two'", '"two"', "=two"))
    program.terminate()
    assert program.wait() == 0


async def check_round(stack: Stack, number: int) -> None:
    """Stream, side connection and lookups all work."""
    stack.fill(f"item:{number}", f"owner:{number}")
    await stack.sql("UPDATE item SET name = 'x' WHERE id = %s", number)
    await stack.sql("INSERT INTO tag VALUES (%s, %s)", number, number)
    await stack.gone(f"item:{number}", f"owner:{number}")


async def test_a_daemon_waits_for_a_password_that_comes_late_and_says_what_is_wrong(rotation: Rotation) -> None:
    stack = rotation.stack
    stack.source |= {"dsn": rotation.dsn(), "password": f"command:cat {rotation.file}"}
    program = await stack.start()
    watched = Watched(program)

    rotation.file.unlink()
    await stack.sql(f"ALTER ROLE {rotation.role} PASSWORD 'two'")
    await rotation.end_sessions()
    lost = "the command 'cat' of source.password ended with code 1: run it by hand to see what it says"
    await stack.until(lambda: lost in json.dumps(program.events("stream.lost")), f"{lost}: {program.output}")
    assert "command 'cat'" in json.dumps(await watched.status())

    write_whole(rotation.file, "two")
    await program.event("stream.connected", count=2)
    stack.fill("item:1")
    await stack.sql("INSERT INTO item VALUES (1)")
    await stack.gone("item:1")


async def test_a_daemon_whose_password_file_is_missing_at_the_start_says_so_and_starts_nothing(stack: Stack) -> None:
    stack.source["password"] = "file:/nowhere/password"  # noqa: S105  (a path)
    program = stack.run()
    assert await asyncio.to_thread(program.wait) == 78
    assert "the file '/nowhere/password' of source.password cannot be read: No such file or directory" in program.output
