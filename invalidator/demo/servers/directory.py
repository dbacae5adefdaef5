"""A temporary directory per server; one that a killed process left behind is removed by the next process."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from invalidator.demo.servers.process import Account

_PREFIX: Final = "invalidator"
_LOCK: Final = "owner.lock"
_YOUNG_SECONDS: Final = 2


class ServerDirectory:
    """A fresh directory that the account owns, ours until :meth:`remove`.

    A lock says that its owner lives: unlike a pid it is right across containers that share /tmp, and the kernel
    releases it however the owner ends.

    Args:
        kind: a word for the name.
        account: who runs the server, if not ourselves.
    """

    def __init__(self, kind: str, account: Account | None) -> None:
        parent = _parent(account)
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{kind}-{os.getpid()}-", dir=parent))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if account is not None:
            self.path.chmod(0o755)  # binaries linked into it must be reachable
            os.chown(self.path, account.uid, account.gid)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it with everything in it. May be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _parent(account: Account | None) -> Path:
    """Where paths are short enough for a unix socket (104 bytes on macOS), and where the account may go.

    Root's own TMPDIR may be closed to the account.
    """
    usual = tempfile.gettempdir()
    return Path("/tmp" if account is not None or len(usual) > 60 else usual)  # noqa: S108  (mkdtemp is safe there)


def _sweep(parent: Path) -> None:
    """Remove what owners that were killed left behind: their servers have ended with them."""
    if sys.platform != "linux":
        return  # there servers may outlive their owner
    for left in parent.glob(f"{_PREFIX}-*-*-*"):
        try:
            lock = os.open(left / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # not ours, or not yet locked by its owner
        try:
            if _is_old_and_ours(lock):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # its owner lives
        finally:
            os.close(lock)


def _is_old_and_ours(lock: int) -> bool:
    """A directory that was just made and is not locked yet looks left behind for a moment: so leave young ones."""
    facts = os.fstat(lock)
    return facts.st_uid == os.geteuid() and time.time() - facts.st_mtime > _YOUNG_SECONDS
