"""Unlinks keys in Redis, the members of tag sets, and whatever patterns find (layer L2).

Keys go first: they are exact and cheap, so they are fresh at once, however long the tag sets behind them take. All
keys of a batch leave in one ``UNLINK`` (0.16 µs of our CPU a key, against 6 for one command each).

What was finished before a failure is not done again: the error says what remains.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar, Final, Literal

from pydantic import Field

from invalidator.errors import TargetError, TargetRejected, TargetUnavailable
from invalidator.model import Applied, Batch, Invalidation, Layer
from invalidator.net.redis import RedisClient, RedisOptions, Reply, Script, as_bytes, as_integer, as_list
from invalidator.ports import Kept, Probe, ProbeFinding
from invalidator.targets._globs import escape, uncovered
from invalidator.targets._redis_server import about, timed

_LUA: Final = resources.files("invalidator.targets") / "lua"
EXPAND: Final = Script((_LUA / "expand_tags.lua").read_bytes())
KEEP: Final = Script((_LUA / "keep_record.lua").read_bytes())
FORGET: Final = Script((_LUA / "forget_record.lua").read_bytes())
CLAIM: Final = Script((_LUA / "claim_record.lua").read_bytes())
WHEN_FULL: Final = {each: Script(b"#!lua flags=allow-oom\n" + each.text) for each in (KEEP, CLAIM)}
"""The same for a server that has no memory left, which is told that since Redis 7. Without it a full Redis, which takes
every UNLINK, would hold the confirmed position."""

MEMBERS_PER_CALL: Final = 1000
"""So long does the server stand still for one call of the script: about 1 ms."""

MAX_SAMPLED_SETS: Final = 20
"""Tag sets that a probe looks at."""

OWNER: Final = b":owner"
"""What stands behind the key of our record for the one that says whose it is."""

_FORBIDDEN: Final = re.compile("NOPERM|ACL failure|can't (?:run|access)")
"""In what a server says; those before 7 say the last of these when a script may not do something."""

CUT: Final = b"\0drain"
"""What the script puts behind the key of a large tag set while it works on it."""


class Settings(RedisOptions):
    """A Redis (or Valkey, KeyDB, Dragonfly ...) that holds cached values and tag sets."""

    type: Literal["redis_keys"]
    tag_prefix: str = Field(default="tag:", min_length=1)
    """The tag set of tag ``product:7`` is the set, sorted set or hash ``tag:product:7``: its members (or fields) are
    the keys to unlink."""
    max_keys_per_command: int = Field(default=5000, ge=1, le=100_000)
    """More keys than this go out as several commands, so that other clients get their turn."""
    tags_per_call: int = Field(default=500, ge=1, le=5000)
    """How many tag sets the script is given at once."""
    scan_count: int = Field(default=1000, ge=10, le=100_000)
    """COUNT of each SCAN that looks for a pattern. Only coarse forms need patterns."""
    record_prefix: str = Field(default="invalidator:", min_length=1)
    """Our record of what was applied is the string with this and the slot's name as its key; beside it lies, with
    `:owner` behind, whose it is. No rule should name them. Daemons of two databases need two prefixes, or two names."""
    wait_replicas: int = Field(default=0, ge=0)
    """A position counts as applied only when so many replicas of this server have it too (WAIT). 0: do not ask."""
    wait_seconds: float = Field(default=1, gt=0)
    """How long to wait for those replicas each time."""


def build(name: str, settings: Settings) -> RedisKeys:
    """Make the target; no connection is opened yet."""
    return RedisKeys(name, settings)


@dataclass(slots=True)
class _Work:
    """One batch at this target: what is still to do, and what was done."""

    keys: list[bytes]
    tags: list[bytes]
    key_patterns: list[bytes]
    tag_patterns: list[bytes]
    removed: int = 0
    no_set: int = 0

    @classmethod
    def of(cls, invalidation: Invalidation) -> _Work:
        return cls(
            keys=list(invalidation.keys),
            tags=list(invalidation.tags),
            key_patterns=uncovered(invalidation.key_patterns),
            tag_patterns=uncovered(invalidation.tag_patterns),
        )

    def __len__(self) -> int:
        return len(self.keys) + len(self.tags) + len(self.key_patterns) + len(self.tag_patterns)

    def remaining(self) -> Invalidation:
        return Invalidation(
            keys=set(self.keys),
            tags=set(self.tags),
            key_patterns=set(self.key_patterns),
            tag_patterns=set(self.tag_patterns),
        )


class RedisKeys:
    """The target; see the module.

    Args:
        name: of the target in the settings.
        settings: its options.
    """

    layer: ClassVar[Layer] = Layer.L2
    lies_apart: bool = False

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._settings = settings
        self._prefix = settings.tag_prefix.encode()
        self._probe = self._prefix + b"\0heartbeat"
        self._client = RedisClient(settings)
        self._knows_flags = True

    def __repr__(self) -> str:
        return f"<RedisKeys {self.name} {self._client!r}>"

    async def apply(self, batch: Batch) -> Applied:
        """Unlink everything that the batch names; see ``ports.Target`` for what is guaranteed.

        A heartbeat is answered by unlinking a key that never exists: unlike PING, this fails on a replica and on
        a server that refuses writes.

        Raises:
            TargetUnavailable: no answer, or one that says "not now".
            TargetRejected: credentials, permissions or the kind of server are wrong.
        """
        work = _Work.of(batch.invalidation)
        if not work:
            if batch.heartbeat is not None:
                await self._client.execute(b"UNLINK", self._probe)
            return Applied()
        keys, tags = len(work.keys), len(work.tags)
        patterns = len(work.key_patterns) + len(work.tag_patterns)
        try:
            await self._work_off(work)
        except TargetError as error:
            error.remaining = work.remaining()
            raise
        return Applied(keys=keys, tags=tags, patterns=patterns, removed=work.removed, widened=work.no_set)

    async def probe(self) -> Probe:
        """See whether keys could be unlinked, and whether the server may throw tag sets away; see ``ports.Probing``."""
        took = await timed(self._client, b"UNLINK", self._probe)
        server = await about(self._client)
        policy = server.eviction_policy
        return Probe((server.version, took), tuple([f async for f in self._eviction(policy)] if policy else ()))

    async def load_record(self, name: str) -> Kept:
        """Our record, and which server holds it; see ``ports.Recording``."""
        with self._recording():
            content = await self._client.execute(b"GET", self._record_key(name))
        return Kept(None if content is None else as_bytes(content), await self._incarnation())

    async def keep_record(self, name: str, content: bytes, *, expected: bytes | None) -> Kept:
        """Replace our record; see ``ports.Recording``."""
        flag, old = (b"0", b"") if expected is None else (b"1", expected)
        kept = await self._write(KEEP, self._record_key(name), content, flag, old)
        if self._settings.wait_replicas and kept == content:
            await self._wait_for_replicas()
        # crash point: record-kept
        return Kept(None if kept is None else as_bytes(kept), await self._incarnation())

    async def claim_record(self, name: str, owner: str, *, before: str, seconds: float) -> str:
        """Say whose our record is; see ``ports.Recording``."""
        words = (owner.encode(), before.encode(), b"%d" % (seconds * 1000))
        return as_bytes(await self._write(CLAIM, self._record_key(name) + OWNER, *words)).decode(errors="replace")

    async def forget_record(self, name: str, *, expected: bytes) -> bool:
        """Remove our record; see ``ports.Forgetting``."""
        return as_integer(await self._client.call(FORGET, [self._record_key(name)], expected)) == 1

    async def run(self) -> None:
        """Follow the sentinels, if there are any; see ``ports.Background``."""
        await self._client.run()

    async def close(self) -> None:
        """Release the connection."""
        await self._client.close()

    async def _write(self, script: Script, key: bytes, *arguments: bytes) -> Reply:
        if self._knows_flags:
            with contextlib.suppress(TargetRejected):
                return await self._client.call(WHEN_FULL[script], [key], *arguments)
        with self._recording():
            reply = await self._client.call(script, [key], *arguments)
        self._knows_flags = False  # before Redis 7 the first line is no Lua; whatever else it was is raised here too
        return reply

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """What is forbidden of our record is told with what allows it, and the words beside it that say whose it is."""
        try:
            yield
        except TargetRejected as error:
            if _FORBIDDEN.search(str(error)):
                keys = escape(self._settings.record_prefix.encode()).decode() + "*"
                error.fix = f"ACL SETUSER NAME ~{keys} +get +set +eval +evalsha +info +wait"
            raise

    def _record_key(self, name: str) -> bytes:
        return (self._settings.record_prefix + name).encode()

    async def _incarnation(self) -> str:
        """Run and replication identifiers; of a server that does not tell, our connection's number."""
        server = await about(self._client)
        return server.incarnation or f"connection {self._client.generation}"

    async def _wait_for_replicas(self) -> None:
        """WAIT counts the replicas that have everything that this connection has written so far.

        Raises:
            TargetUnavailable: there are fewer.
        """
        wanted, milliseconds = self._settings.wait_replicas, int(self._settings.wait_seconds * 1000)
        count = as_integer(await self._client.execute(b"WAIT", b"%d" % wanted, b"%d" % milliseconds))
        if count < wanted:
            msg = f"{count} of {wanted} replicas have what was written, after {self._settings.wait_seconds:g} s"
            raise TargetUnavailable(msg, result="unavailable")

    async def _eviction(self, policy: str) -> AsyncIterator[ProbeFinding]:
        """A tag set that is evicted before its members leaves them where no tag finds them."""
        if policy.startswith("allkeys"):
            yield _may_evict(policy, "any key, tag sets too")
        elif policy.startswith("volatile") and await self._has_mortal_sets():
            yield _may_evict(policy, "keys with a TTL, and tag sets here have one")

    async def _has_mortal_sets(self) -> bool:
        """Whether one of a few tag sets has a TTL: a sample, one SCAN call long."""
        pattern = escape(self._prefix) + b"*"
        reply = as_list(await self._client.execute(b"SCAN", b"0", b"MATCH", pattern, b"COUNT", b"1000"))
        names = [as_bytes(name) for name in as_list(reply[1])][:MAX_SAMPLED_SETS]
        lives = await self._client.pipeline([(b"PTTL", name) for name in names]) if names else []
        return any(as_integer(life) >= 0 for life in lives)

    async def _work_off(self, work: _Work) -> None:
        await self._unlink(work, work.keys)
        # crash point: keys-unlinked
        await self._expand(work, work.tags, self._prefix)
        # crash point: tag-sets-expanded
        while work.tag_patterns:
            await self._expand_matching(work, work.tag_patterns[-1])
            work.tag_patterns.pop()
        while work.key_patterns:
            await self._unlink_matching(work, work.key_patterns[-1])
            work.key_patterns.pop()

    async def _unlink(self, work: _Work, keys: list[bytes]) -> None:
        """Unlink the keys from the end of the list, which shrinks as they go."""
        most = self._settings.max_keys_per_command
        while keys:
            work.removed += as_integer(await self._client.execute(b"UNLINK", *keys[-most:]))
            del keys[-most:]

    async def _expand(self, work: _Work, tags: list[bytes], prefix: bytes = b"") -> None:
        """Unlink the members of the tag sets from the end of the list, which shrinks as they go."""
        is_cut = b"0"
        while tags:
            sets = [prefix + tag for tag in reversed(tags[-self._settings.tags_per_call :])]
            reply = as_list(await self._client.call(EXPAND, sets, b"%d" % MEMBERS_PER_CALL, is_cut))
            finished, removed, no_set, cut = map(as_integer, reply)
            work.removed += removed
            work.no_set += no_set
            is_cut = b"%d" % cut
            if finished:
                del tags[-finished:]

    async def _expand_matching(self, work: _Work, pattern: bytes) -> None:
        async for found in self._scan(escape(self._prefix) + pattern):
            await self._expand(work, list({key.removesuffix(CUT) for key in found}))

    async def _unlink_matching(self, work: _Work, pattern: bytes) -> None:
        """A tag set that the pattern happens to match is expanded: its members would be out of reach without it."""
        async for found in self._scan(pattern):
            sets = {key.removesuffix(CUT) for key in found if key.startswith(self._prefix)}
            await self._expand(work, list(sets))
            await self._unlink(work, [key for key in found if not key.startswith(self._prefix)])

    async def _scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """All keys that match and are there from beginning to end, in pieces; some may come twice (SCAN's promise)."""
        cursor = b"0"
        generation = None
        while True:
            reply = await self._client.execute(
                b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % self._settings.scan_count
            )
            if generation is None:
                generation = self._client.generation
            elif generation != self._client.generation:
                # A cursor means nothing to another server, which would leave keys out: begin again.
                msg = "the connection was replaced in the middle of a SCAN"
                raise TargetUnavailable(msg)
            next_cursor, found = as_list(reply)
            cursor = as_bytes(next_cursor)
            if keys := [as_bytes(key) for key in as_list(found)]:
                yield keys
            if cursor == b"0":
                return


def _may_evict(policy: str, what: str) -> ProbeFinding:
    return ProbeFinding(
        "eviction-evicts-tags",
        "warning",
        f"maxmemory-policy is {policy}: when memory is full, Redis evicts {what}",
        why="the keys in an evicted tag set cannot be found by their tag any more and stay stale until they expire",
        help="give cached keys a TTL and tag sets none",
        fix="redis-cli CONFIG SET maxmemory-policy volatile-lru   # and in redis.conf, or at your provider",
    )
