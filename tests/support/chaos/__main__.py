"""``scripts/chaos``: a seed a minute."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import tests.support.chaos as package
from tests.support.chaos import FAULTS, SOURCES, Outcome, World, lanes


def main() -> int:
    """Run with seeds one after the other, a minute each."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=package.__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None, help="of the first minute  [default: the time]")
    parser.add_argument("--faults", default=",".join(FAULTS), help="only these, as a,b  [default: all]")
    parser.add_argument("--source", default="pgoutput", choices=SOURCES, help="of the daemon")
    parser.add_argument("--logs", type=Path, default=None, help="where to keep what failing seeds logged")
    arguments = parser.parse_args()
    first = arguments.seed if arguments.seed is not None else int(time.time())
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    while not outcomes or time.monotonic() - begun < arguments.minutes * 60:
        seconds = min(60.0, arguments.minutes * 60)
        world = (arguments.source, first + len(outcomes))
        outcome = _play(*world, seconds, arguments.faults.split(","), arguments.logs)
        print(outcome, flush=True)
        outcomes.append(outcome)
    failed = [str(outcome.seed) for outcome in outcomes if not outcome.is_clean]
    print(
        f"{(time.monotonic() - begun) / 60:.1f} minutes, {len(outcomes)} seeds, "
        f"{sum(outcome.faults.total() for outcome in outcomes)} faults, "
        f"{sum(len(outcome.stale) for outcome in outcomes)} stale entries, "
        f"failed: {', '.join(failed) or 'none'}"
    )
    return 1 if failed else 0


def _play(source: str, seed: int, seconds: float, faults: list[str], logs: Path | None) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), seed, source=source)
        try:
            outcome = asyncio.run(world.run(seconds, lanes(faults, source)))
        except Exception:
            _keep(world, seed, logs)
            raise
    if not outcome.is_clean:
        _keep(world, seed, logs)
    return outcome


def _keep(world: World, seed: int, logs: Path | None) -> None:
    folder = logs or Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"chaos-{seed}.log"
    file.write_text(world.log(), encoding="utf-8")
    print(f"seed {seed}: what happened is in {file}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
