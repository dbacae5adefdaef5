"""What waits for CDN targets, as rows of a file: requests and repeats, each with the number of the newest that asked.

An old answer never clears a newer request: what is forgotten is named with its number. Every method is one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from invalidator.delivery.sqlite_file import SqliteFile
from invalidator.errors import JournalUnusable

EVERYTHING: Final = b""
"""The name that stands for everything at a CDN; no CDN has an empty tag."""
_SCHEMA: Final = (
    """CREATE TABLE purge (
        target TEXT NOT NULL,
        name BLOB NOT NULL,        -- CDN tag; empty: everything
        delay REAL NOT NULL,       -- 0: a request; else the repeat so many seconds after a purge
        due REAL NOT NULL,         -- unix seconds: when it was asked for first, or when the repeat is due
        sequence INTEGER NOT NULL, -- of the newest that asked
        soft INTEGER NOT NULL,
        repeats INTEGER NOT NULL,  -- whether the target's own repeats follow
        committed REAL,            -- unix seconds of the oldest commit that asked
        PRIMARY KEY (target, name, delay)
    ) WITHOUT ROWID""",
    "CREATE INDEX request_due ON purge (target, due) WHERE delay = 0",
    "CREATE INDEX repeat_due ON purge (target, due) WHERE delay > 0",
    # Counted as they come and go: to count 100,000 rows for every batch would take longer than to write it.
    "CREATE TABLE waiting (target TEXT PRIMARY KEY, items INTEGER NOT NULL, repeats INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TRIGGER purge_came AFTER INSERT ON purge BEGIN
        INSERT INTO waiting VALUES (new.target, new.delay = 0, new.delay > 0)
        ON CONFLICT DO UPDATE SET items = items + excluded.items, repeats = repeats + excluded.repeats;
    END""",
    """CREATE TRIGGER purge_went AFTER DELETE ON purge BEGIN
        UPDATE waiting SET items = items - (old.delay = 0), repeats = repeats - (old.delay > 0)
        WHERE target = old.target;
    END""",
    """CREATE TABLE failing (
        target TEXT PRIMARY KEY, attempts INTEGER NOT NULL, since REAL NOT NULL, not_before REAL NOT NULL,
        error TEXT NOT NULL, result TEXT NOT NULL
    ) WITHOUT ROWID""",
)
_ADDITIONS: Final = (
    """CREATE TABLE IF NOT EXISTS record (
        target TEXT NOT NULL, name TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (target, name)
    ) WITHOUT ROWID""",
)
_ASK: Final = """
INSERT INTO purge (target, name, delay, due, sequence, soft, repeats, committed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    due = iif(delay > 0, excluded.due, min(due, excluded.due)), sequence = excluded.sequence,
    soft = min(soft, excluded.soft), repeats = max(repeats, excluded.repeats),
    committed = coalesce(min(committed, excluded.committed), committed, excluded.committed)
"""
_TAKE: Final = "SELECT name, delay, due, sequence, soft, repeats, committed FROM purge WHERE target = ? AND "
_REQUESTS: Final = _TAKE + "delay = 0 ORDER BY due LIMIT ?"
_REPEATS: Final = _TAKE + "delay > 0 AND (due <= ? OR due > ? + delay) ORDER BY due LIMIT ?"
_OLDEST: Final = "SELECT due FROM purge WHERE target = ? AND delay = 0 ORDER BY due LIMIT 1"
_NEXT: Final = "SELECT due FROM purge WHERE target = ? AND delay > 0 ORDER BY due LIMIT 1"


@dataclass(frozen=True, slots=True)
class Purge:
    """One name that waits for its purge; ``sequence`` is given by the file."""

    name: bytes
    due: float
    """Unix seconds: when it was asked for first; of a repeat, from when on it may go out."""
    delay: float = 0.0
    """0: a request; else the repeat so many seconds after a purge."""
    soft: bool = False
    repeats: bool = True
    """Whether the target's own repeats follow."""
    committed: float | None = None
    """Unix seconds on our clock of the oldest commit that asked."""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A target that fails, as it goes on after a restart."""

    attempts: int
    since: float
    not_before: float
    error: str
    result: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What waits for one target."""

    items: int
    repeats: int
    oldest: float | None
    """Unix seconds of the oldest request."""
    next_repeat: float | None


