"""A network in one process: every transport of a `MemoryNetwork` reaches every other.

For tests and simulations of the services; it keeps the promises of `protocols.transport` and breaks on command:
`sever` resets the streams between two peers and refuses new ones, `stall` holds back what one sends to
the other, `leave` takes a peer away as a killed process goes. With `latency_s` set, bytes and gossip take that long.
Peers in `relayed` are told to be behind a relay.

    async with open_memory_network() as network:
        alice, bob = network.join(peer_a), network.join(peer_b)
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from protocols.transport import MAX_GOSSIP_BYTES, StreamError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from protocols.transport import Handler, PeerId
    from storage.cid import Cid

WINDOW_BYTES = 2**18
"""A sender waits when the other side has this much unread, as on a real stream."""
GOSSIP_QUEUE = 256
"""Messages that a subscriber may be behind before the oldest is lost."""


class _Pipe:
    """One direction of a stream."""

    def __init__(self, network: MemoryNetwork, source: PeerId, target: PeerId) -> None:
        self._network = network
        self._link = (source, target)
        self._parts: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._finished = False
        self._broken = False
        self._changed = trio.Event()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def send(self, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B") if len(data) else memoryview(b"")
        await trio.lowlevel.checkpoint()
        while rest:
            if self._broken:
                message = "the stream was reset"
                raise StreamError(message)
            if self._finished:
                message = "the stream is closed for writing"
                raise StreamError(message)
            room = WINDOW_BYTES - self._held
            if room <= 0:
                await self._changed.wait()
                continue
            part = bytes(rest[:room])
            rest = rest[room:]
            self._parts.append((trio.current_time() + self._network.latency_s, part))
            self._held += len(part)
            self._wake()

    async def receive(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._broken:
                message = "the stream was reset"
                raise StreamError(message)
            if self._network.is_stalled(*self._link):
                await self._network.changed.wait()
            elif self._parts:
                ready_at, part = self._parts[0]
                if ready_at > trio.current_time():
                    with trio.move_on_at(ready_at):
                        await self._changed.wait()
                    continue
                if len(part) <= max_bytes:
                    self._parts.popleft()
                else:
                    self._parts[0] = (ready_at, part[max_bytes:])
                    part = part[:max_bytes]
                self._held -= len(part)
                self._wake()
                return part
            elif self._finished:
                return b""
            else:
                await self._changed.wait()

    def finish(self) -> None:
        self._finished = True
        self._wake()

    def break_off(self) -> None:
        self._broken = True
        self._parts.clear()
        self._wake()
        self._network.announce()


class MemoryStream:
    """One end of a stream between two peers of a `MemoryNetwork`."""

    def __init__(self, peer: PeerId, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._peer = peer
        self._incoming = incoming
        self._outgoing = outgoing

    @property
    def peer(self) -> PeerId:
        """Who is on the other side."""
        return self._peer

    async def receive_some(self, max_bytes: int = 2**18) -> bytes:
        """See `protocols.transport.Stream`."""
        return await self._incoming.receive(max_bytes)

    async def send_all(self, data: bytes | memoryview) -> None:
        """See `protocols.transport.Stream`."""
        await self._outgoing.send(data)

    async def close(self) -> None:
        """See `protocols.transport.Stream`."""
        self._outgoing.finish()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        """See `protocols.transport.Stream`."""
        self.break_off()

    def break_off(self) -> None:
        """Reset without waiting; what was under way is lost."""
        self._incoming.break_off()
        self._outgoing.break_off()


class MemoryTransport:
    """One peer's door to a `MemoryNetwork`; implements `protocols.transport.Transport`."""

    def __init__(self, network: MemoryNetwork, me: PeerId, chain_id: bytes) -> None:
        self._network = network
        self._me = me
        self.chain_id = chain_id
        self.handlers: dict[str, tuple[Handler, bool]] = {}
        self._topics: dict[
            str,
            list[
                tuple[
                    trio.MemorySendChannel[tuple[PeerId, bytes]],
                    trio.MemoryReceiveChannel[tuple[PeerId, bytes]],
                ]
            ],
        ] = {}

    @property
    def me(self) -> PeerId:
        """This node."""
        return self._me

    def peers(self) -> list[PeerId]:
        """See `protocols.transport.Transport`."""
        return [
            peer
            for peer, other in self._network.transports.items()
            if peer != self._me
            and other.chain_id == self.chain_id
            and self._network.is_linked(self._me, peer)
        ]

    def is_relayed(self, peer: PeerId) -> bool:
        """See `protocols.transport.Transport`."""
        return peer in self._network.relayed

    def handle(self, protocol: str, handler: Handler, *, members_only: bool = True) -> None:
        """See `protocols.transport.Transport`."""
        self.handlers[protocol] = (handler, members_only)

    async def open_stream(self, peer: PeerId, protocol: str) -> MemoryStream:
        """See `protocols.transport.Transport`."""
        await trio.lowlevel.checkpoint()
        return self._network.connect(self, peer, protocol)

    async def publish(self, topic: str, data: bytes) -> None:
        """See `protocols.transport.Transport`."""
        if len(data) > MAX_GOSSIP_BYTES:
            message = f"{len(data):,} bytes of gossip where at most {MAX_GOSSIP_BYTES:,} may be"
            raise ValueError(message)
        await trio.lowlevel.checkpoint()
        self._network.spread(self, topic, data)

    def subscribe(self, topic: str) -> trio.MemoryReceiveChannel[tuple[PeerId, bytes]]:
        """See `protocols.transport.Transport`."""
        send, receive = trio.open_memory_channel[tuple["PeerId", bytes]](GOSSIP_QUEUE)
        self._topics.setdefault(topic, []).append((send, receive.clone()))
        return receive

    async def provide(self, cid: Cid) -> None:
        """See `protocols.transport.Transport`."""
        await trio.lowlevel.checkpoint()
        self._network.providers.setdefault(cid, {})[self._me] = None

    async def find_providers(self, cid: Cid, limit: int = 8) -> list[PeerId]:
        """See `protocols.transport.Transport`."""
        await trio.lowlevel.checkpoint()
        known = self._network.providers.get(cid, {})
        return [peer for peer in known if peer != self._me][:limit]

    def deliver(self, publisher: PeerId, topic: str, data: bytes) -> None:
        """Hand a gossiped message to the subscriptions; a full one loses its oldest."""
        for send, drain in self._topics.get(topic, []):
            try:
                send.send_nowait((publisher, data))
            except trio.WouldBlock:
                drain.receive_nowait()
                send.send_nowait((publisher, data))

    def end(self) -> None:
        """Close the subscriptions, as when the process goes."""
        for subscriptions in self._topics.values():
            for send, drain in subscriptions:
                send.close()
                drain.close()
        self._topics.clear()
        self.handlers.clear()


