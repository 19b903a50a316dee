"""Nodes with stores on disks and a network in this process, and a person's door to them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace

from storage.blockstore import SegmentBlockstore
from swarm.operations import Operations
from swarm.ranges import Ranges
from swarm.store.collector import StoreCollector
from swarm.store.operations import StoreOperations
from tests.control.fake_node import FakeNode
from tests.protocols.exchange.conftest import Node as Peer
from tests.protocols.exchange.conftest import open_neighbourhood

MIB = 2**20


def nothing_known():
    """A ledger on which there is nothing."""
    return SimpleNamespace(
        name=lambda _name: None,
        name_version=lambda _name, _version: None,
        task=lambda _task: None,
        open_tasks=list,
    )


def silent(*_) -> None:
    """Progress that nobody watches."""


@dataclass
class Keeper:
    """A peer with a store on a disk."""

    peer: Peer
    store: SegmentBlockstore
    collector: StoreCollector
    door: StoreOperations

    @property
    def node(self) -> SimpleNamespace:
        return SimpleNamespace(
            room_for=lambda work, _say: work(),
            store=self.store,
            network=self.peer.transport,
            exchange=self.peer.exchange,
            ranges=Ranges(self.peer.exchange, self.store, self.peer.transport),
        )


class StoreNode(FakeNode):
    """Answers from memory, but for what concerns the store."""

    def __init__(self, home, keeper: Keeper) -> None:
        super().__init__(home)
        self._node = keeper.node
        self.housekeeping = keeper.door

    publish = Operations.publish
    ranges = Operations.ranges
    look = Operations.look
    entries = Operations.entries


@asynccontextmanager
async def open_keepers(folder, count=2, limit=2**30, segment_bytes=MIB):
    async with open_neighbourhood() as near:
        keepers = []
        try:
            for at in range(count):
                store = SegmentBlockstore(
                    folder / f"chunks-{at}", limit, keep_free=0, segment_bytes=segment_bytes
                )
                peer = await near.node(store)
                collector = StoreCollector(store, nothing_known)
                door = StoreOperations(store, peer.exchange, peer.transport, collector)
                keepers.append(Keeper(peer, store, collector, door))
            yield keepers
        finally:
            for keeper in keepers:
                keeper.store.close()