Shrink = Callable[[Mapping[bytes, bool]], tuple[Collection[bytes], Mapping[bytes, bool]]]
"""From tags (True: soft) to those that may go, and what takes their place; called when a bound is exceeded."""


class JournalFile:
    """The file; every method runs in the thread that called the first one.

    Args:
        path: of the file; its folder must exist.
        on_lost: what every target is asked for when the file was damaged, by target.
        on_set_aside: told the name of the damaged file, once what it held is replaced.
    """

    def __init__(
        self,
        path: Path,
        on_lost: Callable[[], Mapping[str, Iterable[Purge]]],
        on_set_aside: Callable[[str], None],
    ) -> None:
        self.path = path
        self._on_lost = on_lost
        self._file = SqliteFile(path, _SCHEMA, _ADDITIONS, self._make_good, on_set_aside)
        self._sequence: int | None = None

    def __repr__(self) -> str:
        return f"<JournalFile {self._file!r}>"

    def ask(self, target: str, purges: Collection[Purge], *, limit: int, consents: bool, shrink: Shrink) -> list[str]:
        """Take requests durably, each coalesced with what waits for the same name.

        Args:
            target: who is asked.
            purges: what for.
            limit: names that may wait for it; beyond that tags are shrunk, then, with consent, everything is asked for.
            consents: the target may purge everything.
            shrink: from tags to coarse ones.

        Returns:
            The escalations that were needed: ``coarse``, ``everything``.

        Raises:
            JournalUnusable: nothing was taken.
        """
        with self._file.transaction() as db:
            everything = _everything(purges) if consents else None
            if consents and (everything is not None or _has(db, target, EVERYTHING)):
                self._ask_everything(db, target, everything or _merged(purges))
                return []
            self._put(db, target, purges)
            # crash point: journal-not-committed
            return self._escalate(db, target, limit, consents=consents, shrink=shrink)

    def take(self, target: str, *, now: float, limit: int, max_repeats: int) -> list[Purge]:
        """What is due, oldest first; it stays in here until it is settled.

        Beyond ``max_repeats`` the earliest of them are due before their time. Times that lie further ahead than they
        were ever put are due: the clock was set back.
        """
        with self._file.transaction() as db:
            rows = db.execute(_REQUESTS, (target, limit)).fetchall()
            repeats = db.execute(_REPEATS, (target, now, now, limit)).fetchall()
            excess = _count(db, target)[1] - max_repeats
            if excess > len(repeats):
                repeats = db.execute(_REPEATS, (target, float("inf"), now, min(limit, excess))).fetchall()
        rows = sorted([*rows, *repeats], key=lambda row: float(row[2]))[:limit]
        return [
            Purge(name, due, delay, bool(soft), bool(repeats), committed, sequence)
            for name, delay, due, sequence, soft, repeats, committed in rows
        ]

    def settle(self, target: str, done: Collection[Purge], then: Collection[Purge] = ()) -> None:
        """Forget what was purged, unless somebody has asked for it again meanwhile, and put in what follows."""
        with self._file.transaction() as db:
            # With the number: a newer request for the same name has another one, and stays.
            db.executemany(
                "DELETE FROM purge WHERE target = ? AND name = ? AND delay = ? AND sequence = ?",
                ((target, each.name, each.delay, each.sequence) for each in done),
            )
            self._put(db, target, then)

    def note(self, target: str, failure: Failure | None) -> None:
        """Keep how a target fails; None: it does not."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM failing WHERE target = ?", (target,))
            if failure is not None:
                values = (failure.attempts, failure.since, failure.not_before, failure.error, failure.result)
                db.execute("INSERT INTO failing VALUES (?, ?, ?, ?, ?, ?)", (target, *values))

    def failure(self, target: str) -> Failure | None:
        """How the target fails, if it does."""
        with self._file.transaction() as db:
            query = "SELECT attempts, since, not_before, error, result FROM failing WHERE target = ?"
            row = db.execute(query, (target,)).fetchone()
        return None if row is None else Failure(*row)

    def load_record(self, target: str, name: str) -> bytes | None:
        """What was kept for the target under this name."""
        with self._file.transaction() as db:
            return _record(db, target, name)

    def keep_record(self, target: str, name: str, content: bytes, expected: bytes | None) -> bytes | None:
        """Replace what is kept, unless it is something else than expected; what is kept now."""
        with self._file.transaction() as db:
            if _record(db, target, name) == expected:
                db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", (target, name, content))
            return _record(db, target, name)

    def figures(self, target: str) -> Figures:
        """What waits for the target."""
        with self._file.transaction() as db:
            items, repeats = _count(db, target)
            oldest, next_repeat = (db.execute(query, (target,)).fetchone() for query in (_OLDEST, _NEXT))
        return Figures(items, repeats, oldest and oldest[0], next_repeat and next_repeat[0])

    def strangers(self, known: Collection[str]) -> dict[str, int]:
        """How much waits for targets that are not among the known ones."""
        with self._file.transaction() as db:
            counts = dict(db.execute("SELECT target, items FROM waiting WHERE items > 0").fetchall())
        return {target: count for target, count in counts.items() if target not in known}

    def close(self) -> None:
        """Give file and lock back."""
        self._file.close()

    # ---------------------------------------------------------------- what a transaction is made of

    def _put(self, db: sqlite3.Connection, target: str, purges: Iterable[Purge]) -> None:
        if self._sequence is None:
            self._sequence = db.execute("SELECT coalesce(max(sequence), 0) FROM purge").fetchone()[0]
        self._sequence += 1
        db.executemany(
            _ASK,
            (
                (target, each.name, each.delay, each.due, self._sequence, each.soft, each.repeats, each.committed)
                for each in purges
            ),
        )

    def _make_good(self, db: sqlite3.Connection) -> None:
        for target, purges in self._on_lost().items():
            self._put(db, target, purges)

    def _ask_everything(self, db: sqlite3.Connection, target: str, everything: Purge) -> None:
        """One request for everything covers all others, those of later on too as long as it waits."""
        db.execute("DELETE FROM purge WHERE target = ? AND delay = 0 AND name <> ?", (target, EVERYTHING))
        self._put(db, target, [everything])

    def _escalate(
        self, db: sqlite3.Connection, target: str, limit: int, *, consents: bool, shrink: Shrink
    ) -> list[str]:
        if _count(db, target)[0] <= limit:
            return []
        query = "SELECT name, soft FROM purge WHERE target = ? AND delay = 0 AND name <> ?"
        waiting = {name: bool(soft) for name, soft in db.execute(query, (target, EVERYTHING))}
        query = "SELECT min(due), min(committed) FROM purge WHERE target = ? AND delay = 0"
        oldest, committed = db.execute(query, (target,)).fetchone()
        replaced, instead = shrink(waiting)
        db.executemany("DELETE FROM purge WHERE target = ? AND name = ? AND delay = 0", ((target, n) for n in replaced))
        self._put(db, target, [Purge(name, oldest, soft=soft, committed=committed) for name, soft in instead.items()])
        left = _count(db, target)[0]
        steps = ["coarse"] if replaced else []
        if consents and left > limit // 2:
            self._ask_everything(db, target, Purge(EVERYTHING, oldest, committed=committed))
            return [*steps, "everything"]
        if left > limit:
            msg = f"{left} tags would wait for {target}, more than state.max_journal_items ({limit}) allows"
            raise JournalUnusable(msg, reason="full")
        return steps


def _has(db: sqlite3.Connection, target: str, name: bytes) -> bool:
    query = "SELECT 1 FROM purge WHERE target = ? AND name = ? AND delay = 0"
    return db.execute(query, (target, name)).fetchone() is not None


def _record(db: sqlite3.Connection, target: str, name: str) -> bytes | None:
    row = db.execute("SELECT content FROM record WHERE target = ? AND name = ?", (target, name)).fetchone()
    return None if row is None else bytes(row[0])


def _count(db: sqlite3.Connection, target: str) -> tuple[int, int]:
    """Requests and repeats that wait."""
    row = db.execute("SELECT items, repeats FROM waiting WHERE target = ?", (target,)).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def _everything(purges: Iterable[Purge]) -> Purge | None:
    return next((each for each in purges if each.name == EVERYTHING), None)


def _merged(purges: Collection[Purge]) -> Purge:
    """Everything, in the place of these."""
    commits = [each.committed for each in purges if each.committed is not None]
    due = min(each.due for each in purges)
    repeats = any(each.repeats for each in purges)
    return Purge(EVERYTHING, due, repeats=repeats, committed=min(commits, default=None))
