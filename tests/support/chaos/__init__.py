"""Breaks everything around a daemon at random, and then looks whether a stale entry is left in any layer.

Readers fill the caches only with what is committed and while nobody writes that row, so a cached value that is not the
row's value can have one reason only: a change was not applied, and not made good.

``python -m tests.support.chaos --minutes 30 --seed 7`` runs for long; ``scripts/chaos`` is the same. A seed gives the
same faults and the same writes; when they meet, the operating system decides.

    world        servers, proxies, the daemon; comes to rest and looks
    application  changes rows and fills caches
    layers       the process cache and the edge
    servers      faults of processes (one lane)
    network      faults of the network and the edge (another lane: they meet)
"""

from collections.abc import Iterable

from tests.support.chaos.lanes import Lane
from tests.support.chaos.network import NETWORK_FAULTS
from tests.support.chaos.servers import SERVER_FAULTS, possible
from tests.support.chaos.world import RULES, Outcome, World

__all__ = ["FAULTS", "RULES", "SOURCES", "Outcome", "World", "lanes"]

SOURCES = ("pgoutput", "outbox", "notify")

FAULTS = tuple(fault.__name__ for fault in (*SERVER_FAULTS, *NETWORK_FAULTS))


def lanes(names: Iterable[str] = FAULTS, source: str = "pgoutput") -> list[Lane]:
    """Those with these faults, as far as they mean something to the source."""
    wanted = set(names)
    if unknown := wanted.difference(FAULTS):
        msg = f"no such faults: {sorted(unknown)}; there are {', '.join(FAULTS)}"
        raise ValueError(msg)
    return [
        Lane(name, [fault for fault in possible(faults, source) if fault.__name__ in wanted])
        for name, faults in (("servers", SERVER_FAULTS), ("network", NETWORK_FAULTS))
    ]
