"""Faults of the network between the daemon and its servers, and of the edge."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from tests.support.chaos.layers import Mood
from tests.support.proxy import Fault as NetworkFault
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from tests.support.chaos.lanes import Fault
    from tests.support.chaos.world import World


def _network(world: World, choice: random.Random) -> FaultProxy:
    name = choice.choice(list(world.networks))
    world.note(f"  {name}")
    return world.networks[name]


async def delay_network(world: World, choice: random.Random) -> None:
    network = _network(world, choice)
    network.latency_seconds = choice.uniform(0.005, 0.3)
    await asyncio.sleep(choice.uniform(0.5, 2))
    network.latency_seconds = 0


async def reset_network(world: World, choice: random.Random) -> None:
    _network(world, choice).reset_connections()


async def refuse_connections(world: World, choice: random.Random) -> None:
    network = _network(world, choice)
    network.fault = NetworkFault.REFUSE
    network.reset_connections()
    await asyncio.sleep(choice.uniform(0.3, 2))
    network.fault = NetworkFault.NONE


async def black_hole(world: World, choice: random.Random) -> None:
    """Nothing passes and nobody is told; afterwards it may all arrive late."""
    network = _network(world, choice)
    network.fault = NetworkFault.BLACK_HOLE
    await asyncio.sleep(choice.uniform(0.3, 4))
    if choice.random() < 0.5:
        network.reset_connections()
    network.fault = NetworkFault.NONE


async def lose_replies(world: World, choice: random.Random) -> None:
    """Whatever was asked for is done, and nobody hears of it."""
    network = _network(world, choice)
    network.fault = NetworkFault.DROP_REPLIES
    await asyncio.sleep(choice.uniform(0.1, 1.5))
    network.reset_connections()  # TCP loses nothing in the middle of a connection
    network.fault = NetworkFault.NONE


async def half_close_network(world: World, choice: random.Random) -> None:
    _network(world, choice).half_close(towards_clients=choice.random() < 0.5)


async def cut_in_the_middle(world: World, choice: random.Random) -> None:
    """A reset after some bytes: in the middle of a command, a row, or a reply."""
    network = _network(world, choice)
    size = choice.randrange(1, 2000)
    if choice.random() < 0.5:
        network.cut_after(request_bytes=size)
    else:
        network.cut_after(reply_bytes=size)


async def upset_edge(world: World, choice: random.Random) -> None:
    world.edge.mood = choice.choice((Mood.FAILING, Mood.BUSY, Mood.SPEECHLESS))
    world.note(f"  {world.edge.mood.name}")
    await asyncio.sleep(choice.uniform(0.3, 3))
    world.edge.mood = Mood.GOOD


NETWORK_FAULTS: Final[tuple[Fault, ...]] = (
    delay_network, reset_network, refuse_connections, black_hole, lose_replies, half_close_network, cut_in_the_middle,
    upset_edge,
)  # fmt: skip
