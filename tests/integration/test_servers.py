from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

from invalidator.demo.servers import KeyValueServer, PostgresServer, ServerFailed, ServerMissing, find_postgres
from tests.support.processes import DEADLINE_SECONDS
from tests.support.services import docker_answers, missing, wants_docker

if TYPE_CHECKING:
    from tests.support.postgres import Database, Server
    from tests.support.redis import SharedServer


def test_a_missing_server_is_a_skip_here_and_a_failure_where_everything_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no server"):
        missing("no server")
    monkeypatch.setenv("REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="no server"):
        missing("no server")


@pytest.mark.parametrize(
    ("asked", "local", "engine", "expected"),
    [
        ("auto", True, True, False),
        ("auto", False, True, True),
        ("auto", False, False, False),
        ("local", False, True, False),
        ("docker", True, True, True),
    ],
)
def test_docker_is_taken_when_it_is_asked_for_or_when_nothing_is_local(
    monkeypatch: pytest.MonkeyPatch, asked: str, local: bool, engine: bool, expected: bool
) -> None:
    monkeypatch.setenv("SERVICES", asked)
    monkeypatch.setattr("tests.support.services.docker_answers", lambda: engine)
    assert wants_docker(local=local) is expected


def test_an_engine_that_refuses_connections_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert docker_answers.__wrapped__() is False


def test_the_database_is_empty_and_can_decode(database: Database) -> None:
    database.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    assert database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert database.execute("SELECT current_database(), %s::int", 7) == [(database.name, 7)]


def test_a_database_is_dropped_with_its_slots_even_while_one_streams(postgres_server: Server) -> None:
    from tests.support.postgres import Database, drop_database

    with psycopg.connect(postgres_server.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE doomed TEMPLATE template0")
        made = Database(postgres_server, "doomed")
        made.execute("SELECT pg_create_logical_replication_slot('doomed_slot', 'test_decoding')")
        command = [str(find_postgres() / "pg_recvlogical"), "-d", made.dsn, "-S", "doomed_slot", "--start", "-f", "-"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
            _eventually(lambda: made.execute("SELECT active FROM pg_replication_slots") == [(True,)])
            made.close()
            drop_database(admin, "doomed")
            reader.terminate()
        left = admin.execute("SELECT count(*) FROM pg_replication_slots WHERE database = 'doomed'").fetchone()
        assert left == (0,)


@pytest.mark.parametrize("end", ["stop", "kill", "immediate"])
def test_a_postgres_that_ended_starts_again_on_its_port_with_its_data(
    crashable_postgres: PostgresServer, end: str
) -> None:
    server = crashable_postgres
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
    port, pid = server.port, server.pid
    match end:
        case "stop":
            server.stop()
        case "kill":
            server.kill()
        case _:
            server.stop("immediate")
    assert not server.running
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.dsn())

    server.start()

    assert (server.port, server.pid != pid) == (port, True)
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT id FROM kept").fetchone() == (1,)


def test_a_postgres_takes_the_given_settings_and_asks_for_the_password() -> None:
    with PostgresServer(settings={"wal_sender_timeout": "3s"}) as server:
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("SHOW wal_sender_timeout").fetchone() == ("3s",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{server.port}/postgres")


def test_a_setting_that_postgres_refuses_is_an_error_with_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    before = _directories()
    with pytest.raises(ServerFailed, match="no_such_setting"):
        PostgresServer(settings={"no_such_setting": "1"})
    assert _directories() <= before


def test_a_wrong_folder_in_pg_bin_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(ServerMissing, match="PG_BIN"):
        find_postgres()


def test_a_redis_of_each_flavour_starts_empty(redis_flavour: SharedServer) -> None:
    with redis.Redis.from_url(redis_flavour.url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")
        assert ("valkey_version" in client.info("server")) == (redis_flavour.flavour == "valkey")


def test_a_killed_redis_starts_again_on_its_port(own_redis: KeyValueServer) -> None:
    port = own_redis.port
    own_redis.kill()
    own_redis.start()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.ping()
    assert own_redis.port == port


def test_a_stopped_redis_is_closed_all_the_same(own_redis: KeyValueServer) -> None:
    os.kill(own_redis.pid, signal.SIGSTOP)
    own_redis.close()
    assert not own_redis.running


def test_a_server_started_in_a_short_lived_thread_outlives_that_thread() -> None:
    made: list[KeyValueServer] = []
    thread = threading.Thread(target=lambda: made.append(KeyValueServer()))
    thread.start()
    thread.join()
    with made[0] as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_servers_that_are_closed_leave_no_directory() -> None:
    before = _directories()
    with PostgresServer(), KeyValueServer():
        assert len(_directories() - before) >= 2
    assert _directories() <= before


_STARTS_AND_DIES = """
    import os
    from invalidator.demo.servers import KeyValueServer, PostgresServer
    postgres, valkey = PostgresServer(), KeyValueServer()
    print(postgres.pid, valkey.pid, postgres._base.path, valkey._base.path, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_servers_end_with_a_parent_that_was_killed_and_the_next_server_removes_what_it_left() -> None:
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(_STARTS_AND_DIES)], capture_output=True, check=False)
    assert child.returncode == -9, child.stderr.decode()
    postgres, valkey, *paths = child.stdout.decode().split()
    directories = [Path(path) for path in paths]
    _eventually(lambda: not _lives(int(postgres)) and not _lives(int(valkey)))
    assert all(directory.exists() for directory in directories)

    with KeyValueServer() as alive:
        for directory in (*directories, alive._base.path):
            # A young lock might be about to be taken; on a slow machine it was old already, and went with the first.
            with contextlib.suppress(FileNotFoundError):
                os.utime(directory / "owner.lock", (1, 1))
        with KeyValueServer():
            assert not any(directory.exists() for directory in directories)
            assert alive._base.path.exists(), "what somebody uses must stay"


_AS_NOBODY = """
    import os, psycopg
    from invalidator.demo.servers import KeyValueServer, PostgresServer
    assert os.getuid() == 65534
    with PostgresServer() as postgres, KeyValueServer() as valkey:
        with psycopg.connect(postgres.dsn()) as connection:
            print(connection.execute("SHOW wal_level").fetchone()[0])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_normal_user_can_start_the_servers(tmp_path: Path) -> None:
    if not _reads_python(65534):
        pytest.skip("this interpreter or package lies below a directory that a normal user may not enter")
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_AS_NOBODY)],
        capture_output=True, check=False, user=65534, group=65534, extra_groups=[],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (child.returncode, child.stdout.decode()) == (0, "logical\n"), child.stderr.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_binaries_below_a_directory_that_only_root_may_enter_are_run_without_opening_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    real = find_postgres()
    tree = real.parent.parent
    subprocess.run(["cp", "-a", tree, closed / tree.name], check=True)
    libraries = tree.with_name(f"{tree.name}.libs")
    if libraries.exists():
        subprocess.run(["cp", "-a", libraries, closed / libraries.name], check=True)
    hidden = closed / tree.name / real.relative_to(tree)

    with PostgresServer(binaries=hidden) as server, psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert server.binaries != hidden
    assert closed.stat().st_mode & 0o777 == 0o700


def _reads_python(uid: int) -> bool:
    try:
        child = subprocess.run(
            [sys.executable, "-c", "import invalidator.demo.servers, psycopg"],
            capture_output=True, check=False, user=uid, group=uid, extra_groups=[], cwd="/",
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    except PermissionError:
        return False
    return child.returncode == 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    return stat.rpartition(")")[2].split()[0] != "Z"


def _eventually(condition: object, deadline_seconds: float = DEADLINE_SECONDS) -> None:
    assert callable(condition)
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def _directories() -> set[Path]:
    """Only those of this process: other test runs may be on this machine."""
    return set(Path(tempfile.gettempdir()).glob(f"invalidator-*-{os.getpid()}-*"))
