"""New rules come into force whole or not at all, whatever way the files change."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from invalidator.errors import ConfigError, SourceDisconnected
from invalidator.reloading import Outcome, Reloader, Result, Settings, content_hash
from invalidator.rules import document
from invalidator.rules.document import Loaded
from invalidator.telemetry.events import Events
from invalidator.telemetry.metrics import Snapshot, StateCollector, render
from invalidator.telemetry.problems import problems
from invalidator.telemetry.state import State
from tests.support.clock import ManualClock
from tests.support.processes import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("quiet_logs")

Entries = list[MutableMapping[str, Any]]
FILE = "version: 1\nrules:\n{}"
RULE = '  - {{name: {name}, table: public.{name}, invalidate: {{keys: ["{key}:{{id}}"]}}}}\n'


def rules(*names: str, key: str = "k") -> str:
    return FILE.format("".join(RULE.format(name=name, key=key) for name in names))


class Kept:
    """A reloader over one file, with what it put in force."""

    def __init__(self, path: Path, settings: Settings | None = None) -> None:
        self.path = path
        self.path.write_text(rules("a", "b"), encoding="utf-8")
        self.state = State()
        self.used: list[Loaded] = []
        self.held: list[tuple[Loaded, Loaded]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_gate = 0
        self.refusal: Exception | None = None
        self.skipped: list[str] = []
        self.clock = ManualClock()
        self.reloader = Reloader(
            [path],
            document.load_with_warnings([path]),
            settings=settings or Settings(),
            admit=self._admit,
            use=self.used.append,
            events=Events(self.state, lambda: 1000.0),
            clock=self.clock,
        )

    @property
    def admitted(self) -> list[tuple[str, str]]:
        """The hashes of what was in force and of what was wanted, by reload."""
        return [(in_force.ruleset.hash, wanted.ruleset.hash) for in_force, wanted in self.held]

    async def _admit(self, in_force: Loaded, wanted: Loaded) -> list[str]:
        self.at_gate += 1
        await self.gate.wait()
        self.held.append((in_force, wanted))
        if self.refusal is not None:
            raise self.refusal
        return self.skipped

    async def reload(self, content: str | None = None) -> Outcome:
        if content is not None:
            self.path.write_text(content, encoding="utf-8")
        return await self.reloader.reload(trigger="signal")

    def metrics(self) -> str:
        return render(Snapshot(StateCollector(self.state, lambda: 1000.0).collect()), "text").decode()

    def problem(self) -> str | None:
        return next((each.text for each in problems(self.state, 1000) if each.code == "reload-refused"), None)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "rules.yaml")


async def test_a_reload_names_what_came_what_went_and_what_is_another_now(kept: Kept, quiet_logs: Entries) -> None:
    content = FILE.format(RULE.format(name="a", key="other") + RULE.format(name="c", key="k"))

    outcome = await kept.reload(content)

    assert outcome.result is Result.APPLIED
    assert (outcome.added, outcome.removed, outcome.changed) == (("c",), ("b",), ("a",))
    (loaded,) = kept.used
    assert [rule.name for rule in loaded.ruleset.rules] == ["a", "c"]
    assert outcome.hash == loaded.ruleset.hash == kept.state.rules_loaded.hash
    assert quiet_logs == [
        {
            "event": "rules.reloaded",
            "log_level": "info",
            "trigger": "signal",
            "result": "applied",
            "hash": outcome.hash,
            "rules": 2,
            "added": ["c"],
            "removed": ["b"],
            "changed": ["a"],
        }
    ]


async def test_the_next_reload_is_held_against_the_rules_of_the_last(kept: Kept) -> None:
    first = await kept.reload(rules("a"))
    second = await kept.reload(rules("a", "c"))

    assert kept.admitted[1] == (first.hash, second.hash)
    assert second.added == ("c",)


async def test_files_that_mean_the_same_are_used_for_their_places_alone(kept: Kept) -> None:
    outcome = await kept.reload("# a comment\n" + rules("b", "a"))

    assert outcome.result is Result.UNCHANGED
    assert kept.admitted == [(outcome.hash, outcome.hash)]
    (loaded,) = kept.used
    assert [(rule.name, rule.place.line) for rule in loaded.ruleset.rules] == [("b", 4), ("a", 5)]
    await kept.reload()
    assert kept.held[-1][0] is loaded


async def test_two_reloads_at_once_go_one_after_the_other(kept: Kept) -> None:
    """Otherwise both are held against the rules of before, and the later one may be overwritten by the earlier."""
    kept.gate.clear()
    kept.path.write_text(rules("a"), encoding="utf-8")
    first = asyncio.create_task(kept.reload())
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not kept.at_gate:  # noqa: ASYNC110  (it reads files in a thread)
            await asyncio.sleep(0)
    second = asyncio.create_task(kept.reload())
    for _ in range(5):  # more than the second one would need to come as far as the first
        await asyncio.to_thread(document.load_with_warnings, [kept.path])
    assert kept.at_gate == 1
    kept.gate.set()

    outcomes = await asyncio.gather(first, second)

    assert [outcome.result for outcome in outcomes] == [Result.APPLIED, Result.UNCHANGED]
    assert kept.admitted[1] == (outcomes[0].hash, outcomes[0].hash)


async def test_a_directory_that_cannot_be_read_is_refused_and_the_old_rules_stay(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", lost)  # a network file system does so
        outcome = await kept.reload()

    assert outcome.result is Result.REFUSED
    assert "Stale file handle" in (kept.problem() or "")
    assert (await kept.reload()).result is Result.UNCHANGED
    assert kept.problem() is None


@pytest.mark.parametrize("content", [rules("a", "b"), rules("a")])
async def test_tests_that_were_not_run_are_told(kept: Kept, content: str) -> None:
    kept.skipped = ["test 't' was not run"]
    assert (await kept.reload(content)).skipped_tests == ("test 't' was not run",)


async def test_what_is_not_admitted_is_refused_also_if_the_rules_mean_the_same(kept: Kept) -> None:
    """Tests are no part of the hash, and the next start would refuse a file whose tests fail."""
    kept.refusal = ConfigError("a test fails")
    content = "# another test\n" + rules("a", "b")

    refused = await kept.reload(content)

    assert (refused.result, refused.error) == (Result.REFUSED, "a test fails")
    assert kept.problem() is not None
    kept.refusal = None
    assert (await kept.reload()).result is Result.UNCHANGED
    assert kept.problem() is None


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        (rules("a").replace("table", "tabel"), ":3:15", "did you mean 'table'"),
        (rules("a", "a"), ":4:", "duplicate-rule"),
        ("version: 1\nrules: [", ":2:", "yaml"),
        (rules("a").replace("{id}", "{id|uper}"), ":3:", "did you mean 'upper'"),
    ],
)
async def test_a_file_with_a_mistake_is_refused_with_its_place_and_fix_and_the_old_rules_stay(
    kept: Kept, content: str, place: str, said: str
) -> None:
    before = document.load([kept.path]).hash

    outcome = await kept.reload(content)

    assert outcome.result is Result.REFUSED
    assert outcome.hash == before
    assert not kept.used
    for told in (outcome.error, kept.problem(), kept.state.rules_loaded.refused):
        assert told is not None
        assert f"rules.yaml{place}" in told
        assert said in told.lower()


async def test_what_is_admitted_decides_and_a_later_success_clears_the_problem(kept: Kept) -> None:
    kept.refusal = ConfigError("no", fix="do this")
    refused = await kept.reload(rules("a"))
    assert "do this" in (refused.error or "")
    assert kept.problem() is not None
    assert "invalidator_config_last_reload_successful 0.0" in kept.metrics()

    kept.refusal = None
    assert (await kept.reload()).result is Result.APPLIED
    assert kept.problem() is None
    metrics = kept.metrics()
    assert "invalidator_config_last_reload_successful 1.0" in metrics
    assert 'invalidator_config_reloads_total{result="refused"} 1.0' in metrics
    assert 'invalidator_config_reloads_total{result="applied"} 1.0' in metrics


async def test_going_back_to_the_rules_in_force_clears_the_problem(kept: Kept) -> None:
    before = kept.path.read_text(encoding="utf-8")
    await kept.reload("nonsense")
    assert kept.problem() is not None

    assert (await kept.reload(before)).result is Result.UNCHANGED

    assert kept.problem() is None


@pytest.fixture
async def watching(kept: Kept) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Lets the watch look once at the files; returns when it has done what it wants."""
    task = asyncio.create_task(kept.reloader.watch())

    async def look() -> None:
        await kept.clock.advance(2)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not kept.clock.sleepers:  # noqa: ASYNC110  (it reads files in a thread)
                await asyncio.sleep(0)

    yield look
    task.cancel()


