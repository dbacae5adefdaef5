"""Replies that a real server gives once in a while, given here by script; and Redis' own reading of globs."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invalidator.errors import TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation
from invalidator.net.redis import RedisClient
from invalidator.net.redis.errors import NOT_NOW
from invalidator.targets import redis_bus, redis_keys
from invalidator.targets._globs import escape
from tests.support.resp import Answer, Command, Cut, ScriptedRedis, well
from tests.support.services import missing


def keys_target(server: ScriptedRedis, **options: object) -> redis_keys.RedisKeys:
    return redis_keys.build(
        "cache", redis_keys.Settings.model_validate({"type": "redis_keys", "url": server.url, **options})
    )


def bus_target(server: ScriptedRedis, **options: object) -> redis_bus.RedisBus:
    return redis_bus.build(
        "bus", redis_bus.Settings.model_validate({"type": "redis_bus", "url": server.url, **options})
    )


def failing(server: ScriptedRedis, name: bytes, number: int, answer: Answer) -> None:
    """Answer the n-th command of that name (from 1) so, all others well."""
    seen = 0

    def by_number(command: Command) -> Answer:
        nonlocal seen
        seen += command[0] == name
        return answer if command[0] == name and seen == number else well(command)

    server.answer = by_number


@pytest.mark.parametrize("answer", [b"-OOM command not allowed\r\n", b"-LOADING dataset in memory\r\n", Cut(b":1")])
async def test_only_what_is_left_remains_after_a_failure_in_the_middle(
    resp_server: ScriptedRedis, answer: Answer
) -> None:
    target = keys_target(resp_server, max_keys_per_command=2)
    failing(resp_server, b"UNLINK", 2, answer)
    batch = Batch(Invalidation(keys={b"k%d" % number for number in range(5)}, tags={b"t"}))
    with pytest.raises(TargetUnavailable) as caught:
        await target.apply(batch)
    done, remaining = set(resp_server.commands[0][1:]), caught.value.remaining
    assert len(done) == 2
    assert remaining == Invalidation(keys=batch.invalidation.keys - done, tags={b"t"})
    resp_server.answer = well
    await target.apply(Batch(remaining))
    sent = [key for command in resp_server.commands for key in command[1:] if command[0] == b"UNLINK"]
    assert set(sent) == batch.invalidation.keys
    await target.close()


async def test_a_scan_begins_again_when_its_connection_was_replaced(resp_server: ScriptedRedis) -> None:
    """A cursor means nothing to another server: going on with it would leave keys out."""
    target = keys_target(resp_server)

    def half_way(command: Command) -> Answer:
        if command[0] != b"SCAN":
            return well(command)
        target._client.generation += command[1] != b"0"  # the second piece comes from another connection
        return b"*2\r\n$1\r\n7\r\n*0\r\n"

    resp_server.answer = half_way
    batch = Batch(Invalidation(key_patterns={b"user:*"}))
    with pytest.raises(TargetUnavailable, match="in the middle of a SCAN") as caught:
        await target.apply(batch)
    resp_server.answer = well
    await target.apply(Batch(caught.value.remaining or Invalidation()))
    assert [command[1] for command in resp_server.commands if command[0] == b"SCAN"][-1] == b"0"
    await target.close()


async def test_tags_that_are_finished_do_not_remain(resp_server: ScriptedRedis) -> None:
    target = keys_target(resp_server, tags_per_call=2)
    failing(resp_server, b"EVALSHA", 2, b"-BUSY a script is running\r\n")
    with pytest.raises(TargetUnavailable) as caught:
        await target.apply(Batch(Invalidation(keys={b"k"}, tags={b"a", b"b", b"c", b"d", b"e"})))
    finished = {key.removeprefix(b"tag:") for key in resp_server.commands[1][3:5]}
    assert caught.value.remaining == Invalidation(tags={b"a", b"b", b"c", b"d", b"e"} - finished)
    await target.close()


@pytest.mark.parametrize("position", [1, 2, 57])
async def test_one_error_among_many_publications_keeps_the_batch_back(
    resp_server: ScriptedRedis, position: int
) -> None:
    target = bus_target(resp_server, format="pattern")
    failing(resp_server, b"PUBLISH", position, b"-OOM command not allowed\r\n")
    batch = Batch(Invalidation(l1={b"user:%d" % number for number in range(60)}))
    with pytest.raises(TargetUnavailable, match="OOM"):
        await target.apply(batch)
    assert await target.apply(batch) == Applied(keys=60)
    # Every other reply was read, so the connection was in step and could be kept.
    assert [command[0] for command in resp_server.introductions].count(b"CLIENT") == 1
    await target.close()


async def test_an_error_inside_of_a_list_is_an_error(resp_server: ScriptedRedis) -> None:
    target = keys_target(resp_server)
    failing(resp_server, b"EVALSHA", 1, b"*4\r\n:1\r\n*1\r\n-OOM nested\r\n:0\r\n:0\r\n")
    with pytest.raises(TargetUnavailable, match="OOM"):
        await target.apply(Batch(Invalidation(tags={b"t"})))
    await target.close()


@pytest.mark.parametrize("answer", [b"+OK\r\n", b"$-1\r\n", b"*0\r\n", b"$1\r\n1\r\n"])
async def test_a_reply_of_another_kind_is_not_taken_for_success(resp_server: ScriptedRedis, answer: bytes) -> None:
    keys, bus = keys_target(resp_server), bus_target(resp_server)
    resp_server.answer = lambda command: answer if command[0] in {b"UNLINK", b"PUBLISH"} else well(command)
    with pytest.raises(TargetUnavailable, match="expected a number"):
        await keys.apply(Batch(Invalidation(keys={b"k"})))
    with pytest.raises(TargetUnavailable, match="expected a number"):
        await bus.apply(Batch(Invalidation(l1={b"k"})))
    await keys.close()
    await bus.close()


async def test_bytes_that_are_no_protocol_are_a_failure(resp_server: ScriptedRedis) -> None:
    target = keys_target(resp_server)
    failing(resp_server, b"UNLINK", 1, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(TargetUnavailable):
        await target.apply(Batch(Invalidation(keys={b"k"})))
    assert await target.apply(Batch(Invalidation(keys={b"k"}))) == Applied(keys=1)
    await target.close()


@pytest.mark.parametrize("code", sorted(NOT_NOW))
async def test_what_passes_by_itself_is_unavailable(resp_server: ScriptedRedis, code: str) -> None:
    target = keys_target(resp_server)
    failing(resp_server, b"UNLINK", 1, f"-{code} for some reason\r\n".encode())
    with pytest.raises(TargetUnavailable, match=f"{code} for some reason") as caught:
        await target.apply(Batch(Invalidation(keys={b"k"})))
    assert caught.value.result == "unavailable"
    assert await target.apply(Batch(Invalidation(keys={b"k"}))) == Applied(keys=1)
    await target.close()


@pytest.mark.parametrize("code", ["NOREPLICAS", "READONLY"])
async def test_what_stopped_a_script_is_found_where_old_servers_tell_it(resp_server: ScriptedRedis, code: str) -> None:
    target = keys_target(resp_server)
    text = f"Error running script (call to f_fe19): @user_script:30: @user_script: 30: -{code} Not enough."
    failing(resp_server, b"EVALSHA", 1, f"-ERR {text}\r\n".encode())
    with pytest.raises(TargetUnavailable, match=code) as caught:
        await target.apply(Batch(Invalidation(tags={b"t"})))
    assert caught.value.result == "unavailable"
    await target.close()


@pytest.mark.parametrize(
    "error",
    ["NOAUTH Authentication required.", "WRONGPASS invalid", "NOPERM no", "ERR unknown command 'X'", "DENIED mode"],
)
async def test_what_only_the_operator_can_mend_is_rejected(resp_server: ScriptedRedis, error: str) -> None:
    target = keys_target(resp_server)
    failing(resp_server, b"UNLINK", 1, f"-{error}\r\n".encode())
    with pytest.raises(TargetRejected, match=error.split(maxsplit=1)[0]):
        await target.apply(Batch(Invalidation(keys={b"k"})))
    await target.close()


async def test_a_full_house_is_no_refusal(resp_server: ScriptedRedis) -> None:
    target = keys_target(resp_server)
    resp_server.answer = lambda _: b"-ERR max number of clients reached\r\n"
    with pytest.raises(TargetUnavailable, match="max number of clients"):
        await target.apply(Batch(Invalidation(keys={b"k"})))
    await target.close()


async def test_a_proxy_that_knows_neither_role_nor_names_is_served(resp_server: ScriptedRedis) -> None:
    target = keys_target(resp_server)
    resp_server.answer = lambda command: (
        b"-ERR unknown command\r\n" if command[0] in {b"ROLE", b"CLIENT"} else well(command)
    )
    assert await target.apply(Batch(Invalidation(keys={b"k"}))) == Applied(keys=1)
    await target.close()


async def test_replies_of_tasks_that_share_a_client_do_not_mix(resp_server: ScriptedRedis) -> None:
    client = RedisClient(redis_keys.Settings.model_validate({"type": "redis_keys", "url": resp_server.url}))
    resp_server.answer = lambda command: b":%b\r\n" % command[1] if command[0] == b"UNLINK" else well(command)
    replies = await asyncio.gather(*(client.execute(b"UNLINK", b"%d" % number) for number in range(100)))
    assert replies == list(range(100))
    await client.close()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(name=st.binary(min_size=1, max_size=12) | st.text("ab*?[]\\^-!x", min_size=1, max_size=10).map(str.encode))
def test_redis_reads_an_escaped_name_as_just_that_name(redis_url: str, name: bytes) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        client.mset({name: "v", name + b"x": "v", b"a": "v", b"b": "v"})
        assert client.keys(escape(name)) == [name]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that signs itself, with its key in the same folder."""
    if shutil.which("openssl") is None:
        missing("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


async def test_a_certificate_is_verified(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with ScriptedRedis(tls=context) as server:
        url = server.url.replace("redis://127.0.0.1", "rediss://localhost")
        for query, why in (("", "certificate"), (f"?ssl_ca_certs={certificate}", None)):
            target = redis_keys.build(
                "cache", redis_keys.Settings.model_validate({"type": "redis_keys", "url": url + query})
            )
            if why is not None:
                with pytest.raises(TargetRejected, match=why):
                    await target.apply(Batch(Invalidation(keys={b"k"})))
            else:
                assert await target.apply(Batch(Invalidation(keys={b"k"}))) == Applied(keys=1)
            await target.close()
