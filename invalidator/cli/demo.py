"""``invalidator demo``: the whole pipeline on this machine, with servers of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from invalidator.cli._options import json_option

if TYPE_CHECKING:
    from invalidator.demo.stage import EdgeChoice, Layer


@click.command("demo", short_help="See it work, with servers of its own.")
@click.option("--once", is_flag=True, help="Play a scenario, check every layer, print a table, and end with 0 or 1.")
@click.option(
    "--edge",
    type=click.Choice(["auto", "varnish", "stand-in"]),
    default="auto",
    help="The cache in front.  [default: Varnish when it is installed, else a stand-in]",
)
@click.option(
    "--break",
    "broken",
    type=click.Choice(["redis", "l1", "edge"]),
    help="Let one layer hear no invalidations, to see what a stale cache looks like.",
)
@click.option("--seconds", type=click.FloatRange(min=0), help="End the live view after this long.")
@json_option
def command(once: bool, edge: EdgeChoice, broken: Layer | None, seconds: float | None, as_json: bool) -> int:
    """Start Postgres, Valkey, a small shop with an in-process cache, an edge cache, and the daemon; change rows.

    Shows each commit, what was unlinked, published and purged for it, and after how many milliseconds each layer
    was fresh. Runs as any user, uses free ports of the loopback interface, and leaves nothing behind. q or Ctrl-C
    ends it.
    """
    import asyncio

    from invalidator.demo import show
    from invalidator.demo.stage import Options

    options = Options(edge=edge, broken=broken)
    work = show.once(options, as_json=as_json) if once else show.live(options, as_json=as_json, seconds=seconds)
    return asyncio.run(work)
