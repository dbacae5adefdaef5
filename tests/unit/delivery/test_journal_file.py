"""The journal's file keeps what it was told: through crashes, full disks, damage, and older answers."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invalidator.delivery.journal_file import EVERYTHING, Failure, JournalFile, Purge, Shrink
from invalidator.errors import JournalUnusable

NOW = 1_700_000_000.0


@dataclass
class Bench:
    """Opens files, and closes them at the end."""

    path: Path
    lost: dict[str, list[Purge]] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    files: list[JournalFile] = field(default_factory=list)

    def open(self, path: Path | None = None) -> JournalFile:
        made = JournalFile(path or self.path, lambda: self.lost, self.set_aside.append)
        self.files.append(made)
        return made

    def crashed(self, name: str = "crashed") -> Path:
        """A copy of what lies on the disk, as if the process had been killed now."""
        folder = self.path.parent.parent / name
        shutil.copytree(self.path.parent, folder)
        return folder / self.path.name

    def close(self) -> None:
        for each in self.files:
            each.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "state"
    folder.mkdir()
    made = Bench(folder / "state.db")
    yield made
    made.close()


def nothing(_: Mapping[bytes, bool]) -> tuple[Collection[bytes], Mapping[bytes, bool]]:
    return (), {}


def users(waiting: Mapping[bytes, bool]) -> tuple[Collection[bytes], Mapping[bytes, bool]]:
    return [name for name in waiting if name.startswith(b"user-")], {b"users": False}


def ask(
    file: JournalFile,
    *purges: str | Purge,
    target: str = "edge",
    at: float = NOW,
    limit: int = 10_000,
    consents: bool = False,
    shrink: Shrink = nothing,
) -> list[str]:
    made = [each if isinstance(each, Purge) else Purge(each.encode(), at) for each in purges]
    return file.ask(target, made, limit=limit, consents=consents, shrink=shrink)


def taken(file: JournalFile, target: str = "edge", *, now: float = NOW, limit: int = 5000) -> list[Purge]:
    return file.take(target, now=now, limit=limit, max_repeats=500)


def names(purges: list[Purge]) -> list[bytes]:
    return [each.name for each in purges]


def connection(file: JournalFile) -> sqlite3.Connection:
    db = file._file._connection
    assert db is not None
    return db


def test_what_was_asked_for_is_taken_oldest_first_and_stays_until_it_is_settled(bench: Bench) -> None:
    file = bench.open()
    ask(file, "b", at=NOW - 1)
    ask(file, "a", at=NOW - 2)

    assert names(taken(file)) == names(taken(file)) == [b"a", b"b"]
    file.settle("edge", taken(file, limit=1))
    assert names(taken(file)) == [b"b"]


def test_targets_do_not_see_each_other(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a", target="edge")
    ask(file, "b", target="varnish")

    file.settle("edge", taken(file, "edge"))

    assert (names(taken(file, "edge")), names(taken(file, "varnish"))) == ([], [b"b"])


def test_the_same_tag_waits_once_with_its_oldest_age_and_the_stronger_form(bench: Bench) -> None:
    file = bench.open()
    ask(file, Purge(b"a", NOW - 9, soft=True, repeats=False, committed=5.0))
    ask(file, Purge(b"a", NOW, soft=False, repeats=True, committed=None))

    (purge,) = taken(file)
    assert (purge.due, purge.soft, purge.repeats, purge.committed) == (NOW - 9, False, True, 5.0)
    assert file.figures("edge").oldest == NOW - 9


def test_an_old_answer_does_not_clear_a_newer_request(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a", "b")
    under_way = taken(file)
    ask(file, "a")  # while the purge is under way: it may have come too early for this change

    file.settle("edge", under_way)

    assert names(taken(file)) == [b"a"]


def test_an_answer_from_before_a_reopening_does_not_clear_what_was_asked_for_after_it(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a")
    under_way = taken(file)
    file.close()
    ask(file, "a")

    file.settle("edge", under_way)

    assert names(taken(file)) == [b"a"]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "take", "settle", "crash"]), st.sets(st.sampled_from("abc"), max_size=3)),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_every_request_is_purged_after_it_was_made_whatever_happens_between(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[str]]]
) -> None:
    """The purge of a name must begin after the newest request for it, or the name must still wait."""
    folder = tmp_path_factory.mktemp("run") / "state"
    folder.mkdir()
    bench = Bench(folder / "state.db")
    file = bench.open()
    newest: dict[bytes, int] = {}
    purged: dict[bytes, int] = {}
    under_way: tuple[int, list[Purge]] | None = None
    for at, (step, tags) in enumerate(steps):
        match step:
            case "ask":
                ask(file, *tags)
                newest.update({tag.encode(): at for tag in tags})
            case "take":
                under_way = at, taken(file)
            case "settle" if under_way is not None:
                purged.update({each.name: under_way[0] for each in under_way[1]})
                file.settle("edge", under_way[1])
                under_way = None
            case "crash":
                if bench.path.exists():
                    bench.path = bench.crashed(f"crash{at}")
                    file.close()
                    file = bench.open()
                under_way = None
            case _:
                pass
    waiting = set(names(taken(file)))
    bench.close()

    assert {tag for tag, at in newest.items() if purged.get(tag, -1) < at} <= waiting


def test_a_repeat_comes_when_it_is_due_and_a_newer_one_takes_its_place(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a")
    file.settle("edge", taken(file), [Purge(b"a", NOW + 2, delay=2.0, repeats=False)])
    assert taken(file, now=NOW + 1.9) == []
    assert file.figures("edge").next_repeat == NOW + 2

    file.settle("edge", [], [Purge(b"a", NOW + 3, delay=2.0, repeats=False)])

    assert taken(file, now=NOW + 2.5) == []
    assert names(taken(file, now=NOW + 3)) == [b"a"]


def test_a_repeat_does_not_wait_for_a_clock_that_was_set_back(bench: Bench) -> None:
    file = bench.open()
    file.settle("edge", [], [Purge(b"a", NOW + 2, delay=2.0)])

    assert names(taken(file, now=NOW - 3600)) == [b"a"]


def test_too_many_repeats_come_before_their_time(bench: Bench) -> None:
    file = bench.open()
    file.settle("edge", [], [Purge(b"%d" % i, NOW + 60 + i, delay=3600.0) for i in range(12)])

    early = file.take("edge", now=NOW, limit=1000, max_repeats=10)

    assert names(early) == [b"0", b"1"]


@pytest.mark.parametrize("moment", ["asked", "taken", "settled"])
def test_a_kill_between_any_two_steps_purges_again_and_loses_nothing(bench: Bench, moment: str) -> None:
    file = bench.open()
    ask(file, "a")
    under_way = taken(file) if moment != "asked" else []
    if moment == "settled":
        file.settle("edge", under_way, [Purge(b"a", NOW + 2, delay=2.0)])

    after = bench.open(bench.crashed())

    assert names(taken(after, now=NOW)) == ([] if moment == "settled" else [b"a"])
    assert names(taken(after, now=NOW + 2)) == [b"a"]


def test_what_was_being_written_at_a_kill_is_complete_or_not_there(bench: Bench) -> None:
    file = bench.open()
    ask(file, *(f"old-{i}" for i in range(50)))
    wal = bench.path.with_name(bench.path.name + "-wal")
    before = wal.stat().st_size
    ask(file, *(f"new-{i}" for i in range(50)), at=NOW - 1)
    for cut in range(before, wal.stat().st_size, 997):
        image = bench.crashed(f"cut{cut}")
        with image.with_name(image.name + "-wal").open("r+b") as torn:
            torn.truncate(cut)
        after = bench.open(image)
        assert len(taken(after)) == 50
        after.close()
    assert len(taken(file)) == 100


def test_how_a_target_fails_is_kept(bench: Bench) -> None:
    failure = Failure(3, NOW - 60, NOW + 30, "edge: answered 503", "http_5xx")
    file = bench.open()
    file.note("edge", failure)

    after = bench.open(bench.crashed())
    assert after.failure("edge") == failure
    assert after.failure("varnish") is None
    after.note("edge", None)
    assert after.failure("edge") is None


# -------------------------------------------------------------------- the bound


def test_beyond_the_bound_tags_become_coarse_and_keep_their_age(bench: Bench) -> None:
    file = bench.open()
    ask(file, "user-1", "user-2", "user-3", at=NOW - 9, limit=4)

    steps = ask(file, "user-4", "post-1", limit=4, shrink=users)

    assert steps == ["coarse"]
    assert {(each.name, each.due) for each in taken(file)} == {(b"users", NOW - 9), (b"post-1", NOW)}


def test_beyond_the_bound_everything_takes_the_place_of_what_has_no_coarse_tag(bench: Bench) -> None:
    file = bench.open()

    steps = ask(file, *map(str, range(11)), limit=10, consents=True)

    assert steps == ["everything"]
    assert names(taken(file)) == [EVERYTHING]


def test_what_is_asked_for_while_everything_waits_is_covered_by_it_and_by_no_older_answer(bench: Bench) -> None:
    file = bench.open()
    ask(file, "before", Purge(EVERYTHING, NOW), consents=True)
    under_way = taken(file)
    ask(file, "a", consents=True)
    assert names(taken(file)) == [EVERYTHING]

    file.settle("edge", under_way)

    assert names(taken(file)) == [EVERYTHING], "a was asked for after that purge had begun"


def test_without_consent_a_full_journal_takes_nothing_more_and_keeps_what_it_has(bench: Bench) -> None:
    file = bench.open()
    ask(file, *map(str, range(10)), limit=10)

    with pytest.raises(JournalUnusable, match=r"11 tags would wait for edge, more than state\.max_journal") as full:
        ask(file, "one-more", limit=10)

    assert full.value.reason == "full"
    assert len(taken(file)) == 10
    ask(file, "9", limit=10)  # the same tag takes no room


# -------------------------------------------------------------------- what can be wrong with a file


def test_a_full_disk_takes_nothing_and_loses_nothing_and_goes_on_when_there_is_room(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a")
    db = connection(file)
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(JournalUnusable, match="database or disk is full") as full:
        ask(file, *(f"{i:0>200}" for i in range(500)))

    assert full.value.reason == "disk_full"
    assert names(taken(file)) == [b"a"]
    db.execute("PRAGMA max_page_count = 1000000")
    ask(file, *(f"{i:0>200}" for i in range(500)))
    assert len(taken(file)) == 501


def test_a_file_that_cannot_be_written_is_told_and_opened_anew(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a")
    connection(file).execute("PRAGMA query_only = ON")

    with pytest.raises(JournalUnusable) as failure:
        ask(file, "b")

    assert failure.value.reason == "read_only"
    ask(file, "b")
    assert names(taken(file)) == [b"a", b"b"]


def test_a_folder_that_is_missing_is_told_and_found_when_it_comes(bench: Bench) -> None:
    path = bench.path.parent / "later" / "state.db"
    file = bench.open(path)
    with pytest.raises(JournalUnusable, match="unable to open database file") as failure:
        ask(file, "a")
    assert failure.value.reason == "failed"

    path.parent.mkdir()
    ask(file, "a")
    assert names(taken(file)) == [b"a"]


def test_a_file_that_another_process_has_open_is_taken_over_when_that_ends(bench: Bench) -> None:
    first, second = bench.open(), bench.open()
    ask(first, "a")

    with pytest.raises(JournalUnusable, match="another process has it open") as failure:
        taken(second)
    assert failure.value.reason == "locked"

    first.close()
    assert names(taken(second)) == [b"a"]


def test_a_file_of_a_newer_version_is_left_alone(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a")
    file.close()
    db = sqlite3.connect(bench.path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    content = bench.path.read_bytes()

    with pytest.raises(JournalUnusable, match="has version 2, and this program knows 1") as failure:
        ask(bench.open(), "b")

    assert failure.value.reason == "newer"
    assert bench.path.read_bytes() == content


def test_a_database_of_another_program_is_left_alone(bench: Bench) -> None:
    db = sqlite3.connect(bench.path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    content = bench.path.read_bytes()

    with pytest.raises(JournalUnusable, match="is a database of another program") as failure:
        ask(bench.open(), "b")

    assert failure.value.reason == "foreign"
    assert bench.path.read_bytes() == content


def damage(bench: Bench, how: str) -> None:
    file = bench.open()
    ask(file, *(f"tag-{i}" for i in range(2000)))
    file.close()
    content = bytearray(bench.path.read_bytes())
    match how:
        case "header":
            content[:100] = b"\xff" * 100
        case "middle":
            content[4096 * 3 : 4096 * 12] = b"\x5a" * (4096 * 9)
        case _:
            del content[len(content) // 2 :]
    bench.path.write_bytes(content)


@pytest.mark.parametrize("how", ["header", "middle", "truncated"])
def test_a_damaged_file_is_set_aside_and_what_it_can_have_held_is_asked_for(bench: Bench, how: str) -> None:
    damage(bench, how)
    content = bench.path.read_bytes()
    bench.lost = {"edge": [Purge(b"users", NOW)]}

    file = bench.open()

    assert names(taken(file)) == [b"users"]
    (aside,) = bench.set_aside
    assert (bench.path.parent / aside).read_bytes() == content
    assert not list(bench.path.parent.glob("*.lost"))
    ask(file, "new")
    assert names(taken(bench.open(bench.crashed()))) == [b"new", b"users"]


def test_damage_that_shows_while_the_file_is_in_use_is_made_good_at_the_next_call(bench: Bench) -> None:
    file = bench.open()
    ask(file, *(f"tag-{i}" for i in range(2000)))
    connection(file).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection(file).execute("PRAGMA cache_size = 1")
    with bench.path.open("r+b") as content:
        content.seek(4096 * 2)
        content.write(b"\x5a" * 4096 * 30)
    bench.lost = {"edge": [Purge(b"users", NOW)]}

    with pytest.raises(JournalUnusable, match="malformed"):
        taken(file)

    assert names(taken(file)) == [b"users"]
    assert len(bench.set_aside) == 1


def test_a_kill_while_a_damaged_file_is_replaced_forgets_nothing(bench: Bench) -> None:
    damage(bench, "header")

    class Killed(BaseException):
        pass

    def killed() -> Mapping[str, list[Purge]]:
        raise Killed

    with pytest.raises(Killed):
        taken(JournalFile(bench.path, killed, bench.set_aside.append))
    image = bench.crashed()
    bench.lost = {"edge": [Purge(b"users", NOW)]}

    assert names(taken(bench.open(image))) == [b"users"]
    assert len(bench.set_aside) == 1


def test_what_waits_for_targets_that_are_no_more_is_counted(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a", "b", target="removed")
    ask(file, "c", target="edge")

    assert file.strangers({"edge"}) == {"removed": 2}


def test_a_record_is_replaced_only_if_it_is_the_expected_one(bench: Bench) -> None:
    file = bench.open()
    assert file.load_record("edge", "shop") is None
    assert file.keep_record("edge", "shop", b"1", None) == b"1"
    assert file.keep_record("edge", "shop", b"2", None) == b"1"
    assert file.keep_record("edge", "shop", b"2", b"1") == b"2"
    assert file.load_record("other", "shop") is None
    assert bench.open(bench.crashed()).load_record("edge", "shop") == b"2"


def test_a_file_of_a_program_that_kept_no_records_takes_them(bench: Bench) -> None:
    file = bench.open()
    ask(file, "a")
    file.close()
    with sqlite3.connect(bench.path) as db:
        db.execute("DROP TABLE record")
    db.close()
    file = bench.open()
    assert file.keep_record("edge", "shop", b"1", None) == b"1"
    assert file.figures("edge").items == 1
