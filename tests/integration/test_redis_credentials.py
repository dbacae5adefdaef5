"""The password of a Redis is read for each connection."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from invalidator.demo.servers import KeyValueServer
from invalidator.errors import TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation
from invalidator.targets import redis_keys

BATCH = Batch(Invalidation(keys={b"k"}))


def rotate(server: KeyValueServer, before: str, after: str) -> None:
    """Change the password and end all connections."""
    with redis.Redis(port=server.port, password=before or None) as client:
        client.config_set("requirepass", after)
        client.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("form", ["password: file", "password: command", "url: file"])
async def test_a_password_that_was_rotated_is_used_for_the_next_connection(
    own_redis: KeyValueServer, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "secret"
    url, options = own_redis.url, dict[str, str]()
    is_url = form.startswith("url")
    match form:
        case "password: file":
            options["password"] = f"file:{path}"
        case "password: command":
            options["password"] = f"command:cat {path}"
        case _:
            url = f"file:{path}"

    def write(password: str) -> None:
        path.write_text(own_redis.url.replace("//", f"//:{password}@") if is_url else password)

    target = redis_keys.build(
        "cache", redis_keys.Settings.model_validate({"type": "redis_keys", "url": url, **options})
    )
    rotate(own_redis, "", "one")
    write("one")
    assert await target.apply(BATCH) == Applied(keys=1)

    rotate(own_redis, "one", "two")
    with pytest.raises((TargetRejected, TargetUnavailable)) as refused:  # the old one is still in the file
        await target.apply(BATCH)
    assert "one" not in str(refused.value).replace("connection", "")
    write("two")
    assert await target.apply(BATCH) == Applied(keys=1)
    await target.close()


@pytest.mark.parametrize(
    ("password", "kind", "said"),
    [
        ("file:/nowhere/secret", TargetRejected, "the file '/nowhere/secret' of password cannot be read"),
        ("command:false", TargetUnavailable, "the command 'false' of password ended with code 1"),
    ],
)
async def test_a_password_that_cannot_be_read_is_told(
    own_redis: KeyValueServer, password: str, kind: type[Exception], said: str
) -> None:
    given = {"type": "redis_keys", "url": own_redis.url, "password": password}
    target = redis_keys.build("cache", redis_keys.Settings.model_validate(given))
    with pytest.raises(kind, match=said):
        await target.apply(BATCH)


async def test_a_file_that_holds_no_url_is_told_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("host:6379?s3cret")
    given = {"type": "redis_keys", "url": f"file:{path}"}
    target = redis_keys.build("cache", redis_keys.Settings.model_validate(given))
    with pytest.raises(TargetRejected, match="must begin with redis://") as refused:
        await target.apply(BATCH)
    assert "s3cret" not in str(refused.value)
