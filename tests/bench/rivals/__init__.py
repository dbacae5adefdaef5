"""What users write today, so that both sides are measured in the same run; skipped with a reason when not to be had."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench.report import Report
    from tests.bench.world import World

_HERE = Path(__file__).parent
_NODE_PACKAGES = ("pg-logical-replication@2.5.0", "redis@5")


@dataclass(frozen=True, slots=True)
class Rival:
    """A script that drains a slot and unlinks the same keys."""

    name: str
    plugin: str
    drain: Callable[[Any, str, str], Any]


def available(report: Report, world: World) -> Iterator[Rival]:
    """Those that can run here."""
    if not (reason := _wal2json_missing(world)):
        yield Rival("rival_psycopg2_wal2json", "wal2json", _script([sys.executable, str(_HERE / "wal2json_script.py")]))
    else:
        report.skip("rival_psycopg2_wal2json", reason)
    folder = Path(tempfile.gettempdir()) / "invalidator-bench-node"
    if not (reason := _node_missing(folder)):
        (folder / "script.mjs").write_text((_HERE / "node_script.mjs").read_text())
        yield Rival("rival_node", "pgoutput", _script(["node", str(folder / "script.mjs")]))
    else:
        report.skip("rival_node", reason)


def _script(command: list[str]) -> Callable[[Any, str, str], Any]:
    from tests.bench.throughput import Run

    def drain(world: World, slot: str, end: str) -> Run:
        started = time.perf_counter()
        arguments = [*command, world.dsn, world.valkey.url, slot, end]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=300)
        return Run(float(done.stdout.split()[-1]) if done.stdout.strip() else time.perf_counter() - started)

    return drain


def _wal2json_missing(world: World) -> str:
    if importlib.util.find_spec("psycopg2") is None:
        return "pip install psycopg2-binary"
    with world.connect() as connection:
        try:
            connection.execute("SELECT pg_create_logical_replication_slot('probe', 'wal2json', true)")
        except Exception as error:  # noqa: BLE001  (whatever it is, the plugin is not to be had)
            return f"this Postgres has no wal2json: {str(error).splitlines()[0]}"
        connection.execute("SELECT pg_drop_replication_slot('probe')")
    return ""


def _node_missing(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    if (folder / "node_modules" / "redis").exists():
        return ""
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *_NODE_PACKAGES]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        return f"npm install failed: {error}"
    return ""
