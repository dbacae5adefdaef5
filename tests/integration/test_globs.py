from __future__ import annotations

import fnmatch

import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from invalidator.rules import globs
from tests.support.redis import SharedServer

HOSTILE = st.lists(
    st.sampled_from(
        [b"*", b"?", b"[", b"]", b"\\", b"^", b"!", b"-", b"a", b"b", b" ", b"\n", b"\xff", b"\xc3\xa4", b"{", b","]
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE, HOSTILE)
@example(b"\\", b"\\\\")
@example(b"[", b"[[]")
@example(b"]a[", b"]a")
@example(b"[^a]", b"b")
def test_an_escaped_value_matches_itself_alone_in_redis(
    redis_flavour: SharedServer, value: bytes, other: bytes
) -> None:
    """The matcher is the server's own, the one behind SCAN, KEYS and PSUBSCRIBE."""
    pattern = b"l1:" + globs.escape(value) + b":*"
    names = {b"l1:" + value + b":x": True, b"l1:" + other + b":x": other == value}
    with redis.Redis.from_url(redis_flavour.url) as client:
        client.flushdb()
        client.mset(dict.fromkeys(names, b""))
        found = client.keys(pattern)
    assert set(found) == {name for name, is_meant in names.items() if is_meant}
    in_python = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    assert set(in_python) == set(found)