async def test_a_database_that_cannot_be_asked_is_asked_again_without_a_change_of_the_file(
    kept: Kept, watching: Callable[[], Awaitable[None]]
) -> None:
    kept.refusal = SourceDisconnected("gone")
    kept.path.write_text(rules("a"), encoding="utf-8")
    await watching()
    assert not kept.admitted, "it may still be written"
    await watching()
    await watching()
    assert len(kept.admitted) == 2
    assert "could not be held against the database" in (kept.problem() or "")

    kept.refusal = None
    await watching()

    assert kept.used
    assert kept.problem() is None


async def test_a_refused_file_is_read_again_only_when_it_changes(
    kept: Kept, watching: Callable[[], Awaitable[None]]
) -> None:
    kept.path.write_text("nonsense", encoding="utf-8")
    await watching()
    await watching()
    kept.path.touch()
    await watching()
    assert kept.state.rules_loaded.reloads["refused"] == 1

    kept.path.write_text(rules("c"), encoding="utf-8")
    await watching()
    await watching()

    assert kept.used


async def test_a_file_that_is_being_written_is_left_until_two_looks_see_the_same(
    kept: Kept, watching: Callable[[], Awaitable[None]]
) -> None:
    """Half of a file is often a right file too, with rules missing."""
    for names in (["a"], ["a", "b", "c"], ["a", "b", "c", "d"]):
        kept.path.write_text(rules(*names), encoding="utf-8")
        await watching()
    assert not kept.admitted

    await watching()

    (loaded,) = kept.used
    assert len(loaded.ruleset.rules) == 4
    await watching()
    assert len(kept.admitted) == 1


