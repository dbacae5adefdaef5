"""Servers behind a network that can be broken, a daemon, an application with three cache layers, and the check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import redis

from invalidator.cli._exits import Exit
from invalidator.demo.servers import KeyValueServer, PostgresServer
from invalidator.model import Lsn
from tests.support.chaos.application import ROWS, Application
from tests.support.chaos.lanes import Lane
from tests.support.chaos.layers import Edge, Mood, Processes
from tests.support.daemon import write_whole
from tests.support.notify import CHANNEL, triggers
from tests.support.outbox import setup
from tests.support.postgres import CopiedServer
from tests.support.processes import Program
from tests.support.proxy import Fault as NetworkFault
from tests.support.proxy import FaultProxy

SLOT: Final = "chaos"
RULES: Final[Sequence[dict[str, Any]]] = (
    {
        "name": "item",
        "table": "public.item",
        "invalidate": {"keys": ["item:{id}"], "l1": ["item:{id}"], "cdn": ["item-{id}"]},
        "coarse": {"cdn": ["items"]},
    },
    {"name": "slug", "table": "public.item", "invalidate": {"keys": ["slug:{slug}"]}},
)
QUIET_SECONDS: Final = 120.0
"""From the end of the faults until everything is confirmed: a lost connection may be noticed late, and a busy machine
takes its time."""
FAILOVER_SLOTS: Final = 170000


@dataclass
class Outcome:
    """How a run ended."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    history: list[str] = field(default_factory=list)
    """What was done when."""
    writes: int = 0
    fills: int = 0
    heard: int = 0
    purges: int = 0
    stale: dict[str, str] = field(default_factory=dict)
    """Entry → what is wrong with it."""
    broken: list[str] = field(default_factory=list)
    """Whatever else must not happen."""
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.stale and not self.broken

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        found = [*self.broken, *(f"{entry}: {what}" for entry, what in list(self.stale.items())[:5])]
        return (
            f"seed {self.seed}: {self.seconds:.0f} s, {self.writes} transactions, {self.fills} fills, "
            f"{self.heard} messages, {self.purges} purges, {self.faults.total()} faults ({faults}), "
            f"{len(self.stale)} stale entries {'; '.join(found)}"
        ).rstrip()


