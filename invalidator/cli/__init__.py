"""The command line: one file per verb, imported when its verb is used.

A verb's file has a click command called ``command``; what it needs beyond click is imported inside. Files with a
leading underscore and folders are no verbs.

To see whether it works      ``demo``
To write rules               ``check``, ``test``, ``explain``; ``schema`` for editors
To make a database ready     ``setup``, ``teardown``; ``snapshot_schema`` for checks without a database
To run it                    ``run``; ``config`` shows the settings in force
To ask a daemon that runs    ``status``, ``tail``, ``purge``, ``reload``

What verbs are made of
    _options, _exits    options that many have, and exit codes
    _admin              asks a running daemon over its admin socket
    checking/           rule files and servers are looked at; findings as text, JSON, annotations and SARIF
    explaining/         one change, and what the rules make of it; rules that can drop a name; who answers lookups
    provisioning/       plans for a database: looked at, run, shown as SQL; all that a daemon leaves
    output/             results of tests, and what a daemon tells, as text
    generators/         no verb's: makes pages of ``docs/reference/`` and the schemas that are shipped
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from typing import NoReturn

import click

from invalidator import __version__
from invalidator.cli._exits import Exit, report

_ORDER = ("run", "check", "test", "explain", "setup", "teardown", "reload", "purge", "status", "tail", "config", "demo")
"""How help lists the verbs: in the order of need; those not named here follow."""


class Verbs(click.Group):
    """The verbs are the files beside this one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of help."""
        del ctx
        files = [entry.name for entry in pkgutil.iter_modules(__path__) if not entry.ispkg]
        found = {name.replace("_", "-") for name in files if not name.startswith("_")}
        return [name for name in _ORDER if name in found] + sorted(found.difference(_ORDER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name; imports its file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"invalidator.cli.{cmd_name.replace('-', '_')}").command
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb and what follows it; instead of one that there is not, the one that comes near is named."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1, 0.6)
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, package_name="invalidator", message="invalidator %(version)s")
def verbs() -> None:
    """Keeps caches true to Postgres: row changes become unlinked Redis keys, L1 messages and CDN purges."""


def main() -> NoReturn:
    """Run the command line and exit with the code that reference/exit-codes explains."""
    # First of all, because as PID 1 of a container Python would ignore SIGTERM while it imports.
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        result = verbs.main(arguments, prog_name="invalidator", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this the interpreter complains while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FINE
    except Exception as error:  # noqa: BLE001  (the last one to see it: it becomes a message and an exit code)
        return report(error)
    return result if isinstance(result, int) else Exit.FINE


def _terminate(number: int, frame: object) -> NoReturn:
    del frame
    raise SystemExit(128 + number)
