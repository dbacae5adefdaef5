"""``invalidator run``: the daemon."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NoReturn

import click

from invalidator.cli._options import load_settings, settings_options


@click.command("run", short_help="Run the daemon.")
@settings_options
def command(settings_file: Path | None, overrides: tuple[str, ...]) -> int:
    """Run the daemon until SIGTERM or Ctrl-C.

    It applies what it has begun, confirms that to Postgres, frees the slot and exits with 0. A second signal ends it
    at once; what was not confirmed comes again after the next start.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it waits until the daemon listens, and ends nothing
    signal.signal(signal.SIGTERM, _nothing_to_finish)
    settings = load_settings(settings_file, overrides)
    from invalidator import app

    return app.run(settings)


def _nothing_to_finish(number: int, frame: object) -> NoReturn:
    """Until the daemon takes over, a wish to stop is granted at once, and is no failure."""
    del number, frame
    raise SystemExit(0)