async def test_who_asks_need_not_wait_for_a_second_look(kept: Kept, watching: Callable[[], Awaitable[None]]) -> None:
    await watching()
    assert (await kept.reload(rules("a"))).result is Result.APPLIED
    await watching()
    await watching()
    assert len(kept.admitted) == 1


async def test_nothing_is_watched_when_that_is_switched_off(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "rules.yaml", Settings(watch=False))

    await asyncio.wait_for(kept.reloader.watch(), DEADLINE_SECONDS)

    assert not kept.used


def test_the_content_decides_not_the_time_the_link_or_the_order(tmp_path: Path) -> None:
    first, second = tmp_path / "..1", tmp_path / "..2"
    for folder in (first, second):
        folder.mkdir()
        (folder / "rules.yaml").write_text(rules("a"), encoding="utf-8")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "rules.yaml").symlink_to("..data/rules.yaml")
    before = content_hash([tmp_path])

    def swap_to(name: str) -> str:
        (tmp_path / "..next").symlink_to(name)
        (tmp_path / "..next").rename(tmp_path / "..data")
        return content_hash([tmp_path])

    assert swap_to("..2") == before
    (first / "rules.yaml").write_text(rules("b"), encoding="utf-8")
    assert content_hash([tmp_path]) == before
    assert swap_to("..1") != before


def test_files_that_come_go_or_cannot_be_read_are_another_content(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    missing = content_hash([path])
    path.write_text("a", encoding="utf-8")
    there = content_hash([path])
    folder = content_hash([tmp_path])
    (tmp_path / "more.yml").write_text("a", encoding="utf-8")
    more = content_hash([tmp_path])
    (tmp_path / "notes.txt").write_text("a", encoding="utf-8")
    (tmp_path / ".hidden.yaml").write_text("a", encoding="utf-8")

    assert missing != there
    assert folder != more
    assert content_hash([tmp_path]) == more