class World:
    """See the module.

    Args:
        folder: for settings and rules.
        seed: of every choice.
        defect: a planted one, by its name in ``tests.support.defects``; None: the daemon as it is.
        rules: what the daemon is told.
        patience_seconds: how long a stale entry may still go after everything was confirmed and no journal holds more.
        redo_window_seconds: of the daemon.
        truncates: the part of all that the application does.
        source: of the daemon: ``pgoutput``, ``outbox`` or ``notify``.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        defect: str | None = None,
        rules: Sequence[dict[str, Any]] = RULES,
        patience_seconds: float = 40,
        redo_window_seconds: float = 2,
        truncates: float = 0.001,
        source: str = "pgoutput",
    ) -> None:
        self.folder = folder
        self.random = random.Random(seed)  # noqa: S311  (a seed that replays, no secret)
        self._defect = defect
        self._rules = list(rules)
        self._patience_seconds = patience_seconds
        self.redo_window_seconds = redo_window_seconds
        self._has_journal = self.random.random() < 0.5
        self._skips = self.random.random() < 0.5
        self.source = source
        self._begun = time.monotonic()
        self._daemons: list[Program] = []
        self._may_refuse: set[Program] = set()
        self._servers = contextlib.ExitStack()
        self._variant = 0
        self.outcome = Outcome(seed)
        self.postgres: PostgresServer
        self.redis: KeyValueServer
        self.daemon: Program
        self.networks: Mapping[str, FaultProxy]
        self.edge = Edge()
        self.processes = Processes(lambda: self.redis.url)
        self.application = Application(self, seed, truncates=truncates)

    # ---------------------------------------------------------------- life

    async def run(self, seconds: float, lanes: Sequence[Lane]) -> Outcome:
        """Play for so long, let everything come to rest, and look."""
        self._begun = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._servers)
            self.postgres = self.adopt(CopiedServer({"wal_sender_timeout": "10s"}))
            self.redis = self.adopt(KeyValueServer())
            await stack.enter_async_context(self.edge)
            ports = {"postgres": self.postgres.port, "redis": self.redis.port, "edge": self.edge.port}
            self.networks = {
                name: await stack.enter_async_context(FaultProxy("127.0.0.1", port)) for name, port in ports.items()
            }
            await self._prepare()
            self.start_daemon()
            stack.callback(self._end_daemons)
            listening = asyncio.create_task(self.processes.listen())
            stack.callback(listening.cancel)
            await self._play(seconds, lanes)
            await self._come_to_rest()
            await self._until_fresh()
        self._conclude()
        return self.outcome

    def adopt(self, server: Any) -> Any:
        """Have a server closed with the world."""
        return self._servers.enter_context(server)

    def note(self, what: str) -> None:
        """Write down what happens when."""
        self.outcome.history.append(f"{time.monotonic() - self._begun:7.2f} {what}")

    def log(self) -> str:
        """Everything that happened, and that the daemons said."""
        said = [f"--- daemon {number}\n{daemon.output}" for number, daemon in enumerate(self._daemons)]
        return "\n".join([*self.outcome.history, *said])

    async def _prepare(self) -> None:
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE item (id int PRIMARY KEY, slug text NOT NULL, version int NOT NULL)")
            connection.execute("ALTER TABLE item REPLICA IDENTITY FULL")
            connection.execute("INSERT INTO item SELECT g, 's' || g, 0 FROM generate_series(0, %s) g", [ROWS - 1])
            if self.source == "pgoutput":
                connection.execute(f"CREATE PUBLICATION {SLOT} FOR TABLE item")
                more = ", false, false, true" if connection.info.server_version >= FAILOVER_SLOTS else ""
                connection.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput'{more})")
        if self.source == "outbox":
            await setup(self.postgres.dsn(), self._rules)
        if self.source == "notify":
            await triggers(self.postgres.dsn(), self._rules)
        self.write_rules()
        (self.folder / "invalidator.yaml").write_text(json.dumps(self._settings()), encoding="utf-8")

    def _settings(self) -> dict[str, Any]:
        network = self.networks
        retry = {"retry": {"max_delay_seconds": 0.3}}
        stores = {"url": network["redis"].through(self.redis.url), "timeout_seconds": 1, "connect_timeout_seconds": 1}
        edge = f"http://127.0.0.1:{network['edge'].port}"
        names: dict[str, dict[str, Any]] = {
            "pgoutput": {"slot": SLOT, "publication": SLOT, "create": True},
            "notify": {"channels": [CHANNEL]},
        }
        return {
            "rules": "rules.yaml",
            "source": {
                "type": self.source, "dsn": network["postgres"].through(self.postgres.dsn()), "heartbeat_seconds": 1,
                **names.get(self.source, {}),
            },
            "targets": {
                "redis": {"type": "redis_keys", **stores, **retry},
                "bus": {"type": "redis_bus", **stores, **retry},
                # Purging once more later would hide a purge that was lost.
                "edge": {"type": "varnish", "url": edge, "timeout_seconds": 1, "repeat_after_seconds": [], **retry},
            },
            "continuity": {
                "on_first_start": "widen", "redo_window_seconds": self.redo_window_seconds, "pause_seconds": 0,
                "catalog_seconds": 0.5, "max_new_slots_per_hour": 1000,
                "wal": "widen_and_skip" if self._skips else "stall", "wal_bytes": 100_000,
            },
            "state": {"path": str(self.folder / "state.db") if self._has_journal else ""},
            "reload": {"interval_seconds": 0.5},
            "http": {"listen": "127.0.0.1:0"},
            "log": {"format": "json"},
        }  # fmt: skip

    def write_rules(self) -> None:
        """Other rules than before that drop at least the same."""
        self._variant += 1
        more = {"name": f"more-{self._variant}", "table": "public.item", "invalidate": {"tags": ["t:{id}"]}}
        text = json.dumps({"version": 1, "rules": [*self._rules, more]})
        write_whole(self.folder / "rules.yaml", text)

    # ---------------------------------------------------------------- what faults change

    def start_daemon(self) -> None:
        """Start one; it becomes the daemon."""
        call = ["run", "--settings", str(self.folder / "invalidator.yaml")]
        module = "invalidator" if self._defect is None else f"tests.support.defects.{self._defect}"
        self.daemon = Program(*call, module=module)
        self._daemons.append(self.daemon)

    def allow_refusal(self) -> None:
        """Something will be wrong that no daemon begins with: one that is just starting may end because of it."""
        if not self.daemon.events("stream.connected") and not self.daemon.events("stream.standby"):
            self._may_refuse.add(self.daemon)

    def revive(self) -> None:
        """Start a daemon in the place of one that was right to refuse, as whoever supervises it does."""
        if self.daemon in self._may_refuse and self.daemon.process.poll() == Exit.CONFIG:
            self.start_daemon()

    def expect_daemon(self) -> None:
        """A daemon that ended by itself is a finding."""
        self.revive()
        if (code := self.daemon.process.poll()) is not None:
            self.outcome.broken.append(f"the daemon ended by itself with code {code}")

    def use_postgres(self, server: PostgresServer) -> None:
        """From now on this is the database that everybody finds."""
        self.postgres = server
        self.networks["postgres"].upstream = ("127.0.0.1", server.port)

    def use_redis(self, server: KeyValueServer) -> None:
        """From now on this is the Redis that everybody finds."""
        self.redis = server
        self.networks["redis"].upstream = ("127.0.0.1", server.port)

    # ---------------------------------------------------------------- the play and its end

    async def _play(self, seconds: float, lanes: Sequence[Lane]) -> None:
        # Only what works can be broken: a daemon that has kept no record yet begins anew whatever happens to it.
        await asyncio.to_thread(self.daemon.wait_for_event, "stream.connected")
        await asyncio.to_thread(self.daemon.wait_for, self._has_record, what="its first record")
        clients = [asyncio.create_task(self.application.work(number)) for number in range(4)]
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(lane.play(self, seconds))
        finally:
            self.application.is_over = True
            await asyncio.gather(*clients)

    def _has_record(self) -> bool:
        with redis.Redis.from_url(self.redis.url) as store:
            return any(not name.endswith(b":catalog") for name in store.scan_iter("invalidator:*"))

    async def _come_to_rest(self) -> None:
        """Everything runs again, and the daemon has confirmed all that is committed, or made good what never came."""
        self.note("quiet")
        self.edge.mood = Mood.GOOD
        for network in self.networks.values():
            network.fault = NetworkFault.NONE
            network.latency_seconds = 0
        for server in (self.postgres, self.redis):
            if not server.running:
                await asyncio.to_thread(server.start)
        self.expect_daemon()
        if self.daemon.process.poll() is not None:
            self.start_daemon()
        deadline = time.monotonic() + QUIET_SECONDS
        target: str | None = None
        while time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            self.revive()
            with contextlib.suppress(psycopg.Error):
                target = target or self._committed()
                if self._has_confirmed(target):
                    return
        self.outcome.broken.append(f"the daemon did not confirm {target} within {QUIET_SECONDS:g} s")

    def _committed(self) -> str:
        """A position behind everything that is committed."""
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'chaos', 'the end')")
            [(position,)] = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
        return str(position)

    def _has_confirmed(self, position: str) -> bool:
        if self.source == "notify":
            return self._has_heard(position)
        query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        if self.source == "outbox":
            query = "SELECT NOT EXISTS (SELECT FROM invalidator.outbox WHERE relation <> 0), %s, %s"
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            rows = connection.execute(query, [position, SLOT]).fetchall()
        return bool(rows) and bool(rows[0][0])

    def _has_heard(self, position: str) -> bool:
        """Nothing of the daemon's is in the database: what it has heard and applied, and made good, only it can say.

        What was notified while nobody listened is lost; it promises a gap instead, with everything dropped.
        """
        status = json.loads(self._get("/status") or "{}")
        return status.get("role") == "streaming" and Lsn.parse(status["source"]["confirmed"]) >= Lsn.parse(position)

    async def _until_fresh(self) -> None:
        """What the catalog tells and what a journal holds comes a little later than the confirmation."""
        begun = time.monotonic()
        deadline = begun + self._patience_seconds
        while True:
            is_ready = await asyncio.to_thread(self._is_ready)
            holds_more = await asyncio.to_thread(self._holds_more)
            self.outcome.stale = self._stale()
            now = time.monotonic()
            if holds_more and now < begun + QUIET_SECONDS:
                deadline = now + self._patience_seconds
            if (is_ready and not self.outcome.stale) or now > deadline:
                break
            await asyncio.sleep(0.1)
        if not is_ready:
            self.outcome.broken.append("/readyz does not say that the daemon is ready")

    def _is_ready(self) -> bool:
        return self._get("/readyz") is not None

    def _holds_more(self) -> bool:
        """Whether purges wait in a journal, whose positions are confirmed already."""
        targets = json.loads(self._get("/status") or "{}").get("targets", {})
        return any(target["journal"] and target["journal"]["items"] for target in targets.values())

    def _get(self, path: str) -> str | None:
        """What the daemon's listener answers; None: nothing good."""
        started = self.daemon.events("daemon.started")
        try:
            with urllib.request.urlopen(f"http://{started[-1]['http']}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except (OSError, LookupError):
            return None

    def _stale(self) -> dict[str, str]:
        """Entries of every layer that are not what the database holds."""
        with psycopg.connect(self.postgres.dsn()) as connection:
            rows = connection.execute("SELECT id, slug, version FROM item").fetchall()
        truth = {f"item:{row}": str(version) for row, _, version in rows}
        truth |= {f"slug:{slug}": str(row) for row, slug, _ in rows}
        with redis.Redis.from_url(self.redis.url, decode_responses=True) as store:
            keys = [*store.scan_iter("item:*", 1000), *store.scan_iter("slug:*", 1000)]
            inner = dict(zip(keys, store.mget(keys), strict=True)) if keys else {}
        edge = {f"item:{path.removeprefix('/item/')}": value for path, (value, _) in self.edge.pages.items()}
        layers = {"L2": inner, "L1": self.processes.cache, "L3": edge}
        return {
            f"{layer} {key}": f"cached {value!r}, is {truth.get(key)!r}"
            for layer, entries in layers.items()
            for key, value in entries.items()
            if value is not None and truth.get(key) != value
        }

    def _conclude(self) -> None:
        outcome = self.outcome
        outcome.writes, outcome.fills = self.application.writes, self.application.fills
        outcome.heard, outcome.purges = self.processes.messages, self.edge.purges
        outcome.seconds = time.monotonic() - self._begun

    def _end_daemons(self) -> None:
        for daemon in self._daemons:
            daemon.close()
