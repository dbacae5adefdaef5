"""The admin socket is the operator's alone, and one daemon never takes another one's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from invalidator.admin.server import AdminServer
from invalidator.cli import _admin
from invalidator.errors import ConfigError, TargetUnavailable


async def greet(query: Mapping[str, str]) -> Any:
    if "name" not in query:
        msg = "who?"
        raise ValueError(msg)
    return {"hello": query["name"]}


def server(path: Path) -> AdminServer:
    return AdminServer(path, posts={"/greet": greet}, gets={"/see": greet})


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """A user who may not do everything: root, as whom tests run in containers, may."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """Where a server listens."""
    made = server(tmp_path / "admin.sock")
    await made.start()
    yield tmp_path / "admin.sock"
    await made.stop()


async def ask(path: Path, method: str, target: str) -> Any:
    return await asyncio.to_thread(_admin.ask, str(path), method, target)


async def test_only_its_own_user_can_open_the_socket(path: Path) -> None:
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600  # noqa: ASYNC240  (a look at a local file)


async def test_a_question_gets_its_answer(path: Path) -> None:
    assert await ask(path, "POST", "/greet?name=a") == {"hello": "a"}
    assert await ask(path, "GET", "/see?name=b") == {"hello": "b"}


async def test_a_wrong_question_is_said_to_be_wrong(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"who\?"):
        await ask(path, "POST", "/greet")


@pytest.mark.parametrize(("method", "target"), [("GET", "/greet?name=a"), ("POST", "/see?name=a"), ("GET", "/")])
async def test_nothing_else_can_be_asked(path: Path, method: str, target: str) -> None:
    with pytest.raises(TargetUnavailable, match="does not know"):
        await ask(path, method, target)


async def test_a_socket_that_a_dead_daemon_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    made = server(path)
    await made.start()
    assert await ask(path, "GET", "/see?name=b") == {"hello": "b"}
    await made.stop()
    assert not path.exists()


async def test_the_socket_of_a_living_daemon_is_not_taken(path: Path) -> None:
    with pytest.raises(ConfigError, match="another process"):
        await server(path).start()
    assert await ask(path, "GET", "/see?name=b") == {"hello": "b"}


async def test_a_daemon_that_stops_leaves_the_socket_of_another_one_in_its_place(path: Path) -> None:
    first, second = server(path.with_name("shared.sock")), server(path.with_name("shared.sock"))
    await first.start()
    path.with_name("shared.sock").unlink()  # as what cleans temporary folders does
    await second.start()
    await first.stop()
    try:
        assert await ask(path.with_name("shared.sock"), "GET", "/see?name=you") == {"hello": "you"}
    finally:
        await second.stop()
    assert not path.with_name("shared.sock").exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="no socket"):
        await server(path).start()
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["x" * 200, "missing/admin.sock"])
async def test_a_path_where_no_socket_can_be_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        await server(tmp_path / name).start()


@pytest.mark.parametrize("path", ["/dev/null/x", "/tmp/a\0b"])  # noqa: S108  (nothing is made there)
async def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        await server(Path(path)).start()


async def test_a_dead_socket_that_is_not_ours_to_remove_is_told() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "admin.sock")
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        path.chmod(0o666)  # noqa: ASYNC240  (a local file)
        os.chmod(folder, 0o555)  # noqa: S103
        try:
            with somebody_else(), pytest.raises(ConfigError, match="cannot be made"):
                await server(path).start()
        finally:
            os.chmod(folder, 0o755)  # noqa: S103


async def test_without_a_path_nothing_listens(tmp_path: Path) -> None:
    made = AdminServer(None, posts={}, gets={})
    await made.start()
    await made.stop()
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240  (a look at a local folder)


def test_where_nobody_listens_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable, match="no daemon answers"):
        _admin.ask(str(tmp_path / "none"), "GET", "/")
    (tmp_path / "answer").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(TargetUnavailable, match="no daemon answers"):
        _admin.ask(str(tmp_path / "answer"), "GET", "/")