class MemoryNetwork:
    """The wires between transports; see the module's text for the switches.

    Args:
        nursery: Where the handlers of inbound streams run.
        latency_s: Seconds that bytes and gossip take from one peer to another.
    """

    def __init__(self, nursery: trio.Nursery, latency_s: float = 0.0) -> None:
        self._nursery = nursery
        self.latency_s = latency_s
        self.lossy_gossip = False
        self.transports: dict[PeerId, MemoryTransport] = {}
        self.providers: dict[Cid, dict[PeerId, None]] = {}
        self.relayed: set[PeerId] = set()
        self.changed = trio.Event()
        self._severed: set[frozenset[PeerId]] = set()
        self._stalled: set[tuple[PeerId, PeerId]] = set()
        self._streams: list[tuple[frozenset[PeerId], MemoryStream]] = []

    def join(self, peer: PeerId, chain_id: bytes = bytes(32)) -> MemoryTransport:
        """Add a peer; one that left may join again with nothing remembered of its handlers."""
        if peer in self.transports:
            message = f"{peer} has already joined"
            raise ValueError(message)
        transport = self.transports[peer] = MemoryTransport(self, peer, chain_id)
        return transport

    def leave(self, peer: PeerId) -> None:
        """Take a peer away: its streams are reset and its handlers forgotten."""
        transport = self.transports.pop(peer, None)
        if transport is not None:
            transport.end()
        self._break_off(lambda pair: peer in pair)

    def sever(self, one: PeerId, other: PeerId) -> None:
        """Reset every stream between two peers and refuse new ones and gossip."""
        pair = frozenset((one, other))
        self._severed.add(pair)
        self._break_off(lambda found: found == pair)
        self.announce()

    def partition(self, *groups: Iterable[PeerId]) -> None:
        """Sever every pair of peers that do not share a group."""
        sets = [set(group) for group in groups]
        everyone = sorted(set().union(*sets))
        for one in everyone:
            for other in everyone:
                if one < other and not any(one in group and other in group for group in sets):
                    self.sever(one, other)

    def stall(self, source: PeerId, target: PeerId) -> None:
        """Hold back what `source` sends to `target`; the other way still works."""
        self._stalled.add((source, target))
        self.announce()

    def heal(self) -> None:
        """Undo every `sever`, `partition` and `stall`; what was held back arrives."""
        self._severed.clear()
        self._stalled.clear()
        self.announce()

    def is_linked(self, one: PeerId, other: PeerId) -> bool:
        """Whether two peers are connected."""
        return (
            one in self.transports
            and other in self.transports
            and frozenset((one, other)) not in self._severed
        )

    def is_stalled(self, source: PeerId, target: PeerId) -> bool:
        """Whether what `source` sends to `target` is held back."""
        return (source, target) in self._stalled

    def connect(self, dialler: MemoryTransport, peer: PeerId, protocol: str) -> MemoryStream:
        """Open a stream and start the other side's handler.

        Raises:
            UnreachableError: Not linked, not served, or not for peers of another chain.
        """
        if not self.is_linked(dialler.me, peer) or self.transports[dialler.me] is not dialler:
            raise UnreachableError(peer, "not connected")
        answerer = self.transports[peer]
        if protocol not in answerer.handlers:
            raise UnreachableError(peer, f"does not speak {protocol}")
        handler, members_only = answerer.handlers[protocol]
        if members_only and dialler.chain_id != answerer.chain_id:
            raise UnreachableError(peer, "of another network")
        there, back = _Pipe(self, dialler.me, peer), _Pipe(self, peer, dialler.me)
        mine, theirs = MemoryStream(peer, back, there), MemoryStream(dialler.me, there, back)
        entry = (frozenset((dialler.me, peer)), mine)
        self._streams.append(entry)
        self._nursery.start_soon(self._serve, handler, theirs, entry)
        return mine

    def spread(self, publisher: MemoryTransport, topic: str, data: bytes) -> None:
        """Gossip to every linked peer of the same chain."""
        if self.lossy_gossip or self.transports.get(publisher.me) is not publisher:
            return
        if self.latency_s:
            self._nursery.start_soon(self._spread_later, publisher, topic, data)
        else:
            self._spread_now(publisher, topic, data)

    async def _spread_later(self, publisher: MemoryTransport, topic: str, data: bytes) -> None:
        await trio.sleep(self.latency_s)
        self._spread_now(publisher, topic, data)

    def _spread_now(self, publisher: MemoryTransport, topic: str, data: bytes) -> None:
        for peer in publisher.peers():
            if not self.is_stalled(publisher.me, peer):
                self.transports[peer].deliver(publisher.me, topic, data)

    async def _serve(
        self, handler: Handler, stream: MemoryStream, entry: tuple[frozenset[PeerId], MemoryStream]
    ) -> None:
        try:
            await handler(stream)
        except Exception:  # noqa: BLE001 - the transport's promise: a handler's error resets its stream only
            await stream.reset()
        finally:
            if entry in self._streams:
                self._streams.remove(entry)

    def _break_off(self, chosen: Callable[[frozenset[PeerId]], bool]) -> None:
        kept = []
        for pair, stream in self._streams:
            if chosen(pair):
                stream.break_off()
            else:
                kept.append((pair, stream))
        self._streams = kept

    def announce(self) -> None:
        """Wake what waits on a stalled or broken link."""
        self.changed.set()
        self.changed = trio.Event()


@asynccontextmanager
async def open_memory_network(latency_s: float = 0.0) -> AsyncIterator[MemoryNetwork]:
    """A network whose handlers end with the block."""
    async with trio.open_nursery() as nursery:
        yield MemoryNetwork(nursery, latency_s)
        nursery.cancel_scope.cancel()
