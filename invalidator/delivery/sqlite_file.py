"""A SQLite file with one connection in one thread, which survives kill -9, power loss, full disks and damage.

WAL with synchronous=FULL: one fsync a transaction, after which the position may be confirmed. The lock is exclusive, so
no two daemons work from one file, and no shared memory beside it is needed. SQLite's errors become ours here.

A damaged file is set aside, and something must take the place of what was only in there; a marker beside the file
keeps that promise through a crash in the middle. A ``-wal`` must never lie beside another database, so it goes first
(https://www.sqlite.org/howtocorrupt.html).
"""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from invalidator.errors import JournalUnusable

APPLICATION_ID: Final = 0x494E564A  # "INVJ"
VERSION: Final = 1
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REASONS: Final = {
    **dict.fromkeys(_DAMAGED, "damaged"),
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
}


class SqliteFile:
    """The file; every method runs in the thread that called the first one.

    Args:
        path: of the file; its folder must exist.
        schema: the statements that make an empty file ours.
        additions: what a file of an earlier program lacks; statements that do nothing when it is there.
        make_good: puts in what takes the place of a damaged file's content; called inside a transaction.
        on_set_aside: told the name of the damaged file, once its content is replaced.
    """

    def __init__(
        self,
        path: Path,
        schema: Sequence[str],
        additions: Sequence[str],
        make_good: Callable[[sqlite3.Connection], None],
        on_set_aside: Callable[[str], None],
    ) -> None:
        self.path = path
        self._schema = schema
        self._additions = additions
        self._make_good = make_good
        self._on_set_aside = on_set_aside
        self._connection: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path} {'open' if self._connection else 'closed'}>"

    def close(self) -> None:
        """Give file and lock back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Opens the file if need be; what is done in here is durable afterwards, or not done.

        Raises:
            JournalUnusable: it was not done.
        """
        try:
            db = self._connection or self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                self._roll_back(db)
                raise
            db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def _roll_back(self, db: sqlite3.Connection) -> None:
        if db.in_transaction:  # after some errors SQLite has rolled back by itself
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        try:
            db = self._connect()
        except sqlite3.Error as error:
            if _code(error) not in _DAMAGED:
                raise
            self._set_aside()
            db = self._connect()
        try:
            if self._marker.exists():
                self._replace_lost(db)
        except BaseException:
            db.close()
            raise
        self._connection = db
        return db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._examine(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")  # an exclusive lock is taken with the first write, and kept
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in self._schema:
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {VERSION}")
            for statement in self._additions:
                db.execute(statement)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _examine(self, db: sqlite3.Connection) -> None:
        """Refuse what is not ours, before anything is written into it."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            msg = f"{self.path} is a database of another program"
            raise JournalUnusable(msg, reason="foreign")
        if version > VERSION:
            msg = f"{self.path} has version {version}, and this program knows {VERSION}"
            raise JournalUnusable(msg, reason="newer")
        (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            damage = sqlite3.DatabaseError(answer)
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage

    @property
    def _marker(self) -> Path:
        return self.path.with_name(self.path.name + ".lost")

    def _set_aside(self) -> None:
        """Move a damaged file out of the way, leaving the marker that says so."""
        self.close()
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns() // 1_000_000}")
        self._marker.write_text(aside.name)
        _sync(self.path.parent)
        for suffix in ("-wal", "-shm", ""):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                file.rename(aside.with_name(aside.name + suffix))
                # crash point: damaged-journal-half-moved
        _sync(self.path.parent)

    def _replace_lost(self, db: sqlite3.Connection) -> None:
        """Put in what takes the place of a lost file's content, then forget that it was lost."""
        aside = self._marker.read_text()
        db.execute("BEGIN IMMEDIATE")
        self._make_good(db)
        db.execute("COMMIT")
        self._on_set_aside(aside)
        # crash point: lost-journal-made-good
        self._marker.unlink()
        _sync(self.path.parent)

    def _unusable(self, error: sqlite3.Error | OSError) -> JournalUnusable:
        """The same as ours; a damaged file is out of the way afterwards, and the next call makes a new one."""
        if isinstance(error, OSError):
            return JournalUnusable(f"{self.path}: {error.strerror}", reason="failed")
        code = _code(error)
        if code != sqlite3.SQLITE_FULL:  # a file that was opened read-only stays so: begin anew at the next call
            self.close()
        if code in _DAMAGED:
            try:
                self._set_aside()
            except OSError as failure:
                return self._unusable(failure)
        reason = _REASONS.get(code, "failed")
        said = "another process has it open" if reason == "locked" else str(error)
        return JournalUnusable(f"{self.path}: {said}", reason=reason)


def leftovers(path: Path) -> tuple[Path, ...]:
    """The file and what lies beside it, set-aside copies too, as far as they are there."""
    beside = sorted(path.parent.glob(glob.escape(path.name) + ".damaged-*")) if path.parent.is_dir() else []
    own = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", ".lost")]
    return tuple(file for file in (*own, *beside) if file.exists())


def identify(path: Path) -> None:
    """See that the file is ours and that nobody has it open; nothing is changed.

    Raises:
        JournalUnusable: it is not, somebody has, or that cannot be told.
    """
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("BEGIN EXCLUSIVE")  # refused while a daemon has it
            (application,) = db.execute("PRAGMA application_id").fetchone()
            db.execute("ROLLBACK")
        finally:
            db.close()
    except sqlite3.Error as error:
        locked = _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        said = "another process has it open" if locked else f"cannot be read: {error}"
        msg = f"{path}: {said}"
        raise JournalUnusable(msg, reason="locked" if locked else "failed") from None
    if application != APPLICATION_ID:
        msg = f"{path} is a database of another program"
        raise JournalUnusable(msg, reason="foreign")


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when the error is Python's own."""
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code


def _sync(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
