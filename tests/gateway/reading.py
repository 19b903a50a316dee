"""A node that answers questions about content, with real operations behind it and a network in this process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace

from swarm.operations import Operations
from swarm.ranges import Ranges
from tests.protocols.exchange.conftest import Node, open_neighbourhood


@asynccontextmanager
async def open_pair():
    """Two peers: one that gives and one with an empty store, and what the latter reads with."""
    async with open_neighbourhood() as near:
        giver, taker = await near.node(), await near.node()
        yield giver, taker, Ranges(taker.exchange, taker.store, taker.transport)


class ContentNode:
    """A person's door to a peer that has content and nothing else: the shipped operations on it."""

    def __init__(self, node: Node, ranges: Ranges) -> None:
        self._node = SimpleNamespace(
            ranges=ranges,
            exchange=node.exchange,
            store=node.store,
            network=node.transport,
            room_for=lambda work, _say: work(),
        )

    ranges = Operations.ranges
    look = Operations.look
    entries = Operations.entries
    hold = Operations.hold
    import_car = Operations.import_car
