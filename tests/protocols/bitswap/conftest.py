"""Nodes that speak Bitswap over a network in this process, and a peer that says whatever a test likes."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from protocols.bitswap.messages import (
    MAX_FRAME_BYTES,
    PROTOCOLS,
    Entry,
    Frames,
    Message,
    Payload,
    decode,
    encode,
    name,
)
from protocols.bitswap.service import BitswapService
from protocols.memory import MemoryNetwork, MemoryTransport, open_memory_network
from protocols.signing import Signer
from storage import cid as cids
from storage.cid import Cid
from storage.memory import MemoryBlockstore


@dataclass
class Node:
    """A peer with a store and our Bitswap."""

    transport: MemoryTransport
    store: MemoryBlockstore
    bitswap: BitswapService
    complaints: list[tuple[str, str]] = field(default_factory=list)

    @property
    def peer(self) -> str:
        return self.transport.me

    def hold(self, *chunks: bytes) -> list[Cid]:
        named = [(cids.of_raw(chunk), chunk) for chunk in chunks]
        self.store.put_many(named)
        return [cid for cid, _ in named]


class Puppet:
    """A peer of another kind: it hears everything and says what a test tells it to."""

    def __init__(self, transport: MemoryTransport, protocols=PROTOCOLS) -> None:
        self.transport = transport
        self.send, self.heard = trio.open_memory_channel[Message](1_000)
        self.is_deaf = False
        self.rate = math.inf
        self.streams = 0
        for protocol in protocols:
            transport.handle(protocol, self._read, members_only=False)

    @property
    def peer(self) -> str:
        return self.transport.me

    async def _read(self, stream) -> None:
        self.streams += 1
        frames = Frames()
        if self.is_deaf:
            await trio.sleep_forever()
        while data := await stream.receive_some(2**14):
            for frame in frames.feed(data, MAX_FRAME_BYTES):
                self.send.send_nowait(decode(frame))
            await trio.sleep(len(data) / self.rate)
        await stream.close()

    async def open(self, node: Node):
        return await self.transport.open_stream(node.peer, PROTOCOLS[0])

    async def say(self, node: Node, *frames: bytes):
        """On a stream of its own, as Kubo and Helia do."""
        stream = await self.open(node)
        for frame in frames:
            await stream.send_all(frame)
        await stream.close()
        return stream

    async def want(self, node: Node, *entries: Entry, full: bool = False) -> None:
        await self.say(node, encode(Message(entries, full=full)))

    async def next(self) -> Message:
        with trio.fail_after(30):
            return await self.heard.receive()

    async def blocks(self, count: int) -> list[Cid | None]:
        """What the next chunks are called."""
        found: list[Payload] = []
        while len(found) < count:
            found += (await self.next()).blocks
        return [name(one) for one in found]

    async def is_told_nothing(self, seconds: float = 60) -> bool:
        with trio.move_on_after(seconds) as waiting:
            await self.heard.receive()
        return waiting.cancelled_caught


class World:
    """Peers on one memory network."""

    def __init__(self, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self._nursery = nursery
        self._count = 0

    def transport(self) -> MemoryTransport:
        self._count += 1
        return self.network.join(Signer(self._count.to_bytes(32, "big")).peer_id)

    async def node(self, limit: int = 2**40) -> Node:
        transport, store = self.transport(), MemoryBlockstore(limit)
        complaints: list[tuple[str, str]] = []
        bitswap = BitswapService(
            transport, store, on_misbehaviour=lambda *told: complaints.append(told)
        )
        bitswap.register()
        await self._nursery.start(bitswap.run)
        return Node(transport, store, bitswap, complaints)

    def puppet(self, protocols=PROTOCOLS) -> Puppet:
        return Puppet(self.transport(), protocols)


@asynccontextmanager
async def open_world():
    async with open_memory_network() as network, trio.open_nursery() as nursery:
        yield World(network, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def in_world():
    """Run an async test in a world of its own, on a clock that jumps."""

    def run(test) -> None:
        async def main() -> None:
            async with open_world() as world:
                await test(world)

        trio.run(main, clock=MockClock(autojump_threshold=0.02))

    return run
