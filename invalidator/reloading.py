"""New rules without a restart: read, checked, tested, held against the database, and swapped between two transactions.

Whatever goes wrong, the rules in force stay. Changes are noticed by the content of the files, never by their times or
by events of the file system: that also works for ConfigMaps (whose symbolic links are swapped), NFS and editors.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from invalidator.errors import ConfigError, SourceError
from invalidator.ports import Options
from invalidator.rules import document

if TYPE_CHECKING:
    from invalidator.ports import Clock
    from invalidator.rules.document import Loaded
    from invalidator.rules.rule import Rule
    from invalidator.telemetry.events import Events

_SUFFIXES: Final = (".yaml", ".yml")


class Settings(Options):
    """Settings of ``reload:``."""

    watch: bool = True
    """Reload when the content of a rule file changes, or a file comes or goes. SIGHUP and `invalidator reload` work
    in any case."""
    interval_seconds: float = Field(default=2, ge=0.1)
    """How often the content is looked at; it must be the same twice before it is taken."""


class Result(StrEnum):
    """How a reload ended."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"  # the files mean what is in force already
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reload did."""

    result: Result
    hash: str
    """Of the rules in force now."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    skipped_tests: tuple[str, ...] = ()
    """Tests that could not be run, and why: nobody says what their lookups find."""
    error: str | None = None
    """Why the files were refused, with place and fix, as people read it."""

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        return asdict(self)


Admit = Callable[["Loaded", "Loaded"], Awaitable[Sequence[str]]]
"""Takes the rules in force and the new ones; raises ConfigError or SourceError if those must not be put in force.

The result tells of tests that could not be run.
"""


class Reloader:
    """Puts new rules in force, one reload at a time.

    Args:
        paths: rule files and directories.
        in_force: what they held at the start.
        settings: when to look.
        admit: the last word about new rules.
        use: puts what the files hold in force; rules that mean the same may stand at other places.
        events: what is told.
        clock: counts the seconds between two looks.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        in_force: Loaded,
        *,
        settings: Settings,
        admit: Admit,
        use: Callable[[Loaded], None],
        events: Events,
        clock: Clock,
    ) -> None:
        self._paths = tuple(paths)
        self._in_force = in_force
        self._settings = settings
        self._admit = admit
        self._use = use
        self._events = events
        self._clock = clock
        self._lock = asyncio.Lock()
        self._seen = content_hash(self._paths)

    def __repr__(self) -> str:
        return f"<Reloader in_force={self._in_force.ruleset.hash}>"

    async def watch(self) -> None:
        """Reload when the content is another one, until cancelled; returns at once when that is switched off.

        Two looks in a row must see the same: an editor, ``rsync`` or ``git checkout`` may be in the midst of writing.
        """
        before = self._seen
        while self._settings.watch:
            await self._clock.sleep(self._settings.interval_seconds)
            content = await asyncio.to_thread(content_hash, self._paths)
            if content == before != self._seen:
                await self.reload(trigger="content")
            before = content

    async def reload(self, *, trigger: str) -> Outcome:
        """Read the files, and put them in force if nothing speaks against it.

        Args:
            trigger: what asked for it: ``content``, ``signal`` or ``admin``.
        """
        async with self._lock:
            self._seen = await asyncio.to_thread(content_hash, self._paths)
            try:
                outcome = await self._reloaded()
            except ConfigError as error:
                outcome = self._refused(str(error), trigger)
            except SourceError as error:
                self._seen = ""  # nothing is wrong with the files: look again as soon as we may
                outcome = self._refused(f"the rules could not be held against the database: {error}", trigger)
            else:
                self._events.rules_reloaded(
                    trigger=trigger,
                    result=outcome.result,
                    rules_hash=outcome.hash,
                    count=len(self._in_force.ruleset.rules),
                    changes={"added": outcome.added, "removed": outcome.removed, "changed": outcome.changed},
                )
            return outcome

    async def _reloaded(self) -> Outcome:
        loaded = await asyncio.to_thread(document.load_with_warnings, self._paths)
        old = self._in_force
        skipped = tuple(await self._admit(old, loaded))  # also if the rules mean the same: their tests may be others
        self._use(loaded)
        self._in_force = loaded
        if loaded.ruleset.hash == old.ruleset.hash:
            return Outcome(Result.UNCHANGED, loaded.ruleset.hash, skipped_tests=skipped)
        return replace(_difference(old, loaded), skipped_tests=skipped)

    def _refused(self, error: str, trigger: str) -> Outcome:
        self._events.reload_refused(trigger=trigger, error=error)
        return Outcome(Result.REFUSED, self._in_force.ruleset.hash, error=error)


def content_hash(paths: Iterable[Path]) -> str:
    """A name for what the files and directories hold; a missing one counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        for file in _files(path):
            digest.update(os.fsencode(file) + b"\0")
            try:
                content = file.read_bytes()
            except OSError as error:
                digest.update(f"- {error.errno}\0".encode())
            else:
                digest.update(b"+" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def watch_file(path: Path | None) -> Callable[[], str | None]:
    """Makes a function that names the file if it holds something else than now; there may be none."""
    if path is None:
        return lambda: None
    before = content_hash([path])
    return lambda: os.fspath(path) if content_hash([path]) != before else None


def _files(path: Path) -> list[Path]:
    """The file itself, or what the loader reads of a directory."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.suffix in _SUFFIXES and entry.name[0] != ".")
    except OSError:
        return [path]


def _difference(old: Loaded, new: Loaded) -> Outcome:
    before, after = _by_name(old), _by_name(new)
    return Outcome(
        Result.APPLIED,
        new.ruleset.hash,
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(
            sorted(
                name
                for name in before.keys() & after.keys()
                if document.rule_hash(before[name]) != document.rule_hash(after[name])
            )
        ),
    )


def _by_name(loaded: Loaded) -> dict[str, Rule]:
    return {rule.name: rule for rule in loaded.ruleset.rules}
