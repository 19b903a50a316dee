"""Nodes that exchange chunks over a network in this process."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from protocols.exchange.service import ExchangeService
from protocols.memory import MemoryNetwork, MemoryTransport, open_memory_network
from protocols.signing import Signer
from storage.cid import Cid
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path


@dataclass
class Node:
    """A peer with a store and an exchange."""

    transport: MemoryTransport
    store: MemoryBlockstore
    exchange: ExchangeService
    complaints: list[tuple[str, str]] = field(default_factory=list)

    @property
    def peer(self) -> str:
        return self.transport.me


class Neighbourhood:
    """Nodes on one memory network."""

    def __init__(self, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self._nursery = nursery
        self._count = 0

    def transport(self, chain_id: bytes = bytes(32)) -> MemoryTransport:
        """A peer with nothing behind it."""
        self._count += 1
        return self.network.join(Signer(self._count.to_bytes(32, "big")).peer_id, chain_id)

    async def node(
        self,
        store: MemoryBlockstore | None = None,
        limit: int = 2**40,
        chain_id: bytes = bytes(32),
    ) -> Node:
        """A peer that serves and fetches."""
        transport = self.transport(chain_id)
        complaints: list[tuple[str, str]] = []
        store = store or MemoryBlockstore(limit)
        exchange = ExchangeService(
            transport, store, on_misbehaviour=lambda *told: complaints.append(told)
        )
        exchange.register()
        await self._nursery.start(exchange.run)
        return Node(transport, store, exchange, complaints)


@asynccontextmanager
async def open_neighbourhood(latency_s: float = 0.0):
    async with open_memory_network(latency_s) as network, trio.open_nursery() as nursery:
        yield Neighbourhood(network, nursery)
        nursery.cancel_scope.cancel()


def copy_of(store: MemoryBlockstore) -> MemoryBlockstore:
    """Another store with the same chunks."""
    copied = MemoryBlockstore()
    copied.chunks.update(store.chunks)
    return copied


@pytest.fixture
def published(tmp_path):
    """A store with a file of 12 leaves and a bit, and its root."""
    path = tmp_path / "file.bin"
    path.write_bytes(random.Random(7).randbytes(12 * 2**20 + 77))
    store = MemoryBlockstore()
    return store, Cid(add_path(path, store).root)


@pytest.fixture
def patient_clock():
    """Virtual time that jumps only when no thread is at work either (they take milliseconds)."""
    return MockClock(autojump_threshold=0.005)


@pytest.fixture
def threadless(monkeypatch):
    """What would run in a thread runs at once, so that virtual time knows of nothing that takes real time."""

    async def run_sync(work, *arguments, limiter=None, **_):
        await trio.lowlevel.checkpoint()
        return work(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
