"""A real yaml-language-server, spoken to as an editor does: JSON-RPC over its standard streams."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from tests.support.services import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = Path(__file__).parents[1] / "editor"
_PROGRAM: Final = FOLDER / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
_DEADLINE_SECONDS: Final = 60.0
_SETTINGS: Final = {
    "yaml": {
        "validate": True,
        "hover": True,
        "completion": True,
        "schemaStore": {"enable": False},  # it would ask the network
        "yamlVersion": "1.2",
    },
    "http": {},
    "[yaml]": {},
    "editor": {},
    "files": {},
}


class LanguageServer:
    """One running server; use as a context manager."""

    def __init__(self, node: str) -> None:
        self._command = [node, str(_PROGRAM), "--stdio"]
        self._buffer = b""
        self._next_id = 0
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        capabilities = {
            "textDocument": {"hover": {"contentFormat": ["markdown"]}},
            "workspace": {"configuration": True},
        }
        self.request("initialize", {"processId": os.getpid(), "rootUri": None, "capabilities": capabilities})
        self._send({"method": "initialized", "params": {}})
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": _SETTINGS}})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, *paths: Path) -> dict[Path, list[dict[str, Any]]]:
        """Open the files as they stand on the disk: what is marked in each.

        Together, because the server waits a moment after each change of a file before it looks at it.
        """
        uris = {path: path.resolve().as_uri() for path in paths}
        for path, uri in uris.items():
            self._diagnostics.pop(uri, None)
            document = {"uri": uri, "languageId": "yaml", "version": 1, "text": path.read_text(encoding="utf-8")}
            self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        self._until(lambda: self._diagnostics.keys() >= set(uris.values()), "diagnostics")
        return {path: self._diagnostics[uri] for path, uri in uris.items()}

    def completions(self, path: Path, line: int, column: int) -> list[dict[str, Any]]:
        """What is offered at a place; lines and columns count from 1."""
        found = self._at("textDocument/completion", path, line, column)
        items: list[dict[str, Any]] = found["items"] if isinstance(found, dict) else found
        return items

    def hover(self, path: Path, line: int, column: int) -> str:
        """What is shown when the pointer rests there."""
        found = self._at("textDocument/hover", path, line, column)
        return str(found["contents"]["value"]) if found else ""

    def request(self, method: str, params: dict[str, Any]) -> Any:
        """The result of one request."""
        self._next_id += 1
        identity = self._next_id
        answers: list[dict[str, Any]] = []
        self._send({"id": identity, "method": method, "params": params})
        self._until(lambda: bool(answers), method, identity, answers)
        assert "error" not in answers[0], answers[0]
        return answers[0].get("result")

    def _at(self, method: str, path: Path, line: int, column: int) -> Any:
        position = {"line": line - 1, "character": column - 1}
        return self.request(method, {"textDocument": {"uri": path.resolve().as_uri()}, "position": position})

    def _until(
        self, is_done: Any, what: str, identity: int | None = None, answers: list[dict[str, Any]] | None = None
    ) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not is_done():
            message = self._receive(deadline, what)
            if message.get("method") == "workspace/configuration":
                wanted = [_SETTINGS.get(item["section"]) for item in message["params"]["items"]]
                self._send({"id": message["id"], "result": wanted})
            elif message.get("method") == "textDocument/publishDiagnostics":
                self._diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
            elif "method" in message and "id" in message:
                self._send({"id": message["id"], "result": None})
            elif message.get("id") == identity and answers is not None:
                answers.append(message)

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while True:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if separator:
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                if len(rest) >= length:
                    self._buffer = rest[length:]
                    message: dict[str, Any] = json.loads(rest[:length])
                    return message
            self._read_more(deadline, what)

    def _read_more(self, deadline: float, what: str) -> None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"the language server did not answer: {what}"
        chunk = os.read(self._process.stdout.fileno(), 65536)
        assert chunk, f"the language server ended: {what}"
        self._buffer += chunk


@pytest.fixture(scope="session")
def language_server() -> Iterator[LanguageServer]:
    """One server for the session, in the version of tests/editor/package.json."""
    node = shutil.which("node")
    if node is None:
        missing("there is no node here (Debian package nodejs)")
    if not _PROGRAM.exists():
        missing("there is no yaml-language-server: npm ci --ignore-scripts --prefix tests/editor")
    with LanguageServer(node) as server:
        yield server
