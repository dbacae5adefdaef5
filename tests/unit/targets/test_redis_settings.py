"""Options of the Redis targets: what is refused, and that passwords are shown nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pydantic
import pytest

from invalidator.net.redis import RedisClient
from invalidator.ports import TargetOptions
from invalidator.targets import blackhole, redis_bus, redis_keys

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def settings(url: str, **options: object) -> redis_keys.Settings:
    return redis_keys.Settings.model_validate({"type": "redis_keys", "url": url, **options})


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://user:pw@cache.example:6380/3", "redis://cache.example:6380"),
        ("redis://:p%40ss@[::1]:6380", "redis://::1:6380"),
        ("rediss://u:pw@cache.example/0?ssl_ca_certs=/ca.pem", "rediss://cache.example:6379"),
        ("unix://:pw@/run/redis.sock?db=2", "unix:///run/redis.sock"),
        ("redis+sentinel://u:pw@a,[::1]:5/m/1?sentinel_password=pw", "redis+sentinel://a,[::1]:5/m"),
        ("file:/run/secrets/url", "file:/run/secrets/url"),
        ("command:vault read pw", "command:vault"),
    ],
)
def test_a_url_is_shown_without_user_and_password(url: str, label: str) -> None:
    given = settings(url)
    assert repr(RedisClient(given)) == f"<RedisClient {label}>"
    assert "pw" not in f"{given!r} {given.model_dump_json()}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://user:pw@host", "must begin with redis://"),
        ("host:6379", "must begin with redis://"),
        ("redis+cluster://user:pw@host", "Redis Cluster is not supported yet"),
        ("redis+sentinel://user:pw@host", "must name sentinels and their primary"),
        ("redis+sentinel://user:pw@/primary", "must name sentinels and their primary"),
        ("redis+sentinel://user:pw@host:x,other/primary", "each sentinel must be host:port"),
        ("redis+sentinel://user:pw@host,,other/primary", "each sentinel must be host:port"),
        ("redis+sentinel://user:pw@host/primary/abc", "must be the number of a database"),
        ("redis+sentinel://user:pw@host/primary?x=pw", "unknown option 'x'"),
        ("unix+sentinel://user:pw@host/primary", "must begin with redis://"),
        ("redis://user:pw@host?sentinel_password=pw", "unknown option 'sentinel_password'"),
        ("file:", "a path must follow"),
        ("redis://user:pw@host/abc", "must be the number of a database"),
        ("redis://user:pw@host?retry_on_timeout=true", "unknown option 'retry_on_timeout'"),
        ("redis://user:pw@host?password=pw2", "unknown option 'password'"),
        ("redis://user:pw@host:99999", "port or db"),
        ("redis://user:pw@host?db=x", "port or db"),
        ("redis://user:pw/pw@host", "number of a database"),
        ("redis://user:pw/0@host", "number of a database"),
        ("redis://user:pw?pw@host", "unknown text in the query"),
        ("redis://user:pw?x=pw@host", "unknown option 'x'"),
        ("redis://user:pw#pw@host", "port or db"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_showing_it(url: str, why: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=why) as caught:
        settings(url)
    assert "pw" not in str(caught.value)


def test_an_empty_tag_prefix_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="tag_prefix"):
        settings("redis://localhost", tag_prefix="")


def bus(**options: object) -> redis_bus.Settings:
    return redis_bus.Settings.model_validate({"type": "redis_bus", "url": "redis://localhost", **options})


def test_the_formats_have_their_own_default_of_what_to_include() -> None:
    assert bus().include == ["l1", "tags"]
    assert bus(format="pattern").include == ["l1"]
    assert bus(format="pattern", include=["l1", "keys"]).include == ["l1", "keys"]


def test_tags_are_not_left_out_in_silence_by_a_format_without_them() -> None:
    with pytest.raises(pydantic.ValidationError, match="no place for tags"):
        bus(format="pattern", include=["l1", "tags"])


@pytest.mark.parametrize("module", [redis_keys, redis_bus, blackhole], ids=lambda module: module.__name__)
def test_the_reference_lists_every_option_with_its_default(module: object) -> None:
    text = (REFERENCE / f"targets-{'redis' if module is not blackhole else 'blackhole'}.md").read_text()
    options: type[TargetOptions] = module.Settings  # type: ignore[attr-defined]
    section = text if module is blackhole else text.split(f"## `{module.__name__.rpartition('.')[2]}`")[1]  # type: ignore[attr-defined]
    rows = {
        name: default
        for names, default in re.findall(r"^\| (`.+?`) \| (.*?) ?\| .+ \|$", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    for name, field in options.model_fields.items():
        if name == "type":
            continue
        assert name in rows, name
        shown = rows[name].strip("`").replace("[l1, tags]", "['l1', 'tags']")
        if shown not in {"", "required"}:
            assert shown == str(getattr(field.default, "value", field.default)), name
